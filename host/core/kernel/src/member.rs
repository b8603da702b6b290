//! Members: the list in the log has the say, and what follows from it is brought
//! about here, again and again until it is so.
//!
//! Whoever leads the system group begins the list from its cluster file where the log
//! has none. Every node takes the list as its own once it is applied. Whoever leads a
//! group lets each member follow it, and ends the part of whoever is no member; so a
//! leader that dies between an admission and what follows from it leaves nothing
//! undone. Voters change only when they are told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::{Outcome, Reservation, Roster, RosterMember, SystemCommand};
use quorate_types::member::{MemberRequest, NewLeader, NewLevel, NewMember, NewVoters};
use quorate_types::{GroupId, Index, NodeId, Refusal, Reply, Request, Time};

use crate::asks::{Origin, Own, Target};
use crate::frame::{self, Done, Errand as AskedErrand, Setback};
use crate::io::{Effect, GroupChange, GroupSetback, LogSetback, MemberInfo, Now, Ticket};
use crate::kernel::Kernel;
use crate::levels::Founding;

/// What came to nothing is tried again after this span.
const AGAIN: Duration = Duration::from_millis(500);

/// What a ticket of this file's own was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    Seed,
    Follow(GroupId),
}

impl Errand {
    /// Whose leader runs it.
    const fn group(self) -> GroupId {
        match self {
            Self::Seed => GroupId::SYSTEM,
            Self::Follow(group) => group,
        }
    }
}

/// What is known and under way about members.
#[derive(Debug, Default)]
pub(crate) struct MemberDesk {
    /// The list that this node has taken over.
    seen: Arc<Roster>,
    /// Voters and learners of each group that this node has.
    groups: BTreeMap<GroupId, (Vec<NodeId>, Vec<NodeId>)>,
    errands: BTreeMap<Ticket, Errand>,
    /// Until then a group, or the list, is left alone.
    pub(crate) rest: BTreeMap<Option<GroupId>, Time>,
    /// Voters that an ask of this node would have, by ask.
    pub(crate) asked: BTreeMap<u64, BTreeSet<NodeId>>,
    /// The cluster was begun by this node, which leads it since: its level is yet to be raised.
    pub(crate) founding: Founding,
}

impl MemberDesk {
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.rest.values().min().copied()
    }

    /// A group's voters, as its log has them on this node.
    pub(crate) fn voters(&self, group: GroupId) -> Vec<NodeId> {
        self.groups.get(&group).map(|(voters, _learners)| voters.clone()).unwrap_or_default()
    }

    /// Those that follow it without a vote.
    pub(crate) fn learners(&self, group: GroupId) -> Vec<NodeId> {
        self.groups.get(&group).map(|(_voters, learners)| learners.clone()).unwrap_or_default()
    }

    fn is_at(&self, errand: Errand) -> bool {
        self.errands.values().any(|known| *known == errand)
    }

    fn rests(&self, what: Option<GroupId>, now: Now) -> bool {
        self.rest.get(&what).is_some_and(|until| *until > now.mono)
    }
}

/// Requests.
impl Kernel {
    /// Does what the leader of a group is asked for.
    pub(crate) fn carry_out_membership(
        &mut self,
        now: Now,
        (id, leads): (u64, GroupId),
        request: MemberRequest,
    ) {
        if !self.view.roster().begun() {
            // A new leader begins the list first; the ask waits for that as for a leader.
            return self.log_setback(now, id, LogSetback::NotLeader);
        }
        match request {
            MemberRequest::Add(NewMember { id: node, name, peer, address }) => {
                let member = RosterMember { id: node, name, peer, address: address.to_string() };
                self.propose_for(now, (id, leads), SystemCommand::AdmitMember(member));
            }
            MemberRequest::Remove(node) => match self.voter_in(node) {
                // One that is down leaves nothing that it could give.
                None if node != self.config.node && self.up.contains(&node) => {
                    let within = self.asks.left(now, id).unwrap_or_default();
                    let (origin, target) = (Origin::Own(Own::Leave(id)), Target::Node(node));
                    self.begin(now, origin, target, AskedErrand::Leave, within);
                }
                None => self.propose_for(now, (id, leads), SystemCommand::RemoveMember(node)),
                Some(group) => {
                    let why = format!(
                        "node {node} votes in group {group}; set the voters without it first"
                    );
                    self.finish(now, id, Err(Setback::Refused(Refusal::Conflict(why))));
                }
            },
            MemberRequest::Voters(NewVoters { group, voters }) => {
                let roster = self.view.roster();
                if let Some(strange) = voters.iter().find(|voter| roster.get(**voter).is_none()) {
                    let why = format!("{strange} is not a member of the cluster; add it first");
                    return self.finish(now, id, Err(Setback::Refused(Refusal::Conflict(why))));
                }
                self.members_desk.asked.insert(id, voters.clone());
                self.reserve_and_change(now, id, group, voters);
            }
            MemberRequest::Level(NewLevel { to }) => self.raise_level(now, id, to),
            MemberRequest::Reserve(NewVoters { group, voters }) => {
                let reservation = Reservation { group, voters };
                self.propose_for(now, (id, leads), SystemCommand::ReserveVoters(reservation));
            }
            MemberRequest::Lead(NewLeader { group, to }) => {
                self.change_group_for(id, group, GroupChange::Lead(to));
            }
        }
    }

    /// What an ask would have of members, voters or levels, if that is what it asks for.
    pub(crate) fn member_request(&self, id: u64) -> Option<&MemberRequest> {
        let frame::Errand::Door(request) = &self.asks.table.get(&id)?.errand else { return None };
        let Request::Membership(request) = &**request else { return None };
        Some(request)
    }

    /// The group in which this node votes, or would if what was asked is done.
    fn voter_in(&self, node: NodeId) -> Option<GroupId> {
        let (desk, roster) = (&self.members_desk, self.view.roster());
        // Where there is a reservation it counts: this node's log of the group may be behind.
        let known = |group: &GroupId, voters: &Vec<NodeId>| match roster.reserved(*group) {
            Some(reserved) => reserved.contains(&node),
            None => voters.contains(&node),
        };
        let votes = desk.groups.iter().find(|(group, (voters, _))| known(group, voters));
        let asked = desk.asked.values().any(|voters| voters.contains(&node));
        votes.map(|(group, _)| *group).or_else(|| asked.then_some(GroupId::SYSTEM))
    }

    /// A member has said whether it may be removed.
    pub(crate) fn member_may_leave(
        &mut self,
        now: Now,
        id: u64,
        target: Target,
        result: Result<Done, Setback>,
    ) {
        let Target::Node(node) = target else { return };
        match result {
            // It went down meanwhile; whatever it had alone is with its disk.
            Ok(_) | Err(Setback::Refused(Refusal::Unavailable(_))) => {
                let remove = SystemCommand::RemoveMember(node);
                self.propose_for(now, (id, GroupId::SYSTEM), remove);
            }
            Err(Setback::Refused(why)) => {
                let why = format!("node {node} has content that too few others keep: {why}");
                self.finish(now, id, Err(Setback::Refused(Refusal::Conflict(why))));
            }
            Err(Setback::NotLeader(_)) => self.log_setback(now, id, LogSetback::NotLeader),
        }
    }

    pub(crate) fn change_group_for(&mut self, id: u64, group: GroupId, change: GroupChange) {
        let ticket = self.ticket();
        self.asks.bind(ticket, id);
        self.effects.push_back(Effect::ChangeGroup(ticket, group, change));
    }

    /// A change of a group ended: one of an ask, or one that followed from the list.
    pub(crate) fn group_changed(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: Result<(), GroupSetback>,
    ) {
        if self.handed_over(now, ticket, &result) {
            return;
        }
        if let Some(errand) = self.members_desk.errands.remove(&ticket) {
            self.errand_ended(now, errand, result.err().map(|setback| format!("{setback:?}")));
            return;
        }
        let Some(id) = self.asks.unbind(ticket) else { return };
        let asked = self.members_desk.asked.remove(&id);
        match result {
            Ok(()) => match asked.filter(|_voters| self.reserves()) {
                Some(voters) => self.settle_reservation(now, id, voters),
                None => self.finish(now, id, Ok(Done::Door(Box::new(Reply::Done)))),
            },
            Err(GroupSetback::NotLeader) => self.log_setback(now, id, LogSetback::NotLeader),
            Err(GroupSetback::Refused(refusal)) => {
                self.finish(now, id, Err(Setback::Refused(refusal)));
            }
            // A member that was just added is let in by the next look at the list.
            Err(GroupSetback::NotYet(refusal)) => match self.asks.table.get(&id) {
                Some(ask) if ask.deadline > now.mono + AGAIN => self.park(now, id),
                Some(_ask) => self.finish(now, id, Err(Setback::Refused(refusal))),
                None => {}
            },
        }
    }
}

/// What follows from the list.
impl Kernel {
    /// A group has other members, as this node's log has them.
    pub(crate) fn group_members(
        &mut self,
        group: GroupId,
        voters: Vec<NodeId>,
        learners: Vec<NodeId>,
    ) {
        self.members_desk.rest.remove(&Some(group));
        self.members_desk.groups.insert(group, (voters, learners));
    }

    /// Takes the list over where it is another one than before.
    pub(crate) fn follow_roster(&mut self, now: Now) {
        let roster = Arc::clone(self.view.roster());
        if !roster.begun() || Arc::ptr_eq(&roster, &self.members_desk.seen) {
            return;
        }
        let own = self.config.node;
        let info = |member: &RosterMember| MemberInfo {
            name: member.name.clone(),
            peer: member.peer.clone(),
            address: member.address.clone(),
        };
        let mut members: BTreeMap<NodeId, MemberInfo> =
            roster.members().map(|member| (member.id, info(member))).collect();
        if !members.contains_key(&own) {
            if self.members_desk.seen.get(own).is_some() {
                tracing::warn!(node = %own, "this node was removed from the cluster");
            }
            members.extend(self.config.members.remove_entry(&own));
        }
        self.members_desk.seen = roster;
        self.members.set_members(now.mono, members.keys().copied().collect());
        let fresh = members.keys().filter(|node| !self.config.members.contains_key(node));
        for node in fresh.filter(|node| self.up.contains(node)) {
            self.members.peer_up(now.mono, *node);
        }
        self.config.members = members;
        self.reachability_changed();
    }

    pub(crate) fn settle_members(&mut self, now: Now) {
        self.members_desk.rest.retain(|_what, until| *until > now.mono);
        let led = &self.leading;
        self.members_desk.errands.retain(|_ticket, errand| led.contains_key(&errand.group()));
        if self.view.roster().begun() {
            self.raise_when_founding(now);
            for group in self.config.layout.groups() {
                if self.leads(group) {
                    self.fit_group(now, group);
                }
            }
        } else if self.leads(GroupId::SYSTEM) {
            self.seed_roster(now);
        }
    }

    fn seed_roster(&mut self, now: Now) {
        let desk = &self.members_desk;
        if desk.is_at(Errand::Seed) || desk.rests(None, now) {
            return;
        }
        let members = self.config.members.iter().map(|(id, info)| RosterMember {
            id: *id,
            name: info.name.clone(),
            peer: info.peer.clone(),
            address: info.address.clone(),
        });
        let members = members.collect();
        let ticket = self.propose(now, GroupId::SYSTEM, SystemCommand::SeedMembers(members));
        self.members_desk.errands.insert(ticket, Errand::Seed);
    }

    /// One step that brings a group nearer to the list, if one is missing.
    fn fit_group(&mut self, now: Now, group: GroupId) {
        let desk = &self.members_desk;
        if desk.is_at(Errand::Follow(group)) || desk.rests(Some(group), now) {
            return;
        }
        let Some((voters, learners)) = desk.groups.get(&group) else { return };
        let roster = Arc::clone(self.view.roster());
        let mut listed = roster.members().map(|member| member.id);
        let missing = listed.find(|id| !voters.contains(id) && !learners.contains(id));
        let gone = || learners.iter().find(|id| roster.get(**id).is_none()).copied();
        let change = match missing.map(GroupChange::AddLearner) {
            Some(add) => add,
            None => match gone() {
                Some(node) => GroupChange::RemoveLearner(node),
                None => return,
            },
        };
        let ticket = self.ticket();
        self.members_desk.errands.insert(ticket, Errand::Follow(group));
        self.effects.push_back(Effect::ChangeGroup(ticket, group, change));
    }

    /// Whether the ticket was one of this file's own proposals.
    pub(crate) fn members_proposed(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: &Result<(Index, Outcome), LogSetback>,
    ) -> bool {
        let Some(errand) = self.members_desk.errands.remove(&ticket) else { return false };
        let failed = match result {
            Ok((_index, Outcome::Done)) => None,
            Ok((_index, other)) => Some(format!("{other:?}")),
            Err(setback) => Some(format!("{setback:?}")),
        };
        self.errand_ended(now, errand, failed);
        true
    }

    fn errand_ended(&mut self, now: Now, errand: Errand, failed: Option<String>) {
        match (failed, errand) {
            (None, Errand::Seed) => return self.members_desk.founding.begin(),
            // What it came to is told in a moment; until then it is not asked for again.
            (None, Errand::Follow(_)) => {}
            (Some(why), _) => {
                tracing::debug!(?errand, why, "what follows from the list came to nothing");
            }
        }
        let what = match errand {
            Errand::Seed => None,
            Errand::Follow(group) => Some(group),
        };
        self.members_desk.rest.insert(what, now.mono + AGAIN);
    }
}
