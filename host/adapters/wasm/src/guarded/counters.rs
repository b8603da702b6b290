//! What happened to a guarded policy, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::balancer::Failure;

/// What happened so far; shared, so that metrics read it while a worker picks.
#[derive(Debug, Default)]
pub struct GuardCounters {
    traps: AtomicU64,
    over_budget: AtomicU64,
    illegal: AtomicU64,
    refused: AtomicU64,
    pub(super) fallbacks: AtomicU64,
    pub(super) restarts: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardCounts {
    /// Calls that trapped.
    pub traps: u64,
    /// Calls that ran out of fuel or wall time.
    pub over_budget: u64,
    /// Answers that were no slot of the pool.
    pub illegal: u64,
    /// Tables that the component refused.
    pub refused: u64,
    /// Calls answered by the native reference.
    pub fallbacks: u64,
    /// Fresh instances made after a failure.
    pub restarts: u64,
}

impl GuardCounters {
    /// Reads them; each is exact, together they may be a moment apart.
    pub fn read(&self) -> GuardCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GuardCounts {
            traps: read(&self.traps),
            over_budget: read(&self.over_budget),
            illegal: read(&self.illegal),
            refused: read(&self.refused),
            fallbacks: read(&self.fallbacks),
            restarts: read(&self.restarts),
        }
    }

    pub(super) fn failed(&self, failure: Option<Failure>) {
        let counter = match failure {
            Some(Failure::Trap) | None => &self.traps,
            Some(Failure::OverBudget) => &self.over_budget,
            Some(Failure::Illegal) => &self.illegal,
            Some(Failure::Refused) => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
