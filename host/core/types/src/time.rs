//! Time as an argument.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since an origin that the giver states: a node's start for its
/// monotonic clock, 1970-01-01 UTC for ledger time.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// This many milliseconds after the origin.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1000)
    }

    /// Whole milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }

    /// The span from `earlier` to `self`, or zero where `earlier` is the later one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub<Duration> for Time {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_stop_at_both_ends_of_time() {
        let (span, mut time) = (Duration::from_micros(1_500), Time::from_millis(2));
        assert_eq!((time + span, time - span), (Time(3_500), Time(500)));
        assert_eq!(
            (time.since(Time(1_999)), Time(1_999).since(time)),
            (span / 1_500, Duration::ZERO)
        );
        time += span;
        assert_eq!((time, time.as_millis()), (Time(3_500), 3));
        assert_eq!((Time(9) - span, Time::ZERO), (Time::ZERO, Time(0)));
        assert_eq!(Time(u64::MAX) + span, Time(u64::MAX));
        assert_eq!(time + Duration::MAX, Time(u64::MAX));
    }

    #[test]
    fn it_is_shown_in_seconds() {
        assert_eq!(Time(12_000_034).to_string(), "12.000034");
    }
}
