//! A policy is adopted at one index; no assignment after it carries an older epoch.

use quorate_types::{EventKind, Index, PolicyEpoch};

use crate::law::{Law, Verdict};

#[derive(Default)]
pub(crate) struct Policies {
    adopted: PolicyEpoch,
}

impl Policies {
    /// One event, in the log's order, once.
    pub(crate) fn see(&mut self, index: Index, event: &EventKind) -> Verdict {
        match event {
            EventKind::Policy { epoch, step, .. } if step == "adopted" => {
                if *epoch <= self.adopted {
                    let what =
                        format!("epoch {epoch} is adopted at {index} after {}", self.adopted);
                    return Law::PolicyEpoch.broken(what);
                }
                self.adopted = *epoch;
                Ok(())
            }
            EventKind::Task {
                task,
                state: quorate_types::TaskState::Leased,
                policy_epoch: Some(epoch),
                ..
            } if epoch != &self.adopted => Law::PolicyEpoch.broken(format!(
                "{task} is assigned at {index} under epoch {epoch}, and {} is adopted",
                self.adopted
            )),
            EventKind::Policy { .. }
            | EventKind::Task { .. }
            | EventKind::AgentUp { .. }
            | EventKind::AgentDown { .. } => Ok(()),
        }
    }

    /// A door says that this epoch is activated and adopted.
    pub(crate) fn applied(&self, epoch: PolicyEpoch) -> Verdict {
        if epoch <= self.adopted {
            return Ok(());
        }
        let what = format!("epoch {epoch} was acknowledged and {} is adopted", self.adopted);
        Law::ReadYourWrites.broken(what)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate_types::{AgentId, GroupId, TaskId, TaskState, Token};

    use super::*;

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
        assert_eq!(judge.see(Index(1), &leased(0)), Ok(()));
        assert_eq!(law(judge.applied(PolicyEpoch(2))), Some(Law::ReadYourWrites));
        assert_eq!(judge.see(Index(2), &adopted(2)), Ok(()));
        assert_eq!(judge.applied(PolicyEpoch(2)), Ok(()));
        assert_eq!(judge.see(Index(3), &leased(2)), Ok(()));
        assert_eq!(law(judge.see(Index(4), &leased(1))), Some(Law::PolicyEpoch));
        assert_eq!(law(judge.see(Index(5), &adopted(2))), Some(Law::PolicyEpoch));
    }
}
