//! Who runs which seed since when. A loop without an await stops virtual time and
//! its thread for ever; nothing inside the run can tell, so a watch outside does:
//! it names the seed and ends the process.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::knobs::Plan;
use crate::world::locked;

/// The longest seed takes some seconds; one that takes this long never ends.
const SEED_WALL_MAX: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Default)]
struct State {
    running: BTreeMap<usize, (u64, Instant)>,
    closed: bool,
}

/// One place a thread.
#[derive(Default)]
pub(crate) struct Desk {
    state: Mutex<State>,
    bell: Condvar,
}

impl Desk {
    pub(crate) fn begin(&self, place: usize, seed: u64, now: Instant) {
        locked(&self.state).running.insert(place, (seed, now));
    }

    pub(crate) fn end(&self, place: usize) {
        locked(&self.state).running.remove(&place);
    }

    pub(crate) fn close(&self) {
        locked(&self.state).closed = true;
        self.bell.notify_all();
    }

    /// A seed that was begun too long before `now`.
    fn overdue(&self, now: Instant) -> Option<u64> {
        let state = locked(&self.state);
        let late = |since: &Instant| now.saturating_duration_since(*since) >= SEED_WALL_MAX;
        state.running.values().find(|(_, since)| late(since)).map(|(seed, _)| *seed)
    }

    /// Looks until `close`. The process ends where a seed does not.
    pub(crate) fn watch(&self, plan: &Plan) {
        loop {
            if let Some(seed) = self.overdue(Instant::now()) {
                let command = plan.command(seed);
                let told = format!("seed {seed} runs since {SEED_WALL_MAX:?} and never ends");
                // Past a test runner, which would keep it to itself and die with it.
                writeln!(std::io::stderr(), "{told}\n  {command}").ok();
                std::process::abort();
            }
            let state = locked(&self.state);
            if state.closed {
                return;
            }
            drop(self.bell.wait_timeout(state, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_that_never_ends_is_named() {
        let (desk, begun) = (Desk::default(), Instant::now());
        desk.begin(0, 7, begun);
        desk.begin(1, 8, begun + SEED_WALL_MAX);
        assert_eq!(desk.overdue(begun + SEED_WALL_MAX / 2), None);
        assert_eq!(desk.overdue(begun + SEED_WALL_MAX), Some(7));
        desk.end(0);
        assert_eq!(desk.overdue(begun + SEED_WALL_MAX), None);
        desk.close();
        desk.watch(&Plan::default());
    }
}
