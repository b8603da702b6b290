//! `quorate sim`: seeds by the thousand in this process, and one of them again.

use std::time::Duration;

use quorate_sim::{Budget, Outcome, Plan, replay, run_many};
use serde::Serialize;

use crate::args::{SimRunArgs, SimVerb};
use crate::exit::{Exit, ended};
use crate::launch::Launch;
use crate::output::{Output, remark};

/// Seeds that run at a time; each is one thread.
const THREADS: usize = 2;

/// What a batch came to, as `-o json` has it.
#[derive(Serialize)]
struct Ran {
    seeds: u64,
    repeated: u64,
    cluster_hours: f64,
    faults: u64,
    acknowledgements: u64,
    violations: Vec<u64>,
}

/// Runs it to its end, with runtimes of its own.
pub(crate) fn run(verb: &SimVerb, launch: &Launch, output: Output) -> anyhow::Result<()> {
    let plan = Plan { faults: launch.faults().clone(), ..Plan::default() };
    match verb {
        SimVerb::Run(args) => many(args, &plan, output),
        SimVerb::Replay { seed } => again(*seed, &plan, output),
    }
}

fn many(args: &SimRunArgs, plan: &Plan, output: Output) -> anyhow::Result<()> {
    let wall = args.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let budget = Budget { wall, threads: THREADS };
    let summary = run_many(args.seeds.0.clone(), plan, budget, |_| false);
    for (seed, complaints) in &summary.failed {
        remark(&format!("seed {seed}: {}", complaints.join("; ")));
        remark(&format!("  quorate sim replay {seed}"));
    }
    let ran = Ran {
        seeds: summary.seeds,
        repeated: summary.repeated,
        cluster_hours: summary.simulated.as_secs_f64() / 3600.0,
        faults: summary.faults,
        acknowledgements: summary.acks,
        violations: summary.failed.iter().map(|(seed, _)| *seed).collect(),
    };
    output.next(&ran, |_| summary.to_string())?;
    match summary.failed.first() {
        None => Ok(()),
        Some((seed, _)) => {
            let what = format!("{} of {} seeds failed", summary.failed.len(), summary.seeds);
            Err(ended(Exit::CheckFailed, what, format!("quorate sim replay {seed}")))
        }
    }
}

fn again(seed: u64, plan: &Plan, output: Output) -> anyhow::Result<()> {
    let (outcome, lines) = replay(seed, plan);
    for line in lines {
        output.line(&line)?;
    }
    let Outcome { hash, events, lasted, faults, acks, complaints, .. } = outcome;
    let lasted = lasted.as_secs_f64();
    output.line(&format!(
        "seed {seed}: {lasted:.3} simulated seconds, {faults} faults, {acks} acknowledgements, \
         {events} events, trace {hash:016x}"
    ))?;
    if complaints.is_empty() {
        return Ok(());
    }
    Err(ended(Exit::CheckFailed, complaints.join("; "), ""))
}
