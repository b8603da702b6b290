//! Changes of a group's members, as the log room and the exchange of blobs make them
//! and the kernel asks.

use openraft_rt::AsyncRuntime;
use quorate_kernel::{GroupChange, GroupSetback};
use quorate_raft::{MembersError, Raft, TransferError};
use quorate_types::{Disk, GroupId, Refusal};

pub(crate) async fn change<RT: AsyncRuntime, D: Disk>(
    raft: &Raft<RT, D>,
    group: GroupId,
    change: GroupChange,
    leave: impl AsyncFnOnce() -> Result<(), Refusal>,
) -> Result<(), GroupSetback> {
    tracing::info!(%group, ?change, "the members of a group change");
    match change {
        GroupChange::AddLearner(node) => raft.add_learner(node).await.map_err(members_setback),
        GroupChange::RemoveLearner(node) => {
            raft.remove_learner(node).await.map_err(members_setback)
        }
        GroupChange::Voters(voters) => raft.change_voters(voters).await.map_err(members_setback),
        GroupChange::Leave => leave().await.map_err(GroupSetback::NotYet),
        GroupChange::HandOver(to) => raft.hand_over_if_ready(to).await.map_err(transfer_setback),
        GroupChange::Lead(to) => raft.hand_over(to).await.map_err(transfer_setback),
    }
}

fn members_setback(error: MembersError) -> GroupSetback {
    let said = error.to_string();
    match error {
        MembersError::NotLeader { .. } | MembersError::Stopped => GroupSetback::NotLeader,
        MembersError::Unknown(_) | MembersError::UnderWay | MembersError::Behind { .. } => {
            GroupSetback::NotYet(Refusal::Conflict(said))
        }
        MembersError::Unadmitted(_) | MembersError::Voter(_) => {
            GroupSetback::Refused(Refusal::Conflict(said))
        }
        MembersError::Even(_) | MembersError::Empty | MembersError::TooMany { .. } => {
            GroupSetback::Refused(Refusal::Invalid(said))
        }
        MembersError::NoQuorum => GroupSetback::Refused(Refusal::Unavailable(said)),
    }
}

fn transfer_setback(error: TransferError) -> GroupSetback {
    let said = error.to_string();
    match error {
        TransferError::NotLeader | TransferError::Stopped => GroupSetback::NotLeader,
        TransferError::Behind(_) => GroupSetback::NotYet(Refusal::Conflict(said)),
        TransferError::NotVoter(_) => GroupSetback::Refused(Refusal::Conflict(said)),
        TransferError::Late(_) => GroupSetback::Refused(Refusal::Timeout(said)),
    }
}
