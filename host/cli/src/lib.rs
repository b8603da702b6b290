//! The command line. Two binaries share it: `quorate`, which has no faults, and
//! `quorate-faulty`, which is given one by its first argument.
//!
//! A verb asks a node over HTTP, shows the answer through `output`, and ends in
//! one of eight exit codes. An error is printed once, with its causes and the next
//! command to try; nothing reports success before the effect is committed.

#![forbid(unsafe_code)]

mod args;
mod cluster_args;
mod context;
mod demo;
mod dev;
mod exit;
mod key_args;
mod launch;
pub mod local;
mod node_run;
mod output;
mod program;
mod run_args;
mod signals;
mod sim;
mod sim_args;
mod verbs;

pub use launch::{BadFault, Launch};
pub use program::{complain, main};

/// Memory for both binaries: an eighth of a node's time under writes of 256 B went
/// into the allocator of the C library.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;
