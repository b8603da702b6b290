//! `quorate-faulty --fault NAME=N …`: the same program with a bug that the demo
//! must notice. Never shipped, never asked for by an environment variable.

use std::process::ExitCode;

use quorate_cli::Launch;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (flag, fault) = (arguments.next(), arguments.next());
    match Launch::faulty(flag, fault) {
        Ok(launch) => quorate_cli::main(&launch, arguments),
        Err(bad) => quorate_cli::complain(&bad.into()),
    }
}
