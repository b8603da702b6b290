//! As many seeds as fit a span of real time, on as many threads as there are cores for it.

use std::fmt;
use std::ops::Range;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use crate::desk::Desk;
use crate::knobs::Plan;
use crate::law::{Complaint, Law};
use crate::run::{Outcome, run_seed};
use crate::tally::Tally;
use crate::world::locked;

/// One seed in so many is run twice, and must leave the same hash.
const REPEAT_EVERY: u64 = 20;

/// How much real time and how many threads a batch of seeds may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// No seed is begun after this span; all of them, where absent.
    pub wall: Option<Duration>,
    /// Threads, at least one.
    pub threads: usize,
}

/// What a batch of seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Distinct seeds that ran to their end.
    pub seeds: u64,
    /// Seeds that were run a second time.
    pub repeated: u64,
    /// Simulated time of a cluster, first runs only.
    pub simulated: Duration,
    /// Faults, first runs only.
    pub faults: u64,
    /// What was done, first runs only.
    pub tally: Tally,
    /// Events in the traces, first runs only.
    pub events: u64,
    /// Seeds in which a judge complained or a second run differed, in their order.
    pub failed: Vec<Failure>,
}

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was wrong.
    pub complaints: Vec<Complaint>,
    /// What to type to see it again.
    pub command: String,
    /// At which commit, where git can tell.
    pub commit: Option<String>,
}

/// What git says of the folder that this runs in, asked once.
fn commit() -> Option<String> {
    static COMMIT: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let said = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
        let said = String::from_utf8(said.stdout).ok()?.trim().to_owned();
        (!said.is_empty()).then_some(said)
    };
    COMMIT.get_or_init(ask).clone()
}

impl Failure {
    /// Whether one of these laws was broken.
    pub fn breaks(&self, laws: &[Law]) -> bool {
        self.complaints.iter().any(|complaint| laws.contains(&complaint.law))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} failed; see it again: {}", self.seed, self.command)?;
        if let Some(commit) = &self.commit {
            write!(f, " (at commit {commit})")?;
        }
        self.complaints.iter().try_for_each(|complaint| write!(f, "\n  {complaint}"))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated.as_secs_f64() / 3600.0;
        let (seeds, repeated, failed) = (self.seeds, self.repeated, self.failed.len());
        let (faults, events, tally) = (self.faults, self.events, self.tally);
        write!(
            f,
            "{seeds} seeds, {hours:.2} cluster-hours, {faults} faults, {repeated} runs repeated, \
             {failed} seeds failed; {events} events, {tally}"
        )
    }
}

impl Summary {
    fn add(&mut self, outcome: Outcome, again: Option<Outcome>, plan: &Plan) {
        self.seeds += 1;
        self.simulated += outcome.lasted;
        self.faults += outcome.faults;
        self.tally += outcome.tally;
        self.events += outcome.events;
        let mut complaints = outcome.complaints.clone();
        if let Some(again) = again {
            self.repeated += 1;
            if again != outcome {
                let what = format!("two runs differ: {:x} and {:x}", outcome.hash, again.hash);
                complaints.push(Complaint { at: outcome.lasted, law: Law::Repeat, what });
            }
        }
        if !complaints.is_empty() {
            let (seed, command) = (outcome.seed, plan.command(outcome.seed));
            self.failed.push(Failure { seed, complaints, command, commit: commit() });
            self.failed.sort_by_key(|failure| failure.seed);
        }
    }
}

/// Runs seeds in their order. `stop` is asked after each and ends the batch early.
///
/// A seed that never ends ends the process, with the command that replays it.
pub fn run_many(
    seeds: Range<u64>,
    plan: &Plan,
    budget: Budget,
    stop: impl Fn(&Summary) -> bool + Sync,
) -> Summary {
    let begun = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let summary = Mutex::new(Summary::default());
    let desk = Desk::default();
    let work = |place: usize| {
        while budget.wall.is_none_or(|wall| begun.elapsed() < wall) && !stop(&locked(&summary)) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            desk.begin(place, seed, Instant::now());
            let first = run_seed(seed, plan);
            let again = seed.is_multiple_of(REPEAT_EVERY).then(|| run_seed(seed, plan));
            desk.end(place);
            locked(&summary).add(first, again, plan);
        }
    };
    std::thread::scope(|scope| {
        let work = &work;
        let places = 0..budget.threads.max(1);
        let workers: Vec<_> = places.map(|place| scope.spawn(move || work(place))).collect();
        scope.spawn(|| desk.watch(plan));
        let ended: Vec<_> = workers.into_iter().map(ScopedJoinHandle::join).collect();
        desk.close();
        if let Some(panic) = ended.into_iter().find_map(Result::err) {
            std::panic::resume_unwind(panic);
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}
