//! Whether the disk has room. The writer says so, handles and callers look.
//!
//! A disk counts as full when the spare segment cannot be made. That is tried
//! once the active one is half used, so the other half is there, allocated, when
//! it is noticed: room for what was taken already, and for votes and marks. As
//! long as it lasts the caller is expected to refuse work
//! ([`Log::is_full`](crate::Log::is_full)); when half of that is gone, appends
//! are refused here. Making the spare is tried again until it works.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::pen::wide;

/// How often the spare is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What of a segment appends leave to votes and marks on a full disk: at 16 MiB tens of thousands.
const fn kept_back(segment_bytes: u32) -> u32 {
    segment_bytes / 4
}

/// Shared by the writer and the handles. Each word stands by itself, so relaxed does.
#[derive(Debug)]
pub(super) struct Space {
    segment_bytes: u32,
    full: AtomicBool,
    left: AtomicU64,
    deserted: AtomicBool,
}

impl Space {
    pub(super) fn new(segment_bytes: u32) -> Self {
        let left = AtomicU64::new(u64::from(segment_bytes));
        Self { segment_bytes, full: AtomicBool::new(false), left, deserted: AtomicBool::new(false) }
    }

    /// No spare can be made.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(super) fn set_full(&self, full: bool) {
        if self.full.swap(full, Ordering::Relaxed) != full {
            if full {
                tracing::error!("the disk is full: work is refused until there is space again");
            } else {
                tracing::info!("the disk has space again");
            }
        }
    }

    /// Bytes that can be written without allocating.
    pub(super) fn set_left(&self, left: u64) {
        self.left.store(left, Ordering::Relaxed);
    }

    /// What appends may still take of it, where the disk is full and `taken` bytes wait already.
    pub(super) fn for_appends(&self, taken: usize) -> Option<usize> {
        let left = usize::try_from(self.left.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let kept = wide(kept_back(self.segment_bytes));
        self.is_full().then(|| left.saturating_sub(taken).saturating_sub(kept))
    }

    /// Nobody waits any more for what cannot be written.
    pub(super) fn desert(&self) {
        self.deserted.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_deserted(&self) -> bool {
        self.deserted.load(Ordering::Relaxed)
    }
}
