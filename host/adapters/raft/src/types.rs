//! openraft's type parameters, by hand: `declare_raft_types!` takes no generics,
//! and ours has one, the runtime. Everything that is stored or sent stays
//! concrete, so a log written under tokio is read in simulation and back.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use openraft::impls::{BoxedErrorSource, InlineBatch, OneshotResponder};
use openraft::vote::leader_id_std;
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig};
use openraft_rt::{AsyncRuntime, Mpsc, Oneshot};
use quorate_ledger::Outcome;
use quorate_types::{Index, NodeId, Term};

/// One leader a term (Raft paper, 5.2); openraft's default would allow several.
pub(crate) type LeaderId = leader_id_std::LeaderId<u64, u64>;
pub(crate) type CommittedLeaderId = leader_id_std::CommittedLeaderId<u64>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Payload = EntryPayload<Framed, u64, ()>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<u64, ()>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, ()>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, ()>;
pub(crate) type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, (), Bytes>;

pub(crate) type OneshotTx<RT, T> = <<RT as AsyncRuntime>::Oneshot as Oneshot>::Sender<T>;
pub(crate) type OneshotRx<RT, T> = <<RT as AsyncRuntime>::Oneshot as Oneshot>::Receiver<T>;
pub(crate) type MpscTx<RT, T> = <<RT as AsyncRuntime>::Mpsc as Mpsc>::Sender<T>;
pub(crate) type MpscRx<RT, T> = <<RT as AsyncRuntime>::Mpsc as Mpsc>::Receiver<T>;

/// A command as it lies in a record: two bytes of head, then the ledger's entry
/// ([`crate::record`]). Framed once, when proposed, so that the log, the wire
/// and the state machine share one allocation.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Framed(pub(crate) Bytes);

impl fmt::Debug for Framed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Framed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The type config. The runtime is only named, never held, so every bound is
/// met whatever `RT` is.
pub(crate) struct Tc<RT>(PhantomData<fn() -> RT>);

impl<RT> fmt::Debug for Tc<RT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tc")
    }
}

impl<RT> Clone for Tc<RT> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<RT> Copy for Tc<RT> {}

impl<RT> Default for Tc<RT> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<RT> PartialEq for Tc<RT> {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl<RT> Eq for Tc<RT> {}

impl<RT> PartialOrd for Tc<RT> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<RT> Ord for Tc<RT> {
    fn cmp(&self, _other: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl<RT: AsyncRuntime> RaftTypeConfig for Tc<RT> {
    type D = Framed;
    /// Blank and membership entries have no outcome.
    type R = Option<Outcome>;
    type NodeId = u64;
    /// Addresses belong to the transport.
    type Node = ();
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = RT;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

/// openraft numbers entries from 0; everywhere else in this workspace the first
/// entry is 1 and 0 means none.
pub(crate) fn index_of(theirs: u64) -> Index {
    Index(theirs + 1)
}

/// The index of a log id, 0 where there is none.
pub(crate) fn index_or_none(id: Option<&LogId>) -> Index {
    id.map_or(Index(0), |id| index_of(id.index))
}

/// openraft's log id of our (index, term); none for index 0.
pub(crate) fn log_id(index: Index, term: Term) -> Option<LogId> {
    let theirs = index.0.checked_sub(1)?;
    Some(LogId::new(CommittedLeaderId::new(term.0), theirs))
}

/// The term in which an entry was proposed.
pub(crate) fn term_of(id: &LogId) -> Term {
    Term(id.leader_id.term)
}

/// Whom a committed vote names as leader.
pub(crate) fn leader_of(vote: &Vote) -> Option<NodeId> {
    vote.committed.then_some(NodeId(vote.leader_id.voted_for))
}

/// Locks a mutex that is never held across an await. A panic elsewhere does not
/// make what it guards worse: every critical section here is complete in itself.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
