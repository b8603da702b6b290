//! Who belongs to a group: learners come and go one at a time, voters change in one
//! joint step (Ongaro's thesis, 4.3; openraft has the rules).
//!
//! What a change needs is checked before it is proposed, so that a refusal leaves
//! everything as it was: the set is odd, its nodes are admitted, learners of the
//! group already, and not so far behind that the new quorum would wait for them. A
//! leader that is not in the new set hands over first, for it would otherwise end by
//! leaving the group without a leader. A joint step that its leader did not live to
//! finish is finished by the next one (`supervisor`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft_rt::{AsyncRuntime, Select2, WatchReceiver};
use quorate_types::{Disk, NodeId};

use crate::hand_off::TransferError;
use crate::instance::Instance;
use crate::raft::Raft;
use crate::types::Tc;

/// Voters of a group. Seven survive three losses; more only slow every commit.
pub const VOTERS_MAX: usize = 7;

/// A learner this close to the leader's log becomes a voter: at 50,000 entries a second it is 20 ms
/// behind.
const LAG_ENTRIES_MAX: u64 = 1_024;

/// How long a change waits for new voters to come that close.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How long a change waits for a quorum.
const COMMIT: Duration = Duration::from_secs(10);

/// Why a group's members did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// Another node leads, or none that is known.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does.
        leader: Option<NodeId>,
    },
    /// A set of an even size loses as few nodes as the next smaller one and has more to lose.
    #[error("{0} voters survive no more losses than {smaller}; name an odd number", smaller = .0 - 1)]
    Even(usize),
    /// A group without voters could never decide anything again.
    #[error("a group without voters decides nothing any more; name at least one")]
    Empty,
    /// More than a group may have.
    #[error("{got} voters; a group has at most {VOTERS_MAX}")]
    TooMany {
        /// How many were named.
        got: usize,
    },
    /// The list of members does not name it.
    #[error("{0} is not a member of the cluster; add it first")]
    Unadmitted(NodeId),
    /// It is not a learner of this group (yet).
    #[error("{0} does not follow the group yet; it is added when it can be reached")]
    Unknown(NodeId),
    /// It would hold up every commit until it has caught up.
    #[error("{node} is {entries} entries behind; try again when it has caught up")]
    Behind {
        /// Which.
        node: NodeId,
        /// How far.
        entries: u64,
    },
    /// A voter leaves by a new set of voters first.
    #[error("{0} is a voter of the group; set the voters without it first")]
    Voter(NodeId),
    /// One change at a time.
    #[error("another change of the group's members is under way; wait for its end")]
    UnderWay,
    /// It may be committed yet, or be lost.
    #[error("no quorum has confirmed the change; look at the voters before trying again")]
    NoQuorum,
    /// The group has stopped on this node.
    #[error("the group has stopped on this node")]
    Stopped,
}

/// That a change is under way on this node; given back when dropped.
pub(crate) struct Turn(Arc<AtomicBool>);

impl Turn {
    pub(crate) fn take(busy: &Arc<AtomicBool>) -> Option<Self> {
        let taken = busy.swap(true, Ordering::AcqRel);
        (!taken).then(|| Self(Arc::clone(busy)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A group's members as the last membership entry in this node's log has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// One set; two while they change.
    pub(crate) sets: Vec<BTreeSet<NodeId>>,
    pub(crate) learners: BTreeSet<NodeId>,
}

impl Standing {
    pub(crate) fn of<RT: AsyncRuntime, D: Disk>(instance: &Instance<RT, D>) -> Self {
        let metrics = instance.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let sets = membership.get_joint_config().iter();
        Self {
            sets: sets.map(|set| set.iter().copied().map(NodeId).collect()).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
        }
    }

    pub(crate) fn is_joint(&self) -> bool {
        self.sets.len() > 1
    }

    pub(crate) fn voters(&self) -> BTreeSet<NodeId> {
        self.sets.iter().flatten().copied().collect()
    }
}

impl<RT: AsyncRuntime, D: Disk> Raft<RT, D> {
    /// Lets a node follow the group without a vote. Returns when that is committed; the node need
    /// not have answered yet.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), MembersError> {
        let (instance, _turn) = self.members_turn()?;
        if !self.inner.allow_list.admits(node) {
            return Err(MembersError::Unadmitted(node));
        }
        let standing = Standing::of(&instance);
        if standing.learners.contains(&node) || standing.voters().contains(&node) {
            return Ok(());
        }
        let nodes = [(node.0, ())].into();
        self.change(&instance, ChangeMembers::AddNodes(nodes)).await
    }

    /// Ends a learner's part in the group.
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), MembersError> {
        let (instance, _turn) = self.members_turn()?;
        let standing = Standing::of(&instance);
        if standing.voters().contains(&node) {
            return Err(MembersError::Voter(node));
        }
        if !standing.learners.contains(&node) {
            return Ok(());
        }
        self.change(&instance, ChangeMembers::RemoveNodes([node.0].into())).await
    }

    /// Makes exactly these nodes the voters, in one joint step; who leaves stays as a learner.
    /// Returns when the new set alone decides.
    ///
    /// A leader that is to leave hands over and answers `NotLeader` with its successor: ask there.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MembersError> {
        check_size(voters.len())?;
        let (instance, _turn) = self.members_turn()?;
        let standing = Standing::of(&instance);
        if standing.is_joint() {
            return Err(MembersError::UnderWay);
        }
        let old = standing.voters();
        if old == voters {
            return Ok(());
        }
        let fresh: Vec<NodeId> = voters.difference(&old).copied().collect();
        for node in &fresh {
            if !self.inner.allow_list.admits(*node) {
                return Err(MembersError::Unadmitted(*node));
            }
            if !standing.learners.contains(node) {
                return Err(MembersError::Unknown(*node));
            }
        }
        self.await_caught_up(&instance, &fresh).await?;
        if !voters.contains(&self.inner.node)
            && let Some(next) = self.best_of(&instance, old.intersection(&voters))
        {
            self.transfer_to(next).await.map_err(|error| match error {
                TransferError::NotLeader => MembersError::NotLeader { leader: None },
                TransferError::Late(_) | TransferError::Behind(_) | TransferError::NotVoter(_) => {
                    MembersError::NoQuorum
                }
                TransferError::Stopped => MembersError::Stopped,
            })?;
            return Err(MembersError::NotLeader { leader: Some(next) });
        }
        let ids = voters.iter().map(|voter| voter.0).collect();
        self.change(&instance, ChangeMembers::ReplaceAllVoters(ids)).await
    }

    fn members_turn(&self) -> Result<(Instance<RT, D>, Turn), MembersError> {
        let Some(instance) = self.inner.slot.current() else {
            return Err(if self.inner.slot.has_ended() {
                MembersError::Stopped
            } else {
                MembersError::NotLeader { leader: None }
            });
        };
        let status = self.status();
        if !status.leads {
            return Err(MembersError::NotLeader { leader: status.leader });
        }
        let turn = Turn::take(&self.inner.flags.changing).ok_or(MembersError::UnderWay)?;
        Ok((instance, turn))
    }

    async fn change(
        &self,
        instance: &Instance<RT, D>,
        change: ChangeMembers<u64, ()>,
    ) -> Result<(), MembersError> {
        match RT::timeout(COMMIT, instance.change_membership(change, true)).await {
            Err(_elapsed) => Err(MembersError::NoQuorum),
            Ok(Ok(_committed)) => Ok(()),
            Ok(Err(RaftError::APIError(error))) => Err(refused(error)),
            Ok(Err(RaftError::Fatal(_ended))) => Err(MembersError::NoQuorum),
        }
    }

    /// Waits until each of these has most of the leader's log.
    async fn await_caught_up(
        &self,
        instance: &Instance<RT, D>,
        nodes: &[NodeId],
    ) -> Result<(), MembersError> {
        let mut metrics = instance.metrics();
        let waiting = async {
            while let Some(furthest) = furthest_behind(instance, nodes) {
                match RT::select2(metrics.changed(), RT::sleep(CATCH_UP / 100)).await {
                    Select2::First(Err(_ended)) => return Some(furthest),
                    Select2::First(Ok(())) | Select2::Second(()) => {}
                }
            }
            None
        };
        let late = match RT::timeout(CATCH_UP, waiting).await {
            Ok(late) => late,
            Err(_elapsed) => furthest_behind(instance, nodes),
        };
        match late {
            None => Ok(()),
            Some((node, entries)) => Err(MembersError::Behind { node, entries }),
        }
    }

    /// Of these, the one that has most of the leader's log.
    fn best_of<'n>(
        &self,
        instance: &Instance<RT, D>,
        nodes: impl Iterator<Item = &'n NodeId>,
    ) -> Option<NodeId> {
        let metrics = instance.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        nodes
            .filter_map(|node| Some((replication.get(&node.0)?.map(|id| id.index), *node)))
            .max_by_key(|(matching, node)| (*matching, std::cmp::Reverse(*node)))
            .map(|(_matching, node)| node)
    }
}

fn check_size(got: usize) -> Result<(), MembersError> {
    match got {
        0 => Err(MembersError::Empty),
        even if even.is_multiple_of(2) => Err(MembersError::Even(even)),
        got if got > VOTERS_MAX => Err(MembersError::TooMany { got }),
        _odd => Ok(()),
    }
}

/// Of nodes that lag too far, the one furthest behind, and by how much; none where this node does
/// not lead any more, which the change itself will say.
fn furthest_behind<RT: AsyncRuntime, D: Disk>(
    instance: &Instance<RT, D>,
    nodes: &[NodeId],
) -> Option<(NodeId, u64)> {
    let metrics = instance.metrics();
    let metrics = metrics.borrow_watched();
    let replication = metrics.replication.as_ref()?;
    let end = metrics.last_log_index.map_or(0, |last| last + 1);
    let lag = |node: &NodeId| {
        let has = replication.get(&node.0).and_then(|matching| matching.map(|id| id.index + 1));
        end.saturating_sub(has.unwrap_or(0))
    };
    let nodes = nodes.iter().map(|node| (*node, lag(node)));
    nodes.filter(|(_node, lag)| *lag > LAG_ENTRIES_MAX).max_by_key(|(_node, lag)| *lag)
}

fn refused<RT: AsyncRuntime>(error: ClientWriteError<Tc<RT>>) -> MembersError {
    match error {
        ClientWriteError::ForwardToLeader(to) => {
            MembersError::NotLeader { leader: to.leader_id.map(NodeId) }
        }
        ClientWriteError::ChangeMembershipError(error) => match error {
            ChangeMembershipError::InProgress(_) => MembersError::UnderWay,
            ChangeMembershipError::EmptyMembership(_) => MembersError::Empty,
            ChangeMembershipError::LearnerNotFound(missing) => {
                MembersError::Unknown(NodeId(missing.node_id))
            }
            // A leader that has committed nothing of its own term yet: it soon will have.
            ChangeMembershipError::UncommittedLeaderLog(_)
            | ChangeMembershipError::NodeMetadataChanged(_)
            | ChangeMembershipError::UnsupportedMembershipTransition(_) => MembersError::UnderWay,
        },
        // Between the two steps the leader changed: the next one finishes the joint step.
        ClientWriteError::LogEntryDiscarded(_) | ClientWriteError::PreconditionFailed(_) => {
            MembersError::NoQuorum
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_odd_sets_of_one_to_seven_are_taken() {
        let sizes: Vec<_> = (0..=9).map(check_size).collect();
        let even = |count| Err(MembersError::Even(count));
        let many = |got| Err(MembersError::TooMany { got });
        assert_eq!(
            sizes,
            [
                Err(MembersError::Empty),
                Ok(()),
                even(2),
                Ok(()),
                even(4),
                Ok(()),
                even(6),
                Ok(()),
                even(8),
                many(9),
            ]
        );
    }

    #[test]
    fn one_change_at_a_time() {
        let busy = Arc::default();
        let first = Turn::take(&busy);
        assert!(first.is_some() && Turn::take(&busy).is_none());
        drop(first);
        assert!(Turn::take(&busy).is_some());
    }
}
