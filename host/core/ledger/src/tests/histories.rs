//! Random histories: commands that are in time, late, repeated and out of their
//! minds, on clocks that jump. Two ledgers fed alike agree; one that was restored
//! from a snapshot on the way agrees with both; and the oracle finds no fault.

use std::time::Duration;

use proptest::prelude::*;

use quorate_types::{
    AgentId, Faults, GroupId, Incarnation, Index, NodeId, PolicyEpoch, Submission, TaskId,
    TaskSpec, TaskState, Time, Timeouts, Token,
};

use super::fixture::{activation, agent, assignment, complete, fail, task, text};
use super::oracle::Oracle;
use crate::bounds::Bounds;
use crate::{
    Command, Ledger, NodeDown, NodeUp, RetireAgent, SLOT_BALANCER, ShardCommand, SystemCommand,
};

/// Small, so that short histories meet them.
const BOUNDS: Bounds = Bounds {
    agents_max: 3,
    open_max: 10,
    open_bytes_max: 400,
    finished_max: 5,
    finished_bytes_max: 200,
};
const CAPABILITIES: [&[&str]; 3] = [&[], &["index"], &["index", "rust"]];

/// One move. Numbers choose among what there is; `lag` takes something older than the newest.
#[derive(Clone, Debug)]
enum Move {
    Submit { kind: usize, key: Option<u8>, body: u8, hasty: bool },
    NodeUp { node: u64, boot: u64 },
    NodeDown { node: u64, lag: u64 },
    Register { node: u64, name: u8, lag: u64 },
    Retire { agent: u64, lag: u64 },
    Activate { policy: u8 },
    Adopt,
    AdoptAgain { nth: usize },
    Assign { task: u64, agent: u64, life_lag: u64, epoch_lag: u64 },
    Complete { task: u64, lag: u64 },
    Fail { task: u64, lag: u64, retry: bool },
    Expire { tasks: Vec<u64>, lag: u64 },
    Cancel { task: u64 },
    Sweep,
    Clock { ms: u64, back: bool },
    Restore,
}

/// Mostly nothing, sometimes one or two.
fn lag() -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(0_u64), 1 => Just(1_u64), 1 => Just(2_u64)]
}

fn moves() -> impl Strategy<Value = Move> {
    let (node, task, agent) = (1..3_u64, 0..12_u64, 0..8_u64);
    prop_oneof![
        9 => (0..3_usize, proptest::option::of(0..4_u8), 0..2_u8, any::<bool>())
            .prop_map(|(kind, key, body, hasty)| Move::Submit { kind, key, body, hasty }),
        1 => (node.clone(), 0..2_u64).prop_map(|(node, boot)| Move::NodeUp { node, boot }),
        1 => (node.clone(), lag()).prop_map(|(node, lag)| Move::NodeDown { node, lag }),
        5 => (node, 0..4_u8, lag()).prop_map(|(node, name, lag)| Move::Register { node, name, lag }),
        1 => (agent.clone(), lag()).prop_map(|(agent, lag)| Move::Retire { agent, lag }),
        1 => (0..3_u8).prop_map(|policy| Move::Activate { policy }),
        9 => Just(Move::Adopt),
        1 => any::<usize>().prop_map(|nth| Move::AdoptAgain { nth }),
        24 => (task.clone(), agent, lag(), lag()).prop_map(|(task, agent, life_lag, epoch_lag)| {
            Move::Assign { task, agent, life_lag, epoch_lag }
        }),
        8 => (task.clone(), lag()).prop_map(|(task, lag)| Move::Complete { task, lag }),
        6 => (task.clone(), lag(), any::<bool>())
            .prop_map(|(task, lag, retry)| Move::Fail { task, lag, retry }),
        2 => (proptest::collection::vec(task.clone(), 1..4), lag())
            .prop_map(|(tasks, lag)| Move::Expire { tasks, lag }),
        1 => task.prop_map(|task| Move::Cancel { task }),
        2 => Just(Move::Sweep),
        9 => (0..900_u64, proptest::bool::weighted(0.1))
            .prop_map(|(ms, back)| Move::Clock { ms, back }),
        1 => Just(Move::Restore),
    ]
}

const WAITING: [TaskState; 2] = [TaskState::Queued, TaskState::Retrying];

fn one_of<T: Copy>(all: &[T], drawn: u64) -> Option<T> {
    let nth = usize::try_from(drawn).ok()?.checked_rem(all.len())?;
    all.get(nth).copied()
}

struct History {
    one: Ledger,
    other: Ledger,
    oracle: Oracle,
    now: Time,
    index: Index,
    nonce: u64,
    adoptions: Vec<ShardCommand>,
}

impl History {
    fn new() -> Self {
        let empty = Ledger::with_bounds(GroupId::SYSTEM, &Faults::none(), BOUNDS);
        let mut history = Self {
            one: empty.clone(),
            other: empty,
            oracle: Oracle::default(),
            now: Time(1_000_000),
            index: Index(0),
            nonce: 0,
            adoptions: Vec::new(),
        };
        // Without a node and an agent most moves would do nothing.
        for setup in [
            Move::NodeUp { node: 1, boot: 0 },
            Move::Register { node: 1, name: 0, lag: 0 },
            Move::Adopt,
        ] {
            history.play(&setup);
        }
        history
    }

    fn apply(&mut self, command: impl Into<Command>) {
        let command = command.into();
        // A log has entries of its own between ours.
        self.index = Index(self.index.0 + 1 + self.now.0 % 2);
        let entry = command.encode(self.now);
        let applied = self.one.apply(self.index, &entry).expect("an entry of our own");
        assert_eq!(self.other.apply(self.index, &entry).as_ref(), Ok(&applied));
        assert_eq!(self.one.digest(), self.other.digest(), "two replicas");
        assert_eq!(self.one.digest(), self.one.recompute_digest(), "kept and computed");
        let shard = match &command {
            Command::Shard(command) => Some(command),
            Command::System(_) => None,
        };
        self.oracle.saw(shard, &applied.outcome, &applied.events);
        self.oracle.check(&self.one);
    }

    /// Mostly a task in one of these states, else whichever is that far back from the newest.
    fn task(&self, drawn: u64, states: &[TaskState]) -> TaskId {
        let newest = self.one.shard.counters.tasks;
        let any = TaskId::new(0, newest.saturating_sub(drawn + 1));
        let fit = self.one.shard.tasks.values().map(|kept| &kept.task);
        let fit = fit.filter(|task| states.contains(&task.state())).map(|task| task.id);
        one_of(&fit.collect::<Vec<_>>(), drawn).filter(|_id| drawn < 10).unwrap_or(any)
    }

    /// A task and the token of its lease or, where it has none, of its last one; or an older one.
    fn lease(&self, drawn: u64, lag: u64) -> (TaskId, Token) {
        let id = self.task(drawn, &[TaskState::Leased]);
        let kept = self.one.shard.tasks.get(&id);
        let newest = kept.and_then(|kept| kept.task.decisions.last().map(|last| last.token.0));
        (id, Token(newest.unwrap_or(0).saturating_sub(lag)))
    }

    fn life_of_node(&self, node: u64, lag: u64) -> (NodeId, Incarnation) {
        let recorded = self.one.node(NodeId(node)).map_or(0, |node| node.incarnation.0);
        (NodeId(node), Incarnation(recorded.saturating_sub(lag)))
    }

    /// Mostly of an agent that lives, else of any.
    fn life_of_agent(&self, drawn: u64, lag: u64) -> (AgentId, Incarnation) {
        let any = AgentId(1 + drawn % self.one.system.counters.agents.max(1));
        let live: Vec<_> = self.one.agents().map(|agent| agent.id).collect();
        let id = one_of(&live, drawn).filter(|_id| drawn < 6).unwrap_or(any);
        let recorded = self.one.agent(id).map_or(0, |agent| agent.incarnation.0);
        (id, Incarnation(recorded.saturating_sub(lag)))
    }

    fn play(&mut self, choice: &Move) {
        let reason = "it was drawn".to_owned();
        match *choice {
            Move::Submit { kind, key, body, hasty } => self.submit(kind, key, body, hasty),
            Move::NodeUp { node, boot } => {
                let node = NodeId(node);
                let up = NodeUp { node, name: node.to_string(), api: None, shards: 1, boot };
                self.apply(SystemCommand::NodeUp(up));
            }
            Move::NodeDown { node, lag } => {
                let (node, incarnation) = self.life_of_node(node, lag);
                self.apply(SystemCommand::NodeDown(NodeDown { node, incarnation, reason }));
            }
            Move::Register { node, name, lag } => {
                let (node, incarnation) = self.life_of_node(node, lag);
                let spec = agent(&format!("agent-{name}"), node, incarnation, CAPABILITIES[2]);
                self.apply(SystemCommand::RegisterAgent(spec));
            }
            Move::Retire { agent, lag } => {
                let (agent, incarnation) = self.life_of_agent(agent, lag);
                self.apply(SystemCommand::RetireAgent(RetireAgent { agent, incarnation, reason }));
            }
            Move::Activate { policy } => self.apply(activation(&format!("policy-{policy}"))),
            Move::Adopt => {
                for command in Ledger::adoptions(&self.one, &self.one) {
                    self.adoptions.push(command.clone());
                    self.apply(command);
                }
            }
            Move::AdoptAgain { nth } => {
                let again = nth.checked_rem(self.adoptions.len());
                if let Some(command) = again.map(|nth| self.adoptions[nth].clone()) {
                    self.apply(command);
                }
            }
            Move::Assign { task, agent, life_lag, epoch_lag } => {
                let epoch = self.one.policy(SLOT_BALANCER).map_or(0, |policy| policy.epoch.0);
                let epoch = PolicyEpoch(epoch.saturating_sub(epoch_lag));
                let life = self.life_of_agent(agent, life_lag);
                let chosen = assignment(self.task(task, &WAITING), life, epoch);
                self.apply(ShardCommand::Assign(vec![chosen.clone(), chosen]));
            }
            Move::Complete { task, lag } => {
                let (id, token) = self.lease(task, lag);
                self.apply(complete(id, token, "a result"));
            }
            Move::Fail { task, lag, retry } => {
                let (id, token) = self.lease(task, lag);
                self.apply(fail(id, token, retry));
            }
            Move::Expire { ref tasks, lag } => {
                let leases = tasks.iter().map(|drawn| self.lease(*drawn, lag)).collect();
                self.apply(ShardCommand::Expire { leases, reason });
            }
            Move::Cancel { task } => {
                self.apply(ShardCommand::Cancel(self.task(task, &[])));
            }
            Move::Sweep => self.apply(ShardCommand::Sweep),
            Move::Clock { ms, back } => {
                let span = Duration::from_millis(ms);
                self.now = if back { self.now - span } else { self.now + span };
            }
            Move::Restore => self.restore(),
        }
    }

    fn submit(&mut self, kind: usize, key: Option<u8>, body: u8, hasty: bool) {
        self.nonce += u64::from(!hasty);
        let timeouts = Timeouts { queue_ms: hasty.then_some(700), ..Timeouts::default() };
        let spec = TaskSpec {
            namespace: format!("team-{}", kind % 2),
            input: text(&"x".repeat(40 + usize::from(body))),
            idempotency_key: key.map(|key| key.to_string()),
            priority: u8::try_from(kind).expect("small"),
            not_before: (body == 1 && kind == 2).then(|| self.now + Duration::from_millis(300)),
            deadline: hasty.then(|| self.now + Duration::from_secs(2)),
            retention_ms: 1500,
            timeouts,
            ..task(CAPABILITIES[kind])
        };
        let submission = Submission { spec, nonce: (1, 1, self.nonce) };
        self.apply(ShardCommand::Submit(vec![submission]));
    }

    /// One replica is replaced by what its snapshot says.
    fn restore(&mut self) {
        let snapshot = self.other.snapshot();
        let empty = Ledger::with_bounds(GroupId::SYSTEM, &Faults::none(), BOUNDS);
        let restored = Ledger::restore(empty, &snapshot).expect("a snapshot of our own");
        assert_eq!(restored.digest(), self.one.digest());
        assert_eq!(
            restored.shard.places, self.one.shard.places,
            "places are a function of records"
        );
        assert_eq!(
            Ledger::adoptions(&restored, &restored),
            Ledger::adoptions(&self.one, &self.one)
        );
        assert_eq!(restored.snapshot(), snapshot);
        self.other = restored;
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_history_diverges_loses_repeats_or_passes_a_fence(
        choices in proptest::collection::vec(moves(), 1..160),
        held_at in 0..160_usize,
    ) {
        let mut history = History::new();
        let mut held = None;
        for (at, choice) in choices.iter().enumerate() {
            if at == held_at {
                held = Some((history.one.clone(), history.one.digest()));
            }
            history.play(choice);
        }
        history.play(&Move::Restore);
        if let Some((view, digest)) = held {
            prop_assert_eq!(view.recompute_digest(), digest, "a view does not change");
        }
    }
}
