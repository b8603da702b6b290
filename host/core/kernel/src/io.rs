//! What goes into a node's kernel and what comes out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_ledger::{Ledger, Outcome};
use quorate_types::view::{CallEvent, CallSpec};
use quorate_types::{
    CallId, CapabilitySet, Digest, EventKind, GroupId, Index, Lane, Layout, NodeId, Payload,
    Refusal, Reply, Request, TaskId, Term, Time, TraceId, WireEvent,
};

/// Both clocks, read once for a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, since the node's start: all waiting is by this one.
    pub mono: Time,
    /// Since 1970-01-01 UTC: stamped into commands, never waited for.
    pub wall: Time,
}

/// A request at this node's door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// A proposal or a barrier under way at the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A piece of work in the hands of an agent of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkId(pub u64);

/// A member as the cluster file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its name.
    pub name: String,
    /// Its libp2p peer id.
    pub peer: String,
    /// Where it listens.
    pub address: String,
}

/// An agent that this node hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAgent {
    /// Its name, unique in its namespace over the cluster.
    pub name: String,
    /// Whose it is.
    pub namespace: String,
    /// What it can do.
    pub capabilities: CapabilitySet,
    /// How many pieces of work it takes at once.
    pub slots: u32,
}

/// What a kernel is made with.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Which node.
    pub node: NodeId,
    /// How the cluster's groups share its work; the same on every node, for good.
    pub layout: Layout,
    /// Every member, this node included.
    pub members: BTreeMap<NodeId, MemberInfo>,
    /// Where this node's API listens, told to others.
    pub api: Option<String>,
    /// Drawn anew at each start; names this life until the ledger numbers it.
    pub boot: u64,
    /// For every random choice.
    pub seed: u64,
    /// Agents hosted here.
    pub agents: Vec<LocalAgent>,
    /// A lease ends this long after its last sign of life, unless its task says otherwise.
    pub lease_term: Duration,
    /// Whether the leader that begins a cluster raises its feature level to what all members know.
    pub raises_when_founding: bool,
    /// Whether a leader of clearly more groups than another voter hands one over.
    pub spreads_leaders: bool,
}

/// Ten seconds: three lost heartbeats of three seconds, and shorter than a person's patience.
pub const LEASE_TERM: Duration = Duration::from_secs(10);

/// What an agent is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkOrder {
    /// Which local agent, by its place in `KernelConfig::agents`.
    pub agent: usize,
    /// Whether it is a logged task; a routed call otherwise.
    pub task: Option<TaskId>,
    /// The same for every delivery of one attempt.
    pub id: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The capability that led here.
    pub capability: String,
    /// Media type of the input.
    pub content_type: String,
    /// The input.
    pub input: Payload,
    /// The trace.
    pub trace: TraceId,
}

/// Why work failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkFault {
    /// For people.
    pub message: String,
    /// Whether another attempt makes sense.
    pub retry: bool,
}

/// Why a proposal or a barrier came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSetback {
    /// This node does not lead. Nothing was proposed.
    NotLeader,
    /// Too much is under way. Nothing was proposed.
    Busy,
    /// The leader's disk is full. Nothing was proposed.
    DiskFull,
    /// Larger than a command may be. Nothing was proposed, and never will be.
    TooLarge,
    /// It may be committed yet, or not.
    Unknown,
}

/// A change of who belongs to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupChange {
    /// Let a node follow it.
    AddLearner(NodeId),
    /// End a learner's part in it.
    RemoveLearner(NodeId),
    /// Make exactly these its voters.
    Voters(BTreeSet<NodeId>),
    /// Hand its leadership to this voter, if it is caught up.
    HandOver(NodeId),
    /// Hand its leadership over; to the voter with most of the log where none is named.
    Lead(Option<NodeId>),
    /// This node is about to be removed: see that all content that it keeps is kept without it.
    Leave,
}

/// Why a group did not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupSetback {
    /// This node does not lead it (any more).
    NotLeader,
    /// It may be possible in a moment.
    NotYet(Refusal),
    /// It is not possible.
    Refused(Refusal),
}

/// What arrives.
#[derive(Clone, Debug)]
pub enum Input {
    /// A request at this node's door.
    Ask {
        /// To answer it by.
        id: AskId,
        /// The request.
        request: Request,
        /// An answer is due within this span.
        within: Duration,
    },
    /// Nobody waits for the answer any more.
    Forget(AskId),
    /// A call at this node's door.
    Call {
        /// To answer it by.
        id: CallId,
        /// The call.
        spec: Box<CallSpec>,
    },
    /// The caller went away.
    CancelCall(CallId),
    /// From the wire: lanes `Gossip`, `Call` and `Control`, and peers that come and go.
    Wire(WireEvent),
    /// Entries were applied.
    Applied {
        /// By this group.
        group: GroupId,
        /// Up to here.
        index: Index,
        /// What happened in them.
        events: Vec<EventKind>,
        /// The state after them.
        view: Arc<Ledger>,
    },
    /// The group has another leader or term, as this node knows.
    Leadership {
        /// The group.
        group: GroupId,
        /// Who leads.
        leader: Option<NodeId>,
        /// In which term.
        term: Term,
    },
    /// A proposal ended.
    Proposed(Ticket, Result<(Index, Outcome), LogSetback>),
    /// A read barrier ended; the view that was applied before it is recent enough.
    Barrier(Ticket, Result<Index, LogSetback>),
    /// A change of a group ended.
    GroupChanged(Ticket, Result<(), GroupSetback>),
    /// A group has other members.
    GroupMembers {
        /// The group.
        group: GroupId,
        /// Those with a vote.
        voters: Vec<NodeId>,
        /// Those without.
        learners: Vec<NodeId>,
    },
    /// An agent ended a piece of work.
    WorkEnded(WorkId, Result<Payload, WorkFault>),
    /// A component was compiled and checked for a slot, or could not be.
    Prepared(Ticket, Digest, Result<(), String>),
    /// Blobs of this node that have seemed unused for longer than their grace: may they go?
    Unused(Vec<Digest>),
}

/// What must be done. Order within one `settle` is the order of sending; nothing in it waits for
/// a disk: what must be durable first goes through `Propose`.
#[derive(Clone, Debug)]
#[must_use]
pub enum Effect {
    /// Answer a request at the door.
    Answer(AskId, Result<Reply, Refusal>),
    /// Tell the caller of a call; `Done` or a refusal is the last.
    Tell(CallId, Result<CallEvent, Refusal>),
    /// Send a frame. If it is lost, it is lost.
    Send(NodeId, Lane, Bytes),
    /// Propose this command; `Input::Proposed` comes back.
    Propose(Ticket, GroupId, Bytes),
    /// Ask for a read barrier; `Input::Barrier` comes back.
    Barrier(Ticket, GroupId),
    /// Change who belongs to a group; `Input::GroupChanged` comes back.
    ChangeGroup(Ticket, GroupId, GroupChange),
    /// Hand work to a local agent; `Input::WorkEnded` comes back.
    StartWork(WorkId, Box<WorkOrder>),
    /// Nobody wants this work any more; nothing comes back.
    CancelWork(WorkId),
    /// Fetch, check and compile this component; `Input::Prepared` comes back.
    Prepare(Ticket, Digest),
    /// This node cannot go on: stop it, with the reason.
    Stop(String),
    /// Nothing refers to these blobs: drop them, unless they were stored again since they were
    /// named as unused.
    DropBlobs(Vec<Digest>),
}
