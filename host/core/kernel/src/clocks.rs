//! One clock a lease, in the leader's memory: which run out next.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{TaskId, Time, Token};

/// Times by lease, and leases by time.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    until: BTreeMap<(TaskId, Token), Time>,
    by_time: BTreeSet<(Time, TaskId, Token)>,
}

impl Clocks {
    /// When the first one runs out.
    pub(crate) fn first(&self) -> Option<Time> {
        self.by_time.first().map(|(time, _task, _token)| *time)
    }

    /// Sets a lease's clock, whether it has one or not.
    pub(crate) fn set(&mut self, task: TaskId, token: Token, until: Time) {
        if let Some(before) = self.until.insert((task, token), until) {
            self.by_time.remove(&(before, task, token));
        }
        self.by_time.insert((until, task, token));
    }

    /// Stops a lease's clock.
    pub(crate) fn stop(&mut self, task: TaskId, token: Token) {
        if let Some(until) = self.until.remove(&(task, token)) {
            self.by_time.remove(&(until, task, token));
        }
    }

    /// Stops the clocks of every lease that a task has had.
    pub(crate) fn stop_all(&mut self, task: TaskId) {
        let leases = (task, Token(0))..=(task, Token(u64::MAX));
        let had: Vec<Token> = self.until.range(leases).map(|((_task, token), _)| *token).collect();
        for token in had {
            self.stop(task, token);
        }
    }

    /// Up to `limit` leases whose clocks have run out. They run out once more at `again`, unless
    /// they are stopped before.
    pub(crate) fn run_out(&mut self, now: Time, again: Time, limit: usize) -> Vec<(TaskId, Token)> {
        debug_assert!(again > now, "a clock that runs out for ever");
        let mut out = Vec::new();
        while out.len() < limit
            && let Some((time, task, token)) = self.by_time.first().copied()
            && time <= now
        {
            self.set(task, token, again);
            out.push((task, token));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_out_in_order_and_again_until_they_are_stopped() {
        let mut clocks = Clocks::default();
        let lease = |task, token| (TaskId(task), Token(token));
        for (task, token, until) in [(1, 1, 30), (2, 2, 10), (1, 3, 20), (3, 4, 99)] {
            clocks.set(TaskId(task), Token(token), Time(until));
        }
        clocks.set(TaskId(2), Token(2), Time(15));
        assert_eq!(clocks.first(), Some(Time(15)));
        let out = clocks.run_out(Time(30), Time(40), 2);
        assert_eq!(out, [lease(2, 2), lease(1, 3)], "the first two by time");
        assert_eq!(clocks.run_out(Time(30), Time(40), 9), [lease(1, 1)], "and what was left");
        clocks.stop_all(TaskId(1));
        assert_eq!(clocks.run_out(Time(40), Time(50), 9), [lease(2, 2)], "once more, but stopped");
        clocks.stop(TaskId(2), Token(2));
        assert_eq!(clocks.first(), Some(Time(99)));
    }
}
