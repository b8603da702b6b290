//! Entries and snapshots as bytes: every kind survives, and what is not known or
//! not whole is refused by name.

use quorate_types::door::AgentFilter;
use quorate_types::kv::{Act, ClientId, Compare, Expect, KvRequest, LeaseId, Nonce, Op, Txn};
use quorate_types::{
    AgentId, Faults, GroupId, Incarnation, Index, Layout, NodeId, PolicyEpoch, Submission, TaskId,
    Time, Token,
};

use super::fixture::{N1, World, activation, agent, assignment, complete, fail, member, task};
use crate::{
    AgentAdoption, ApplyError, Command, Ledger, NodeDown, NodeUp, PolicyAdoption, RestoreError,
    RetireAgent, ShardCommand, Standing, SystemCommand,
};

fn one_of_each() -> Vec<Command> {
    let (id, token) = (TaskId::new(0, 3), Token(7));
    let (agent_id, incarnation) = (AgentId(2), Incarnation(1));
    let reason = "because".to_owned();
    let system = [
        SystemCommand::NodeUp(NodeUp {
            node: N1,
            name: "one".to_owned(),
            api: Some("127.0.0.1:1".to_owned()),
            shards: 1,
            boot: u64::MAX,
        }),
        SystemCommand::NodeDown(NodeDown { node: N1, incarnation, reason: reason.clone() }),
        SystemCommand::RegisterAgent(agent("a", N1, incarnation, &["x", "y"])),
        SystemCommand::RetireAgent(RetireAgent {
            agent: agent_id,
            incarnation,
            reason: reason.clone(),
        }),
        activation("round-robin"),
        SystemCommand::RaiseFeatureLevel(1),
        SystemCommand::SeedMembers(vec![member(1)]),
        SystemCommand::AdmitMember(member(2)),
        SystemCommand::RemoveMember(N1),
    ];
    let shard = [
        ShardCommand::Submit(vec![Submission { spec: task(&["x"]), nonce: (1, 2, 3) }]),
        ShardCommand::Assign(vec![assignment(id, (agent_id, incarnation), PolicyEpoch(1))]),
        complete(id, token, "x"),
        fail(id, token, true),
        ShardCommand::Expire { leases: vec![(id, token)], reason: reason.clone() },
        ShardCommand::Cancel(id),
        ShardCommand::AdoptAgents {
            from: Index(7),
            agents: vec![AgentAdoption {
                agent: agent_id,
                incarnation,
                standing: Standing::Retired,
                reason,
            }],
        },
        ShardCommand::AdoptPolicy(PolicyAdoption {
            slot: "balancer".to_owned(),
            epoch: PolicyEpoch(1),
            name: "round-robin".to_owned(),
        }),
        ShardCommand::Sweep,
        ShardCommand::Kv(vec![KvRequest {
            namespace: "default".to_owned(),
            nonce: Some(Nonce { client: ClientId(7), seq: 2, below: 1 }),
            acts: vec![
                Act::Op(Op::Put {
                    key: "app/a".to_owned(),
                    value: "x".into(),
                    lease: Some(LeaseId::new(0, 1)),
                    expect: Some(Expect::Version(3)),
                }),
                Act::Txn(Txn {
                    compare: vec![Compare { key: "app/a".to_owned(), is: Expect::Absent }],
                    then: vec![Op::Get { key: "app/a".to_owned() }],
                    otherwise: vec![Op::DeleteRange { prefix: "app/".to_owned() }],
                }),
            ],
        }]),
        ShardCommand::KvExpire(vec![LeaseId::new(0, 1)]),
    ];
    system.into_iter().map(Command::from).chain(shard.into_iter().map(Command::from)).collect()
}

#[test]
fn every_command_survives_the_log() {
    for command in one_of_each() {
        let entry = command.encode(Time(99));
        assert_eq!(Command::decode(&entry), Ok((command, Time(99))));
    }
}

#[test]
fn an_unknown_kind_or_version_stops_the_node_and_changes_nothing() {
    let mut ledger = Ledger::new(&Faults::none());
    let before = ledger.digest();
    let entry = Command::from(ShardCommand::Sweep).encode(Time(1));
    let mut kind = entry.to_vec();
    kind[0] = 0x7f;
    let mut version = entry.to_vec();
    version[3] = 2;
    let at = Index(1);
    assert_eq!(ledger.apply(at, &kind), Err(ApplyError::Unknown { kind: 0x7f6d, version: 1 }));
    assert_eq!(ledger.apply(at, &version), Err(ApplyError::Unknown { kind: 109, version: 2 }));
    assert_eq!(ledger.apply(at, &entry[..11]), Err(ApplyError::Short(11)));
    assert_eq!(ledger.digest(), before);
    assert!(ledger.apply(at, &entry).is_ok());
    assert_eq!(
        ledger.apply(at, &entry),
        Err(ApplyError::Order { last: at, got: at }),
        "an entry is applied once"
    );
}

#[test]
fn an_entry_cut_short_is_refused_whatever_its_kind() {
    for command in one_of_each() {
        let entry = command.encode(Time(1));
        for end in 0..entry.len() {
            assert!(Command::decode(&entry[..end]).is_err(), "{command:?} cut at {end}");
        }
        let longer = [entry.as_ref(), &[0]].concat();
        assert!(matches!(Command::decode(&longer), Err(ApplyError::Body { .. })));
    }
}

fn lived_in() -> World {
    let mut world = World::new();
    let life = world.with_agent(&["x"]);
    world.activate("round-robin");
    world.adopt();
    for n in 0..5 {
        let id = world.submit(task(&["x"]));
        if n > 0 {
            let token = world.assign(id, life);
            match n {
                1 => drop(world.apply(complete(id, token, "x"))),
                2 => drop(world.apply(fail(id, token, true))),
                3 => drop(world.apply(ShardCommand::Cancel(id))),
                _leased => {}
            }
        }
    }
    world.start(NodeId(2), 1);
    world.register(agent("unadopted", NodeId(2), Incarnation(1), &[]));
    world
}

fn restored(snapshot: &[u8]) -> Result<Ledger, RestoreError> {
    Ledger::restore(Ledger::new(&Faults::none()), snapshot)
}

#[test]
fn a_restored_ledger_is_the_same_ledger() {
    let world = lived_in();
    let snapshot = world.ledger.snapshot();
    let restored = restored(&snapshot).expect("a snapshot");
    assert_eq!(restored.digest(), world.ledger.digest());
    assert_eq!(restored.snapshot(), snapshot);
    assert_eq!(restored.shard.places, world.ledger.shard.places);
    assert_eq!(Ledger::adoptions(&restored, &restored), world.pending_adoptions());
    assert_eq!(world.pending_adoptions().len(), 1);
    let everything = AgentFilter::default();
    let mut views = world.views();
    let before = views.agent_views(&everything);
    views.set(GroupId::SYSTEM, std::sync::Arc::new(restored));
    assert_eq!(views.agent_views(&everything), before);
}

#[test]
fn a_snapshot_with_any_byte_changed_is_refused_or_says_the_same() {
    let world = lived_in();
    let snapshot = world.ledger.snapshot();
    for at in 0..snapshot.len() {
        let mut damaged = snapshot.to_vec();
        damaged[at] ^= 0x40;
        if let Ok(restored) = restored(&damaged) {
            assert_eq!(restored.snapshot(), snapshot, "byte {at} changed unseen");
        }
    }
    let short = restored(&snapshot[..35]);
    assert_eq!(short.err(), Some(RestoreError::Short(35)));
    let cut = restored(&snapshot[..snapshot.len() - 1]);
    assert!(matches!(cut, Err(RestoreError::Body(_))));
}

#[test]
fn a_group_takes_commands_of_its_own_machine_and_snapshots_of_its_own() {
    let layout = Layout::new(2).expect("a number of shards");
    let of = |group| Ledger::of(layout, GroupId(group), &Faults::none());
    for command in one_of_each() {
        let entry = command.encode(Time(9));
        let system = matches!(command, Command::System(_));
        let refused =
            |group| matches!(of(group).apply(Index(1), &entry), Err(ApplyError::Role { .. }));
        assert_eq!((refused(0), refused(1)), (!system, system), "{command:?}");
    }
    let other = Ledger::restore(of(2), &of(1).snapshot());
    assert!(matches!(other, Err(RestoreError::Group { found: GroupId(1), wanted: GroupId(2) })));
    assert_ne!(of(1).digest(), of(2).digest());
}
