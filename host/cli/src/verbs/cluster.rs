//! `quorate cluster …` and `quorate member …`

use std::collections::BTreeMap;

use quorate_types::http::{Cluster, Members};
use quorate_types::view::{MemberView, NodeView};
use quorate_types::{Digest, GroupId, Index, NodeId};

use super::{Session, or_dash};
use crate::args::{ClusterVerb, MemberVerb};
use crate::exit::{Exit, ended};
use crate::output::Table;

impl Session<'_> {
    pub(super) async fn cluster(&self, verb: &ClusterVerb) -> anyhow::Result<()> {
        match verb {
            ClusterVerb::Status => {
                let whole = Cluster { nodes: self.client.cluster().await? };
                self.output.many(&whole, &whole.nodes, groups)?;
                judge(&whole.nodes)
            }
        }
    }

    pub(super) async fn member(&self, verb: &MemberVerb) -> anyhow::Result<()> {
        match verb {
            MemberVerb::Ls => {
                let whole = Members { members: self.client.members().await? };
                self.output.many(&whole, &whole.members, members)
            }
        }
    }
}

/// Replicas that have applied the same entries must be in the same state; a group needs a leader.
fn judge(nodes: &[NodeView]) -> anyhow::Result<()> {
    let mut seen: BTreeMap<(GroupId, Index), (NodeId, Digest)> = BTreeMap::new();
    for node in nodes {
        for group in &node.groups {
            let place = (group.group, group.applied_index);
            let (first, digest) = seen.entry(place).or_insert((node.node, group.state_digest));
            if *digest != group.state_digest {
                let what = format!(
                    "{first} and {} differ in {} at index {}",
                    node.node, group.group, group.applied_index
                );
                return Err(ended(Exit::CheckFailed, what, "quorate cluster status -o json"));
            }
        }
    }
    let mut groups: BTreeMap<GroupId, bool> = BTreeMap::new();
    for group in nodes.iter().flat_map(|node| &node.groups) {
        *groups.entry(group.group).or_default() |= group.leader.is_some();
    }
    match groups.iter().find(|(_, led)| !**led) {
        None => Ok(()),
        Some((group, _)) => {
            Err(ended(Exit::NoQuorum, format!("{group} has no leader"), "quorate member ls"))
        }
    }
}

fn groups(nodes: &[NodeView]) -> Table {
    let mut table = Table::with_heads(&[
        "NODE",
        "GROUP",
        "LEADER",
        "TERM",
        "VOTERS",
        "APPLIED",
        "STATE DIGEST",
    ]);
    for node in nodes {
        for group in &node.groups {
            let voters = group.voters.iter().map(ToString::to_string);
            table.row([
                node.node.to_string(),
                group.group.to_string(),
                or_dash(group.leader),
                group.term.to_string(),
                voters.collect::<Vec<_>>().join(","),
                group.applied_index.to_string(),
                group.state_digest.short(),
            ]);
        }
    }
    table
}

fn members(members: &[MemberView]) -> Table {
    let mut table =
        Table::with_heads(&["NODE", "NAME", "STATUS", "INCARNATION", "ADDRESS", "HTTP", "PEER"]);
    for member in members {
        table.row([
            member.node.to_string(),
            member.name.clone(),
            member.status.clone(),
            member.incarnation.to_string(),
            member.address.clone(),
            or_dash(member.api.as_ref()),
            member.peer.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use quorate_types::Term;
    use quorate_types::view::GroupView;

    use super::*;
    use crate::exit::verdict;

    fn node(node: u64, leader: Option<u64>, index: u64, state: &[u8]) -> NodeView {
        let group = GroupView {
            group: GroupId::SYSTEM,
            leader: leader.map(NodeId),
            term: Term(1),
            voters: vec![NodeId(1), NodeId(2)],
            applied_index: Index(index),
            state_digest: Digest::of(state),
        };
        NodeView { node: NodeId(node), groups: vec![group] }
    }

    #[test]
    fn replicas_that_differ_at_one_index_fail_the_check() {
        let differing = [node(1, Some(1), 7, b"a"), node(2, Some(1), 7, b"b")];
        let error = judge(&differing).expect_err("they differ");
        assert_eq!(verdict(&error).0, Exit::CheckFailed);
        assert_eq!(error.to_string(), "n1 and n2 differ in g0 at index 7");
        let behind = [node(1, Some(1), 8, b"a"), node(2, Some(1), 7, b"b")];
        assert!(judge(&behind).is_ok(), "one of them is merely behind");
    }

    #[test]
    fn a_group_that_nobody_leads_is_no_quorum() {
        let error = judge(&[node(1, None, 7, b"a")]).expect_err("no leader");
        assert_eq!(verdict(&error).0, Exit::NoQuorum);
    }
}
