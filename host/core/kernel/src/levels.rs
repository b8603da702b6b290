//! The feature level: what the cluster has agreed that every member knows.
//!
//! It is raised when all members say of themselves that they know as much, by command,
//! or by the leader that begins a cluster, for which there is no going back to an older
//! program anyway. It is never lowered. A program that knows less than was agreed on
//! stops at the entry, or at the snapshot, that says so; members that lag or are silent
//! at the time are named and nothing is raised.

use std::time::Duration;

use quorate_ledger::SystemCommand;
use quorate_types::member::{MemberRequest, NewLevel};
use quorate_types::view::NodeView;
use quorate_types::{GroupId, NodeId, Refusal, Reply, Request, Time};

use crate::asks::{Origin, Own, Target};
use crate::frame::{Done, Errand, Setback};
use crate::io::Now;
use crate::kernel::Kernel;

/// Members of a new cluster may start one after the other.
const AGAIN: Duration = Duration::from_secs(2);
/// Within this span every member says what it knows, and the log commits.
const WITHIN: Duration = Duration::from_secs(10);

/// Where a leader that began a cluster is with its level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Founding {
    /// It began none, or is done with it.
    #[default]
    Over,
    /// To be raised, from this time on.
    Due(Time),
    /// Asked for.
    Asked,
}

impl Founding {
    /// The cluster has just begun.
    pub(crate) fn begin(&mut self) {
        *self = Self::Due(Time::ZERO);
    }
}

/// Kernel's part as the system group's leader.
impl Kernel {
    /// Asks every member what it knows, for an ask.
    pub(crate) fn raise_level(&mut self, now: Now, id: u64, to: Option<u32>) {
        let agreed = self.view.system().feature_level();
        match to {
            Some(level) if level < agreed => {
                let why = format!("the feature level is {agreed} and is never lowered");
                self.finish(now, id, Err(Setback::Refused(Refusal::Conflict(why))));
            }
            Some(level) if level == agreed => self.done(now, id),
            Some(_) | None => self.gather_status(now, id),
        }
    }

    fn done(&mut self, now: Now, id: u64) {
        self.finish(now, id, Ok(Done::Door(Box::new(Reply::Done))));
    }

    /// The level that an ask would have, where it would have one.
    pub(crate) fn asked_level(&self, id: u64) -> Option<NewLevel> {
        let MemberRequest::Level(level) = self.member_request(id)? else { return None };
        Some(*level)
    }

    pub(crate) fn levels_gathered(
        &mut self,
        now: Now,
        id: u64,
        NewLevel { to }: NewLevel,
        nodes: &[NodeView],
    ) {
        let silent = self.view.roster().members().map(|member| member.id);
        let silent = silent.filter(|id| nodes.iter().all(|view| view.node != *id)).collect();
        let agreed = self.view.system().feature_level();
        match judge(nodes, silent, agreed, to) {
            Ok(level) if level == agreed => self.done(now, id),
            Ok(level) => {
                tracing::info!(from = agreed, to = level, "the feature level is raised");
                let command = SystemCommand::RaiseFeatureLevel(level);
                self.propose_for(now, (id, GroupId::SYSTEM), command);
            }
            Err(Hindrance { why, may_pass }) => {
                let founding = self.asks.table.get(&id).map(|ask| ask.origin);
                if may_pass && founding == Some(Origin::Own(Own::Raise)) {
                    // One that does not answer may yet start.
                    self.members_desk.founding = Founding::Due(now.mono + AGAIN);
                }
                self.finish(now, id, Err(Setback::Refused(Refusal::Conflict(why))));
            }
        }
    }

    pub(crate) fn raise_when_founding(&mut self, now: Now) {
        let Founding::Due(from) = self.members_desk.founding else { return };
        if !self.config.raises_when_founding || !self.leads(GroupId::SYSTEM) {
            self.members_desk.founding = Founding::Over;
        } else if from <= now.mono {
            self.members_desk.founding = Founding::Asked;
            let request = Request::Membership(MemberRequest::Level(NewLevel { to: None }));
            let errand = Errand::Door(Box::new(request));
            let origin = Origin::Own(Own::Raise);
            self.begin(now, origin, Target::Leader(GroupId::SYSTEM), errand, WITHIN);
        }
    }

    pub(crate) fn founding_raised(&mut self, now: Now, result: &Result<Done, Setback>) {
        if self.members_desk.founding != Founding::Asked {
            return;
        }
        self.members_desk.founding = match result {
            Err(Setback::Refused(Refusal::Timeout(_) | Refusal::Unavailable(_)))
            | Err(Setback::NotLeader(_)) => Founding::Due(now.mono + AGAIN),
            Err(Setback::Refused(why)) => {
                tracing::warn!(%why, "the cluster begins at the first feature level");
                Founding::Over
            }
            Ok(_) => Founding::Over,
        };
    }
}

/// Why nothing is raised.
#[derive(Debug)]
struct Hindrance {
    why: String,
    /// Whether it is only that somebody does not answer.
    may_pass: bool,
}

/// The level to raise to, or who stands in the way.
fn judge(
    nodes: &[NodeView],
    silent: Vec<NodeId>,
    agreed: u32,
    to: Option<u32>,
) -> Result<u32, Hindrance> {
    if !silent.is_empty() {
        let why = format!(
            "{} did not answer, and a level is raised only when every member knows it; start it, \
             or remove it for good: quorate cluster member remove",
            named(&silent)
        );
        return Err(Hindrance { why, may_pass: true });
    }
    let lowest = nodes.iter().map(|view| view.knows_level).min().unwrap_or(agreed);
    let highest = nodes.iter().map(|view| view.knows_level).max().unwrap_or(agreed);
    let wanted = to.unwrap_or(if lowest > agreed { lowest } else { highest });
    if wanted <= lowest {
        return Ok(wanted.max(agreed));
    }
    let behind = nodes.iter().filter(|view| view.knows_level < wanted);
    let behind: Vec<NodeId> = behind.map(|view| view.node).collect();
    let why = format!(
        "{} runs a program that knows feature level {lowest} at most, not {wanted}; start a newer \
         one there, then raise it again: quorate cluster feature-level raise",
        named(&behind)
    );
    Err(Hindrance { why, may_pass: false })
}

fn named(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node: u64, knows_level: u32) -> NodeView {
        NodeView { node: NodeId(node), groups: Vec::new(), feature_level: 1, knows_level }
    }

    fn refused(nodes: &[NodeView], silent: &[u64], to: Option<u32>) -> String {
        let silent = silent.iter().copied().map(NodeId).collect();
        judge(nodes, silent, 1, to).expect_err("refused").why
    }

    #[test]
    fn a_level_is_raised_to_what_every_member_knows() {
        let all = [node(1, 3), node(2, 2), node(3, 3)];
        let raised = |nodes: &[NodeView], agreed, to| judge(nodes, Vec::new(), agreed, to).ok();
        assert_eq!(raised(&all, 1, None), Some(2), "the highest that all know");
        assert_eq!(raised(&all, 2, Some(2)), Some(2));
        assert_eq!(raised(&[node(1, 1)], 1, None), Some(1), "nothing is to be raised");
    }

    #[test]
    fn whoever_lags_or_is_silent_is_named() {
        let said = refused(&[node(1, 2), node(2, 1), node(3, 1)], &[], None);
        assert!(
            said.starts_with("n2, n3 runs a program") && said.contains("level 1 at most, not 2")
        );
        let said = refused(&[node(1, 2)], &[], Some(4));
        assert!(said.contains("n1") && said.contains("not 4"), "{said}");
        let said = refused(&[node(1, 2)], &[2, 3], None);
        assert!(said.contains("n2, n3 did not answer") && said.contains("member remove"), "{said}");
    }
}
