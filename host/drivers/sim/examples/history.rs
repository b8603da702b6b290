//! Runs five voters seed by seed until a law of the log is broken, and says which. For
//! `1802/run`, which builds it with a bug of history; without one it finds none.

#![expect(clippy::print_stdout, reason = "what it found is all that it is for")]

use std::process::ExitCode;

use quorate_sim::{Budget, Law, Plan, run_many};

/// What a commit without a quorum breaks.
const LAWS: [Law; 5] = [
    Law::Durability,
    Law::LeaderCompleteness,
    Law::StateMachineSafety,
    Law::StateDigest,
    Law::LogMatching,
];

fn main() -> ExitCode {
    let seeds = std::env::args().nth(1).and_then(|seeds| seeds.parse().ok()).unwrap_or(1_000);
    let plan = Plan { nodes: 5, rate: Some(40), seconds: 30, ..Plan::default() };
    let budget = Budget { wall: None, threads: 2 };
    let summary = run_many(1..seeds + 1, &plan, budget, |summary| {
        summary.failed.iter().any(|failure| failure.breaks(&LAWS))
    });
    println!("{summary}");
    match summary.failed.iter().find(|failure| failure.breaks(&LAWS)) {
        Some(failure) => {
            println!("found in seed {}:\n{failure}", failure.seed);
            ExitCode::SUCCESS
        }
        None => {
            println!("not found in {seeds} seeds");
            ExitCode::FAILURE
        }
    }
}
