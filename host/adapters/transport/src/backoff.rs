//! The waits between dials: doubled, capped, and jittered over their upper half,
//! so that a cluster that lost a switch does not dial in step.

use std::time::Duration;

use quorate_types::rng::Rng;

pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    /// The lower node of a pair dials at once, the higher one after a first wait: both may dial, and
    /// seldom do so together.
    at_once: bool,
    failures: u32,
    rng: Rng,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration, at_once: bool, rng: Rng) -> Self {
        Self { first, max, at_once, failures: 0, rng }
    }

    /// The next wait.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let turn = self.failures;
        self.failures = self.failures.saturating_add(1);
        let doublings = match (turn, self.at_once) {
            (0, true) => return Duration::ZERO,
            (turn, true) => turn - 1,
            (turn, false) => turn,
        };
        // 2^20 first waits are above any cap in use and below any overflow.
        let wait = self.first.saturating_mul(1 << doublings.min(20)).min(self.max);
        let half = wait / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(self.rng.below(spread))
    }

    /// The peer was well for a while.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(2);

    #[test]
    fn waits_double_up_to_the_cap_within_their_upper_half() {
        let mut backoff = Backoff::new(FIRST, MAX, false, Rng::new(1));
        for expected_ms in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
            let expected = Duration::from_millis(expected_ms);
            let wait = backoff.next_wait();
            assert!(wait >= expected / 2 && wait <= expected, "{wait:?} for {expected:?}");
        }
        for _ in 0..100 {
            assert!(backoff.next_wait() <= MAX, "for ever");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }

    #[test]
    fn the_lower_node_dials_at_once_and_two_seeds_differ() {
        let mut one = Backoff::new(FIRST, MAX, true, Rng::new(1));
        let mut two = Backoff::new(FIRST, MAX, true, Rng::new(2));
        assert_eq!(one.next_wait(), Duration::ZERO);
        assert_eq!(two.next_wait(), Duration::ZERO);
        assert_ne!(one.next_wait(), two.next_wait());
    }
}
