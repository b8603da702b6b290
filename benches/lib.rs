//! What the benches share: a board that keeps criterion's samples and prints, at the end
//! of the same run, each case beside the one it is measured against.
//!
//! A figure alone says how fast a machine is; a ratio taken in one run says what our
//! choice costs. Tasks a second from end to end need processes, and are in the JSON of
//! `quorate demo`, not here.

#![forbid(unsafe_code)]

pub mod board;
pub mod percentile;

pub use board::{Board, Case};
pub use percentile::percentile;

/// Whether each case is to run once, to see that it runs: under `cargo test`, or with
/// `--test`. `cargo bench` gives `--bench`, as criterion too takes it.
pub fn runs_once() -> bool {
    let given = |flag: &str| std::env::args().any(|arg| arg == flag);
    given("--test") || !given("--bench")
}

/// Prints one line of a result.
#[expect(clippy::print_stdout, reason = "a bench has a person for a reader")]
pub fn line(text: &str) {
    println!("{text}");
}
