//! Local health (Lifeguard, Dadgar et al. 2018): a node that has reason to doubt
//! itself waits longer before it doubts others.

use std::time::Duration;

/// The multiplier stays within 1 and 9, as the paper's S = 8.
const SCORE_MAX: u32 = 8;

/// How far a node doubts itself; 0 is sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health(u32);

impl Health {
    pub(crate) fn score(self) -> u32 {
        self.0
    }

    /// A tick came late, those it asked for help said nothing, or others accuse it.
    pub(crate) fn worsen(&mut self) {
        self.0 = (self.0 + 1).min(SCORE_MAX);
    }

    /// A ping of its own was answered in time.
    pub(crate) fn improve(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    /// A timeout as this node should wait it.
    pub(crate) fn stretch(self, timeout: Duration) -> Duration {
        timeout.saturating_mul(1 + self.0)
    }
}
