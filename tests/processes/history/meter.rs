//! How many operations were served, and when.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BIN: Duration = Duration::from_millis(100);

/// Counts by tenths of a second; what comes after the span it was made for is not counted.
#[derive(Debug)]
pub(crate) struct Meter {
    begun: Instant,
    bins: Vec<AtomicU64>,
}

impl Meter {
    /// For so long from now on.
    pub(crate) fn new(span: Duration) -> Self {
        let bins = usize::try_from(span.as_millis() / BIN.as_millis()).expect("hours at most") + 1;
        Self { begun: Instant::now(), bins: (0..bins).map(|_| AtomicU64::new(0)).collect() }
    }

    /// So many were served now.
    pub(crate) fn served(&self, count: u64) {
        if let Some(bin) = self.bins.get(self.bin(Instant::now())) {
            bin.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// How many a second in the window that ends there.
    pub(crate) fn rate(&self, end: Instant, window: Duration) -> f64 {
        let (from, to) = (self.bin(end.checked_sub(window).unwrap_or(end)), self.bin(end));
        let bins = self.bins.get(from..to.min(self.bins.len())).unwrap_or_default();
        let count: u64 = bins.iter().map(|bin| bin.load(Ordering::Relaxed)).sum();
        count as f64 / window.as_secs_f64()
    }

    /// How many in all.
    pub(crate) fn total(&self) -> u64 {
        self.bins.iter().map(|bin| bin.load(Ordering::Relaxed)).sum()
    }

    fn bin(&self, at: Instant) -> usize {
        let bins = at.saturating_duration_since(self.begun).as_millis() / BIN.as_millis();
        usize::try_from(bins).unwrap_or(usize::MAX)
    }
}
