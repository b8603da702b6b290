//! Writes and linearizable reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use openraft::errors::{ClientWriteError, ForwardToLeader, RaftError};
use openraft_rt::AsyncRuntime;
use quorate_ledger::Outcome;
use quorate_types::limits::COMMAND_BYTES_MAX;
use quorate_types::{Disk, Index, NodeId};

use crate::instance::Instance;
use crate::raft::Raft;
use crate::types::{Framed, LogId, Tc, index_of};

/// Proposals and reads that may wait for an answer at once. At 20,000 commits a second and 1 s of a
/// stalled quorum this is a fifth of what would come: the rest is told to come again.
pub(crate) const WAITING_MAX: usize = 4_096;

/// What a write comes to: where it stands in the log, and its outcome.
pub type Proposed = Result<(Index, Outcome), ProposeError>;

/// Why a proposal has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not taken: another node leads, or none that is known.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does.
        leader: Option<NodeId>,
    },
    /// Not taken: too many wait already.
    #[error("{0} proposals and reads wait already")]
    Busy(usize),
    /// Not taken: the disk is full. It works again when there is space.
    #[error("the disk is full")]
    DiskFull,
    /// Not taken: larger than a command may be.
    #[error("a command of {got} bytes; the limit is {limit}")]
    TooLarge {
        /// Its size, bytes.
        got: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// Not taken: the group has stopped on this node.
    #[error("the group has stopped on this node")]
    Stopped,
    /// Taken, and then this node ceased to lead: it may yet be committed, or be lost.
    #[error("this node ceased to lead; the proposal may or may not be committed")]
    Unknown,
}

/// Why a read may not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another node leads, or none that is known.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does.
        leader: Option<NodeId>,
    },
    /// This node led, and no quorum confirmed in time that it still does.
    #[error("no quorum confirms that this node leads")]
    NoQuorum,
    /// Too many wait already.
    #[error("{0} proposals and reads wait already")]
    Busy(usize),
    /// The group has stopped on this node.
    #[error("the group has stopped on this node")]
    Stopped,
}

impl<RT: AsyncRuntime, D: Disk> Raft<RT, D> {
    /// Proposes a command and waits until it is committed on a quorum and applied here. `view`
    /// shows it from then on.
    pub async fn propose(&self, command: Bytes) -> Proposed {
        let framed = frame(&command)?;
        let instance = self.leading_instance()?;
        let _places = Places::take(&self.inner.waiting, 1).map_err(ProposeError::Busy)?;
        match instance.client_write(framed).await {
            Ok(response) => proposed(&response.log_id, response.data),
            Err(RaftError::APIError(error)) => Err(refused(error)),
            Err(RaftError::Fatal(_ended)) => Err(ProposeError::Unknown),
        }
    }

    /// Proposes commands together, in order, and waits for all of them; each has its own outcome.
    pub async fn propose_batch(&self, commands: &[Bytes]) -> Result<Vec<Proposed>, ProposeError> {
        let framed: Vec<Framed> = commands.iter().map(frame).collect::<Result<_, _>>()?;
        let instance = self.leading_instance()?;
        let places = Places::take(&self.inner.waiting, commands.len());
        let _places = places.map_err(ProposeError::Busy)?;
        let mut answers = Vec::with_capacity(framed.len());
        if let Ok(mut written) = instance.client_write_many(framed).await {
            while let Some(Ok(answer)) = written.next().await {
                answers.push(match answer {
                    Ok(response) => proposed(&response.log_id, response.response),
                    Err(error) => Err(refused(error)),
                });
            }
        }
        // What the instance did not answer before it ended may have been taken.
        answers.resize(commands.len(), Err(ProposeError::Unknown));
        Ok(answers)
    }

    /// On the leader: waits until a quorum has confirmed that this node still leads, and until all
    /// that was committed before the call is applied here (`ReadIndex`, Raft thesis 6.4). Leases
    /// are never trusted: a hand-off voids them. A read of `view` after it is linearizable. Reads
    /// that wait together share one confirmation.
    pub async fn read_barrier(&self) -> Result<Index, ReadError> {
        let _places = Places::take(&self.inner.waiting, 1).map_err(ReadError::Busy)?;
        self.inner.reads.confirm().await
    }

    fn leading_instance(&self) -> Result<Instance<RT, D>, ProposeError> {
        let instance = self.inner.slot.current().ok_or_else(|| {
            if self.inner.slot.has_ended() {
                ProposeError::Stopped
            } else {
                ProposeError::NotLeader { leader: None }
            }
        })?;
        // What room there is serves elections and what was taken before.
        if self.inner.log.is_full() && self.status().leads {
            return Err(ProposeError::DiskFull);
        }
        Ok(instance)
    }
}

fn frame(command: &Bytes) -> Result<Framed, ProposeError> {
    let (got, limit) = (command.len(), COMMAND_BYTES_MAX);
    if got > limit {
        return Err(ProposeError::TooLarge { got, limit });
    }
    Ok(Framed::command(command))
}

fn proposed(id: &LogId, outcome: Option<Outcome>) -> Proposed {
    // A command always has an outcome.
    outcome.map(|outcome| (index_of(id.index), outcome)).ok_or(ProposeError::Unknown)
}

fn refused<RT: AsyncRuntime>(error: ClientWriteError<Tc<RT>>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(to) => ProposeError::NotLeader { leader: leader(&to) },
        ClientWriteError::LogEntryDiscarded(_)
        | ClientWriteError::ChangeMembershipError(_)
        | ClientWriteError::PreconditionFailed(_) => ProposeError::Unknown,
    }
}

fn leader<RT: AsyncRuntime>(to: &ForwardToLeader<Tc<RT>>) -> Option<NodeId> {
    to.leader_id.map(NodeId)
}

/// Places among those that wait, given back when dropped.
struct Places {
    taken: Arc<AtomicUsize>,
    count: usize,
}

impl Places {
    fn take(taken: &Arc<AtomicUsize>, count: usize) -> Result<Self, usize> {
        let before = taken.fetch_add(count, Ordering::Relaxed);
        let places = Self { taken: Arc::clone(taken), count };
        if before + count <= WAITING_MAX { Ok(places) } else { Err(before) }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.count, Ordering::Relaxed);
    }
}
