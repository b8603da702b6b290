//! As many seeds as fit a span of real time, on as many threads as there are cores for it.

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::knobs::Plan;
use crate::run::{Outcome, run_seed};
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
    /// Acknowledged submissions, first runs only.
    pub acks: u64,
    /// Events in the traces, first runs only.
    pub events: u64,
    /// Seeds in which a judge complained or a second run differed, with what was wrong.
    pub failed: Vec<(u64, Vec<String>)>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated.as_secs_f64() / 3600.0;
        write!(
            f,
            "{} seeds, {hours:.2} cluster-hours, {} faults, {} acknowledgements, {} events, \
             {} runs repeated, {} violations",
            self.seeds,
            self.faults,
            self.acks,
            self.events,
            self.repeated,
            self.failed.len()
        )
    }
}

impl Summary {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.simulated += outcome.lasted;
        self.faults += outcome.faults;
        self.acks += outcome.acks;
        self.events += outcome.events;
        if !outcome.complaints.is_empty() {
            self.failed.push((outcome.seed, outcome.complaints));
        }
    }
}

/// Runs seeds in their order. `stop` is asked after each and ends the batch early.
pub fn run_many(
    seeds: Range<u64>,
    plan: &Plan,
    budget: Budget,
    stop: impl Fn(&Summary) -> bool + Sync,
) -> Summary {
    let begun = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let summary = Mutex::new(Summary::default());
    let work = || {
        while budget.wall.is_none_or(|wall| begun.elapsed() < wall) && !stop(&locked(&summary)) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let first = run_seed(seed, plan);
            let again = seed.is_multiple_of(REPEAT_EVERY).then(|| run_seed(seed, plan));
            let mut summary = locked(&summary);
            if let Some(again) = again {
                summary.repeated += 1;
                if again != first {
                    let what = format!("two runs differ: {:x} and {:x}", first.hash, again.hash);
                    summary.failed.push((seed, vec![what]));
                }
            }
            summary.add(first);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..budget.threads.max(1) {
            scope.spawn(work);
        }
    });
    summary.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}
