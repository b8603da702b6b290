//! One ledger with its clock and log position; every test speaks through it.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::view::{Submitted, TaskView};
use quorate_types::{
    AgentId, AgentSpec, EventKind, Faults, GroupId, Incarnation, Index, Layout, LoadReading,
    NodeId, Payload, PolicyEpoch, Refusal, Submission, TaskId, TaskSpec, TaskState, Time, Token,
};

use crate::bounds::Bounds;
use crate::{
    Activate, Applied, Assignment, Command, Ledger, NodeUp, Outcome, RosterMember, SLOT_BALANCER,
    ShardCommand, SystemCommand, Unassigned, Views,
};

pub(super) const N1: NodeId = NodeId(1);

pub(super) struct World {
    pub(super) ledger: Ledger,
    pub(super) now: Time,
    index: Index,
    nonce: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(&Faults::none(), Bounds::default())
    }

    pub(super) fn with(faults: &Faults, bounds: Bounds) -> Self {
        Self {
            ledger: Ledger::with_bounds(GroupId::SYSTEM, faults, bounds),
            now: Time(1_000_000),
            index: Index(0),
            nonce: 0,
        }
    }

    /// The log goes on behind this place.
    pub(super) fn leap(&mut self, index: Index) {
        self.index = index;
    }

    pub(super) fn wait(&mut self, span: Duration) -> &mut Self {
        self.now += span;
        self
    }

    /// Applies a command now, and sees that the digest kept is the digest computed.
    pub(super) fn apply(&mut self, command: impl Into<Command>) -> Applied {
        self.index = Index(self.index.0 + 1);
        let entry = command.into().encode(self.now);
        let applied = self.ledger.apply(self.index, &entry).expect("an entry of our own");
        assert_eq!(self.ledger.digest(), self.ledger.recompute_digest());
        applied
    }

    pub(super) fn outcome(&mut self, command: impl Into<Command>) -> Outcome {
        self.apply(command).outcome
    }

    pub(super) fn refusal(&mut self, command: impl Into<Command>) -> Refusal {
        let before = self.ledger.clone();
        let Applied { outcome: Outcome::Refused(refusal), events } = self.apply(command) else {
            panic!("it was not refused");
        };
        assert!(events.is_empty(), "a refusal tells watchers nothing");
        assert_eq!(
            (self.ledger.system.sum(), self.ledger.shard.sum()),
            (before.system.sum(), before.shard.sum()),
            "a refusal changes nothing"
        );
        refusal
    }

    /// A node starts.
    pub(super) fn start(&mut self, node: NodeId, boot: u64) -> Incarnation {
        let up = NodeUp { node, name: format!("node-{}", node.0), api: None, shards: 1, boot };
        let outcome = self.outcome(SystemCommand::NodeUp(up));
        let Outcome::NodeUp(incarnation) = outcome else { panic!("{outcome:?}") };
        incarnation
    }

    /// An agent of this node's life registers; nothing is adopted yet.
    pub(super) fn register(&mut self, spec: AgentSpec) -> (AgentId, Incarnation) {
        let outcome = self.outcome(SystemCommand::RegisterAgent(spec));
        let Outcome::Registered(agent, incarnation) = outcome else { panic!("{outcome:?}") };
        (agent, incarnation)
    }

    /// The ledger as a cluster of one group has it.
    pub(super) fn views(&self) -> Views {
        let mut views = Views::new(Layout::ONE);
        views.set(GroupId::SYSTEM, Arc::new(self.ledger.clone()));
        views
    }

    /// What is to be adopted.
    pub(super) fn pending_adoptions(&self) -> Vec<ShardCommand> {
        Ledger::adoptions(&self.ledger, &self.ledger)
    }

    /// The shard adopts what there is to adopt; the events of that.
    pub(super) fn adopt(&mut self) -> Vec<EventKind> {
        let commands = self.pending_adoptions();
        let events = commands.into_iter().flat_map(|command| self.apply(command).events).collect();
        assert_eq!(self.pending_adoptions(), [], "one round suffices here");
        events
    }

    /// Node 1 with an agent that can do everything asked for, adopted.
    pub(super) fn with_agent(&mut self, capabilities: &[&str]) -> (AgentId, Incarnation) {
        let node_incarnation = self.start(N1, 1);
        let life = self.register(agent("worker", N1, node_incarnation, capabilities));
        self.adopt();
        life
    }

    pub(super) fn submit_with_nonce(
        &mut self,
        spec: TaskSpec,
        nonce: u64,
    ) -> Result<Submitted, Refusal> {
        let submission = Submission { spec, nonce: (1, 1, nonce) };
        let outcome = self.outcome(ShardCommand::Submit(vec![submission]));
        let Outcome::Submitted(mut answers) = outcome else { panic!("{outcome:?}") };
        answers.remove(0)
    }

    pub(super) fn submit(&mut self, spec: TaskSpec) -> TaskId {
        self.nonce += 1;
        self.submit_with_nonce(spec, self.nonce).expect("a task that is taken").id
    }

    pub(super) fn try_assign(&mut self, assignment: Assignment) -> Result<Token, Unassigned> {
        let outcome = self.outcome(ShardCommand::Assign(vec![assignment]));
        let Outcome::Assigned(mut answers) = outcome else { panic!("{outcome:?}") };
        answers.remove(0)
    }

    /// Leases a task to an agent's life under the epoch that the shard has recorded.
    pub(super) fn assign(&mut self, task: TaskId, life: (AgentId, Incarnation)) -> Token {
        let epoch = self.ledger.adopted_epoch(SLOT_BALANCER);
        self.try_assign(assignment(task, life, epoch)).expect("a lease")
    }

    pub(super) fn activate(&mut self, name: &str) -> PolicyEpoch {
        let outcome = self.outcome(activation(name));
        let Outcome::Activated(epoch, _index) = outcome else { panic!("{outcome:?}") };
        epoch
    }

    pub(super) fn task(&self, id: TaskId) -> TaskView {
        self.ledger.task(id).expect("a record")
    }

    pub(super) fn state(&self, id: TaskId) -> TaskState {
        self.task(id).state
    }
}

pub(super) fn member(id: u64) -> RosterMember {
    RosterMember {
        id: NodeId(id),
        name: format!("node-{id}"),
        peer: format!("peer-{id}"),
        address: format!("127.0.0.1:{}", 7000 + id),
    }
}

pub(super) fn activation(name: &str) -> SystemCommand {
    SystemCommand::ActivatePolicy(Activate {
        slot: SLOT_BALANCER.to_owned(),
        name: name.to_owned(),
        digest: quorate_types::Digest::of(name.as_bytes()),
        world: "quorate:balancer@0.1.0".to_owned(),
        config: bytes::Bytes::new(),
    })
}

pub(super) fn agent(
    name: &str,
    node: NodeId,
    node_incarnation: Incarnation,
    capabilities: &[&str],
) -> AgentSpec {
    AgentSpec {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        node,
        node_incarnation,
        capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
        slots: 4,
        hosted: true,
    }
}

pub(super) fn task(capabilities: &[&str]) -> TaskSpec {
    TaskSpec {
        capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
        ..TaskSpec::default()
    }
}

pub(super) fn assignment(
    task: TaskId,
    (agent, incarnation): (AgentId, Incarnation),
    policy_epoch: PolicyEpoch,
) -> Assignment {
    Assignment {
        task,
        agent,
        incarnation,
        policy_epoch,
        policy: "peak-ewma".to_owned(),
        fallback: false,
        candidates: 3,
        reading: LoadReading::default(),
        term_ms: 5000,
    }
}

pub(super) fn complete(task: TaskId, token: Token, result: &str) -> ShardCommand {
    ShardCommand::Complete { task, token, result: text(result) }
}

pub(super) fn fail(task: TaskId, token: Token, retry: bool) -> ShardCommand {
    ShardCommand::Fail { task, token, error: "it broke".to_owned(), retry }
}

pub(super) fn text(content: &str) -> Payload {
    Payload::Inline(content.to_owned().into())
}

/// The states that tasks entered, as watchers are told.
pub(super) fn states(events: &[EventKind]) -> Vec<(TaskId, TaskState)> {
    let states = events.iter().filter_map(|event| match event {
        EventKind::Task { task, state, .. } => Some((*task, *state)),
        EventKind::AgentUp { .. } | EventKind::AgentDown { .. } | EventKind::Policy { .. } => None,
    });
    states.collect()
}
