//! Between the handles and the writer: what waits for the disk, and the view
//! that readers see. One mutex guards both, held for moments and never across
//! an await, so that an operation is visible to reads as soon as it is taken.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_types::{GroupId, Index, Term};

use super::counters::Counters;
use super::frame::framed_bytes;
use super::space::Space;
use super::tail::Tail;
use super::{LogError, SubmitError};
use crate::record::Record;

/// One write takes at most this much, plus one operation: a whole replication frame, 20 ms of a
/// disk that writes 200 MB/s. More would make the first of a batch wait for the last.
pub(super) const BATCH_BYTES_MAX: usize = 4 << 20;
/// Appends are refused while this much waits: a replication frame of 4 MiB for each of 16 groups
/// (one a core). Beyond it the disk is seconds behind, and waiting is the caller's decision.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Appends are refused while this many operations wait: 1,024 commands in flight in each of 16
/// groups.
const QUEUE_APPENDS_MAX: usize = 16 << 10;
/// Other operations are refused beyond this: their callers await each before the next, so a few a
/// group wait at most. Reaching it means that a caller does not wait.
const QUEUE_OPERATIONS_MAX: usize = 2 * QUEUE_APPENDS_MAX;

/// Told once, when an operation is durable or the log has failed.
pub(super) type Done = Box<dyn FnOnce(Result<(), Arc<LogError>>) + Send>;

/// An operation's effect on its group.
pub(super) enum Act {
    Append(Vec<Record>),
    Vote(Bytes),
    Truncate(Index),
    Purge(Index, Term),
}

impl Act {
    fn bytes(&self) -> usize {
        match self {
            Self::Append(records) => {
                records.iter().map(|record| framed_bytes(record.payload.len())).sum()
            }
            Self::Vote(vote) => framed_bytes(vote.len()),
            Self::Truncate(_) | Self::Purge(..) => framed_bytes(0),
        }
    }
}

/// An operation that waits for the disk.
pub(super) struct Waiting {
    pub(super) group: GroupId,
    pub(super) act: Act,
    /// None once it was called, which a planted fault does early.
    pub(super) done: Option<Done>,
    bytes: usize,
}

/// What the writer does next.
pub(super) enum Next {
    /// Write these, then each group's newest committed mark.
    Batch(Vec<Waiting>, BTreeMap<GroupId, Bytes>),
    /// Sleep until woken.
    Nothing,
    /// Write these marks, seal, end.
    Close(BTreeMap<GroupId, Bytes>),
}

pub(super) struct Queue {
    pub(super) view: BTreeMap<GroupId, Tail<()>>,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// What the writer has taken and not yet written, bytes.
    writing: usize,
    space: Arc<Space>,
    /// Committed marks not yet written: at most one a group, whatever the rate of commits.
    marks: BTreeMap<GroupId, Bytes>,
    pub(super) failed: Option<Arc<LogError>>,
    pub(super) closing: bool,
    ended: bool,
}

impl Queue {
    /// Whether an append would be refused for some time.
    pub(super) fn busy(&self) -> bool {
        self.crowded() || self.check_space(framed_bytes(0)).is_err()
    }

    fn crowded(&self) -> bool {
        self.bytes >= QUEUE_BYTES_MAX || self.waiting.len() >= QUEUE_APPENDS_MAX
    }

    fn check_space(&self, bytes: usize) -> Result<(), SubmitError> {
        match self.space.for_appends(self.bytes + self.writing) {
            Some(left) if left < bytes => Err(SubmitError::Full { left }),
            Some(_) | None => Ok(()),
        }
    }

    fn open(&self) -> Result<(), SubmitError> {
        match &self.failed {
            Some(error) => Err(SubmitError::Failed(Arc::clone(error))),
            None if self.closing || self.ended => Err(SubmitError::Closed),
            None => Ok(()),
        }
    }

    /// Takes an operation, or says why not. The view has it at once.
    pub(super) fn submit(
        &mut self,
        group: GroupId,
        act: Act,
        done: Done,
    ) -> Result<(), SubmitError> {
        self.open()?;
        let busy = match &act {
            Act::Append(_) => self.crowded(),
            Act::Vote(_) | Act::Truncate(_) | Act::Purge(..) => {
                self.waiting.len() >= QUEUE_OPERATIONS_MAX
            }
        };
        if busy {
            let (queued, queued_bytes) = (self.waiting.len(), self.bytes);
            return Err(SubmitError::Busy { queued, queued_bytes });
        }
        let bytes = act.bytes();
        if matches!(act, Act::Append(_)) {
            self.check_space(bytes)?;
        }
        show(self.view.entry(group).or_default(), group, &act)?;
        self.bytes += bytes;
        self.waiting.push_back(Waiting { group, act, done: Some(done), bytes });
        Ok(())
    }

    /// Takes a committed mark in place of the one that waits.
    pub(super) fn submit_mark(&mut self, group: GroupId, mark: Bytes) -> Result<(), SubmitError> {
        self.open()?;
        self.view.entry(group).or_default().set_committed(mark.clone(), ());
        self.marks.insert(group, mark);
        Ok(())
    }

    /// What the writer does next.
    pub(super) fn next(&mut self) -> Next {
        self.writing = 0;
        if self.waiting.is_empty() {
            if !self.closing {
                return Next::Nothing;
            }
            return Next::Close(std::mem::take(&mut self.marks));
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES_MAX
            && let Some(waiting) = self.waiting.pop_front()
        {
            bytes += waiting.bytes;
            batch.push(waiting);
        }
        self.bytes -= bytes;
        self.writing = bytes;
        // A mark must not overtake the entries that were submitted before it.
        let marks =
            if self.waiting.is_empty() { std::mem::take(&mut self.marks) } else { BTreeMap::new() };
        Next::Batch(batch, marks)
    }
}

/// Applies an operation to the view, or says why it does not follow.
fn show(tail: &mut Tail<()>, group: GroupId, act: &Act) -> Result<(), SubmitError> {
    let last = tail.last().map_or(Index(0), |(index, _)| index);
    let refuse = |what: String| Err(SubmitError::OutOfOrder { group, what, last });
    match act {
        Act::Append(records) => {
            let gap = records.windows(2).find(|pair| pair[1].index.0 != pair[0].index.0 + 1);
            if let Some(pair) = gap {
                return refuse(format!("entry {} behind {}", pair[1].index, pair[0].index));
            }
            if let Some(first) = records.first().filter(|first| !tail.follows(first.index)) {
                return refuse(format!("entry {}", first.index));
            }
            for record in records {
                tail.append(record.clone(), ());
            }
        }
        Act::Vote(vote) => tail.set_vote(vote.clone(), ()),
        Act::Truncate(index) => {
            if !tail.can_truncate(*index) {
                return refuse(format!("truncation after {index}, which was purged,"));
            }
            tail.truncate_after(*index);
        }
        Act::Purge(index, term) => tail.purge_upto(*index, *term, ()),
    }
    Ok(())
}

/// The queue, shared by handles and writer.
pub(super) struct Shared {
    queue: Mutex<Queue>,
    pub(super) counters: Counters,
    pub(super) space: Arc<Space>,
}

impl Shared {
    pub(super) fn new(view: BTreeMap<GroupId, Tail<()>>, space: Arc<Space>) -> Self {
        let queue = Queue {
            view,
            waiting: VecDeque::new(),
            bytes: 0,
            writing: 0,
            space: Arc::clone(&space),
            marks: BTreeMap::new(),
            failed: None,
            closing: false,
            ended: false,
        };
        Self { queue: Mutex::new(queue), counters: Counters::default(), space }
    }

    /// A panic elsewhere does not harm what is guarded: each section is complete in itself.
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer ends, with or without an error: nothing is taken any more. Returns what waited.
    pub(super) fn end(&self, error: Option<&Arc<LogError>>) -> Vec<Waiting> {
        let mut queue = self.lock();
        queue.ended = true;
        if let Some(error) = error {
            queue.failed = Some(Arc::clone(error));
        }
        queue.bytes = 0;
        queue.waiting.drain(..).collect()
    }
}
