//! When to try a component again. A policy has no clock, so patience is counted in
//! decisions.

/// Decisions answered natively after the second failure in a row; a fresh instance costs about
/// as much as 150 picks, so that a policy that always fails costs a tenth at most from here on.
const WAIT_FIRST: u64 = 1 << 10;

/// The longest wait, decisions.
const WAIT_MAX: u64 = 1 << 20;

/// Good answers in a row that forgive earlier failures.
const FORGIVEN_AFTER: u64 = 1 << 14;

/// When to try the component again.
#[derive(Default)]
pub(super) struct Patience {
    pub(super) failures: u32,
    good: u64,
    /// Decisions to be answered natively before the component has its turn again.
    pub(super) wait: u64,
}

impl Patience {
    /// Counts native decisions; true when the component has its turn again.
    pub(super) fn spend(&mut self, decisions: u64) -> bool {
        let over = self.wait <= decisions;
        self.wait = self.wait.saturating_sub(decisions);
        over
    }

    pub(super) fn praise(&mut self, decisions: u64) {
        self.good = self.good.saturating_add(decisions);
        if self.good >= FORGIVEN_AFTER {
            self.failures = 0;
        }
    }

    pub(super) fn blame(&mut self) {
        self.good = 0;
        self.failures = self.failures.saturating_add(1);
        self.wait = match self.failures {
            0 | 1 => 0,
            more => WAIT_FIRST.saturating_mul(1 << (2 * (more - 2)).min(20)).min(WAIT_MAX),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_shortens_to_nothing_and_grows_to_its_bound() {
        let mut patience = Patience::default();
        let mut waits = Vec::new();
        for _failure in 0..9 {
            patience.blame();
            waits.push(patience.wait);
        }
        assert_eq!(waits[..4], [0, WAIT_FIRST, 4 * WAIT_FIRST, 16 * WAIT_FIRST]);
        assert_eq!(waits[8], WAIT_MAX);
        assert!(!patience.spend(WAIT_MAX - 1), "one decision too early");
        assert!(patience.spend(1));
        patience.praise(FORGIVEN_AFTER);
        patience.blame();
        assert_eq!(patience.wait, 0, "a long run of good answers forgives");
    }
}
