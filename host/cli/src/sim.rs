//! `quorate sim`: seeds by the thousand in this process, and one of them again.
//!
//! A fault that is planted here is in simulated nodes only; no real node of
//! `quorate` can be given one.

use std::time::Duration;

use quorate_sim::{Budget, Outcome, Plan, Summary, Tally, plant, replay, run_many};
use quorate_types::Faults;
use serde::Serialize;

use crate::args::{SimPlanArgs, SimReplayArgs, SimRunArgs, SimVerb};
use crate::exit::{Exit, ended};
use crate::launch::Launch;
use crate::output::{Output, remark};

/// Seeds that run at a time; each is one thread.
const THREADS: usize = 2;

/// What a batch came to, as `-o json` has it.
#[derive(Debug, Serialize)]
struct Ran {
    seeds: u64,
    repeated: u64,
    cluster_hours: f64,
    faults: u64,
    #[serde(flatten)]
    done: Done,
    violations: Vec<Violation>,
}

#[derive(Debug, Serialize)]
struct Violation {
    seed: u64,
    complaints: Vec<String>,
    replay: String,
}

/// What one seed came to.
#[derive(Debug, Serialize)]
struct Replayed {
    seed: u64,
    simulated_seconds: f64,
    trace_hash: String,
    events: u64,
    faults: u64,
    #[serde(flatten)]
    done: Done,
    complaints: Vec<String>,
    trace: Vec<String>,
}

/// What was done and acknowledged, by its name in snake_case.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Done(std::collections::BTreeMap<String, u64>);

impl From<Tally> for Done {
    fn from(tally: Tally) -> Self {
        let counts = tally.counts();
        Self(counts.into_iter().map(|(name, count)| (name.replace(' ', "_"), count)).collect())
    }
}

/// Runs it to its end, with runtimes of its own.
pub(crate) fn run(verb: &SimVerb, launch: &Launch, output: Output) -> anyhow::Result<()> {
    match verb {
        SimVerb::Run(args) => many(args, &plan(&args.plan, launch.faults())?, output),
        SimVerb::Replay(args) => again(args, &plan(&args.plan, launch.faults())?, output),
    }
}

fn plan(args: &SimPlanArgs, faults: &Faults) -> anyhow::Result<Plan> {
    let whole = Plan::default();
    let mut faults = faults.clone();
    for name in &args.faults {
        plant(&mut faults, name)
            .map_err(|error| ended(Exit::Usage, error.to_string(), "quorate sim run --help"))?;
    }
    Ok(Plan {
        faults,
        rate: args.rate,
        seconds: args.seconds.unwrap_or(whole.seconds),
        nodes: args.nodes.unwrap_or(whole.nodes),
    })
}

fn many(args: &SimRunArgs, plan: &Plan, output: Output) -> anyhow::Result<()> {
    let wall = args.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let budget = Budget { wall, threads: THREADS };
    let summary = run_many(args.seeds.0.clone(), plan, budget, |_| false);
    summary.failed.iter().for_each(|failure| remark(&failure.to_string()));
    output.next(&ran(&summary), |_| summary.to_string())?;
    match summary.failed.first() {
        None => Ok(()),
        Some(first) => {
            let what = format!("{} of {} seeds failed", summary.failed.len(), summary.seeds);
            Err(ended(Exit::CheckFailed, what, first.command.clone()))
        }
    }
}

fn ran(summary: &Summary) -> Ran {
    let violations = summary.failed.iter().map(|failure| Violation {
        seed: failure.seed,
        complaints: failure.complaints.iter().map(ToString::to_string).collect(),
        replay: failure.command.clone(),
    });
    Ran {
        seeds: summary.seeds,
        repeated: summary.repeated,
        cluster_hours: summary.simulated.as_secs_f64() / 3600.0,
        faults: summary.faults,
        done: summary.tally.into(),
        violations: violations.collect(),
    }
}

fn again(args: &SimReplayArgs, plan: &Plan, output: Output) -> anyhow::Result<()> {
    let (outcome, trace) = replay(args.seed, plan);
    let Outcome { seed, hash, events, lasted, faults, tally, complaints } = outcome;
    let complaints: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    let lasted = lasted.as_secs_f64();
    let what = complaints.join("; ");
    let replayed = Replayed {
        seed,
        simulated_seconds: lasted,
        trace_hash: format!("{hash:016x}"),
        events,
        faults,
        done: tally.into(),
        complaints,
        trace,
    };
    output.next(&replayed, |replayed| {
        format!(
            "{}\nseed {seed}: {lasted:.3} simulated seconds, {faults} faults, {events} events, \
             {tally}, trace {hash:016x}",
            replayed.trace.join("\n")
        )
    })?;
    if what.is_empty() { Ok(()) } else { Err(ended(Exit::CheckFailed, what, plan.command(seed))) }
}
