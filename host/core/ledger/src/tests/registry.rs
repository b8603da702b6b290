//! Nodes and agents of record, and how their ends reach tasks.

use std::time::Duration;

use quorate_types::door::AgentFilter;
use quorate_types::{
    Digest, EventKind, Faults, Incarnation, NodeId, PolicyEpoch, Refusal, TaskState,
};

use super::fixture::{N1, World, agent, states, task};
use crate::bounds::{Bounds, SLOTS_MAX};
use crate::{
    Activate, AgentAdoption, ApplyError, Command, Ledger, NodeDown, NodeUp, Outcome, RetireAgent,
    ShardCommand, Standing, SystemCommand,
};

const N2: NodeId = NodeId(2);

fn down(node: NodeId, incarnation: Incarnation) -> SystemCommand {
    SystemCommand::NodeDown(NodeDown { node, incarnation, reason: "refused".to_owned() })
}

#[test]
fn each_start_of_a_node_is_a_new_life_and_a_repeat_is_not() {
    let mut world = World::new();
    assert_eq!(world.start(N1, 70), Incarnation(1));
    assert_eq!(world.start(N1, 70), Incarnation(1), "proposed again");
    assert_eq!(world.start(N1, 71), Incarnation(2), "started again");
    world.apply(down(N1, Incarnation(2)));
    assert_eq!(world.start(N1, 71), Incarnation(3), "declared down, it must begin a new life");
    assert_eq!(world.start(N2, 1), Incarnation(1));
}

#[test]
fn a_dead_node_takes_its_agents_with_it_and_their_tasks_wait_again() {
    let mut world = World::new();
    let (one, two) = (world.start(N1, 1), world.start(N2, 1));
    let dead = world.register(agent("a", N1, one, &[]));
    let also = world.register(agent("b", N1, one, &[]));
    let lives = world.register(agent("c", N2, two, &[]));
    world.adopt();
    let tasks = [dead, also, lives].map(|life| {
        let id = world.submit(task(&[]));
        world.assign(id, life);
        id
    });
    let applied = world.apply(down(N1, one));
    let down_ids = applied.events.iter().map(|event| match event {
        EventKind::AgentDown { agent, .. } => *agent,
        EventKind::Task { .. } | EventKind::AgentUp { .. } | EventKind::Policy { .. } => {
            panic!("{event:?}")
        }
    });
    assert_eq!(down_ids.collect::<Vec<_>>(), [dead.0, also.0]);
    assert_eq!(world.ledger.agents().map(|agent| agent.id).collect::<Vec<_>>(), [lives.0]);
    assert_eq!(world.pending_adoptions().len(), 1, "one entry a shard");
    let queued = TaskState::Queued;
    assert_eq!(states(&world.adopt()), [(tasks[0], queued), (tasks[1], queued)]);
    assert_eq!(world.ledger.leases_count(lives.0), 1);

    let again = world.apply(down(N1, one));
    assert_eq!((again.outcome, again.events), (Outcome::Done, vec![]));
}

#[test]
fn a_restart_retires_the_agents_of_the_life_before() {
    let mut world = World::new();
    let first = world.start(N1, 1);
    let old = world.register(agent("a", N1, first, &[]));
    world.adopt();
    let id = world.submit(task(&[]));
    world.assign(id, old);
    let second = world.start(N1, 2);
    assert!(world.ledger.agent(old.0).is_some_and(|agent| agent.retired.is_some()));
    let late = world.refusal(SystemCommand::RegisterAgent(agent("a", N1, first, &[])));
    assert!(matches!(late, Refusal::Conflict(_)), "{late}");
    let late = world.refusal(down(N1, first));
    assert!(matches!(late, Refusal::Conflict(_)), "a detector that saw the old life: {late}");
    let new = world.register(agent("a", N1, second, &[]));
    assert_eq!(new, (old.0, Incarnation(2)));
    assert_eq!(states(&world.adopt()), [(id, TaskState::Queued)], "both steps in one adoption");
    world.assign(id, new);
}

#[test]
fn no_agent_begins_on_a_node_that_is_down_or_unknown() {
    let mut world = World::new();
    let unknown = world.refusal(SystemCommand::RegisterAgent(agent("a", N1, Incarnation(1), &[])));
    assert!(matches!(unknown, Refusal::NotFound(_)), "{unknown}");
    let life = world.start(N1, 1);
    world.apply(down(N1, life));
    let fenced = world.refusal(SystemCommand::RegisterAgent(agent("a", N1, life, &[])));
    assert!(matches!(fenced, Refusal::Conflict(_)), "{fenced}");
    let future = world.refusal(SystemCommand::RegisterAgent(agent("a", N1, Incarnation(9), &[])));
    assert!(matches!(future, Refusal::Conflict(_)), "{future}");
}

#[test]
fn of_too_many_agents_the_longest_retired_is_forgotten() {
    let mut world = World::with(&Faults::none(), Bounds { agents_max: 2, ..Bounds::default() });
    let life = world.start(N1, 1);
    let named = |name: &str| agent(name, N1, life, &[]);
    let (a, b) = (world.register(named("a")), world.register(named("b")));
    world.adopt();
    let id = world.submit(task(&[]));
    world.assign(id, b);
    let full = world.refusal(SystemCommand::RegisterAgent(named("c")));
    assert!(matches!(full, Refusal::Busy { .. }), "{full}");
    for (agent, incarnation) in [b, a] {
        world.wait(Duration::from_secs(1));
        let reason = "done".to_owned();
        world.apply(SystemCommand::RetireAgent(RetireAgent { agent, incarnation, reason }));
    }
    let c = world.register(named("c"));
    assert!(world.ledger.agent(b.0).is_none() && world.ledger.agent(a.0).is_some());
    assert!(world.ledger.agent_named("default", "b").is_none());
    assert_eq!(states(&world.adopt()), [(id, TaskState::Queued)], "though never seen retired");
    assert!(!world.ledger.shard.agents.contains_key(&b.0));
    let again = world.register(named("b"));
    assert!(again.0 > c.0 && again.1 == Incarnation(1), "a number is never given again");
    world.adopt();
    world.assign(id, again);
}

#[test]
fn slots_are_bounded() {
    let mut world = World::new();
    let policy = |slot: String| {
        SystemCommand::ActivatePolicy(Activate {
            slot,
            name: "native".to_owned(),
            digest: Digest::default(),
            world: "quorate:balancer@0.1.0".to_owned(),
            config: bytes::Bytes::new(),
        })
    };
    for n in 0..SLOTS_MAX {
        let activated = world.outcome(policy(format!("slot-{n}")));
        assert!(matches!(activated, Outcome::Activated(PolicyEpoch(1), _)), "{activated:?}");
    }
    let full = world.refusal(policy("one more".to_owned()));
    assert!(matches!(full, Refusal::Invalid(_)), "{full}");
}

#[test]
fn agents_are_found_by_all_of_their_capabilities() {
    let mut world = World::new();
    let life = world.start(N1, 1);
    let both = world.register(agent("a", N1, life, &["rust", "index"]));
    let one = world.register(agent("b", N1, life, &["index"]));
    let find = |world: &World, wanted: &[&str]| -> Vec<_> {
        let capabilities = wanted.iter().map(|name| (*name).to_owned()).collect();
        let filter = AgentFilter { namespace: None, capabilities };
        world.views().agent_views(&filter).into_iter().map(|agent| agent.id).collect()
    };
    assert_eq!(find(&world, &["index"]), [both.0, one.0]);
    assert_eq!(find(&world, &["index", "rust"]), [both.0]);
    assert_eq!(find(&world, &[]), [both.0, one.0]);
    let elsewhere = AgentFilter { namespace: Some("other".to_owned()), capabilities: Vec::new() };
    assert_eq!(world.views().agent_views(&elsewhere), []);
    assert_eq!(world.ledger.agent_named("default", "b").map(|agent| agent.id), Some(one.0));
    let id = world.submit(task(&["absent"]));
    let waits = world.views().why(id).and_then(|why| why.waits).expect("it waits");
    assert!(waits.contains("absent"), "{waits}");
}

#[test]
fn the_feature_level_rises_only_and_stops_a_node_that_is_behind() {
    let mut world = World::new();
    let known = world.ledger.feature_level();
    assert_eq!(world.outcome(SystemCommand::RaiseFeatureLevel(known)), Outcome::Done);
    let lower = world.refusal(SystemCommand::RaiseFeatureLevel(known - 1));
    assert!(matches!(lower, Refusal::Conflict(_)), "{lower}");
    let known = world.ledger.knows_level();
    let raise = Command::from(SystemCommand::RaiseFeatureLevel(known + 1)).encode(world.now);
    let (before, index) = (world.ledger.digest(), world.ledger.index());
    let stopped = world.ledger.apply(quorate_types::Index(index.0 + 1), &raise);
    assert_eq!(stopped, Err(ApplyError::Level { raised: known + 1, known }));
    assert_eq!(world.ledger.digest(), before);
}

#[test]
fn what_was_read_before_a_record_is_passed_over() {
    let mut world = World::new();
    let node = world.start(N1, 1);
    let (agent, first) = world.register(agent("worker", N1, node, &["x"]));
    let stale = world.ledger.clone();
    world.register(super::fixture::agent("worker", N1, node, &["x"]));
    world.adopt();
    let second = Incarnation(first.0 + 1);
    assert_eq!(world.ledger.assignable(agent), Some(second));
    // A leader whose own state of the system group is older than what the shard has recorded.
    assert_eq!(Ledger::adoptions(&stale, &world.ledger), [], "it sees that it is behind");
    let forget = AgentAdoption {
        agent,
        incarnation: second,
        standing: Standing::Forgotten,
        reason: "not in an older state".to_owned(),
    };
    world.apply(ShardCommand::AdoptAgents { from: stale.index(), agents: vec![forget] });
    assert_eq!(world.ledger.assignable(agent), Some(second), "and if it does not, apply does");
}

#[test]
fn a_node_with_another_number_of_shards_is_refused() {
    let mut world = World::new();
    world.start(N1, 1);
    let up = NodeUp { node: N2, name: "two".to_owned(), api: None, shards: 2, boot: 1 };
    let refusal = world.refusal(SystemCommand::NodeUp(up));
    assert!(refusal.to_string().contains("set `shards = 1`"), "{refusal}");
}
