//! The write-ahead log: one a node, shared by all its groups.
//!
//! Promises: what `done(Ok)` was told is on the disk; operations are durable in
//! the order in which they were taken, so that a crash leaves a prefix; a read
//! sees an operation as soon as it is taken. Damage is refused at the start
//! ([`OpenError`]), never skipped.
//!
//! All live entries stay in memory, for reads and for writing them again when
//! their segment is recycled. What bounds them is the raft room's snapshot
//! policy, which purges; nothing here does.
//!
//! Parts: `frame` specifies the bytes, `segments` the files, `space` what happens
//! on a full disk, `pen` puts the one into the other, `queue` holds what waits and what readers see, `writer` is
//! the one task that writes, `recover` and `replay` read it all back. The shape
//! is that of ARIES-style logs cut down to redo, with etcd's preallocated and
//! RocksDB's recycled files; the witness that tells tearing from rot is ours.

mod counters;
mod error;
mod frame;
mod pen;
mod queue;
mod recover;
mod replay;
mod salvage;
mod segments;
mod space;
mod survey;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use openraft_rt::{AsyncRuntime, Watch, WatchReceiver, WatchSender};
use quorate_types::{Disk, Faults, GroupId, Index, Term};

use crate::data_dir::DirectoryId;
use crate::record::Record;
pub use counters::LogCounts;
pub use error::{LogError, OpenError, SubmitError};
use pen::{Pen, body_bytes_max};
use queue::{Act, Done, Shared};
pub use salvage::{Anew, Remains, RewriteError, Salvage};
use segments::Segments;
use space::Space;
pub use survey::{LogSurvey, SegmentState, SegmentSurvey};
use tail::Tail;
use writer::{Live, Writer};

/// The shortest segment, bytes: a few small records, for tests of rolling.
const SEGMENT_BYTES_MIN: u32 = 1024;

/// How a log is laid out.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The directory it belongs to; checksums cover it.
    pub directory: DirectoryId,
    /// The length of segments made from now on, bytes. It also bounds a record.
    pub segment_bytes: u32,
}

impl LogOptions {
    /// Segments of 16 MiB: a roll every few seconds at full speed, and recovery reads one in 10 ms.
    pub fn new(directory: DirectoryId) -> Self {
        Self { directory, segment_bytes: 16 << 20 }
    }
}

/// What was found when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Each group that has left something in the log.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// Bytes from the end of the log to the last frame that an unfinished write left readable
    /// behind it; they were erased and never acknowledged.
    pub torn_bytes: u64,
    /// Whether the last life closed the log; false after a crash, and for a new log.
    pub sealed: bool,
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

/// A function that is told once how an operation ended, on the writer's task: it must not wait.
pub trait OnDone: FnOnce(Result<(), Arc<LogError>>) + Send + 'static {}
impl<F: FnOnce(Result<(), Arc<LogError>>) + Send + 'static> OnDone for F {}

struct Handle<RT: AsyncRuntime> {
    shared: Arc<Shared>,
    wake: Mutex<<RT::Watch as Watch>::Sender<u64>>,
    progress: <RT::Watch as Watch>::Receiver<u64>,
    body_bytes_max: usize,
    vote_acked_early: bool,
}

impl<RT: AsyncRuntime> Drop for Handle<RT> {
    fn drop(&mut self) {
        self.shared.space.desert();
    }
}

/// A node's write-ahead log. Clones share it; when the last is dropped, what was taken is still
/// written and the writer ends.
pub struct Log<RT: AsyncRuntime, D: Disk>(Arc<Handle<RT>>, PhantomData<fn() -> D>);

impl<RT: AsyncRuntime, D: Disk> Clone for Log<RT, D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<RT: AsyncRuntime, D: Disk> fmt::Debug for Log<RT, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl<RT: AsyncRuntime, D: Disk> Log<RT, D> {
    /// Recovers the log in `log/` of `disk` and starts its writer on `RT`. Called within a task. In
    /// one life of a process a log is opened again only after [`close`](Self::close).
    pub async fn open(
        disk: D,
        options: LogOptions,
        faults: &Faults,
    ) -> Result<(Self, Recovered), OpenError> {
        let limit = body_bytes_max(options.segment_bytes);
        if options.segment_bytes < SEGMENT_BYTES_MIN {
            let (got, least) = (options.segment_bytes, pen::wide(SEGMENT_BYTES_MIN));
            return Err(OpenError::SegmentBytes { got, least });
        }
        let mut found = recover::recover(&disk, &options).await?;
        if faults.recovery_drops_last {
            found.live.values_mut().for_each(Tail::drop_last);
        }
        check_fits(&found.live, &options)?;
        let groups = report(&found.live);
        let recovered = Recovered { groups, torn_bytes: found.torn_bytes, sealed: found.sealed };
        let size = options.segment_bytes;
        let space = Arc::new(Space::new(size));
        let (segments, end) = match found.active {
            Some((active, end)) => {
                let active = (found.first, active);
                (Segments::resume(disk, size, active, found.free, Arc::clone(&space)), end)
            }
            None => (Segments::begin(disk, size, 1, Arc::clone(&space)).await?, 0),
        };
        let view = found.live.iter().map(|(group, tail)| (*group, tail.map(|_| ()))).collect();
        let shared = Arc::new(Shared::new(view, space));
        let pen = Pen::<RT, D>::new(segments, options.directory, end);
        let (segment, end) = pen.durable();
        shared.counters.durable(segment, end);
        let writer = Writer::new(Arc::clone(&shared), pen, found.live, faults.clone());
        let (wake, woken) = RT::Watch::channel(0);
        let (batches, progress) = RT::Watch::channel(0);
        let _detached = RT::spawn(writer.run(woken, batches));
        let (wake, vote_acked_early) = (Mutex::new(wake), faults.vote_acked_early);
        let handle = Handle { shared, wake, progress, body_bytes_max: limit, vote_acked_early };
        Ok((Self(Arc::new(handle), PhantomData), recovered))
    }

    /// Appends entries that follow the group's last one. Into an empty log the first may have any
    /// index above what was purged.
    pub fn append(
        &self,
        group: GroupId,
        records: Vec<Record>,
        done: impl OnDone,
    ) -> Result<(), SubmitError> {
        records.iter().try_for_each(|record| self.check_size(&record.payload))?;
        self.submit(group, Act::Append(records), Box::new(done))
    }

    /// Replaces the group's vote.
    pub fn save_vote(
        &self,
        group: GroupId,
        vote: Bytes,
        done: impl OnDone,
    ) -> Result<(), SubmitError> {
        self.check_size(&vote)?;
        if !self.0.vote_acked_early {
            return self.submit(group, Act::Vote(vote), Box::new(done));
        }
        self.submit(group, Act::Vote(vote), Box::new(drop))?;
        done(Ok(()));
        Ok(())
    }

    /// Replaces the group's committed mark. Lazy: written with the next other operation (or
    /// `close`) and never ahead of entries submitted before it; a crash may bring an older one back.
    pub fn save_committed(&self, group: GroupId, mark: Bytes) -> Result<(), SubmitError> {
        self.check_size(&mark)?;
        self.0.shared.lock().submit_mark(group, mark)
    }

    /// Removes entries above `index`, which must not lie below what was purged.
    pub fn truncate_after(
        &self,
        group: GroupId,
        index: Index,
        done: impl OnDone,
    ) -> Result<(), SubmitError> {
        self.submit(group, Act::Truncate(index), Box::new(done))
    }

    /// Removes entries up to `index`, which a snapshot holds; it may lie beyond the last one. Below
    /// an earlier purge it changes nothing.
    pub fn purge_upto(
        &self,
        group: GroupId,
        index: Index,
        term: Term,
        done: impl OnDone,
    ) -> Result<(), SubmitError> {
        self.submit(group, Act::Purge(index, term), Box::new(done))
    }

    /// Every group that has left something in the log.
    pub fn groups(&self) -> Vec<GroupId> {
        self.0.shared.lock().view.keys().copied().collect()
    }

    /// The entries in `range` that exist, in order, as submitted.
    pub fn read(&self, group: GroupId, range: Range<Index>) -> Vec<Record> {
        self.look(group, |tail| tail.read(&range)).unwrap_or_default()
    }

    /// The last entry's position, or where the group was purged.
    pub fn last(&self, group: GroupId) -> Option<(Index, Term)> {
        self.look(group, Tail::last).flatten()
    }

    /// Up to where the group was purged.
    pub fn purged(&self, group: GroupId) -> Option<(Index, Term)> {
        self.look(group, Tail::purged).flatten()
    }

    /// The group's vote as last submitted.
    pub fn vote(&self, group: GroupId) -> Option<Bytes> {
        self.look(group, |tail| tail.vote().cloned()).flatten()
    }

    /// The group's committed mark as last submitted.
    pub fn committed(&self, group: GroupId) -> Option<Bytes> {
        self.look(group, |tail| tail.committed().cloned()).flatten()
    }

    /// What it has done since it was opened.
    pub fn counts(&self) -> LogCounts {
        self.0.shared.counters.read()
    }

    /// Whether the disk is full. What was taken is kept and votes go on, but the caller should
    /// refuse work now: there is room for little more, and then appends are refused here.
    pub fn is_full(&self) -> bool {
        self.0.shared.space.is_full()
    }

    /// Waits until an append would not be refused as [`SubmitError::Busy`] or
    /// [`SubmitError::Full`]; returns at once when the log has failed or was closed.
    pub async fn room(&self) {
        let mut progress = self.0.progress.clone();
        while self.0.shared.lock().busy() {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes nothing more, waits until all that was taken is durable, and seals the log so that
    /// the next start can tell rot in its last write from an interrupted one.
    pub async fn close(&self) -> Result<(), Arc<LogError>> {
        self.0.shared.lock().closing = true;
        self.0.shared.space.desert();
        self.wake();
        let mut progress = self.0.progress.clone();
        while progress.changed().await.is_ok() {}
        match &self.0.shared.lock().failed {
            Some(error) => Err(Arc::clone(error)),
            None => Ok(()),
        }
    }

    fn check_size(&self, body: &Bytes) -> Result<(), SubmitError> {
        let (got, limit) = (body.len(), self.0.body_bytes_max);
        if got > limit { Err(SubmitError::TooLarge { got, limit }) } else { Ok(()) }
    }

    fn submit(&self, group: GroupId, act: Act, done: Done) -> Result<(), SubmitError> {
        self.0.shared.lock().submit(group, act, done)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        let wake = self.0.wake.lock().unwrap_or_else(PoisonError::into_inner);
        wake.send_if_modified(|count| {
            *count += 1;
            true
        });
    }

    fn look<T>(&self, group: GroupId, ask: impl FnOnce(&Tail<()>) -> T) -> Option<T> {
        self.0.shared.lock().view.get(&group).map(ask)
    }
}

/// Live bodies must fit the segments to come, since they may have to be written again.
fn check_fits(live: &Live, options: &LogOptions) -> Result<(), OpenError> {
    let largest = live.values().map(Tail::largest_body).max().unwrap_or(0);
    let limit = body_bytes_max(options.segment_bytes);
    if largest > limit {
        let least = largest + pen::wide(options.segment_bytes) - limit;
        return Err(OpenError::SegmentBytes { got: options.segment_bytes, least });
    }
    Ok(())
}

fn report(live: &Live) -> BTreeMap<GroupId, RecoveredGroup> {
    let group = |tail: &Tail<u64>| RecoveredGroup {
        vote: tail.vote().cloned(),
        committed: tail.committed().cloned(),
        purged: tail.purged(),
        last: tail.last(),
        entries: tail.len(),
    };
    live.iter().map(|(id, tail)| (*id, group(tail))).collect()
}
