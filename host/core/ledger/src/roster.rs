//! Who belongs to the cluster: the list that the transport admits by and that
//! groups take their replicas from.
//!
//! The cluster file only begins it: the first leader seeds the list from its own
//! file, and from then on the log has the say. Node ids are given in growing order,
//! so that an id which was ever given is never given again, however long ago its
//! node was removed; a Raft vote is bound to it for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use quorate_types::{EventKind, NodeId, Refusal};

use crate::bounds::check_member_text;
use crate::outcome::Outcome;
use crate::set_hash::{Mark, SetHash, canonical};
use crate::shard::Moment;
use crate::system::{Node, System};

/// Members of one cluster. Gossip names all of them in one frame, and no transport dials more.
const MEMBERS_MAX: usize = 64;

/// A node that belongs to the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RosterMember {
    /// Its id.
    pub id: NodeId,
    /// For people.
    pub name: String,
    /// The libp2p peer id of its key: who proves to have this key is this node.
    pub peer: String,
    /// Where it listens, as its wire reads it.
    pub address: String,
}

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    members: BTreeMap<NodeId, RosterMember>,
    /// The highest id ever given; 0 before the list was begun.
    last_id: NodeId,
}

canonical!(RosterMember { id, name, peer, address });
canonical!(Roster { members, last_id });

impl Roster {
    /// A list of these members, where ids up to `ids_given` were given before.
    pub(crate) fn of(members: Vec<RosterMember>, ids_given: NodeId) -> Self {
        let members: BTreeMap<_, _> =
            members.into_iter().map(|member| (member.id, member)).collect();
        let last_id = members.keys().copied().fold(ids_given, NodeId::max);
        Self { members, last_id }
    }

    /// Whether the log has a list; before it does, the cluster file's counts.
    pub const fn begun(&self) -> bool {
        self.last_id.0 > 0
    }

    /// A member.
    pub fn get(&self, id: NodeId) -> Option<&RosterMember> {
        self.members.get(&id)
    }

    /// Every member, by id.
    pub fn members(&self) -> impl Iterator<Item = &RosterMember> {
        self.members.values()
    }

    /// The smallest id that was never given.
    pub const fn next_id(&self) -> NodeId {
        NodeId(self.last_id.0 + 1)
    }

    fn begin(&mut self, members: Vec<RosterMember>) -> Result<(), Refusal> {
        for member in members {
            self.last_id = self.last_id.max(member.id);
            self.check(&member)?;
            self.members.insert(member.id, member);
        }
        Ok(())
    }

    fn admit(&mut self, member: RosterMember) -> Result<(), Refusal> {
        self.check(&member)?;
        match self.members.get(&member.id) {
            Some(known) if known.peer != member.peer => {
                return Err(Refusal::Conflict(format!(
                    "node {} is a member with the peer id {}; another key is another node, which \
                     needs an id of its own: the next free is {}",
                    member.id,
                    known.peer,
                    self.next_id()
                )));
            }
            Some(_known) => {}
            None if member.id <= self.last_id => {
                return Err(Refusal::Conflict(format!(
                    "node id {} was given before, or is below one that was, and none is ever given \
                     twice; the next free is {}",
                    member.id,
                    self.next_id()
                )));
            }
            None if self.members.len() >= MEMBERS_MAX => {
                return Err(Refusal::Invalid(format!(
                    "a cluster has at most {MEMBERS_MAX} members"
                )));
            }
            None => self.last_id = member.id,
        }
        self.members.insert(member.id, member);
        Ok(())
    }

    fn check(&self, member: &RosterMember) -> Result<(), Refusal> {
        check_member_text("name", &member.name)?;
        check_member_text("peer", &member.peer)?;
        check_member_text("address", &member.address)?;
        if member.id.0 == 0 || member.id.0 == u64::MAX {
            return Err(Refusal::Invalid(format!("{} is no node id; ids begin at 1", member.id)));
        }
        let others = self.members.values().filter(|other| other.id != member.id);
        let doubled = others.filter_map(|other| {
            let what = match other {
                other if other.peer == member.peer => "peer id",
                other if other.address == member.address => "address",
                _distinct => return None,
            };
            Some((what, other.id))
        });
        match doubled.min_by_key(|(_what, id)| *id) {
            None => Ok(()),
            Some((what, id)) => {
                Err(Refusal::Conflict(format!("node {id} has the {what} of node {}", member.id)))
            }
        }
    }
}

impl System {
    pub(crate) fn seed_members(&mut self, members: Vec<RosterMember>) -> Result<Outcome, Refusal> {
        if self.roster.begun() {
            return Ok(Outcome::Done);
        }
        let mut roster = Roster::default();
        roster.begin(members)?;
        self.roster = Arc::new(roster);
        Ok(Outcome::Done)
    }

    pub(crate) fn admit_member(&mut self, member: RosterMember) -> Result<Outcome, Refusal> {
        self.expect_roster()?;
        let mut roster = Roster::clone(&self.roster);
        roster.admit(member)?;
        if roster != *self.roster {
            self.roster = Arc::new(roster);
        }
        Ok(Outcome::Done)
    }

    /// A member that is there no more is removed: asked twice, the second changes nothing.
    pub(crate) fn remove_member(
        &mut self,
        at: Moment,
        id: NodeId,
        events: &mut Vec<EventKind>,
    ) -> Result<Outcome, Refusal> {
        self.expect_roster()?;
        if id > self.roster.last_id || id.0 == 0 {
            return Err(Refusal::NotFound(format!("node {id}")));
        }
        if self.roster.get(id).is_none() {
            return Ok(Outcome::Done);
        }
        if self.roster.members.len() == 1 {
            return Err(Refusal::Conflict(format!(
                "node {id} is the last member; a cluster of none cannot be come back to"
            )));
        }
        let mut roster = Roster::clone(&self.roster);
        roster.members.remove(&id);
        self.roster = Arc::new(roster);
        let up = self.nodes.get(&id).filter(|node| node.down.is_none()).cloned();
        if let Some(node) = up {
            let down = Some("it was removed from the cluster".to_owned());
            self.store_node(Node { down, ..Node::clone(&node) });
            self.retire_agents_of(at, id, "its node was removed from the cluster", events);
        }
        Ok(Outcome::Done)
    }

    /// A node that was removed, or never admitted, begins no life.
    pub(crate) fn expect_member(&self, id: NodeId) -> Result<(), Refusal> {
        if !self.roster.begun() || self.roster.get(id).is_some() {
            return Ok(());
        }
        Err(Refusal::Conflict(format!(
            "node {id} is not a member of the cluster; add it under the id {}",
            self.roster.next_id()
        )))
    }

    fn expect_roster(&self) -> Result<(), Refusal> {
        if self.roster.begun() {
            return Ok(());
        }
        Err(Refusal::Conflict("the list of members is not in the log yet; try again".to_owned()))
    }

    /// What the list adds to the digest: nothing before there is one.
    pub(crate) fn add_roster(&self, sum: &mut SetHash) {
        if self.roster.begun() {
            sum.add(Mark::of("roster", &*self.roster));
        }
    }
}
