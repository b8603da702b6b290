//! Few faults instead of many: of a seed's schedule those are left out, in halves and
//! then one by one, without which the same law is still broken (delta debugging:
//! Zeller and Hildebrandt, TSE 2002). What is left names itself on a command line.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::knobs::Plan;
use crate::law::{Complaint, Law};
use crate::run::{faults_of, run_seed};

/// What a failing seed was brought down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// The law that is broken with all of its faults and with these.
    pub law: Law,
    /// How many faults the schedule had.
    pub faults: usize,
    /// Those that are left, by their number, in words.
    pub kept: Vec<(usize, String)>,
    /// Runs that it took.
    pub runs: u64,
    /// What to type to see it with only these.
    pub command: String,
}

/// Brings the schedule of a seed that broke a law down, for as long as `wall` allows. Nothing
/// where the seed breaks none.
pub fn shrink(seed: u64, plan: &Plan, wall: Duration) -> Option<Shrunk> {
    let begun = Instant::now();
    let all = faults_of(seed, plan);
    let only = |kept: &BTreeSet<usize>| Plan { only: Some(kept.clone()), ..plan.clone() };
    let first = run_seed(seed, plan).complaints.first().cloned()?;
    let mut runs = 1;
    let mut still = |kept: &BTreeSet<usize>| {
        runs += 1;
        let complaints = run_seed(seed, &only(kept)).complaints;
        complaints.iter().any(|complaint: &Complaint| complaint.law == first.law)
    };
    let chosen = |number: &usize| plan.only.as_ref().is_none_or(|only| only.contains(number));
    let mut kept: BTreeSet<usize> = (0..all.len()).filter(chosen).collect();
    // What came after the breach did not cause it, unless the breach was seen at the end only.
    let early = |number: &usize| all.get(*number).is_some_and(|blow| blow.at <= first.at);
    let before: BTreeSet<usize> = kept.iter().copied().filter(early).collect();
    if before.len() < kept.len() && still(&before) {
        kept = before;
    }
    let mut part = kept.len().div_ceil(2);
    while part > 0 && begun.elapsed() < wall {
        let mut fewer = false;
        let parts: Vec<Vec<usize>> =
            kept.iter().copied().collect::<Vec<_>>().chunks(part).map(<[_]>::to_vec).collect();
        for part in parts {
            let without: BTreeSet<usize> =
                kept.iter().copied().filter(|number| !part.contains(number)).collect();
            if begun.elapsed() < wall && still(&without) {
                (kept, fewer) = (without, true);
            }
        }
        part = if fewer { part.min(kept.len()) } else { part / 2 };
    }
    let told = |number: &usize| Some((*number, all.get(*number)?.to_string()));
    Some(Shrunk {
        law: first.law,
        faults: all.len(),
        command: only(&kept).command(seed),
        kept: kept.iter().filter_map(told).collect(),
        runs,
    })
}
