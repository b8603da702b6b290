//! What came of an entry. A refusal is an outcome like any other: every replica
//! refuses alike. An [`ApplyError`] is not: the node must stop.

use serde::{Deserialize, Serialize};

use quorate_types::kv::KvAnswer;
use quorate_types::view::Submitted;
use quorate_types::{
    AgentId, EventKind, GroupId, Incarnation, Index, PolicyEpoch, Refusal, Role, TaskState, Time,
    Token,
};

/// The answer to whoever proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, or done before.
    Done,
    /// To `NodeUp`: the node's incarnation.
    NodeUp(Incarnation),
    /// To `RegisterAgent`: the agent, and its life from now on.
    Registered(AgentId, Incarnation),
    /// To `ActivatePolicy`: the epoch, and the index that activated it.
    Activated(PolicyEpoch, Index),
    /// To `Submit`, in order.
    Submitted(Vec<Result<Submitted, Refusal>>),
    /// To `Assign`, in order: the lease's token.
    Assigned(Vec<Result<Token, Unassigned>>),
    /// To `Expire` and `AdoptAgents`.
    Requeued {
        /// Leases taken back; their tasks wait again.
        requeued: u32,
        /// Leases taken back whose tasks had lost too many attempts and are dead letters.
        dead: u32,
    },
    /// To `Sweep`.
    Swept {
        /// Tasks past their deadline or queue timeout, now dead letters.
        dead: u32,
        /// Finished records forgotten.
        forgotten: u32,
        /// Whether there is more to do at this ledger time: propose again.
        more: bool,
    },
    /// To `Kv`, in order.
    Kv(Vec<KvAnswer>),
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why an assignment was not made. The leader picks again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Unassigned {
    /// There is no such task (any more).
    #[error("the task does not exist")]
    NoTask,
    /// It does not wait for an agent.
    #[error("the task is {0}")]
    NotWaiting(TaskState),
    /// It waits for a time first.
    #[error("the task may not start before ledger time {0}")]
    TooEarly(Time),
    /// The shard has recorded another life of the agent, or that this one has ended.
    #[error("the agent's life on record is {recorded:?}")]
    Agent {
        /// The life that may hold leases, if one may.
        recorded: Option<Incarnation>,
    },
    /// The shard has recorded another epoch of the balancer.
    #[error("the balancer's epoch on record is {recorded}")]
    Policy {
        /// That epoch.
        recorded: PolicyEpoch,
    },
    /// A lease needs a term.
    #[error("the lease's term is zero")]
    Term,
}

/// An applied entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer to whoever proposed.
    pub outcome: Outcome,
    /// What happened, in order.
    pub events: Vec<EventKind>,
}

/// Why an entry could not be applied. The node must stop: to skip it would be to diverge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Shorter than an entry's header.
    #[error("an entry of {0} bytes has no header")]
    Short(usize),
    /// Written by a newer version of this program.
    #[error("command kind {kind} version {version} is not known here; update this node")]
    Unknown {
        /// The kind.
        kind: u16,
        /// Its version.
        version: u16,
    },
    /// A known kind with another body.
    #[error("the body of command kind {kind} is damaged: {reason}")]
    Body {
        /// The kind.
        kind: u16,
        /// What the decoder said.
        reason: String,
    },
    /// The log was not applied in order.
    #[error("entry {got} cannot follow entry {last}")]
    Order {
        /// The last entry applied.
        last: Index,
        /// The entry given.
        got: Index,
    },
    /// A command for a machine that this group does not carry.
    #[error(
        "the entry speaks to a machine that this group does not carry ({role:?}); `shards` in this \
         node's file is not the number that the cluster was made with"
    )]
    Role {
        /// What the group carries.
        role: Role,
    },
    /// The cluster has agreed on commands that this program does not know.
    #[error(
        "the cluster is at feature level {raised} and this program knows {known}: start the one that \
         the other members run (`quorate --version` at each), or a newer one"
    )]
    Level {
        /// Agreed.
        raised: u32,
        /// Known here.
        known: u32,
    },
    /// A command that the cluster has not agreed on yet; whoever proposed it was wrong to.
    #[error("an entry is of feature level {level} and the cluster has agreed on {agreed}")]
    Early {
        /// The entry's.
        level: u32,
        /// Agreed.
        agreed: u32,
    },
}

/// Why a snapshot could not be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It is another group's.
    #[error("the snapshot is of group {found}, and this is group {wanted}")]
    Group {
        /// Whose it is.
        found: GroupId,
        /// Whose it should be.
        wanted: GroupId,
    },
    /// Of a cluster that has agreed on commands that this program does not know.
    #[error(
        "the snapshot is of feature level {agreed} and this program knows {known}: start the one that \
         the other members run (`quorate --version` at each), or a newer one"
    )]
    Level {
        /// Agreed.
        agreed: u32,
        /// Known here.
        known: u32,
    },
    /// Shorter than its header.
    #[error("a snapshot of {0} bytes has no header")]
    Short(usize),
    /// Written by another version of this program, or no snapshot at all.
    #[error("snapshot kind {kind} version {version} is not known here")]
    Unknown {
        /// The kind.
        kind: u16,
        /// Its version.
        version: u16,
    },
    /// Cannot be read.
    #[error("the snapshot's body is damaged: {0}")]
    Body(String),
    /// Its records do not have the digest that it states.
    #[error("the snapshot's records do not have the digest that it states")]
    Digest,
}
