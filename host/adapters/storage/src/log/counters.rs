//! What the writer has done, in numbers. Written by its one task, read by metrics;
//! relaxed, since nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering};

/// The log's figures since it was opened, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Batches made durable.
    pub batches: u64,
    /// Operations in them; by `batches` the mean size of a group commit.
    pub operations: u64,
    /// Operations in the largest.
    pub batch_operations_max: u64,
    /// Writes, each with its sync.
    pub syncs: u64,
    /// Bytes in those writes.
    pub bytes: u64,
    /// Where the durable log ends: a number that never goes back over all the lives of a directory
    /// (the segment's number times 2^32, and the place in it).
    pub position: u64,
}

/// Where the writer counts.
#[derive(Default)]
pub(super) struct Counters {
    batches: AtomicU64,
    operations: AtomicU64,
    batch_operations_max: AtomicU64,
    syncs: AtomicU64,
    bytes: AtomicU64,
    position: AtomicU64,
}

impl Counters {
    /// The log is durable up to here.
    pub(super) fn durable(&self, segment: u64, end: u32) {
        self.position.store((segment << 32) | u64::from(end), Ordering::Relaxed);
    }

    /// One more batch of so many operations is durable.
    pub(super) fn batch(&self, operations: usize) {
        let operations = u64::try_from(operations).unwrap_or(u64::MAX);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.operations.fetch_add(operations, Ordering::Relaxed);
        self.batch_operations_max.fetch_max(operations, Ordering::Relaxed);
    }

    /// The writes so far, as the pen counts them.
    pub(super) fn written(&self, syncs: u64, bytes: u64) {
        self.syncs.store(syncs, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> LogCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogCounts {
            batches: of(&self.batches),
            operations: of(&self.operations),
            batch_operations_max: of(&self.batch_operations_max),
            syncs: of(&self.syncs),
            bytes: of(&self.bytes),
            position: of(&self.position),
        }
    }
}
