//! Answers nodes whose log is damaged, from this node's own log.

use std::sync::{Arc, OnceLock};

use openraft_rt_tokio::TokioRuntime;
use quorate_raft::log_vote;
use quorate_storage::{Log, SnapshotMeta, Snapshots};
use quorate_types::{Disk, GroupId, Inbox, Index, Lane, NodeId, Term, Wire, WireEvent};
use tokio::sync::Mutex;

use super::{Entry, PIECE_BYTES, Piece, Standing, Word};

/// Who votes in a group.
type Voters = Box<dyn Fn(GroupId) -> Vec<NodeId> + Send + Sync>;

struct Inner<D: Disk, W> {
    log: Log<TokioRuntime, D>,
    wire: OnceLock<W>,
    snapshots: Snapshots<D>,
    voters: OnceLock<Voters>,
    /// The snapshot that was last asked for: its pieces are asked for one after the other.
    read: Mutex<Option<(GroupId, SnapshotMeta, bytes::Bytes)>>,
}

/// Clones share it.
pub(crate) struct Pharmacy<D: Disk, W>(Arc<Inner<D, W>>);

impl<D: Disk, W> Clone for Pharmacy<D, W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Disk, W: Wire> Pharmacy<D, W> {
    pub(crate) fn new(log: Log<TokioRuntime, D>, snapshots: Snapshots<D>) -> Self {
        let (wire, voters, read) = (OnceLock::new(), OnceLock::new(), Mutex::default());
        Self(Arc::new(Inner { log, wire, snapshots, voters, read }))
    }

    /// From now on it is known who votes; until then nobody is answered, and asks again.
    pub(crate) fn open(
        &self,
        wire: W,
        voters: impl Fn(GroupId) -> Vec<NodeId> + Send + Sync + 'static,
    ) {
        let voters: Voters = Box::new(voters);
        let fresh = self.0.wire.set(wire).is_ok() && self.0.voters.set(voters).is_ok();
        assert!(fresh, "opened once");
    }

    async fn serve(&self, from: NodeId, word: Word) {
        let Some(wire) = self.0.wire.get() else { return };
        if let Some(answer) = self.answer(word).await
            && let Err(error) = wire.send(from, Lane::Blob, answer.write())
        {
            tracing::debug!(%from, %error, "an answer about the log was not taken");
        }
    }

    async fn answer(&self, word: Word) -> Option<Word> {
        match word {
            Word::Ask => {
                let voters = self.0.voters.get()?;
                let groups = self.0.log.groups().into_iter();
                Some(Word::Stand(groups.map(|group| self.standing(group, voters)).collect()))
            }
            Word::WantEntries { group, after } => {
                Some(Word::Entries { group, after, found: self.entries(group, after) })
            }
            Word::WantSnapshot { group, offset } => {
                Some(Word::Snapshot { group, offset, found: self.piece(group, offset).await })
            }
            // Answers to questions of a life that is over.
            Word::Stand(_) | Word::Entries { .. } | Word::Snapshot { .. } => None,
        }
    }

    fn standing(&self, group: GroupId, voters: &Voters) -> Standing {
        let log = &self.0.log;
        let vote = log.vote(group).and_then(|vote| log_vote(&vote).ok());
        Standing {
            group,
            term: vote.map_or(Term(0), |(term, ..)| term),
            last: log.last(group),
            purged: log.purged(group),
            voters: voters(group),
        }
    }

    fn entries(&self, group: GroupId, after: Option<(Index, Term)>) -> Option<Vec<Entry>> {
        let log = &self.0.log;
        let from = match after {
            None if log.purged(group).is_some() => return None,
            None => Index(0),
            Some((index, term)) => {
                let here = log.read(group, index..Index(index.0 + 1));
                let here = here.first().map(|record| (record.index, record.term));
                if here.or_else(|| log.purged(group)) != Some((index, term)) {
                    return None;
                }
                Index(index.0 + 1)
            }
        };
        let mut bytes = 0;
        let records = log.read(group, from..Index(from.0.saturating_add(4_096)));
        let fits = |record: &quorate_storage::Record| {
            let first = bytes == 0;
            bytes += record.payload.len() + 32;
            first || bytes <= PIECE_BYTES
        };
        let entry = |record: quorate_storage::Record| Entry {
            index: record.index,
            term: record.term,
            payload: record.payload,
        };
        Some(records.into_iter().take_while(fits).map(entry).collect())
    }

    async fn piece(&self, group: GroupId, offset: u64) -> Option<Piece> {
        let mut read = self.0.read.lock().await;
        if offset == 0 || read.as_ref().is_none_or(|(of, ..)| *of != group) {
            let latest = self.0.snapshots.latest(group).await;
            let latest = latest.map_err(|error| tracing::error!(%error, "no snapshot to give"));
            *read = latest.ok().flatten().map(|(meta, body)| (group, meta, body));
        }
        let (_, meta, body) = read.as_ref()?;
        let at = usize::try_from(offset).unwrap_or(usize::MAX).min(body.len());
        let bytes = body.slice(at..body.len().min(at + PIECE_BYTES));
        let piece = Piece {
            index: meta.index,
            term: meta.term,
            membership: meta.membership.clone(),
            total: u64::try_from(body.len()).unwrap_or(u64::MAX),
            offset,
            bytes,
        };
        if at + piece.bytes.len() == body.len() {
            // The last one; what was read need not be held for the next node that asks.
            *read = None;
        }
        Some(piece)
    }
}

/// Takes this room's questions out of what arrives, and passes the rest on.
pub(crate) struct Counter<I, D: Disk, W> {
    pub(crate) pharmacy: Pharmacy<D, W>,
    pub(crate) inside: I,
}

impl<I: Inbox, D: Disk, W: Wire> Inbox for Counter<I, D, W> {
    async fn deliver(&self, event: WireEvent) {
        if let WireEvent::Frame { from, lane: Lane::Blob, frame } = &event
            && let Some(word) = Word::read(frame)
        {
            return self.pharmacy.serve(*from, word).await;
        }
        self.inside.deliver(event).await;
    }
}
