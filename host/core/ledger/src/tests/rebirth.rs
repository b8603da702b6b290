//! Another era: nothing that was given is given again, nobody holds anything, and all
//! that was recorded is there.

use quorate_types::kv::{
    Act, KvRequest, KvWatch, LeaseId, Op, Revision, SeatAct, SeatKind, Subject,
};
use quorate_types::{Faults, Index, NodeId, Refusal, TaskState, Token};

use super::fixture::{N1, World, agent, complete, member, task};
use crate::rebirth::{LEAP, Rebirth};
use crate::{Command, Ledger, Outcome, ShardCommand, SystemCommand};

fn rebirth(ids: &[u64], ids_given: u64) -> Rebirth {
    let members = ids.iter().copied().map(member).collect();
    Rebirth { members, ids_given: NodeId(ids_given), reason: "restored".to_owned() }
}

fn keys(acts: Vec<Act>) -> ShardCommand {
    ShardCommand::Kv(vec![KvRequest { namespace: "default".to_owned(), nonce: None, acts }])
}

/// A cluster at work: a lease of a task, a completed one, keys, a lock.
struct Before {
    world: World,
    held: (quorate_types::TaskId, Token),
    done: quorate_types::TaskId,
    life: (quorate_types::AgentId, quorate_types::Incarnation),
    lock: Token,
}

fn before() -> Before {
    let mut world = World::new();
    world.apply(SystemCommand::SeedMembers([1, 2, 3].map(member).into()));
    let life = world.with_agent(&["echo"]);
    let (one, done) = (world.submit(task(&["echo"])), world.submit(task(&["echo"])));
    let held = (one, world.assign(one, life));
    let token = world.assign(done, life);
    world.apply(complete(done, token, "result"));
    let grant = Act::Grant { segment: "app".to_owned(), ttl_ms: 5_000 };
    let put =
        |key: &str, lease| Op::Put { key: key.to_owned(), value: "x".into(), lease, expect: None };
    world.apply(keys(vec![grant, Act::Op(put("app/kept", None))]));
    let (lease, _ttl) = world.ledger.kv_leases_from(LeaseId(0)).next().expect("granted");
    let seat = Act::Seat {
        kind: SeatKind::Lock,
        name: "app/lock".to_owned(),
        lease,
        act: SeatAct::Acquire { value: "".into() },
    };
    world.apply(keys(vec![Act::Op(put("app/bound", Some(lease))), seat]));
    let lock = world.ledger.shard.kv.counters.token;
    Before { world, held, done, life, lock }
}

#[test]
fn nothing_is_held_and_no_number_comes_again() {
    let Before { mut world, held: (id, old), done, life, lock } = before();
    let last = Index(world.ledger.index().0 + 3);
    let nodes_before = world.ledger.node(N1).expect("of record").incarnation;
    world.ledger = world.ledger.clone().reborn(last, &rebirth(&[1], 3));
    assert_eq!(world.ledger.digest(), world.ledger.recompute_digest());
    assert_eq!(world.ledger.index(), Index(last.0 + LEAP));
    world.leap(world.ledger.index());

    assert_eq!((world.state(id), world.state(done)), (TaskState::Queued, TaskState::Completed));
    let late = world.refusal(complete(id, old, "late"));
    assert!(matches!(late, Refusal::Conflict(_)), "{late}");
    assert_eq!(world.pending_adoptions(), [], "what has ended was recorded everywhere");
    let early = world.try_assign(super::fixture::assignment(id, life, Default::default()));
    assert!(early.is_err(), "its agent is retired: {early:?}");

    let incarnation = world.start(N1, 2);
    assert!(incarnation.0 > nodes_before.0 + LEAP);
    let (same, again) = world.register(agent("worker", N1, incarnation, &["echo"]));
    assert!(same == life.0 && again.0 > life.1.0 + LEAP, "the same agent in a life of its own");
    let (other, _) = world.register(agent("other", N1, incarnation, &["echo"]));
    assert!(other.0 > LEAP);
    world.adopt();
    let token = world.assign(id, (same, again));
    assert!(token.0 > old.0 + LEAP, "{token} fences {old}");
    assert_eq!(world.outcome(complete(id, token, "done")), Outcome::Done);
    assert!(world.submit(task(&[])).sequence() >= LEAP);

    let kv = &world.ledger.shard.kv;
    assert!(kv.kept("default", "app/kept").is_some() && kv.kept("default", "app/bound").is_none());
    assert!(
        kv.leases.is_empty() && kv.counters.leases > LEAP && kv.counters.token.0 >= lock.0 + LEAP
    );
}

#[test]
fn a_watch_of_the_era_before_is_told_to_list_again() {
    let Before { mut world, .. } = before();
    let last = world.ledger.index();
    // Behind the backup, where the old cluster has gone on.
    let future = Revision { index: Index(last.0 + 1_000), ordinal: 0 };
    world.ledger = world.ledger.clone().reborn(last, &rebirth(&[1], 0));
    world.leap(world.ledger.index());
    let watch = |after| KvWatch {
        namespace: "default".to_owned(),
        subject: Subject::Prefix("app/".to_owned()),
        after: Some(after),
    };
    let lost = world.ledger.kv_changes(&watch(future), 10).expect_err("it missed something");
    assert!(matches!(lost, Refusal::Compacted(_)), "{lost}");
    let now = Revision::end_of(world.ledger.index());
    assert!(world.ledger.kv_changes(&watch(now), 10).is_ok_and(|found| found.changes.is_empty()));
    let put = Op::Put { key: "app/new".to_owned(), value: "y".into(), lease: None, expect: None };
    world.apply(keys(vec![Act::Op(put)]));
    let found = world.ledger.kv_changes(&watch(now), 10).expect("kept");
    assert_eq!(found.changes.len(), 1);
}

#[test]
fn the_list_begins_anew_and_ids_are_given_as_told() {
    let Before { world, .. } = before();
    let last = world.ledger.index();
    let survivor = world.ledger.clone().reborn(last, &rebirth(&[2], 3));
    let ids = |ledger: &Ledger| ledger.roster().members().map(|one| one.id.0).collect::<Vec<_>>();
    assert_eq!((ids(&survivor), survivor.roster().next_id()), (vec![2], NodeId(4)));
    let restored = world.ledger.clone().reborn(last, &rebirth(&[1, 5], 0));
    assert_eq!((ids(&restored), restored.roster().next_id()), (vec![1, 5], NodeId(6)));
}

#[test]
fn all_who_begin_from_one_backup_have_one_state() {
    let Before { world, .. } = before();
    let last = world.ledger.index();
    let snapshot = world.ledger.snapshot();
    let begin = || {
        let ledger = Ledger::restore(Ledger::new(&Faults::none()), &snapshot).expect("sound");
        ledger.reborn(last, &rebirth(&[1, 2, 3], 0))
    };
    let (mut one, mut other) = (begin(), begin());
    assert_eq!(one.digest(), other.digest());
    let again = Ledger::restore(Ledger::new(&Faults::none()), &one.snapshot()).expect("sound");
    assert_eq!(again.digest(), one.digest());
    let entry = Command::from(ShardCommand::Sweep).encode(one.time());
    let index = Index(one.index().0 + 1);
    for ledger in [&mut one, &mut other] {
        ledger.apply(index, &entry).expect("our own");
    }
    assert_eq!(one.digest(), other.digest());
}
