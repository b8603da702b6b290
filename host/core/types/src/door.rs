//! The seam between a node and its doors: closed sets of requests, replies and
//! refusals. `api` and `sim` speak it; the kernel answers.
//!
//! A request may be sent to any node; whichever node must answer it (the leader
//! of its group, for all that is logged) is found beneath the seam. Requests
//! that change something are idempotent, so a node may ask a new leader again.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::agent::{AgentSpec, LoadReading};
use crate::id::{AgentId, Digest, GroupId, Incarnation, NodeId, TaskId, Token};
use crate::kv::{Changes, KvAnswer, KvFound, KvRead, KvRequest, KvWatch, LeaseId};
use crate::layout::Layout;
use crate::revision::Revision;
use crate::task::{Payload, Submission, TaskState};
use crate::view::{
    AgentView, CallEvent, CallSpec, LeaseGrant, MemberView, NodeView, PolicyView, Submitted,
    TaskPage, TaskView, Why,
};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// Sees every write acknowledged before the read began (ReadIndex, Raft thesis 6.4).
    #[default]
    Linearizable,
    /// What this node has applied; the reply says so.
    Stale,
}

/// Which tasks to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFilter {
    /// In this namespace.
    pub namespace: String,
    /// In this state.
    pub state: Option<TaskState>,
    /// In this queue.
    pub queue: Option<String>,
    /// After this cursor.
    pub cursor: Option<String>,
    /// At most this many, 1–1,000.
    pub limit: u32,
}

/// Which agents to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFilter {
    /// Of this namespace; of every one where none is named.
    pub namespace: Option<String>,
    /// With all of these capabilities.
    pub capabilities: Vec<String>,
}

/// What can be asked of a cluster. JSON never carries these; doors translate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Submit tasks, each by itself; at most `SUBMIT_BATCH_MAX`.
    Submit(Vec<Submission>),
    /// One task.
    Task(TaskId, Consistency),
    /// Some tasks.
    Tasks(TaskFilter, Consistency),
    /// A task's routing history.
    Why(TaskId, Consistency),
    /// Cancel a task.
    Cancel(TaskId),
    /// Register an agent, or a new life of it.
    Register(AgentSpec),
    /// An outside agent lives; renews every lease it holds.
    Beat(AgentId, Incarnation, Option<LoadReading>),
    /// An agent leaves; its leases are requeued.
    Deregister(AgentId, Incarnation),
    /// Agents that live, some or all.
    Agents(AgentFilter, Consistency),
    /// An outside agent offers `max` slots for up to `wait_ms`.
    Take {
        /// Who asks.
        agent: AgentId,
        /// Its life.
        incarnation: Incarnation,
        /// Leases wanted, at least 1.
        max: u32,
        /// How long to wait for the first, milliseconds.
        wait_ms: u64,
        /// Leases that it knows to hold, by their tokens; where it says, others of it are told again.
        holding: Option<Vec<Token>>,
    },
    /// Renew one lease.
    Renew(TaskId, Token),
    /// Finish a task.
    Complete(TaskId, Token, Payload),
    /// Report a failed attempt; `true` asks for another.
    Fail(TaskId, Token, String, bool),
    /// Who belongs to the cluster, votes and leads.
    Membership(crate::member::MemberRequest),
    /// Members as this node sees them.
    Members,
    /// Groups, indices and digests of every reachable node.
    Cluster,
    /// This node's own groups; asked by `Cluster` of each peer.
    NodeStatus,
    /// Slots and what is in them.
    Policies(Consistency),
    /// Acts on keys, leases and seats, of one group. Each request is known by its nonce when it comes
    /// again.
    Kv(Vec<KvRequest>),
    /// Questions about keys, leases and seats of one group.
    KvRead(Vec<KvRead>, Consistency),
    /// A lease of keys and seats lives on.
    KvKeep(LeaseId),
    /// Nothing but that this node has applied, in these groups, all that was acknowledged before.
    Fresh(Vec<GroupId>),
    /// Put a component (a blob that the cluster already holds) in a slot.
    ApplyPolicy {
        /// The slot, e.g. `balancer`.
        slot: String,
        /// What to call it.
        name: String,
        /// The component.
        digest: Digest,
        /// Apply although a live member is not ready; it runs the native fallback.
        force: bool,
    },
    /// Compile this component and say whether it can run here; asked by the leader of each member.
    PreparePolicy {
        /// The slot.
        slot: String,
        /// The component.
        digest: Digest,
    },
}

/// The answers, each to the request of like name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Submit`: one answer a submission, in order.
    Submitted(Vec<Result<Submitted, Refusal>>),
    /// To `Task`; the flag marks a stale read.
    Task(Box<TaskView>, bool),
    /// To `Tasks`.
    Tasks(TaskPage),
    /// To `Why`.
    Why(Why),
    /// To `Register`.
    Registered(AgentId, Incarnation),
    /// To `Agents`.
    Agents(Vec<AgentView>),
    /// To `Take`; empty when the wait ended.
    Leases(Vec<LeaseGrant>),
    /// To `Renew` and `KvKeep`: the term that begins now, milliseconds.
    Renewed(u64),
    /// To `Kv`: one answer a request, in order.
    Kv(Vec<KvAnswer>),
    /// To `KvRead`: one answer a question, in order; the flag marks stale ones.
    KvFound(Vec<Result<KvFound, Refusal>>, bool),
    /// To `Members`.
    Members(Vec<MemberView>),
    /// To `Cluster`.
    Cluster(Vec<NodeView>),
    /// To `NodeStatus`.
    Node(NodeView),
    /// To `Policies`.
    Policies(Vec<PolicyView>),
    /// To `ApplyPolicy`: committed and adopted.
    Applied(Box<PolicyView>),
    /// The rest: committed.
    Done,
}

/// Why a request was not carried out. Each says what, why, and what to try.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The state of things forbids it: another body under the key, a stale token, a fenced life.
    #[error("{0}")]
    Conflict(String),
    /// A queue is full; nothing was taken.
    #[error("{what} is full; try again in {retry_after_ms} ms")]
    Busy {
        /// Which bound.
        what: String,
        /// When to try again, milliseconds.
        retry_after_ms: u64,
    },
    /// No quorum answers; nothing is known to have been done, and a repeat is safe.
    #[error("no leader with a quorum could be reached: {0}; it is safe to try again")]
    Unavailable(String),
    /// The deadline passed; a change may or may not have been made. A repeat is safe.
    #[error("no answer within the deadline: {0}; it is safe to try again")]
    Timeout(String),
    /// An agent could not do its work.
    #[error("the agent failed: {0}")]
    Agent(String),
    /// Larger than a limit.
    #[error("{what} has {got} bytes; the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size, bytes.
        got: u64,
        /// The limit, bytes.
        limit: u64,
    },
    /// Older than what is still kept.
    #[error("{0} is no longer kept; list again and watch from there")]
    Compacted(String),
    /// It would be one act on what belongs to several groups.
    #[error("{0}")]
    Across(String),
}

/// What happened, as the log ordered it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What was seen with it and before it; a watch resumes with this.
    pub revision: Revision,
    /// What.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum EventKind {
    /// A task entered a state.
    Task {
        /// The task.
        task: TaskId,
        /// Its namespace.
        namespace: String,
        /// The state.
        state: TaskState,
        /// Who holds it, when leased.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        agent: Option<AgentId>,
        /// The lease that did it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        token: Option<Token>,
        /// Its attempt, from 1; 0 before the first.
        attempt: u32,
        /// Policy epoch of the assignment, when leased.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        policy_epoch: Option<crate::id::PolicyEpoch>,
        /// Why, where there is something to say.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<String>,
        /// The result, on completion.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        result: Option<Payload>,
        /// As labelled by its owner.
        #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty", default)]
        labels: std::collections::BTreeMap<String, String>,
    },
    /// An agent registered, or a new life of it.
    AgentUp {
        /// The agent.
        agent: AgentId,
        /// Its life.
        incarnation: Incarnation,
        /// Its node.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// An agent retired.
    AgentDown {
        /// The agent.
        agent: AgentId,
        /// The life that ended.
        incarnation: Incarnation,
        /// Why.
        reason: String,
    },
    /// A slot was given a policy.
    Policy {
        /// The slot.
        slot: String,
        /// The policy.
        name: String,
        /// Its epoch.
        epoch: crate::id::PolicyEpoch,
        /// `activated` in the system machine, or `adopted` by a shard.
        step: String,
        /// The group that adopted.
        group: GroupId,
    },
}

/// A future that a door awaits.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A source of items that a door reads until `None`. Dropping it cancels.
pub trait Source<T>: Send {
    /// The next item.
    fn next(&mut self) -> Borrowed<'_, Option<T>>;
}

/// A borrowed future.
pub type Borrowed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A node, as its doors see it.
pub trait Door: Send + Sync + 'static {
    /// Asks, and waits for the effect to be committed (or for the deadline, milliseconds).
    fn ask(&self, request: Request, deadline_ms: u64) -> Pending<Result<Reply, Refusal>>;

    /// Routes a call. The first refusal ends it; dropping the source cancels it.
    fn call(&self, call: CallSpec) -> Box<dyn Source<Result<CallEvent, Refusal>>>;

    /// Stores a blob durably on at least two nodes (one, in a cluster of one).
    fn put_blob(&self, content: Bytes) -> Pending<Result<Digest, Refusal>>;

    /// A blob, fetched from a peer when it is not here. Verified against its digest.
    fn get_blob(&self, digest: Digest) -> Pending<Result<Bytes, Refusal>>;

    /// Events after this revision; `None` means from now on. Ends with a refusal when the reader is
    /// too slow or asks for what is no longer kept.
    fn events(&self, after: Option<Revision>) -> Box<dyn Source<Result<Event, Refusal>>>;

    /// How the cluster's groups share its work.
    fn layout(&self) -> Layout;

    /// Changes to keys or a seat, in the order of their group's log, from what this node has applied.
    /// Now and then it gives none, only how far it has looked. Ends with a refusal when the watch
    /// begins before what is still kept, or cannot be.
    fn kv_watch(&self, watch: KvWatch) -> Box<dyn Source<Result<Changes, Refusal>>>;

    /// A backup of the whole cluster, as it is from the moment of the first piece on: the bytes of a
    /// file, in order. With blobs, or without. A refusal ends it, and then it is none.
    fn backup(&self, blobs: bool) -> Box<dyn Source<Result<Bytes, Refusal>>>;

    /// Whether this node knows a leader and its own state machine has caught up with it.
    fn ready(&self) -> Result<(), String>;

    /// Counters and gauges in the Prometheus text format, version 0.0.4.
    fn metrics(&self) -> String;
}
