//! The replicated state of a group that carries both machines.

use bytes::Bytes;

use quorate_types::door::TaskFilter;
use quorate_types::view::{AgentView, LeaseGrant, LeaseView, PolicyView, TaskPage, TaskView, Why};
use quorate_types::{
    AgentId, AgentSpec, CapabilitySet, Digest, Faults, Incarnation, Index, NodeId, PolicyEpoch,
    TaskId, Time,
};

use crate::command::ShardCommand;
use crate::outcome::{Applied, ApplyError, RestoreError};

/// The slot whose epoch every assignment carries.
pub const SLOT_BALANCER: &str = "balancer";

/// A node of record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its life, from 1.
    pub incarnation: Incarnation,
    /// Its name in the cluster file.
    pub name: String,
    /// Where its API listens, if others may know.
    pub api: Option<String>,
    /// Drawn by the node when it started.
    pub boot: u64,
    /// Why this life has ended, if it has.
    pub down: Option<String>,
}

/// How an agent's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Ledger time.
    pub at: Time,
    /// Why.
    pub reason: String,
}

/// An agent of record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its life, from 1.
    pub incarnation: Incarnation,
    /// As registered.
    pub spec: AgentSpec,
    /// Set once this life has ended.
    pub retired: Option<Retired>,
}

/// What is in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The slot.
    pub slot: String,
    /// What is plugged in.
    pub name: String,
    /// The component, a blob.
    pub digest: Digest,
    /// The WIT world it was built for.
    pub world: String,
    /// What it is opened with.
    pub config: Bytes,
    /// Its activation, from 1. Epoch 0 is the native answer, before any activation.
    pub epoch: PolicyEpoch,
    /// The log index that activated it.
    pub index: Index,
}

/// The state after some prefix of the log. A clone is cheap and independent.
#[derive(Clone, Debug)]
pub struct Ledger {}

impl Ledger {
    /// The state before the first entry.
    pub fn new(_faults: &Faults) -> Self {
        todo!()
    }

    /// Applies the entry at `index`. Indices grow; gaps (entries of the log's own) are fine.
    ///
    /// # Errors
    /// The node must stop; the state is unchanged.
    pub fn apply(&mut self, _index: Index, _entry: &[u8]) -> Result<Applied, ApplyError> {
        todo!()
    }

    /// The last entry applied.
    pub fn index(&self) -> Index {
        todo!()
    }

    /// Ledger time: the largest stamp so far.
    pub fn time(&self) -> Time {
        todo!()
    }

    /// Commands up to this level may be proposed.
    pub fn feature_level(&self) -> u32 {
        todo!()
    }

    /// A digest of the content, kept up to date with each entry: equal on every replica at one index.
    pub fn digest(&self) -> Digest {
        todo!()
    }

    /// The same digest, from scratch.
    pub fn recompute_digest(&self) -> Digest {
        todo!()
    }

    /// The whole state, with its kind, version and digest.
    pub fn snapshot(&self) -> Bytes {
        todo!()
    }

    /// The state that a snapshot holds.
    ///
    /// # Errors
    /// When the bytes are not a snapshot of this version, or do not have the digest they state.
    pub fn restore(_snapshot: &[u8], _faults: &Faults) -> Result<Self, RestoreError> {
        todo!()
    }

    /// What the shard must yet adopt from the system machine; empty most of the time. Whoever
    /// leads proposes these until they are gone.
    pub fn pending_adoptions(&self) -> Vec<ShardCommand> {
        todo!()
    }

    /// A task.
    pub fn task(&self, _id: TaskId) -> Option<TaskView> {
        todo!()
    }

    /// Whether a task of this id once was, and its record is no longer kept.
    pub fn was_forgotten(&self, _id: TaskId) -> bool {
        todo!()
    }

    /// A task's routing history.
    pub fn why(&self, _id: TaskId) -> Option<Why> {
        todo!()
    }

    /// Some tasks, in order of their ids. A page may be short, even empty, and have a cursor.
    pub fn tasks(&self, _filter: &TaskFilter) -> TaskPage {
        todo!()
    }

    /// The capability sets for which a task is ready at `now`.
    pub fn capability_sets_waiting(&self, _now: Time) -> impl Iterator<Item = &CapabilitySet> {
        std::iter::empty()
    }

    /// Up to `limit` tasks that wait for an agent with exactly this set and may be leased at
    /// `now`, first come first: (task, priority).
    pub fn ready_tasks(
        &self,
        _capabilities: &CapabilitySet,
        _now: Time,
        _limit: usize,
    ) -> Vec<(TaskId, u8)> {
        todo!()
    }

    /// The earliest time at which a task that may not be leased yet will be ready.
    pub fn next_ready(&self) -> Option<Time> {
        todo!()
    }

    /// The earliest time at which `Sweep` will have something to do.
    pub fn next_due(&self) -> Option<Time> {
        todo!()
    }

    /// A task's lease.
    pub fn lease(&self, _task: TaskId) -> Option<LeaseView> {
        todo!()
    }

    /// A task's lease with the work.
    pub fn grant(&self, _task: TaskId) -> Option<LeaseGrant> {
        todo!()
    }

    /// Every lease, by agent.
    pub fn leases(&self) -> impl Iterator<Item = LeaseView> {
        std::iter::empty()
    }

    /// One agent's leases.
    pub fn leases_of(&self, _agent: AgentId) -> impl Iterator<Item = LeaseView> {
        std::iter::empty()
    }

    /// How many leases an agent holds.
    pub fn leases_count(&self, _agent: AgentId) -> usize {
        todo!()
    }

    /// Agents that live, by id.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        std::iter::empty()
    }

    /// An agent, alive or retired.
    pub fn agent(&self, _id: AgentId) -> Option<&Agent> {
        todo!()
    }

    /// The agent of this name.
    pub fn agent_named(&self, _namespace: &str, _name: &str) -> Option<&Agent> {
        todo!()
    }

    /// Agents that live and have all of these.
    pub fn agents_with(&self, _wanted: &CapabilitySet) -> impl Iterator<Item = &Agent> {
        std::iter::empty()
    }

    /// The same as the doors show them; `reading` is left empty.
    pub fn agent_views(&self, _wanted: &CapabilitySet) -> Vec<AgentView> {
        todo!()
    }

    /// The life of an agent that assignments must carry now; none where the shard has adopted none.
    pub fn assignable(&self, _agent: AgentId) -> Option<Incarnation> {
        todo!()
    }

    /// Nodes of record, up or down, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::empty()
    }

    /// A node of record.
    pub fn node(&self, _id: NodeId) -> Option<&Node> {
        todo!()
    }

    /// What is in a slot.
    pub fn policy(&self, _slot: &str) -> Option<&Policy> {
        todo!()
    }

    /// The epoch that the shard has adopted for a slot: what assignments must carry.
    pub fn adopted_epoch(&self, _slot: &str) -> PolicyEpoch {
        todo!()
    }

    /// The slots as the doors show them; `nodes` is left empty.
    pub fn policies(&self) -> Vec<PolicyView> {
        todo!()
    }

    /// Whether some record refers to this blob.
    pub fn refers_to(&self, _blob: &Digest) -> bool {
        todo!()
    }
}
