//! `quorate cluster …` and `quorate member …`

use std::collections::BTreeMap;

use quorate_types::http::{Cluster, Members};
use quorate_types::view::{MemberView, NodeView};
use quorate_types::{Digest, GroupId, Index, NodeId};

use super::{Session, or_dash};
use crate::cluster_args::{ClusterVerb, MemberVerb};
use crate::exit::{Exit, ended};
use crate::output::{Table, listed};

impl Session<'_> {
    pub(super) async fn cluster(&self, verb: &ClusterVerb) -> anyhow::Result<()> {
        match verb {
            ClusterVerb::Status => {
                let whole = Cluster { nodes: self.client.cluster().await? };
                let members = self.client.members().await?;
                let silent = silent(&whole.nodes, &members);
                self.output.many(&whole, &whole.nodes, |nodes| groups(nodes, &silent))?;
                judge(&whole.nodes)
            }
            ClusterVerb::Restore(_) | ClusterVerb::Recover(_) => {
                unreachable!("the program runs these itself")
            }
            ClusterVerb::Backup(args) => self.backup(args).await,
            ClusterVerb::Member(verb) => self.member(verb).await,
            ClusterVerb::Voters(verb) => self.voters(verb).await,
            ClusterVerb::Leader(verb) => self.leader(verb).await,
            ClusterVerb::FeatureLevel(verb) => self.feature_level(verb).await,
        }
    }

    pub(super) async fn member(&self, verb: &MemberVerb) -> anyhow::Result<()> {
        match verb {
            MemberVerb::Ls => {
                let whole = Members { members: self.client.members().await? };
                self.output.many(&whole, &whole.members, members)
            }
            MemberVerb::Add(new) => self.add_member(new).await,
            MemberVerb::Remove { node } => self.remove_member(*node).await,
            MemberVerb::Replace { old, new } => self.replace_member(*old, new).await,
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

/// Members that did not answer, and how they stand.
fn silent(nodes: &[NodeView], members: &[MemberView]) -> Vec<(NodeId, String)> {
    let answered = |member: &&MemberView| nodes.iter().all(|node| node.node != member.node);
    members.iter().filter(answered).map(|member| (member.node, member.status.clone())).collect()
}

fn groups(nodes: &[NodeView], silent: &[(NodeId, String)]) -> Table {
    let mut table = Table::with_heads(&[
        "NODE",
        "GROUP",
        "LEADER",
        "TERM",
        "VOTERS",
        "LEARNERS",
        "APPLIED",
        "STATE DIGEST",
    ]);
    for node in nodes {
        for group in &node.groups {
            let or_none = |nodes: &[NodeId]| match nodes {
                [] => "-".to_owned(),
                nodes => listed(nodes),
            };
            table.row([
                node.node.to_string(),
                group.group.to_string(),
                or_dash(group.leader),
                group.term.to_string(),
                or_none(&group.voters),
                or_none(&group.learners),
                group.applied_index.to_string(),
                group.state_digest.short(),
            ]);
        }
    }
    for (node, status) in silent {
        let dashes = ["-"; 6].map(str::to_owned);
        let row = [node.to_string()].into_iter().chain(dashes);
        table.row(row.chain([format!("no answer: {status}")]));
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
            learners: Vec::new(),
            applied_index: Index(index),
            state_digest: Digest::of(state),
        };
        NodeView { node: NodeId(node), groups: vec![group], feature_level: 1, knows_level: 1 }
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
