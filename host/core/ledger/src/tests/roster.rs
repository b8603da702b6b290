//! The list of members: begun once, ids never given twice, a removed node's end.

use quorate_types::{EventKind, Faults, Incarnation, NodeId, Refusal};

use super::fixture::{N1, World, agent, member};
use crate::{Ledger, NodeUp, Outcome, RosterMember, SystemCommand};

fn seed(ids: &[u64]) -> SystemCommand {
    SystemCommand::SeedMembers(ids.iter().copied().map(member).collect())
}

fn admit(member: RosterMember) -> SystemCommand {
    SystemCommand::AdmitMember(member)
}

fn listed(ledger: &Ledger) -> Vec<u64> {
    ledger.roster().members().map(|member| member.id.0).collect()
}

fn conflict(refusal: &Refusal) -> &str {
    let Refusal::Conflict(why) = refusal else { panic!("{refusal:?}") };
    why
}

#[test]
fn the_list_begins_once_and_then_grows_by_ids_that_were_never_given() {
    let mut world = World::new();
    let early = world.refusal(admit(member(4)));
    assert!(conflict(&early).contains("not in the log yet"), "{early}");
    assert_eq!(world.outcome(seed(&[1, 2, 3])), Outcome::Done);
    assert_eq!(world.outcome(seed(&[7])), Outcome::Done, "begun already");
    assert_eq!(listed(&world.ledger), [1, 2, 3]);
    assert_eq!(world.outcome(admit(member(5))), Outcome::Done);
    let below = world.refusal(admit(member(4)));
    assert!(conflict(&below).contains("the next free is n6"), "{below}");
    assert_eq!(world.outcome(SystemCommand::RemoveMember(NodeId(5))), Outcome::Done);
    assert_eq!(world.outcome(SystemCommand::RemoveMember(NodeId(5))), Outcome::Done, "again");
    let again = world.refusal(admit(member(5)));
    assert!(conflict(&again).contains("given before"), "{again}");
    // A node that lost its disk may keep its key under another id.
    let back = RosterMember { id: NodeId(6), ..member(5) };
    assert_eq!(world.outcome(admit(back)), Outcome::Done);
    assert_eq!(listed(&world.ledger), [1, 2, 3, 6]);
}

#[test]
fn a_member_may_move_and_its_key_may_not() {
    let mut world = World::new();
    world.apply(seed(&[1, 2]));
    let moved = RosterMember { address: "127.0.0.1:9000".to_owned(), ..member(2) };
    assert_eq!(world.outcome(admit(moved.clone())), Outcome::Done);
    assert_eq!(world.outcome(admit(moved.clone())), Outcome::Done, "again");
    assert_eq!(world.ledger.roster().get(NodeId(2)), Some(&moved));
    let other = world.refusal(admit(RosterMember { peer: "else".to_owned(), ..member(2) }));
    assert!(conflict(&other).contains("another key is another node"), "{other}");
    let doubled = world.refusal(admit(RosterMember { peer: "peer-1".to_owned(), ..member(3) }));
    assert!(conflict(&doubled).contains("n1 has the peer id"), "{doubled}");
    let taken = RosterMember { address: "127.0.0.1:9000".to_owned(), ..member(3) };
    assert!(conflict(&world.refusal(admit(taken))).contains("n2 has the address"));
    let nowhere = world.refusal(admit(RosterMember { address: String::new(), ..member(3) }));
    assert!(matches!(nowhere, Refusal::Invalid(_)), "{nowhere:?}");
}

#[test]
fn a_removed_node_ends_with_its_agents_and_begins_no_life() {
    let mut world = World::new();
    world.apply(seed(&[1, 2]));
    let life = world.start(N1, 1);
    let (worker, _life) = world.register(agent("a", N1, life, &[]));
    let removed = world.apply(SystemCommand::RemoveMember(N1));
    assert!(
        matches!(&removed.events[..], [EventKind::AgentDown { agent, .. }] if *agent == worker),
        "{removed:?}"
    );
    assert!(world.ledger.node(N1).is_some_and(|node| node.down.is_some()));
    let up = NodeUp { node: N1, name: "node-1".to_owned(), api: None, shards: 1, boot: 2 };
    let refused = world.refusal(SystemCommand::NodeUp(up));
    assert!(conflict(&refused).contains("not a member"), "{refused}");
    let last = world.refusal(SystemCommand::RemoveMember(NodeId(2)));
    assert!(conflict(&last).contains("the last member"), "{last}");
    let unknown = world.refusal(SystemCommand::RemoveMember(NodeId(9)));
    assert!(matches!(unknown, Refusal::NotFound(_)), "{unknown:?}");
    assert_eq!(world.start(NodeId(2), 1), Incarnation(1));
}

#[test]
fn a_snapshot_carries_the_list() {
    let mut world = World::new();
    let before = Ledger::restore(Ledger::new(&Faults::none()), &world.ledger.snapshot());
    assert!(before.is_ok_and(|ledger| !ledger.roster().begun()));
    world.apply(seed(&[1, 2, 3]));
    world.apply(SystemCommand::RemoveMember(NodeId(3)));
    let after = Ledger::restore(Ledger::new(&Faults::none()), &world.ledger.snapshot())
        .expect("a snapshot");
    assert_eq!((after.roster(), after.digest()), (world.ledger.roster(), world.ledger.digest()));
    assert_eq!(after.roster().next_id(), NodeId(4));
}
