//! Who belongs to the cluster, who votes, who leads.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use quorate_types::member::{NewLeader, NewLevel, NewMember, NewVoters};
use quorate_types::view::NodeView;
use quorate_types::{GroupId, NodeId};
use reqwest::Method;

use crate::ask::Ask;
use crate::client::Client;
use crate::error::ClientError;

/// New voters catch up before they vote.
const CHANGE: Duration = Duration::from_secs(40);

/// How often one looks whether a new member follows.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Client {
    /// Admits a node to the cluster: from then on it may connect, and follows without a vote.
    /// Repeated with another address, the member has moved.
    pub async fn add_member(&self, member: &NewMember) -> Result<(), ClientError> {
        self.ask_done(Ask::post(&["v1", "cluster", "members"]).json(member)?).await
    }

    /// Removes a node that votes nowhere. Its id is never given again.
    pub async fn remove_member(&self, node: NodeId) -> Result<(), ClientError> {
        let id = node.0.to_string();
        self.ask_done(Ask::new(Method::DELETE, &["v1", "cluster", "members", &id])).await
    }

    /// Changes one group's voters in one joint step; returns when the new ones alone decide.
    pub async fn set_voters(
        &self,
        group: GroupId,
        voters: BTreeSet<NodeId>,
    ) -> Result<(), ClientError> {
        let ask = Ask::new(Method::PUT, &["v1", "cluster", "voters"]);
        let ask = ask.timeout(self.0.timeout.max(CHANGE)).try_min(CHANGE / 4);
        self.ask_done(ask.json(&NewVoters { group, voters })?).await
    }

    /// Hands a group's leadership to a voter, or to the one that has most of its log.
    pub async fn move_leader(&self, group: GroupId, to: Option<NodeId>) -> Result<(), ClientError> {
        let ask = Ask::post(&["v1", "cluster", "leader"]);
        self.ask_done(ask.json(&NewLeader { group, to })?).await
    }

    /// Raises the feature level, to the highest that every member knows where none is named.
    pub async fn raise_feature_level(&self, to: Option<u32>) -> Result<(), ClientError> {
        let ask = Ask::post(&["v1", "cluster", "feature-level"]);
        self.ask_done(ask.json(&NewLevel { to })?).await
    }

    /// Every group and its voters, as its leader has them.
    pub async fn voters(&self) -> Result<Vec<(GroupId, BTreeSet<NodeId>)>, ClientError> {
        let nodes = self.cluster().await?;
        let led = |node: &NodeView| {
            let id = node.node;
            let groups = node.groups.iter().filter(move |group| group.leader == Some(id));
            groups.map(|group| (group.group, group.voters.iter().copied().collect())).collect()
        };
        let mut groups: Vec<(GroupId, BTreeSet<NodeId>)> =
            nodes.iter().flat_map(|node| -> Vec<_> { led(node) }).collect();
        groups.sort_unstable_by_key(|(group, _voters)| *group);
        Ok(groups)
    }

    /// Puts a new member in the place of an old one: admits it, waits until it follows, lets it
    /// vote wherever the old one does, and removes the old one. Each step that was made is passed
    /// over when this is called again.
    pub async fn replace_member(&self, old: NodeId, new: &NewMember) -> Result<(), ClientError> {
        self.add_member(new).await?;
        self.follows(new.id).await?;
        for (group, mut voters) in self.voters().await? {
            if voters.remove(&old) {
                voters.insert(new.id);
                self.set_voters(group, voters).await?;
            }
        }
        self.remove_member(old).await
    }

    /// Waits until a member says of itself that it follows every group that there is.
    pub async fn follows(&self, node: NodeId) -> Result<(), ClientError> {
        let until = Instant::now() + self.0.timeout.max(CHANGE);
        loop {
            let nodes = self.cluster().await?;
            let its = nodes.iter().find(|view| view.node == node);
            let follows = its.is_some_and(|view| {
                view.groups
                    .iter()
                    .all(|group| group.learners.contains(&node) || group.voters.contains(&node))
            });
            if follows || Instant::now() > until {
                // Where it does not, the voters' change says why.
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
