//! The clocks of nodes, as functions of virtual time.
//!
//! A node's monotonic clock began anywhere and goes at its own rate, which stays
//! what it is; its wall clock is that plus an offset that jumps now and then.
//! Node 0 has the world's clock: virtual time itself.

use quorate_types::{NodeId, Time};

/// Virtual time begins this long after its own zero, nanoseconds: code subtracts spans from now.
pub(super) const EPOCH: u64 = 86_400 * 1_000_000_000;
/// Virtual time begins here by the wall's clock: 2026-01-01 UTC.
const ORIGIN: Time = Time(1_767_225_600_000_000);
const MILLION: u64 = 1_000_000;
/// A clock that is further off its rate is not one.
const SKEW_PPM_MAX: i32 = 200_000;

/// A node's clock at the moment it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    /// Nanoseconds that the monotonic clock is ahead of virtual time at its beginning.
    pub(crate) ahead_ns: u64,
    /// How much faster it goes than virtual time, parts in a million.
    pub(crate) skew_ppm: i32,
    /// Microseconds that the wall clock is beside that of the world.
    pub(crate) wall_off_us: i64,
}

impl Clock {
    fn rate(&self) -> u64 {
        let skew = i64::from(self.skew_ppm.clamp(-SKEW_PPM_MAX, SKEW_PPM_MAX));
        MILLION.saturating_add_signed(skew)
    }

    /// What it shows at this virtual time.
    fn local(&self, virtual_ns: u64) -> u64 {
        let passed = u128::from(virtual_ns.saturating_sub(EPOCH)) * u128::from(self.rate());
        EPOCH + self.ahead_ns + narrow(passed / u128::from(MILLION))
    }

    /// The first virtual time at which it shows at least this.
    fn reached(&self, local_ns: u64) -> u64 {
        let passed = u128::from(local_ns.saturating_sub(EPOCH + self.ahead_ns));
        EPOCH.saturating_add(narrow((passed * u128::from(MILLION)).div_ceil(self.rate().into())))
    }
}

fn narrow(wide: u128) -> u64 {
    u64::try_from(wide).unwrap_or(u64::MAX)
}

/// All clocks, by the number of their node.
#[derive(Debug, Default)]
pub(super) struct Clocks(Vec<Clock>);

impl Clocks {
    fn of(&self, node: NodeId) -> Clock {
        usize::try_from(node.0).ok().and_then(|at| self.0.get(at)).copied().unwrap_or_default()
    }

    fn slot(&mut self, node: NodeId) -> Option<&mut Clock> {
        let at = usize::try_from(node.0).ok().filter(|at| *at > 0)?;
        if self.0.len() <= at {
            self.0.resize(at + 1, Clock::default());
        }
        self.0.get_mut(at)
    }

    pub(super) fn set(&mut self, node: NodeId, clock: Clock) {
        if let Some(slot) = self.slot(node) {
            *slot = clock;
        }
    }

    pub(super) fn jump(&mut self, node: NodeId, by_us: i64) {
        if let Some(slot) = self.slot(node) {
            slot.wall_off_us = slot.wall_off_us.saturating_add(by_us);
        }
    }

    pub(super) fn local(&self, node: NodeId, virtual_ns: u64) -> u64 {
        if node.0 == 0 { virtual_ns } else { self.of(node).local(virtual_ns) }
    }

    pub(super) fn reached(&self, node: NodeId, local_ns: u64) -> u64 {
        if node.0 == 0 { local_ns } else { self.of(node).reached(local_ns) }
    }

    pub(super) fn wall(&self, node: NodeId, virtual_ns: u64) -> Time {
        let clock = self.of(node);
        let passed_us = (clock.local(virtual_ns) - EPOCH - clock.ahead_ns) / 1_000;
        Time((ORIGIN.0 + passed_us).saturating_add_signed(clock.wall_off_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N1: NodeId = NodeId(1);

    #[test]
    fn what_a_clock_shows_is_reached_when_it_shows_it() {
        let mut clocks = Clocks::default();
        for skew_ppm in [-200_000, -333, 0, 1, 777, 200_000] {
            clocks.set(N1, Clock { ahead_ns: 12_345, skew_ppm, wall_off_us: 0 });
            for passed in [0, 1, 999, 1_000_003, 86_400_000_000_007] {
                let at = clocks.reached(N1, EPOCH + 12_345 + passed);
                assert!(clocks.local(N1, at) >= EPOCH + 12_345 + passed, "{skew_ppm} {passed}");
                let before = at.saturating_sub(2).max(EPOCH);
                assert!(passed < 3 || clocks.local(N1, before) < EPOCH + 12_345 + passed);
            }
        }
    }

    #[test]
    fn a_wall_clock_jumps_and_the_monotonic_one_does_not() {
        let mut clocks = Clocks::default();
        clocks.set(N1, Clock { ahead_ns: 5, skew_ppm: 0, wall_off_us: 2_000_000 });
        let later = EPOCH + 1_000_000_000;
        assert_eq!(clocks.wall(N1, later), Time(ORIGIN.0 + 3_000_000));
        clocks.jump(N1, -2_500_000);
        assert_eq!(clocks.wall(N1, later), Time(ORIGIN.0 + 500_000));
        assert_eq!(clocks.local(N1, later), later + 5);
        assert_eq!(clocks.wall(NodeId(0), later), Time(ORIGIN.0 + 1_000_000));
        assert_eq!(clocks.local(NodeId(9), later), later, "nobody gave it one");
    }
}
