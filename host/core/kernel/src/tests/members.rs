//! The list of members, and what follows from it.

use std::collections::BTreeSet;

use quorate_ledger::{Reservation, SystemCommand};
use quorate_types::member::{MemberRequest, NewLeader, NewLevel, NewMember, NewVoters};

use super::*;
use crate::io::{GroupSetback, LogSetback};

const N2: NodeId = NodeId(2);

fn membership(request: MemberRequest) -> Request {
    Request::Membership(request)
}

fn newcomer(id: u64) -> MemberRequest {
    MemberRequest::Add(NewMember {
        id: NodeId(id),
        name: format!("node-{id}"),
        peer: format!("peer-{id}"),
        address: format!("127.0.0.1:{}", 7_000 + id).parse().expect("an address"),
    })
}

fn voters(ids: &[u64]) -> MemberRequest {
    let voters = ids.iter().copied().map(NodeId).collect();
    MemberRequest::Voters(NewVoters { group: GroupId::SYSTEM, voters })
}

impl One {
    /// What this node's log says of the group's members.
    fn group(&mut self, voters: &[u64], learners: &[u64]) {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        let (voters, learners) = (ids(voters), ids(learners));
        self.give(Input::GroupMembers { group: GroupId::SYSTEM, voters, learners });
    }

    fn listed(&self) -> Vec<u64> {
        self.ledger().roster().members().map(|member| member.id.0).collect()
    }

    fn refusal(&mut self, request: MemberRequest) -> Refusal {
        let id = self.ask(membership(request));
        self.answer(id).expect("answered at once").expect_err("refused")
    }
}

#[test]
fn a_leader_begins_the_list_and_lets_members_follow_its_group() {
    let mut one = One::with_agents(&[]);
    assert_eq!(one.listed(), [1], "its cluster file has one");
    one.group(&[1], &[]);
    assert_eq!(one.changes, []);
    assert_eq!(one.reply(membership(newcomer(2))), Reply::Done);
    assert_eq!(one.listed(), [1, 2]);
    assert_eq!(one.changes, [GroupChange::AddLearner(N2)]);
    one.group(&[1], &[2]);
    assert!(one.kernel.config.members.contains_key(&N2), "the list is this node's own now");
    assert_eq!(one.reply(membership(MemberRequest::Remove(N2))), Reply::Done);
    assert_eq!(one.changes[1..], [GroupChange::RemoveLearner(N2)]);
    one.group(&[1], &[]);
    assert_eq!(one.changes.len(), 2, "nothing more follows");
}

#[test]
fn voters_change_when_told_and_whoever_votes_is_not_removed() {
    let mut one = One::with_agents(&[]);
    one.group(&[1], &[]);
    one.reply(membership(newcomer(2)));
    one.reply(membership(newcomer(3)));
    one.group(&[1], &[2, 3]);
    one.changes.clear();
    assert_eq!(one.reply(membership(voters(&[1, 2, 3]))), Reply::Done);
    let set = BTreeSet::from([NODE, N2, NodeId(3)]);
    assert_eq!(one.changes, [GroupChange::Voters(set)]);
    one.group(&[1, 2, 3], &[]);
    let votes = one.refusal(MemberRequest::Remove(N2));
    assert!(votes.to_string().contains("votes in group g0"), "{votes}");
    let strange = one.refusal(voters(&[1, 2, 9]));
    assert!(strange.to_string().contains("n9 is not a member"), "{strange}");
    let lead = MemberRequest::Lead(NewLeader { group: GroupId::SYSTEM, to: Some(N2) });
    assert_eq!(one.reply(membership(lead)), Reply::Done);
    assert_eq!(one.changes[1..], [GroupChange::Lead(Some(N2))]);
}

#[test]
fn what_came_to_nothing_is_tried_again() {
    let mut one = One::made(&[], &[NODE]);
    one.held = Some(Vec::new());
    one.lead(true);
    let held = one.held.take().expect("it holds");
    for effect in held {
        let Effect::Propose(ticket, ..) = effect else { panic!("{effect:?}") };
        one.give(Input::Proposed(ticket, Err(LogSetback::Unknown)));
    }
    assert_eq!(one.listed(), [0; 0]);
    // A request meanwhile waits for the list.
    let early = one.ask(membership(newcomer(2)));
    assert_eq!(one.answer(early), None);
    one.pass(Duration::from_secs(2));
    assert_eq!(one.answer(early), Some(Ok(Reply::Done)));
    assert_eq!(one.listed(), [1, 2]);
}

#[test]
fn a_change_that_may_be_possible_soon_is_asked_for_again() {
    let mut one = One::with_agents(&[]);
    one.group(&[1], &[]);
    one.reply(membership(newcomer(2)));
    one.reply(membership(newcomer(3)));
    one.group(&[1], &[2, 3]);
    let not_yet = |why: &str| GroupSetback::NotYet(Refusal::Conflict(why.to_owned()));
    one.setbacks = vec![not_yet("first"), not_yet("second")];
    let id = one.ask(membership(voters(&[1, 2, 3])));
    assert_eq!(one.answer(id), None, "the node that has the asker waits");
    one.pass(Duration::from_secs(1));
    assert_eq!(one.answer(id), Some(Ok(Reply::Done)));
    one.setbacks = vec![not_yet("for ever"); 100_000];
    let id = one.ask(membership(voters(&[1])));
    one.pass(WITHIN);
    let refused = one.answer(id).expect("in time").expect_err("refused");
    assert!(refused.to_string().contains("for ever"), "{refused}");
}

fn reserved(group: u32, ids: &[u64]) -> SystemCommand {
    let voters = ids.iter().copied().map(NodeId).collect();
    SystemCommand::ReserveVoters(Reservation { group: GroupId(group), voters })
}

/// A leader of three members at the level that has reservations; it votes alone.
fn of_three() -> One {
    let mut one = One::with_agents(&[]);
    one.group(&[1], &[]);
    one.reply(membership(newcomer(2)));
    one.reply(membership(newcomer(3)));
    one.group(&[1], &[2, 3]);
    one.apply(SystemCommand::RaiseFeatureLevel(2));
    one.changes.clear();
    one
}

#[test]
fn voters_are_reserved_before_they_change_and_the_new_ones_alone_afterwards() {
    let mut one = of_three();
    one.held = Some(Vec::new());
    let asked = one.ask(membership(voters(&[1, 2, 3])));
    assert_eq!(one.changes, [], "not before they are reserved");
    one.release();
    let set = BTreeSet::from([NODE, N2, NodeId(3)]);
    assert_eq!(one.changes, [GroupChange::Voters(set.clone())]);
    assert_eq!(one.answer(asked), Some(Ok(Reply::Done)));
    assert_eq!(one.ledger().roster().reserved(GroupId::SYSTEM), Some(&set));
    one.group(&[1, 2, 3], &[]);
    one.reply(membership(voters(&[1])));
    assert_eq!(one.ledger().roster().reserved(GroupId::SYSTEM), Some(&BTreeSet::from([NODE])));
    // Its own log of the group is behind, and the reservation counts.
    assert_eq!(one.reply(membership(MemberRequest::Remove(N2))), Reply::Done);
}

#[test]
fn who_is_about_to_vote_in_a_group_led_elsewhere_is_not_removed() {
    let mut one = of_three();
    assert_eq!(one.apply(reserved(1, &[1, 2])), Outcome::Done);
    let refused = one.refusal(MemberRequest::Remove(N2));
    assert!(refused.to_string().contains("votes in group g1"), "{refused}");
}

#[test]
fn who_is_removed_first_is_not_made_a_voter() {
    let mut one = of_three();
    one.held = Some(Vec::new());
    let asked = one.ask(membership(voters(&[1, 2, 3])));
    // Whoever led the system group then removed one of them.
    one.apply(SystemCommand::RemoveMember(N2));
    one.release();
    let refused = one.answer(asked).expect("answered").expect_err("refused");
    assert!(refused.to_string().contains("n2 is not a member"), "{refused}");
    assert!(!one.changes.iter().any(|change| matches!(change, GroupChange::Voters(_))));
}

#[test]
fn at_the_first_level_nothing_is_reserved() {
    let mut one = One::with_agents(&[]);
    one.group(&[1], &[]);
    one.reply(membership(newcomer(2)));
    one.reply(membership(newcomer(3)));
    one.group(&[1], &[2, 3]);
    assert_eq!(one.reply(membership(voters(&[1, 2, 3]))), Reply::Done);
    assert_eq!(one.ledger().roster().reserved(GroupId::SYSTEM), None);
    // Alone it knows all members' programs: its own.
    let silent = one.refusal(MemberRequest::Level(NewLevel { to: None }));
    assert!(silent.to_string().contains("n2, n3 did not answer"), "{silent}");
    let lower = one.refusal(MemberRequest::Level(NewLevel { to: Some(0) }));
    assert!(lower.to_string().contains("never lowered"), "{lower}");
}
