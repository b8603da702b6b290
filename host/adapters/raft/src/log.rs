//! openraft's log store over the node's write-ahead log.
//!
//! What is submitted can be read at once and is *acknowledged* only when it is
//! durable: appends through openraft's callback, votes before the call returns.
//! The committed position is saved without waiting; after a crash it may be old,
//! never wrong.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use openraft_rt::{AsyncRuntime, Instant as _, Oneshot, OneshotSender};
use quorate_storage::{Log, LogError, Record, SubmitError};
use quorate_types::limits::{COMMAND_BYTES_MAX, FRAME_BYTES_MAX};
use quorate_types::{Disk, GroupId, Index, NodeId};

use crate::extent::{Extent, Unsynced};
use crate::record;
use crate::types::{Entry, LogId, Tc, Vote, index_of, index_or_none, locked, log_id, term_of};

/// Commands in one append, bytes: what is read for a follower at once. A single larger command
/// goes alone.
const APPEND_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(APPEND_BYTES_MAX <= COMMAND_BYTES_MAX);
// The rest of an append's frame: 24 bytes an entry, and the head.
const _: () = assert!(COMMAND_BYTES_MAX + (64 << 10) < FRAME_BYTES_MAX);

/// One group's part of the log.
pub(crate) struct LogStore<RT: AsyncRuntime, D: Disk> {
    log: Log<RT, D>,
    group: GroupId,
    extent: Arc<Mutex<Extent>>,
    unsynced: Arc<Mutex<Unsynced<RT::Instant>>>,
}

impl<RT: AsyncRuntime, D: Disk> Clone for LogStore<RT, D> {
    fn clone(&self) -> Self {
        let (extent, unsynced) = (Arc::clone(&self.extent), Arc::clone(&self.unsynced));
        Self { log: self.log.clone(), group: self.group, extent, unsynced }
    }
}

impl<RT: AsyncRuntime, D: Disk> LogStore<RT, D> {
    pub(crate) fn new(log: Log<RT, D>, group: GroupId) -> Self {
        let mut extent = Extent::default();
        let first = log.purged(group).map_or(Index(1), |(index, _term)| Index(index.0 + 1));
        let end = log.last(group).map_or(Index(0), |(index, _term)| Index(index.0 + 1));
        if first < end {
            for record in log.read(group, first..end) {
                extent.append(record.index, record.payload.len());
            }
        }
        Self { log, group, extent: Arc::new(Mutex::new(extent)), unsynced: Arc::default() }
    }

    /// Bytes of the entries after this index.
    pub(crate) fn bytes_after(&self, index: Index) -> u64 {
        locked(&self.extent).bytes_after(index)
    }

    /// The last entry before those that have at most so many bytes together.
    pub(crate) fn last_beyond(&self, bytes_kept: u64) -> Option<Index> {
        locked(&self.extent).last_beyond(bytes_kept)
    }

    /// How long the oldest append has waited for the disk.
    pub(crate) fn unsynced_for(&self) -> Option<Duration> {
        let oldest = locked(&self.unsynced).oldest()?;
        Some(RT::Instant::now().saturating_duration_since(oldest))
    }

    /// Waits until everything submitted so far is durable. A new openraft instance takes all that
    /// it can read for durable, so none may begin before.
    pub(crate) async fn settle(&mut self) -> io::Result<()> {
        match self.read_vote().await? {
            Some(vote) => self.save_vote(&vote).await,
            None => Ok(()),
        }
    }

    /// Whether the disk is full: then entries of others are not taken either.
    pub(crate) fn is_full(&self) -> bool {
        self.log.is_full()
    }

    /// Whether an entry here, applied or not, makes this node a member.
    pub(crate) fn admits(&self, node: NodeId) -> bool {
        let from = self.log.purged(self.group).map_or(Index(1), |(index, _)| Index(index.0 + 1));
        let mut records = self.log.read(self.group, from..self.end()).into_iter();
        records.any(|record| record::admits(&record.payload, node))
    }

    fn entries(&self, from: Index, to: Index) -> io::Result<Vec<Entry>> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.log.read(self.group, from..to).into_iter().map(entry).collect()
    }

    fn end(&self) -> Index {
        let last = self.log.last(self.group).map_or(Index(0), |(index, _term)| index);
        Index(last.0 + 1)
    }

    fn last_purged(&self) -> Option<LogId> {
        self.log.purged(self.group).and_then(|(index, term)| log_id(index, term))
    }

    fn last(&self) -> Option<LogId> {
        let last = self.log.last(self.group).and_then(|(index, term)| log_id(index, term));
        last.or_else(|| self.last_purged())
    }
}

fn entry(record: Record) -> io::Result<Entry> {
    let id = log_id(record.index, record.term)
        .ok_or_else(|| io::Error::other("the log has an entry at index 0"))?;
    let payload = record::decode_payload(record.payload).map_err(io::Error::other)?;
    Ok(Entry { log_id: id, payload })
}

/// Runs a log operation and waits until it is durable.
async fn durable<RT: AsyncRuntime>(
    submit: impl FnOnce(Box<dyn FnOnce(Result<(), Arc<LogError>>) + Send>) -> Result<(), SubmitError>,
) -> io::Result<()> {
    let (done, finished) = RT::Oneshot::channel();
    submit(Box::new(move |result| {
        // Whoever waited may have gone; then nobody needs to know.
        drop(done.send(result));
    }))
    .map_err(io::Error::other)?;
    match finished.await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_dropped) => Err(io::Error::other("the log has stopped")),
    }
}

impl<RT: AsyncRuntime, D: Disk> RaftLogReader<Tc<RT>> for LogStore<RT, D> {
    async fn try_get_log_entries<B: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: B,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(first) => index_of(*first),
            Bound::Excluded(before) => index_of(*before + 1),
            Bound::Unbounded => index_of(0),
        };
        let to = match range.end_bound() {
            Bound::Included(last) => index_of(*last + 1),
            Bound::Excluded(end) => index_of(*end),
            Bound::Unbounded => self.end(),
        };
        self.entries(from, to)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let records = self.log.read(self.group, index_of(start)..index_of(end));
        let mut bytes = 0;
        let fits = |record: &Record| {
            let first = bytes == 0;
            bytes += record.payload.len();
            first || bytes <= APPEND_BYTES_MAX
        };
        records.into_iter().take_while(fits).map(entry).collect()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = self.log.vote(self.group);
        vote.map(|bytes| record::decode_vote(&bytes)).transpose().map_err(io::Error::other)
    }
}

impl<RT: AsyncRuntime, D: Disk> RaftLogStorage<Tc<RT>> for LogStore<RT, D> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Tc<RT>>, io::Error> {
        Ok(LogState { last_purged_log_id: self.last_purged(), last_log_id: self.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = record::encode_vote(vote);
        durable::<RT>(|done| self.log.save_vote(self.group, bytes, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            let bytes = record::encode_committed(&committed);
            self.log.save_committed(self.group, bytes).map_err(io::Error::other)?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let Some(bytes) = self.log.committed(self.group) else { return Ok(None) };
        let committed = record::decode_committed(&bytes).map_err(io::Error::other)?;
        // Saved beside the entries, not with them: never believe in more than is there.
        Ok(Some(committed).min(self.last()))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Tc<RT>>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(|entry| Record {
            index: index_of(entry.log_id.index),
            term: term_of(&entry.log_id),
            payload: record::encode_payload(&entry.payload),
        });
        let records: Vec<Record> = records.collect();
        let sizes: Vec<_> =
            records.iter().map(|record| (record.index, record.payload.len())).collect();
        let number = locked(&self.unsynced).begin(RT::Instant::now());
        let callback = Arc::new(Mutex::new(Some(callback)));
        loop {
            self.log.room().await;
            let (callback, unsynced) = (Arc::clone(&callback), Arc::clone(&self.unsynced));
            let submitted = self.log.append(self.group, records.clone(), move |result| {
                locked(&unsynced).end(number);
                if let Some(callback) = locked(&callback).take() {
                    callback.io_completed(result.map_err(io::Error::other));
                }
            });
            match submitted {
                // Another group took the room.
                Err(SubmitError::Busy { .. } | SubmitError::Full { .. }) => {}
                Ok(()) => {
                    let mut extent = locked(&self.extent);
                    sizes.into_iter().for_each(|(index, bytes)| extent.append(index, bytes));
                    return Ok(());
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let index = index_or_none(last.as_ref());
        locked(&self.extent).truncate_after(index);
        durable::<RT>(|done| self.log.truncate_after(self.group, index, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        // Nothing waits for it: what comes back after a crash is purged again.
        let (index, term) = (index_of(upto.index), term_of(&upto));
        locked(&self.extent).purge_upto(index);
        self.log.purge_upto(self.group, index, term, |_later| {}).map_err(io::Error::other)
    }
}
