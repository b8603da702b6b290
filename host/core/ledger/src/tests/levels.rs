//! Feature levels: programs of two levels have one state for as long as the cluster has
//! agreed on the lower one, and afterwards the older one stops and never differs.

use std::collections::BTreeSet;

use quorate_types::{Faults, GroupId, Index, NodeId, Refusal, Time};

use super::fixture::{World, activation, member, task};
use crate::bounds::{Bounds, FEATURE_LEVEL_KNOWN};
use crate::{
    ApplyError, Command, Ledger, Outcome, Reservation, RestoreError, ShardCommand, SystemCommand,
};

fn program(known: u32) -> Faults {
    Faults { feature_level_known: Some(known), ..Faults::none() }
}

fn reserve(group: u32, voters: &[u64]) -> SystemCommand {
    let voters = voters.iter().copied().map(NodeId).collect();
    SystemCommand::ReserveVoters(Reservation { group: GroupId(group), voters })
}

/// What a leader of either program may have logged at level 1.
fn history() -> Vec<Command> {
    let submit = |number| {
        let nonce = (1, 1, number);
        let submission = quorate_types::Submission { spec: task(&["echo"]), nonce };
        ShardCommand::Submit(vec![submission]).into()
    };
    vec![
        SystemCommand::SeedMembers([1, 2, 3].map(member).into()).into(),
        submit(1),
        activation("load-aware").into(),
        SystemCommand::AdmitMember(member(4)).into(),
        submit(2),
        SystemCommand::RemoveMember(NodeId(4)).into(),
        ShardCommand::Sweep.into(),
        SystemCommand::RaiseFeatureLevel(1).into(),
    ]
}

/// Applies entries behind what was applied; the digest after each.
fn apply(ledger: &mut Ledger, commands: &[Command]) -> Vec<quorate_types::Digest> {
    let each = commands.iter().map(|command| {
        let index = Index(ledger.index().0 + 1);
        ledger.apply(index, &command.encode(Time(7_000_000))).expect("both know it");
        assert_eq!(ledger.digest(), ledger.recompute_digest());
        ledger.digest()
    });
    each.collect()
}

fn at(known: u32) -> Ledger {
    Ledger::new(&program(known))
}

fn raise(level: u32) -> Command {
    SystemCommand::RaiseFeatureLevel(level).into()
}

#[test]
fn two_programs_have_one_state_before_the_raise_and_one_of_them_after_it() {
    let (mut older, mut newer) = (at(1), at(2));
    let before = apply(&mut older, &history());
    assert_eq!(before, apply(&mut newer, &history()));
    assert_eq!(older.snapshot(), newer.snapshot(), "nor do snapshots tell them apart");
    // The older one reads what the newer one wrote, at the level that they agreed on.
    let taken_over = Ledger::restore(at(1), &newer.snapshot()).expect("it is of level 1");
    assert_eq!(taken_over.digest(), newer.digest());

    let stopped = older.digest();
    let index = Index(older.index().0 + 1);
    let refused = older.apply(index, &raise(2).encode(Time(8_000_000)));
    assert_eq!(refused, Err(ApplyError::Level { raised: 2, known: 1 }));
    assert_eq!(older.digest(), stopped, "what it does not know changes nothing");

    // A program that was updated in between goes on as one that was new from the begin.
    let mut updated = Ledger::restore(at(2), &older.snapshot()).expect("its own state");
    let after = [raise(2), reserve(1, &[1, 2]).into(), history()[1].clone()];
    assert_eq!(apply(&mut updated, &after), apply(&mut newer, &after));
    assert_eq!(updated.snapshot(), newer.snapshot());
    let old = Ledger::restore(at(1), &newer.snapshot());
    assert_eq!(old.err(), Some(RestoreError::Level { agreed: 2, known: 1 }));
}

#[test]
fn a_program_applies_by_what_was_agreed_and_not_by_what_it_knows() {
    let mut newer = at(2);
    apply(&mut newer, &history());
    let index = Index(newer.index().0 + 1);
    let early = newer.apply(index, &Command::from(reserve(1, &[1])).encode(Time(8_000_000)));
    assert_eq!(early, Err(ApplyError::Early { level: 2, agreed: 1 }));
    let known = Ledger::new(&Faults::none());
    assert_eq!((known.feature_level(), known.knows_level()), (1, FEATURE_LEVEL_KNOWN));
}

#[test]
fn whoever_is_reserved_is_not_removed_and_whoever_is_removed_is_not_reserved() {
    let mut world = World::with(&Faults::none(), Bounds::default());
    world.apply(SystemCommand::SeedMembers([1, 2, 3, 4].map(member).into()));
    world.apply(raise(2));
    assert_eq!(world.outcome(reserve(1, &[1, 2, 4])), Outcome::Done);
    assert_eq!(world.outcome(reserve(1, &[1, 2, 4])), Outcome::Done, "again");
    let votes = world.refusal(SystemCommand::RemoveMember(NodeId(4)));
    let Refusal::Conflict(why) = &votes else { panic!("{votes:?}") };
    assert!(why.contains("votes in group g1") && why.contains("set the voters"), "{why}");
    assert_eq!(world.outcome(reserve(1, &[1, 2, 3])), Outcome::Done, "others are named");
    assert_eq!(world.outcome(SystemCommand::RemoveMember(NodeId(4))), Outcome::Done);
    let late = world.refusal(reserve(2, &[1, 2, 4]));
    assert!(matches!(&late, Refusal::Conflict(why) if why.contains("not a member")), "{late}");
    let roster = world.ledger.roster();
    assert_eq!(roster.reserved(GroupId(1)), Some(&BTreeSet::from([1, 2, 3].map(NodeId))));
    assert_eq!(
        (roster.reserved_in(NodeId(3)), roster.reserved_in(NodeId(4))),
        (Some(GroupId(1)), None)
    );
    let again = Ledger::restore(Ledger::new(&Faults::none()), &world.ledger.snapshot());
    assert_eq!(again.expect("sound").digest(), world.ledger.digest());
}
