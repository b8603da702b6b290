//! The write-ahead log's handle (first publication: signatures).

use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use quorate_types::{Disk, Faults, GroupId, Index, Term};

use crate::data_dir::DirectoryId;
use crate::record::Record;

/// How a log is laid out.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The directory it belongs to; checksums cover it.
    pub directory: DirectoryId,
    /// One segment, bytes; also bounds a record.
    pub segment_bytes: u32,
}

impl LogOptions {
    /// Segments of 16 MiB.
    pub fn new(directory: DirectoryId) -> Self {
        Self { directory, segment_bytes: 16 << 20 }
    }
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Reading or writing failed.
    #[error("could not {act} `{file}`")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On which file.
        file: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Why an open log takes nothing any more. Final.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A write or an fsync failed.
    #[error("could not {act} `{file}`; the log is closed until the node restarts")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On which file.
        file: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Why an operation was not taken. Its `done` is not called.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubmitError {
    /// Too much waits for the disk; wait with [`Log::room`], or refuse the work.
    #[error("{queued_bytes} bytes already wait for the disk")]
    Busy {
        /// How much waits.
        queued_bytes: usize,
    },
    /// A record larger than a segment holds.
    #[error("a record of {got} bytes where at most {limit} fit")]
    TooLarge {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not what may follow the group's log as it stands.
    #[error("group {group}: {what} does not follow a log that ends at {last}")]
    OutOfOrder {
        /// The group.
        group: GroupId,
        /// What was asked.
        what: String,
        /// Where its log ends.
        last: Index,
    },
    /// An earlier write failed.
    #[error("the log failed earlier")]
    Failed(#[source] Arc<LogError>),
}

/// What was found when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Each group that has a trace in the log.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// Bytes of an unfinished last write that were dropped.
    pub torn_bytes: u64,
}

/// One group as recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// Its newest vote.
    pub vote: Option<Bytes>,
    /// Its newest committed mark.
    pub committed: Option<Bytes>,
    /// Up to where it was purged.
    pub purged: Option<(Index, Term)>,
    /// Its last entry, or where it was purged.
    pub last: Option<(Index, Term)>,
    /// Live entries.
    pub entries: usize,
}

/// Told once, when the operation is durable or the log has failed.
pub(crate) type Done = Box<dyn FnOnce(Result<(), Arc<LogError>>) + Send>;

/// A node's write-ahead log. Clones share it.
pub struct Log<RT: AsyncRuntime, D: Disk>(PhantomData<fn() -> (RT, D)>);

impl<RT: AsyncRuntime, D: Disk> Clone for Log<RT, D> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

/// A function that is told how an operation ended.
pub trait OnDone: FnOnce(Result<(), Arc<LogError>>) + Send + 'static {}
impl<F: FnOnce(Result<(), Arc<LogError>>) + Send + 'static> OnDone for F {}

impl<RT: AsyncRuntime, D: Disk> Log<RT, D> {
    /// Recovers the log in `log/` and starts its writer on `RT`.
    pub async fn open(
        _disk: D,
        _options: LogOptions,
        _faults: &Faults,
    ) -> Result<(Self, Recovered), OpenError> {
        Ok((Self(PhantomData), Recovered::default()))
    }

    /// Appends entries that follow the group's last one. Into an empty log the first may have any
    /// index above what was purged.
    pub fn append(
        &self,
        _group: GroupId,
        _records: Vec<Record>,
        _done: impl OnDone,
    ) -> Result<(), SubmitError> {
        Ok(())
    }

    /// Replaces the group's vote.
    pub fn save_vote(
        &self,
        _group: GroupId,
        _vote: Bytes,
        _done: impl OnDone,
    ) -> Result<(), SubmitError> {
        Ok(())
    }

    /// Replaces the group's committed mark. Lazy: written with the next other operation and never
    /// ahead of entries submitted before; a crash may bring an older mark back.
    pub fn save_committed(&self, _group: GroupId, _mark: Bytes) -> Result<(), SubmitError> {
        Ok(())
    }

    /// Removes entries above `index`, which must not lie below what was purged.
    pub fn truncate_after(
        &self,
        _group: GroupId,
        _index: Index,
        _done: impl OnDone,
    ) -> Result<(), SubmitError> {
        Ok(())
    }

    /// Removes entries up to `index`, which a snapshot holds; it may lie beyond the last one.
    pub fn purge_upto(
        &self,
        _group: GroupId,
        _index: Index,
        _term: Term,
        _done: impl OnDone,
    ) -> Result<(), SubmitError> {
        Ok(())
    }

    /// The entries in `range` that exist, in order, as submitted.
    pub fn read(&self, _group: GroupId, _range: Range<Index>) -> Vec<Record> {
        Vec::new()
    }

    /// The last entry's position, or where the group was purged.
    pub fn last(&self, _group: GroupId) -> Option<(Index, Term)> {
        None
    }

    /// Up to where the group was purged.
    pub fn purged(&self, _group: GroupId) -> Option<(Index, Term)> {
        None
    }

    /// The group's vote as last submitted.
    pub fn vote(&self, _group: GroupId) -> Option<Bytes> {
        None
    }

    /// The group's committed mark as last submitted.
    pub fn committed(&self, _group: GroupId) -> Option<Bytes> {
        None
    }

    /// Waits until an append would not be refused as [`SubmitError::Busy`], or the log has failed.
    pub async fn room(&self) {}

    /// Waits until all that was submitted is durable and closes the log for good.
    pub async fn close(&self) -> Result<(), Arc<LogError>> {
        Ok(())
    }
}
