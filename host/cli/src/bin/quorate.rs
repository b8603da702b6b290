//! `quorate`: the one binary, without faults.

use std::process::ExitCode;

use quorate_cli::Launch;

fn main() -> ExitCode {
    quorate_cli::main(&Launch::plain(), std::env::args_os().skip(1))
}
