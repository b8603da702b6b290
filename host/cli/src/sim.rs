//! `quorate sim`: seeds by the thousand in this process, and one of them again.
//!
//! A fault that is planted here is in simulated nodes only; no real node of
//! `quorate` can be given one.

use std::time::Duration;

use quorate_sim::{
    BUGS, Budget, Bug, Outcome, Plan, Shrunk, Summary, Tally, plant, replay, run_many, shrink,
};
use quorate_types::Faults;
use serde::Serialize;

use crate::exit::{Exit, ended};
use crate::launch::Launch;
use crate::output::{Output, remark};
use crate::sim_args::{SimPlanArgs, SimPlantedArgs, SimReplayArgs, SimRunArgs, SimVerb};

/// Seeds that run at a time; each is one thread.
const THREADS: usize = 2;
/// A failing seed's schedule is brought down for as long as this.
const SHRINK_WITHIN: Duration = Duration::from_secs(60);

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
    /// Where it failed: the few of its faults that do the same.
    shrunk: Option<Fewer>,
}

/// What a schedule was brought down to.
#[derive(Debug, Serialize)]
struct Fewer {
    law: String,
    of: usize,
    kept: Vec<String>,
    replay: String,
}

impl From<Shrunk> for Fewer {
    fn from(shrunk: Shrunk) -> Self {
        let kept = shrunk.kept.into_iter().map(|(number, fault)| format!("{number}: {fault}"));
        Self {
            law: shrunk.law.to_string(),
            of: shrunk.faults,
            kept: kept.collect(),
            replay: shrunk.command,
        }
    }
}

impl std::fmt::Display for Fewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { law, of, kept, replay } = self;
        write!(f, "{law} is broken as well by {} of its {of} faults:", kept.len())?;
        kept.iter().try_for_each(|fault| write!(f, "\n  {fault}"))?;
        write!(f, "\n  {replay}")
    }
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
        SimVerb::Planted(args) => hunt(args, output),
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
        shards: args.shards,
        only: args.only.as_ref().map(|numbers| numbers.0.clone()),
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

/// A bug and where it was found.
#[derive(Debug, Serialize)]
struct Hunted {
    bug: &'static str,
    law: Option<String>,
    seeds: Option<u64>,
    replay: Option<String>,
}

fn hunt(args: &SimPlantedArgs, output: Output) -> anyhow::Result<()> {
    let is_known = |name: &&String| BUGS.iter().any(|bug| bug.name == name.as_str());
    if let Some(unknown) = args.names.iter().find(|name| !is_known(name)) {
        let known: Vec<_> = BUGS.iter().map(|bug| bug.name).collect();
        let what = format!("there is no bug `{unknown}`; there are {}", known.join(", "));
        return Err(ended(Exit::Usage, what, "quorate sim planted --help"));
    }
    let is_asked =
        |bug: &&Bug| args.names.is_empty() || args.names.iter().any(|name| name == bug.name);
    let (mut missed, mut recorded) = (Vec::new(), String::new());
    for bug in &BUGS {
        if !is_asked(&bug) {
            recorded.extend(bug.seed().map(|seed| format!("{} {seed}\n", bug.name)));
            continue;
        }
        let found = bug.hunt(args.seeds, THREADS);
        let seed = found.as_ref().map(|found| found.seed).or_else(|| bug.seed());
        recorded.extend(seed.map(|seed| format!("{} {seed}\n", bug.name)));
        if found.is_none() {
            missed.push(bug.name);
        }
        let hunted = Hunted {
            bug: bug.name,
            law: found.as_ref().map(|found| found.law.to_string()),
            seeds: found.as_ref().map(|found| found.seed),
            replay: found.map(|found| found.command),
        };
        output.next(&hunted, |hunted| match (&hunted.law, hunted.seeds, &hunted.replay) {
            (Some(law), Some(seeds), Some(replay)) => {
                format!("{:<26} {law:<22} found in seed {seeds:>4}  {replay}", hunted.bug)
            }
            (_, _, _) => format!("{:<26} not found in {} seeds", hunted.bug, args.seeds),
        })?;
    }
    if let Some(file) = &args.record {
        std::fs::write(file, recorded).map_err(|error| {
            let what = format!("`{}` cannot be written: {error}", file.display());
            ended(Exit::Failed, what, "quorate sim planted --record FILE")
        })?;
    }
    if missed.is_empty() {
        return Ok(());
    }
    let what = format!("not found in {} seeds: {}", args.seeds, missed.join(", "));
    Err(ended(Exit::CheckFailed, what, "quorate sim planted --seeds 10000"))
}

fn again(args: &SimReplayArgs, plan: &Plan, output: Output) -> anyhow::Result<()> {
    let (outcome, trace) = replay(args.seed, plan);
    let Outcome { seed, hash, events, lasted, faults, tally, complaints } = outcome;
    let complaints: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    let lasted = lasted.as_secs_f64();
    let what = complaints.join("; ");
    let whole = plan.only.is_none() && !what.is_empty();
    let shrunk = if whole { shrink(seed, plan, SHRINK_WITHIN).map(Fewer::from) } else { None };
    let replayed = Replayed {
        seed,
        simulated_seconds: lasted,
        trace_hash: format!("{hash:016x}"),
        events,
        faults,
        done: tally.into(),
        complaints,
        trace,
        shrunk,
    };
    output.next(&replayed, |replayed| {
        let shrunk = replayed.shrunk.as_ref().map_or(String::new(), |fewer| format!("\n{fewer}"));
        format!(
            "{}\nseed {seed}: {lasted:.3} simulated seconds, {faults} faults, {events} events, \
             {tally}, trace {hash:016x}{shrunk}",
            replayed.trace.join("\n")
        )
    })?;
    if what.is_empty() { Ok(()) } else { Err(ended(Exit::CheckFailed, what, plan.command(seed))) }
}
