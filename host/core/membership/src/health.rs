//! Local health (Lifeguard, Dadgar et al. 2018): a node that has reason to doubt
//! itself waits longer before it doubts others.
//!
//! The paper restores it by pings that were answered in time. Here a busy cluster
//! sends none, so a second without a reason to doubt restores it too.

use std::time::Duration;

use quorate_types::Time;

/// The multiplier stays within 1 and 9, as the paper's S = 8.
const SCORE_MAX: u32 = 8;

/// Five of its own probe periods without a fault.
const SOUND_SPAN: Duration = Duration::from_secs(1);

/// How far a node doubts itself; 0 is sound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    score: u32,
    changed: Time,
}

impl Health {
    pub(crate) fn score(self) -> u32 {
        self.score
    }

    /// A tick came late, those it asked for help said nothing, or others accuse it.
    pub(crate) fn worsen(&mut self, now: Time) {
        *self = Self { score: (self.score + 1).min(SCORE_MAX), changed: now };
    }

    /// A ping of its own was answered in time.
    pub(crate) fn improve(&mut self, now: Time) {
        *self = Self { score: self.score.saturating_sub(1), changed: now };
    }

    /// A tick came in time.
    pub(crate) fn settle(&mut self, now: Time) {
        if now >= self.changed + SOUND_SPAN {
            self.improve(now);
        }
    }

    /// A timeout as this node should wait it.
    pub(crate) fn stretch(self, timeout: Duration) -> Duration {
        timeout.saturating_mul(1 + self.score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_grows_to_nine_times_and_fades_a_step_a_second() {
        let mut health = Health::default();
        let second = Duration::from_secs(1);
        for at in 0..20 {
            health.worsen(Time::from_millis(at));
        }
        assert_eq!(health.stretch(second), 9 * second);
        health.settle(Time::from_millis(500));
        assert_eq!(health.score(), 8, "not yet");
        for at in 2..6 {
            health.settle(Time::from_millis(at * 1000));
        }
        assert_eq!(health.score(), 4);
        health.improve(Time::from_millis(6001));
        assert_eq!(health.stretch(second), 4 * second);
    }
}
