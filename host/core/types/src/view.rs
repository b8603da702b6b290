//! What the doors show: plain records, the same in JSON and CBOR.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::agent::{AgentSpec, LoadReading, Wanted};
use crate::id::{
    AgentId, Digest, GroupId, Incarnation, Index, NodeId, PolicyEpoch, TaskId, Term, Token, TraceId,
};
use crate::task::{Payload, TaskSpec, TaskState};
use crate::time::Time;

/// The answer to one submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The task.
    pub id: TaskId,
    /// Whether the idempotency key had already made it.
    pub existed: bool,
}

/// A task as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// As submitted.
    pub spec: TaskSpec,
    /// Where it stands.
    pub state: TaskState,
    /// Leases given so far.
    pub attempts: u32,
    /// Failures reported so far.
    pub failures: u32,
    /// Who holds it now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease: Option<LeaseView>,
    /// What it produced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<Payload>,
    /// Why it failed last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Ledger time of submission.
    pub created: Time,
    /// Ledger time of its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finished: Option<Time>,
}

/// A lease as its holder or an onlooker sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// The task.
    pub task: TaskId,
    /// Who holds it.
    pub agent: AgentId,
    /// Which life of the holder.
    pub incarnation: Incarnation,
    /// Must accompany every renewal, completion and failure.
    pub token: Token,
    /// The policy that chose the holder.
    pub policy_epoch: PolicyEpoch,
    /// The lease ends this long after its last sign of life, milliseconds.
    pub term_ms: u64,
    /// Which attempt, from 1.
    pub attempt: u32,
}

/// A lease with the work itself, as a worker takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// The lease.
    pub lease: LeaseView,
    /// The work.
    pub spec: TaskSpec,
}

/// One routing decision, for `why`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Who was chosen.
    pub agent: AgentId,
    /// The policy epoch that chose.
    pub policy_epoch: PolicyEpoch,
    /// The policy's name.
    pub policy: String,
    /// Whether the native fallback answered because the component could not.
    pub fallback: bool,
    /// How many agents could have been chosen.
    pub candidates: u32,
    /// What the policy knew of the chosen one.
    pub reading: LoadReading,
    /// The token of the lease that followed.
    pub token: Token,
    /// Ledger time.
    pub at: Time,
    /// How that attempt ended, once it has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<String>,
}

/// The history of a task's routing, oldest first; bounded to the last 16 attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The task.
    pub task: TaskId,
    /// Its trace.
    pub trace: TraceId,
    /// Why it waits, where it waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waits: Option<String>,
    /// The decisions.
    pub decisions: Vec<Decision>,
}

/// Some tasks, in order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<TaskView>,
    /// Pass it to see what follows; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cursor: Option<String>,
    /// Tasks by state, over all tasks of the namespace.
    pub counts: BTreeMap<TaskState, u64>,
    /// Read without asking the leader: may be old.
    pub stale: bool,
}

/// An agent of record with what gossip says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its id.
    pub id: AgentId,
    /// Its life.
    pub incarnation: Incarnation,
    /// As registered.
    pub spec: AgentSpec,
    /// Leases it holds, from the ledger.
    pub leases: u32,
    /// Newest reading, if any has come.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reading: Option<LoadReading>,
}

/// A member as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// The node.
    pub node: NodeId,
    /// Its name in the cluster file.
    pub name: String,
    /// Its libp2p peer id.
    pub peer: String,
    /// Where it listens.
    pub address: String,
    /// Its HTTP door, as it says of itself.
    pub api: Option<String>,
    /// `alive`, `suspect` or `down`.
    pub status: String,
    /// Its life.
    pub incarnation: Incarnation,
}

/// One group on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// The group.
    pub group: GroupId,
    /// Who leads it, as this node knows.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: Term,
    /// Voters; of both sets while they change.
    pub voters: Vec<NodeId>,
    /// Those that follow without a vote.
    #[serde(default)]
    pub learners: Vec<NodeId>,
    /// Last applied entry.
    pub applied_index: Index,
    /// Digest of the state's content there; equal on every replica at one index.
    pub state_digest: Digest,
}

/// What one node says of itself, for `cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// The node.
    pub node: NodeId,
    /// Its groups.
    pub groups: Vec<GroupView>,
    /// The feature level that the cluster has agreed on, as this node has applied it.
    #[serde(default = "first_level")]
    pub feature_level: u32,
    /// The highest that this node's program knows.
    #[serde(default = "first_level")]
    pub knows_level: u32,
}

/// That of programs which say nothing of levels.
const fn first_level() -> u32 {
    1
}

/// A policy slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// Where it is plugged in, e.g. `balancer`.
    pub slot: String,
    /// What is plugged in.
    pub name: String,
    /// The component.
    pub digest: Digest,
    /// Its activation.
    pub epoch: PolicyEpoch,
    /// The log index that activated it; every replica switched there.
    pub index: Index,
    /// The index at which each shard adopted it; no later assignment there carries an older epoch.
    pub adopted: BTreeMap<GroupId, Index>,
    /// Per node: `ready`, or why the native fallback runs there.
    pub nodes: BTreeMap<NodeId, String>,
    /// Assignments made under each epoch so far.
    pub decisions: BTreeMap<PolicyEpoch, u64>,
}

/// A routed request, never logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallSpec {
    /// Whose it is.
    pub namespace: String,
    /// All of these its agent must have.
    pub capabilities: Vec<String>,
    /// Media type of the body.
    pub content_type: String,
    /// At most `CALL_BYTES_MAX`.
    pub body: Bytes,
    /// Within this span, milliseconds, the caller has an answer or a typed error.
    pub deadline_ms: u64,
    /// Whether an attempt that may have run can be repeated when its node dies.
    pub idempotent: bool,
    /// The trace it belongs to.
    pub trace: TraceId,
}

impl CallSpec {
    /// What the call asks of its agent.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            namespace: self.namespace.clone(),
            capabilities: self.capabilities.iter().cloned().collect(),
        }
    }
}

/// One step of a call's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallEvent {
    /// More of the reply.
    Chunk(Bytes),
    /// The end, with who answered.
    Done {
        /// The agent.
        agent: AgentId,
        /// The policy epoch that chose it.
        policy_epoch: PolicyEpoch,
        /// Attempts made, from 1.
        attempts: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_asks_for_its_capabilities_in_its_namespace() {
        let call = CallSpec {
            namespace: "a".to_owned(),
            capabilities: vec!["b".to_owned(), "a".to_owned()],
            content_type: String::new(),
            body: Bytes::new(),
            deadline_ms: 1,
            idempotent: false,
            trace: TraceId::default(),
        };
        assert_eq!(call.wanted().to_string(), "[a, b] in namespace `a`");
    }
}
