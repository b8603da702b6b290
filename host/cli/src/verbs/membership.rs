//! `quorate cluster member|voters|leader|feature-level …`

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use quorate_types::http::Cluster;
use quorate_types::member::NewMember;
use quorate_types::view::NodeView;
use quorate_types::{GroupId, NodeId};
use serde::Serialize;

use super::Session;
use crate::cluster_args::{FeatureLevelVerb, LeaderVerb, NewMemberArgs, VotersVerb};
use crate::exit::{Exit, ended};
use crate::output::{Output, Table, listed};

#[derive(Serialize)]
struct Member {
    node: NodeId,
    member: bool,
}

#[derive(Serialize)]
struct Voters<'a> {
    group: GroupId,
    voters: &'a BTreeSet<NodeId>,
}

#[derive(Serialize)]
struct Leader {
    group: GroupId,
    leader: Option<NodeId>,
}

#[derive(Serialize)]
struct Key {
    peer: String,
}

impl From<&NewMemberArgs> for NewMember {
    fn from(args: &NewMemberArgs) -> Self {
        let id = args.place.id;
        let name = args.name.clone().unwrap_or_else(|| format!("node-{}", id.0));
        Self { id, name, peer: args.peer.clone(), address: args.place.address }
    }
}

impl Session<'_> {
    pub(super) async fn add_member(&self, new: &NewMemberArgs) -> anyhow::Result<()> {
        let member = NewMember::from(new);
        self.client.add_member(&member).await?;
        let node = member.id;
        self.output.next(&Member { node, member: true }, |_| {
            format!("{node} is a member; start it, then let it vote: quorate cluster voters set …")
        })
    }

    pub(super) async fn remove_member(&self, node: NodeId) -> anyhow::Result<()> {
        self.client.remove_member(node).await?;
        let removed = Member { node, member: false };
        self.output.next(&removed, |_| format!("{node} is no member any more"))
    }

    pub(super) async fn replace_member(
        &self,
        old: NodeId,
        new: &NewMemberArgs,
    ) -> anyhow::Result<()> {
        let member = NewMember::from(new);
        self.client.replace_member(old, &member).await?;
        let node = member.id;
        let replaced = Member { node, member: true };
        self.output.next(&replaced, |_| format!("{node} is in the place of {old}"))
    }

    pub(super) async fn voters(&self, verb: &VotersVerb) -> anyhow::Result<()> {
        let VotersVerb::Set { voters, group } = verb;
        let voters: BTreeSet<NodeId> = voters.iter().copied().collect();
        let groups = match group {
            Some(group) => vec![*group],
            None => self.client.voters().await?.into_iter().map(|(group, _)| group).collect(),
        };
        if groups.is_empty() {
            let what = "no group has a leader that answers".to_owned();
            return Err(ended(Exit::NoQuorum, what, "quorate cluster status"));
        }
        for group in groups {
            self.client.set_voters(group, voters.clone()).await?;
            self.output.next(&Voters { group, voters: &voters }, |_| {
                format!("{group}: {} vote", listed(&voters))
            })?;
        }
        Ok(())
    }

    pub(super) async fn feature_level(&self, verb: &FeatureLevelVerb) -> anyhow::Result<()> {
        if let FeatureLevelVerb::Raise { to } = verb {
            self.client.raise_feature_level(*to).await?;
        }
        let whole = Cluster { nodes: self.client.cluster().await? };
        self.output.many(&whole, &whole.nodes, levels)
    }

    pub(super) async fn leader(&self, verb: &LeaderVerb) -> anyhow::Result<()> {
        let LeaderVerb::Transfer { to, group } = verb;
        self.client.move_leader(*group, *to).await?;
        let nodes = self.client.cluster().await?;
        let views = nodes.iter().flat_map(|node| &node.groups).filter(|view| view.group == *group);
        let leader = views.max_by_key(|view| view.term).and_then(|view| view.leader);
        let moved = Leader { group: *group, leader };
        self.output.next(&moved, |_| match leader {
            Some(leader) => format!("{leader} leads {group}"),
            None => format!("{group} was handed over"),
        })
    }
}

fn levels(nodes: &[NodeView]) -> Table {
    let mut table = Table::with_heads(&["NODE", "AGREED", "KNOWS"]);
    for node in nodes {
        let cells = [node.node.to_string(), node.feature_level.to_string()];
        table.row(cells.into_iter().chain([node.knows_level.to_string()]));
    }
    let agreed = nodes.iter().map(|node| node.feature_level).max();
    let known = nodes.iter().map(|node| node.knows_level).min();
    if agreed < known {
        table.note("raise it: quorate cluster feature-level raise".to_owned());
    }
    table
}

/// `quorate node key FILE`
pub(crate) fn key(file: &Path, output: Output) -> anyhow::Result<()> {
    let key = crate::local::key(file)
        .with_context(|| format!("the key file {} cannot be used", file.display()))?;
    let peer = quorate_node::peer_id_of(&key)
        .with_context(|| format!("{} holds no key: 64 hexadecimal digits", file.display()))?;
    output.next(&Key { peer }, |key| key.peer.clone())
}
