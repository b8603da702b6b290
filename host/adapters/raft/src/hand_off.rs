//! Leadership that moves without waiting for a timer.
//!
//! Planned: the leader asks a voter to campaign at once and waits until it leads.
//! After a death: when the leader's process is known to be gone, every survivor
//! tells its own openraft that the same next voter was handed the leadership.
//! That voter campaigns at once and the others vote for it although the dead
//! leader's lease still runs. Terms, votes and the log check are untouched, so a
//! wrong guess costs an election and never safety; it does void leases, which is
//! why reads here never rely on them.

use std::sync::atomic::Ordering;

use openraft::ServerState;
use openraft::raft::TransferLeaderRequest;
use openraft_rt::{AsyncRuntime, WatchReceiver};
use quorate_types::{Disk, NodeId};

use crate::instance::Instance;
use crate::raft::Raft;
use crate::types::{Vote, leader_of};

/// Entries that a voter may lack and be taken for caught up: what is under way at a busy leader.
const LAG_MAX: u64 = 1_024;

/// Why leadership did not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This node does not lead.
    #[error("this node does not lead the group")]
    NotLeader,
    /// Only a voter can lead.
    #[error("{0} is not a voter of the group")]
    NotVoter(NodeId),
    /// It lacks more of the log than a moment's worth. Nothing was begun.
    #[error("{0} is not caught up")]
    Behind(NodeId),
    /// It did not take over in time.
    #[error("{0} did not take over in time")]
    Late(NodeId),
    /// The group has stopped on this node.
    #[error("the group has stopped on this node")]
    Stopped,
}

impl<RT: AsyncRuntime, D: Disk> Raft<RT, D> {
    /// Hands leadership to this voter, or to the one that has most of the log where none is named.
    /// To hand it to itself is done already, and so it is where nobody else votes.
    pub async fn hand_over(&self, to: Option<NodeId>) -> Result<(), TransferError> {
        if !self.status().leads {
            return Err(TransferError::NotLeader);
        }
        let next = match to {
            Some(to) => Some(to),
            None => {
                let instance = self.inner.slot.current();
                instance.and_then(|instance| best_successor(&instance, self.inner.node))
            }
        };
        match next {
            Some(next) if next != self.inner.node => self.transfer_to(next).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Hands leadership to this voter if it is caught up and a quorum answers; where it is not,
    /// nothing is begun, and whoever leads goes on.
    pub async fn hand_over_if_ready(&self, to: NodeId) -> Result<(), TransferError> {
        let instance = self.inner.slot.current().ok_or(TransferError::Stopped)?;
        let ready = {
            let metrics = instance.metrics();
            let metrics = metrics.borrow_watched();
            let Some(replication) = metrics.replication.as_ref() else {
                return Err(TransferError::NotLeader);
            };
            let matching = replication.get(&to.0).and_then(|id| id.as_ref().map(|id| id.index));
            let last = metrics.last_log_index.unwrap_or(0);
            let settled = metrics.membership_config.membership().get_joint_config().len() == 1;
            settled && matching.is_some_and(|matching| matching + LAG_MAX >= last)
        };
        if ready { self.transfer_to(to).await } else { Err(TransferError::Behind(to)) }
    }

    /// Hands leadership to another voter and waits until it leads. Proposals meanwhile are refused
    /// with its name.
    pub async fn transfer_to(&self, to: NodeId) -> Result<(), TransferError> {
        let instance = self.inner.slot.current().ok_or(TransferError::Stopped)?;
        let mut server = instance.server_metrics();
        {
            let server = server.borrow_watched();
            if server.state != ServerState::Leader {
                return Err(TransferError::NotLeader);
            }
            if !server.membership_config.voter_ids().any(|voter| voter == to.0) {
                return Err(TransferError::NotVoter(to));
            }
        }
        instance.trigger().transfer_leader(to.0).await.map_err(|_ended| TransferError::Stopped)?;
        let moved = server.wait_until(|server| server.current_leader == Some(to.0));
        // The voter has an election timeout to flush its log, and one to be elected.
        let patience = self.inner.profile.timing().election_max() * 2;
        match RT::timeout(patience, moved).await {
            Ok(Ok(_leads)) => Ok(()),
            Ok(Err(_ended)) => Err(TransferError::Stopped),
            Err(_late) => {
                // openraft takes no proposal any more once it has begun to hand over, though
                // nobody took it: only a new instance leads again.
                self.inner.flags.restart.store(true, Ordering::Release);
                Err(TransferError::Late(to))
            }
        }
    }
}

/// On a leader of several voters: the one that has most of its log.
pub(crate) fn best_successor<RT: AsyncRuntime, D: Disk>(
    instance: &Instance<RT, D>,
    own: NodeId,
) -> Option<NodeId> {
    let metrics = instance.metrics();
    let metrics = metrics.borrow_watched();
    let replication = metrics.replication.as_ref()?;
    metrics
        .membership_config
        .voter_ids()
        .filter(|voter| *voter != own.0)
        .filter_map(|voter| Some((replication.get(&voter)?.map(|id| id.index), voter)))
        .max_by_key(|(matching, voter)| (*matching, std::cmp::Reverse(*voter)))
        .map(|(_matching, voter)| NodeId(voter))
}

/// Hands over for a leader that has died, if `dead` is one that this node follows.
pub(crate) fn after_death<RT: AsyncRuntime, D: Disk>(raft: &Raft<RT, D>, dead: NodeId) {
    let Some(instance) = raft.inner.slot.current() else { return };
    let (vote, next): (Vote, _) = {
        let server = instance.server_metrics();
        let server = server.borrow_watched();
        if leader_of(&server.vote) != Some(dead) {
            return;
        }
        let voters: Vec<u64> = server.membership_config.voter_ids().collect();
        (server.vote, next_voter(voters, dead.0))
    };
    let Some(next) = next else { return };
    let group = raft.inner.group;
    tracing::info!(%group, %dead, next, "the leader is dead; hands over");
    drop(RT::spawn(async move {
        let request = TransferLeaderRequest::new(vote, next, None);
        match instance.handle_transfer_leader(request).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::info!(%group, %error, "hand-over not taken"),
            Err(error) => tracing::info!(%group, %error, "hand-over after the end"),
        }
    }));
}

/// The voter after `dead` in the ring of ids: the same wherever it is asked.
fn next_voter(mut voters: Vec<u64>, dead: u64) -> Option<u64> {
    voters.retain(|voter| *voter != dead);
    voters.sort_unstable();
    voters.iter().copied().find(|voter| *voter > dead).or_else(|| voters.first().copied())
}

#[cfg(test)]
mod tests {
    use super::next_voter;

    #[test]
    fn survivors_agree_on_the_next_voter() {
        assert_eq!(next_voter(vec![3, 1, 2], 2), Some(3));
        assert_eq!(next_voter(vec![1, 2, 3], 3), Some(1));
        assert_eq!(next_voter(vec![1, 3], 2), Some(3), "the dead one was removed meanwhile");
        assert_eq!(next_voter(vec![2], 2), None);
    }
}
