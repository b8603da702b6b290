//! One clock for each of many things, and which runs out next.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use crate::time::Time;

/// Times by key, and keys by time. A key has one clock or none.
#[derive(Clone, Debug)]
pub struct Clocks<K> {
    until: BTreeMap<K, Time>,
    by_time: BTreeSet<(Time, K)>,
}

impl<K> Default for Clocks<K> {
    fn default() -> Self {
        Self { until: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Clocks<K> {
    /// When the first one runs out.
    pub fn first(&self) -> Option<Time> {
        self.by_time.first().map(|(time, _key)| *time)
    }

    /// Sets a clock, whether there is one or not.
    pub fn set(&mut self, key: K, until: Time) {
        if let Some(before) = self.until.insert(key, until) {
            self.by_time.remove(&(before, key));
        }
        self.by_time.insert((until, key));
    }

    /// Stops a clock, if there is one.
    pub fn stop(&mut self, key: K) {
        if let Some(until) = self.until.remove(&key) {
            self.by_time.remove(&(until, key));
        }
    }

    /// Stops the clocks of every key in the range.
    pub fn stop_range(&mut self, keys: impl RangeBounds<K>) {
        let stopped: Vec<K> = self.until.range(keys).map(|(key, _until)| *key).collect();
        for key in stopped {
            self.stop(key);
        }
    }

    /// The first whose clock has run out at `now`; it has none any more.
    pub fn take(&mut self, now: Time) -> Option<K> {
        let (time, key) = self.by_time.first().copied()?;
        (time <= now).then(|| {
            self.stop(key);
            key
        })
    }

    /// Up to `limit` of those whose clocks have run out. They run out once more at `again`, unless
    /// they are stopped before.
    pub fn run_out(&mut self, now: Time, again: Time, limit: usize) -> Vec<K> {
        debug_assert!(again > now, "a clock that runs out for ever");
        let mut out = Vec::new();
        while out.len() < limit
            && let Some(key) = self.take(now)
        {
            self.set(key, again);
            out.push(key);
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
        for (key, until) in [((1, 1), 30), ((2, 2), 10), ((1, 3), 20), ((3, 4), 99)] {
            clocks.set(key, Time(until));
        }
        clocks.set((2, 2), Time(15));
        assert_eq!(clocks.first(), Some(Time(15)));
        let out = clocks.run_out(Time(30), Time(40), 2);
        assert_eq!(out, [(2, 2), (1, 3)], "the first two by time");
        assert_eq!(clocks.run_out(Time(30), Time(40), 9), [(1, 1)], "and what was left");
        clocks.stop_range((1, 0)..=(1, 9));
        assert_eq!(clocks.run_out(Time(40), Time(50), 9), [(2, 2)], "once more, but stopped");
        clocks.stop((2, 2));
        assert_eq!(clocks.first(), Some(Time(99)));
    }

    #[test]
    fn what_is_taken_is_taken_once() {
        let mut clocks = Clocks::default();
        clocks.set('b', Time(5));
        clocks.set('a', Time(7));
        assert_eq!(clocks.take(Time(4)), None);
        assert_eq!([(); 3].map(|()| clocks.take(Time(7))), [Some('b'), Some('a'), None]);
        assert_eq!(clocks.first(), None);
    }
}
