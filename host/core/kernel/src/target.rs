//! Who answers a request: the leader of the group that it belongs to, or the node at
//! whose door it stands, which reads from what it has applied or parts the request
//! among the groups.

use quorate_types::kv::{KvRequest, group_of_lease};
use quorate_types::{GroupId, NodeId, Refusal, Request};

use crate::kernel::Kernel;

/// Who must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Whoever leads the group.
    Leader(GroupId),
    /// This node and no other.
    Node(NodeId),
}

impl Kernel {
    /// Who must answer a request.
    pub(crate) fn target_of(&self, request: &Request) -> Result<Target, Refusal> {
        let layout = self.config.layout;
        let here = Target::Node(self.config.node);
        Ok(match request {
            Request::Submit(batch) => {
                let mut groups = batch.iter().map(|one| layout.of_submission(one));
                match groups.next() {
                    Some(first) if groups.all(|group| group == first) => Target::Leader(first),
                    Some(_) | None => here,
                }
            }
            Request::Kv(requests) => {
                requests.iter().try_for_each(KvRequest::check)?;
                let mut groups = requests.iter().map(|request| request.group(layout));
                match groups.next().unwrap_or_default() {
                    Some(first) if groups.all(|group| group == Some(first)) => {
                        Target::Leader(first)
                    }
                    Some(_) | None => here,
                }
            }
            Request::Membership(request) => match request.group() {
                group if layout.groups().any(|known| known == group) => Target::Leader(group),
                group => return Err(Refusal::NotFound(format!("group {group}"))),
            },
            Request::KvKeep(lease) => Target::Leader(group_of_lease(layout, *lease)),
            Request::Cancel(task)
            | Request::Renew(task, _)
            | Request::Complete(task, ..)
            | Request::Fail(task, ..) => match layout.of_task(*task) {
                Some(group) => Target::Leader(group),
                None => return Err(Refusal::NotFound(format!("task {task}"))),
            },
            Request::Register(_) | Request::Deregister(..) | Request::ApplyPolicy { .. } => {
                Target::Leader(GroupId::SYSTEM)
            }
            Request::Task(..)
            | Request::Tasks(..)
            | Request::Agents(..)
            | Request::Why(..)
            | Request::Policies(_)
            | Request::KvRead(..)
            | Request::Fresh(_)
            | Request::Beat(..)
            | Request::Take { .. }
            | Request::Members
            | Request::Cluster
            | Request::NodeStatus
            | Request::PreparePolicy { .. } => here,
        })
    }

    /// Whether the leader of this group can do a request. What another machine's group were to
    /// apply would stop every replica of it, so a peer that sends it there is refused.
    pub(crate) fn is_of_group(&self, request: &Request, group: GroupId) -> bool {
        match self.target_of(request) {
            Ok(Target::Leader(leader)) => leader == group,
            // Reads, and signs of life that were parted; what is logged has one group.
            Ok(Target::Node(_)) => !matches!(request, Request::Submit(_) | Request::Kv(_)),
            Err(_refusal) => false,
        }
    }
}
