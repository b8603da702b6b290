//! What can be proposed. Each kind has a number and a version of its own in the
//! log ([`crate::entry`]); a published record never changes under its version.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use quorate_types::kv::{KvRequest, LeaseId};
use quorate_types::{
    AgentId, AgentSpec, Digest, GroupId, Incarnation, Index, LoadReading, NodeId, Payload,
    PolicyEpoch, Submission, TaskId, Token,
};

use crate::bounds::{FEATURE_LEVEL_FIRST, FEATURE_LEVEL_RESERVES};
use crate::roster::RosterMember;

/// A command to one of the two machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// To the system machine.
    System(SystemCommand),
    /// To the shard machine.
    Shard(ShardCommand),
}

impl From<SystemCommand> for Command {
    fn from(command: SystemCommand) -> Self {
        Self::System(command)
    }
}

impl From<ShardCommand> for Command {
    fn from(command: ShardCommand) -> Self {
        Self::Shard(command)
    }
}

/// Nodes, agents of record, slots. Each changes what a shard must adopt, and no task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemCommand {
    /// A node started: `Outcome::NodeUp` gives its incarnation; agents of earlier ones are retired.
    NodeUp(NodeUp),
    /// A node is held to be dead: its agents are retired.
    NodeDown(NodeDown),
    /// An agent, or a new life of it: `Outcome::Registered`.
    RegisterAgent(AgentSpec),
    /// An agent left or died.
    RetireAgent(RetireAgent),
    /// Put a policy in a slot: `Outcome::Activated`. What is already there is left as it is.
    ActivatePolicy(Activate),
    /// Every member can read commands of this level.
    RaiseFeatureLevel(u32),
    /// The members that the cluster file names; changes nothing once there is a list.
    SeedMembers(Vec<RosterMember>),
    /// A node belongs to the cluster from now on, or has another name or address.
    AdmitMember(RosterMember),
    /// A node belongs to it no more, and its id is never given again.
    RemoveMember(NodeId),
    /// These vote in a group, or are about to, and are not removed until another set is named. Of
    /// feature level 2.
    ReserveVoters(Reservation),
}

impl Command {
    /// The feature level that it belongs to: it is proposed, and applied, only where the cluster
    /// has agreed on as much.
    pub const fn level(&self) -> u32 {
        match self {
            Self::System(SystemCommand::ReserveVoters(_)) => FEATURE_LEVEL_RESERVES,
            Self::System(_) | Self::Shard(_) => FEATURE_LEVEL_FIRST,
        }
    }
}

/// Tasks and their leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardCommand {
    /// Tasks, each by itself: `Outcome::Submitted`, in order.
    Submit(Vec<Submission>),
    /// Leases, each by itself: `Outcome::Assigned`, in order.
    Assign(Vec<Assignment>),
    /// A task is done.
    Complete {
        /// The task.
        task: TaskId,
        /// Its lease.
        token: Token,
        /// What it produced.
        result: Payload,
    },
    /// An attempt failed.
    Fail {
        /// The task.
        task: TaskId,
        /// Its lease.
        token: Token,
        /// Why.
        error: String,
        /// Whether another attempt makes sense.
        retry: bool,
    },
    /// These leases went without a sign of life for their term: `Outcome::Requeued`. Leases that
    /// have ended meanwhile are passed over.
    Expire {
        /// The leases.
        leases: Vec<(TaskId, Token)>,
        /// Why.
        reason: String,
    },
    /// The owner wants it no more.
    Cancel(TaskId),
    /// Record these agents' lives as the system machine has them: `Outcome::Requeued`.
    AdoptAgents {
        /// The system group's index that they were read at. What was read before a record that the
        /// shard has already is passed over: it would bring back the dead, or forget the living.
        from: Index,
        /// The lives.
        agents: Vec<AgentAdoption>,
    },
    /// Record this slot's policy as the system machine has it.
    AdoptPolicy(PolicyAdoption),
    /// End what is past its time and forget what was kept long enough: `Outcome::Swept`.
    Sweep,
    /// Requests about keys, leases and seats: `Outcome::Kv`, in order.
    Kv(Vec<KvRequest>),
    /// These leases of keys and seats went without a sign of life for their term. Those that have
    /// ended meanwhile are passed over.
    KvExpire(Vec<LeaseId>),
}

/// Who votes in a group, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// The group.
    pub group: GroupId,
    /// The voters; of both sets while they change.
    pub voters: BTreeSet<NodeId>,
}

/// A node started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeUp {
    /// The node.
    pub node: NodeId,
    /// Its name in the cluster file.
    pub name: String,
    /// Where its API listens, if others may know.
    pub api: Option<String>,
    /// How many shards the cluster has, as this node is set up. The first to say so settles it; a
    /// node that says otherwise is refused (`Conflict`), for it would look for tasks elsewhere.
    pub shards: u16,
    /// Drawn by the node when it starts, so that it may propose again: while the node is up, the
    /// same boot is the same incarnation.
    pub boot: u64,
}

/// A node is held to be dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeDown {
    /// The node.
    pub node: NodeId,
    /// The life that ended. A refusal (`Conflict`) where the node has begun another.
    pub incarnation: Incarnation,
    /// Why.
    pub reason: String,
}

/// An agent left or died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetireAgent {
    /// The agent.
    pub agent: AgentId,
    /// The life that ended. A refusal (`Conflict`) where the agent has begun another.
    pub incarnation: Incarnation,
    /// Why.
    pub reason: String,
}

/// Put a policy in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activate {
    /// The slot.
    pub slot: String,
    /// What to call the policy.
    pub name: String,
    /// The component, a blob.
    pub digest: Digest,
    /// The WIT world it was built for, with its version.
    pub world: String,
    /// What it is opened with.
    pub config: Bytes,
}

/// One routing decision on its way into the log. The leader decided; apply only checks its epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The task.
    pub task: TaskId,
    /// Who shall have it.
    pub agent: AgentId,
    /// Which life of the agent; must be the one that the shard has recorded.
    pub incarnation: Incarnation,
    /// The balancer's epoch; must be the one that the shard has recorded.
    pub policy_epoch: PolicyEpoch,
    /// The policy's name.
    pub policy: String,
    /// Whether the native fallback answered.
    pub fallback: bool,
    /// How many agents could have been chosen.
    pub candidates: u32,
    /// What the policy knew of the chosen one.
    pub reading: LoadReading,
    /// The lease's term, milliseconds.
    pub term_ms: u64,
}

/// What a shard shall think of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// This life may hold leases.
    Live,
    /// This life has ended and no other began.
    Retired,
    /// The system machine no longer knows the agent; nor need the shard.
    Forgotten,
}

/// An agent's life, adopted by a shard: leases of every other life are requeued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentAdoption {
    /// The agent.
    pub agent: AgentId,
    /// Its life. One older than the shard has recorded is passed over.
    pub incarnation: Incarnation,
    /// What to think of it.
    pub standing: Standing,
    /// Why its leases are requeued.
    pub reason: String,
}

/// A slot's policy, adopted by a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyAdoption {
    /// The slot.
    pub slot: String,
    /// Its activation. One older than the shard has recorded is passed over.
    pub epoch: PolicyEpoch,
    /// The policy's name.
    pub name: String,
}
