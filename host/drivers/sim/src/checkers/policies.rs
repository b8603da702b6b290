//! A policy is adopted by each shard at one index of its log; no assignment after it carries an
//! older epoch.

use std::collections::BTreeMap;

use quorate_types::{EventKind, GroupId, Index, PolicyEpoch};

use crate::law::{Law, Verdict};

#[derive(Default)]
pub(crate) struct Policies {
    adopted: BTreeMap<GroupId, PolicyEpoch>,
}

impl Policies {
    /// One event of a group, in its log's order, once.
    pub(crate) fn see(&mut self, group: GroupId, index: Index, event: &EventKind) -> Verdict {
        let adopted = self.adopted.entry(group).or_default();
        match event {
            EventKind::Policy { epoch, step, .. } if step == "adopted" => {
                if *epoch <= *adopted {
                    let what = format!(
                        "epoch {epoch} is adopted by group {group} at {index} after {adopted}"
                    );
                    return Law::PolicyEpoch.broken(what);
                }
                *adopted = *epoch;
                Ok(())
            }
            EventKind::Task {
                task,
                state: quorate_types::TaskState::Leased,
                policy_epoch: Some(epoch),
                ..
            } if epoch != adopted => Law::PolicyEpoch.broken(format!(
                "{task} is assigned at {index} under epoch {epoch}, and {adopted} is adopted"
            )),
            EventKind::Policy { .. }
            | EventKind::Task { .. }
            | EventKind::AgentUp { .. }
            | EventKind::AgentDown { .. } => Ok(()),
        }
    }

    /// A door says that this epoch is activated and adopted by all of these.
    pub(crate) fn applied(
        &self,
        epoch: PolicyEpoch,
        mut shards: impl Iterator<Item = GroupId>,
    ) -> Verdict {
        let adopted = |group| self.adopted.get(&group).copied().unwrap_or_default();
        match shards.find(|group| adopted(*group) < epoch) {
            None => Ok(()),
            Some(group) => Law::ReadYourWrites.broken(format!(
                "epoch {epoch} was acknowledged and group {group} has adopted {}",
                adopted(group)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{AgentId, TaskId, TaskState, Token};

    use super::*;

    const G: GroupId = GroupId::SYSTEM;

    fn adopted(epoch: u64) -> EventKind {
        EventKind::Policy {
            slot: "balancer".to_owned(),
            name: "round-robin".to_owned(),
            epoch: PolicyEpoch(epoch),
            step: "adopted".to_owned(),
            group: GroupId::SYSTEM,
        }
    }

    fn leased(epoch: u64) -> EventKind {
        EventKind::Task {
            task: TaskId(1),
            namespace: "default".to_owned(),
            state: TaskState::Leased,
            agent: Some(AgentId(1)),
            token: Some(Token(1)),
            attempt: 1,
            policy_epoch: Some(PolicyEpoch(epoch)),
            reason: None,
            result: None,
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn an_assignment_under_an_old_epoch_is_seen() {
        let law = |verdict: Verdict| verdict.err().map(|breach| breach.law);
        let mut judge = Policies::default();
        assert_eq!(judge.see(G, Index(1), &leased(0)), Ok(()));
        assert_eq!(law(judge.applied(PolicyEpoch(2), [G].into_iter())), Some(Law::ReadYourWrites));
        assert_eq!(judge.see(G, Index(2), &adopted(2)), Ok(()));
        assert_eq!(judge.applied(PolicyEpoch(2), [G].into_iter()), Ok(()));
        let both = [G, GroupId(1)].into_iter();
        assert_eq!(law(judge.applied(PolicyEpoch(2), both)), Some(Law::ReadYourWrites));
        assert_eq!(judge.see(GroupId(1), Index(2), &leased(0)), Ok(()), "it goes its own way");
        assert_eq!(judge.see(G, Index(3), &leased(2)), Ok(()));
        assert_eq!(law(judge.see(G, Index(4), &leased(1))), Some(Law::PolicyEpoch));
        assert_eq!(law(judge.see(G, Index(5), &adopted(2))), Some(Law::PolicyEpoch));
    }
}
