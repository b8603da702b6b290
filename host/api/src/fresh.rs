//! Numbers that nobody has used: a random origin, then a count.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_types::TraceId;

/// One life of a door. 128 random bits tell it from every other.
pub(crate) struct Fresh {
    origin: u128,
    count: AtomicU64,
}

impl Fresh {
    /// A life of its own.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut origin = [0; 16];
        getrandom::fill(&mut origin)?;
        Ok(Self { origin: u128::from_ne_bytes(origin), count: AtomicU64::new(1) })
    }

    fn next(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// A trace for a request that brings none.
    pub(crate) fn trace(&self) -> TraceId {
        // Zero is no trace; an odd step keeps neighbours apart in their first digits.
        let step = u128::from(self.next()).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        TraceId(self.origin.wrapping_add(step).max(1))
    }

    /// Who this door is to the log, and the number of one more request.
    pub(crate) fn numbered(&self) -> (u128, u64) {
        (self.origin, self.next())
    }

    /// What tells one submission without an idempotency key from another, however often the node
    /// below proposes it.
    pub(crate) fn nonce(&self) -> (u64, u64, u64) {
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(u64::MAX);
        (half(self.origin >> 64), half(self.origin), self.next())
    }
}
