//! A group on this node, as the crank holds it.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::ServerState;
use openraft_rt::{AsyncRuntime, Instant, Oneshot, OneshotSender, Watch, WatchReceiver};
use quorate_ledger::Ledger;
use quorate_storage::{Log, Snapshots};
use quorate_types::limits::FRAME_BYTES_MAX;
use quorate_types::{Disk, Faults, Gone, GroupId, Index, Lane, Layout, NodeId, Term, Wire};
use rand::Rng as _;

use crate::allow_list::AllowList;
use crate::hand_off;
use crate::inbound::Inbound;
use crate::instance::{Instance, OpenError, Opener, Slot};
use crate::log::LogStore;
use crate::machine::Machine;
use crate::network::CHUNK_BYTES;
use crate::observer::Observer;
use crate::outbox::Outbox;
use crate::reads::Reads;
use crate::settings::{Compaction, LogSize, Profile, SNAPSHOT_BYTES_PER_S, openraft_config};
use crate::state_machine::Shelf;
use crate::supervisor::{Flags, Supervisor};
use crate::types::{OneshotTx, index_of, index_or_none, locked, term_of};

const _: () = assert!(CHUNK_BYTES < FRAME_BYTES_MAX);

/// How a group runs on this node.
#[derive(Clone, Debug)]
pub struct RaftOptions {
    /// This node.
    pub node: NodeId,
    /// The group.
    pub group: GroupId,
    /// How the cluster's groups share its work.
    pub layout: Layout,
    /// The voters of a new cluster, the same on every one of them. A group that has begun takes
    /// its voters from its log.
    pub voters: BTreeSet<NodeId>,
    /// How fast it notices that its leader is gone.
    pub profile: Profile,
    /// When its log is cut.
    pub compaction: Compaction,
    /// When it is cut by its size.
    pub log_size: LogSize,
    /// Snapshots are sent at this pace, bytes a second; at least 1.
    pub snapshot_bytes_per_s: u64,
    /// Who may be a voter; one list for all groups of the node. The system group fills it.
    pub allow_list: AllowList,
    /// Planted faults.
    pub faults: Faults,
}

impl RaftOptions {
    /// The only group of its cluster, the default profile, nothing planted.
    pub fn new(node: NodeId, group: GroupId, voters: BTreeSet<NodeId>) -> Self {
        Self {
            node,
            group,
            layout: Layout::ONE,
            voters,
            profile: Profile::default(),
            compaction: Compaction::default(),
            log_size: LogSize::default(),
            snapshot_bytes_per_s: SNAPSHOT_BYTES_PER_S,
            allow_list: AllowList::default(),
            faults: Faults::none(),
        }
    }
}

/// Why a group did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The profile or the compaction contradicts itself.
    #[error("the group's settings are refused: {0}")]
    Settings(String),
    /// Its log, its snapshot or its state.
    #[error("group {group} cannot be opened: {source}")]
    Open {
        /// The group.
        group: GroupId,
        /// Why.
        source: OpenError,
    },
    /// The first voter set could not be written.
    #[error("group {group} cannot begin: {reason}")]
    Begin {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
}

/// How a group stands on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// Who leads, as this node knows.
    pub leader: Option<NodeId>,
    /// Whether this node does.
    pub leads: bool,
    /// The term.
    pub term: Term,
    /// The last entry in the log.
    pub last_log: Index,
    /// The last entry known to be committed.
    pub committed: Index,
    /// The last entry applied.
    pub applied: Index,
    /// The last entry in the newest snapshot.
    pub snapshot: Index,
    /// The last entry cut off the log.
    pub purged: Index,
    /// The voters; of both sets while they change.
    pub voters: Vec<NodeId>,
    /// Those that follow without a vote.
    pub learners: Vec<NodeId>,
    /// Whether the voters change just now.
    pub joint: bool,
    /// On a leader, how long ago a quorum last answered.
    pub quorum_ack_age: Option<Duration>,
}

/// A group on this node. Clones are the same group; when the last is dropped, it ends.
///
/// Everything here is called inside a task of the runtime.
pub struct Raft<RT: AsyncRuntime, D: Disk> {
    pub(crate) inner: Arc<Inner<RT, D>>,
}

pub(crate) struct Inner<RT: AsyncRuntime, D: Disk> {
    pub(crate) node: NodeId,
    pub(crate) group: GroupId,
    pub(crate) profile: Profile,
    pub(crate) slot: Arc<Slot<RT, D>>,
    machine: Arc<Machine>,
    outbox: Arc<Outbox<RT>>,
    inbound: Inbound<RT, D>,
    pub(crate) log: LogStore<RT, D>,
    /// Proposals and reads that wait for an answer.
    pub(crate) waiting: Arc<AtomicUsize>,
    pub(crate) reads: Reads<RT>,
    pub(crate) allow_list: AllowList,
    pub(crate) flags: Flags,
    stop: Mutex<Option<OneshotTx<RT, ()>>>,
    ended: <RT::Watch as Watch>::Receiver<bool>,
}

impl<RT: AsyncRuntime, D: Disk> Clone for Raft<RT, D> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<RT: AsyncRuntime, D: Disk> Raft<RT, D> {
    /// Opens the group: restores its state, applies again what it knows to be committed (telling
    /// the observer), and takes part in elections from then on.
    pub async fn start<W: Wire>(
        options: RaftOptions,
        log: Log<RT, D>,
        snapshots: Snapshots<D>,
        wire: W,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let RaftOptions { node, group, layout, voters, profile, compaction, .. } = options;
        let RaftOptions { log_size, snapshot_bytes_per_s, allow_list, faults, .. } = options;
        let config = openraft_config(format!("{group}"), profile, compaction, &faults)
            .map_err(|error| StartError::Settings(error.to_string()))?;
        let outbox = Outbox::new(group, wire, RT::thread_rng().next_u64());
        let unconfirmed = faults.read_unconfirmed;
        let hears = Arc::clone(&observer);
        let machine = Arc::new(Machine::new(layout, group, faults, hears, allow_list.clone()));
        let opener = Opener {
            node,
            config,
            log_size,
            snapshot_bytes_per_s: snapshot_bytes_per_s.max(1),
            timing: profile.timing(),
            outbox: Arc::clone(&outbox),
            log: LogStore::new(log, group),
            machine: Arc::clone(&machine),
            shelf: Arc::new(Shelf::new(group, snapshots)),
        };
        let opened = opener.open().await;
        let instance = opened.map_err(|source| StartError::Open { group, source })?;
        begin(&instance, node, &voters)
            .await
            .map_err(|reason| StartError::Begin { group, reason })?;

        let slot = Arc::new(Slot::new(instance));
        let log = opener.log.clone();
        let (out, admitted) = (Arc::clone(&outbox), allow_list.clone());
        let inbound = Inbound::new(Arc::clone(&slot), out, admitted, log.clone());
        let (reads, flags) = (Reads::begin(Arc::clone(&slot), unconfirmed), Flags::default());
        let (stop, stopped) = RT::Oneshot::channel();
        let (tell_ended, ended) = RT::Watch::channel(false);
        let supervisor = Supervisor::new(group, opener, Arc::clone(&slot), observer, flags.clone());
        drop(RT::spawn(supervisor.run(stopped, tell_ended)));
        let (waiting, stop) = (Arc::default(), Mutex::new(Some(stop)));
        let inner = Inner {
            node,
            group,
            profile,
            slot,
            machine,
            outbox,
            inbound,
            log,
            waiting,
            reads,
            allow_list,
            flags,
            stop,
            ended,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The newest applied state.
    pub fn view(&self) -> Arc<Ledger> {
        self.inner.machine.view()
    }

    /// The applied state, and its place in the log: that of its last entry, of whatever kind.
    pub fn image(&self) -> (Index, Term, Ledger) {
        let frozen = self.inner.machine.freeze();
        let last = frozen.meta.last_log_id;
        (index_or_none(last.as_ref()), last.as_ref().map_or(Term(0), term_of), frozen.ledger)
    }

    /// Takes a frame of the lanes append, vote or snapshot. Waits only while this node cannot take
    /// more appends, which holds back that peer's lane.
    pub async fn deliver(&self, from: NodeId, lane: Lane, frame: Bytes) {
        if let Err(error) = self.inner.inbound.deliver(from, lane, &frame).await {
            tracing::warn!(group = %self.inner.group, %from, ?lane, %error, "a frame is dropped");
        }
    }

    /// A peer can be reached (again): what waits for it is sent at once.
    pub fn peer_up(&self, peer: NodeId) {
        let Some(instance) = self.inner.slot.current() else { return };
        drop(RT::spawn(async move {
            if let Err(error) = instance.trigger().reset_backoff([peer.0]).await {
                tracing::debug!(%peer, %error, "a peer came after the end");
            }
        }));
    }

    /// A peer went away: its requests fail at once. When it led and is known to be dead (its port
    /// refuses connections), every survivor hands over to the same next voter.
    pub fn peer_gone(&self, peer: NodeId, gone: Gone) {
        self.inner.outbox.peer_gone(peer);
        match gone {
            Gone::Refused => hand_off::after_death(self, peer),
            Gone::Timeout | Gone::Closed => {}
        }
    }

    /// How the group stands on this node.
    pub fn status(&self) -> GroupStatus {
        let mut status = GroupStatus {
            group: self.inner.group,
            leader: None,
            leads: false,
            term: Term(0),
            last_log: Index(0),
            committed: Index(0),
            applied: self.inner.machine.applied_index(),
            snapshot: Index(0),
            purged: Index(0),
            voters: Vec::new(),
            learners: Vec::new(),
            joint: false,
            quorum_ack_age: None,
        };
        let Some(instance) = self.inner.slot.current() else { return status };
        let metrics = instance.metrics();
        let metrics = metrics.borrow_watched();
        status.leader = metrics.current_leader.map(NodeId);
        status.leads = metrics.state == ServerState::Leader;
        status.term = Term(metrics.current_term);
        status.last_log = metrics.last_log_index.map_or(Index(0), index_of);
        status.committed = index_or_none(metrics.local_committed.as_ref());
        status.snapshot = index_or_none(metrics.snapshot.as_ref());
        status.purged = index_or_none(metrics.purged.as_ref());
        let membership = metrics.membership_config.membership();
        status.voters = membership.voter_ids().map(NodeId).collect();
        status.learners = membership.learner_ids().map(NodeId).collect();
        status.joint = membership.get_joint_config().len() > 1;
        status.quorum_ack_age = metrics
            .last_quorum_acked
            .map(|acked| RT::Instant::now().saturating_duration_since(acked.into_inner()));
        status
    }

    /// Ends in order: a leader first hands over to the voter that has most of its log, if one
    /// takes it in time. Waits until nothing of the group touches the log any more.
    pub async fn shutdown(&self) {
        let next = self.inner.slot.current();
        let next = next.and_then(|instance| hand_off::best_successor(&instance, self.inner.node));
        if let Some(next) = next
            && let Err(error) = self.transfer_to(next).await
        {
            tracing::info!(group = %self.inner.group, %next, %error, "ends without hand-over");
        }
        let stop = locked(&self.inner.stop).take();
        if stop.is_some_and(|stop| stop.send(()).is_err()) {
            tracing::debug!(group = %self.inner.group, "the group had ended by itself");
        }
        let mut ended = self.inner.ended.clone();
        if ended.wait_until(|ended| *ended).await.is_err() {
            tracing::debug!(group = %self.inner.group, "the supervisor went without a word");
        }
    }
}

/// Writes the first voter set where the log is empty. Every voter does, each the same; a node that
/// has a log or has voted never does again.
async fn begin<RT: AsyncRuntime, D: Disk>(
    instance: &Instance<RT, D>,
    node: NodeId,
    voters: &BTreeSet<NodeId>,
) -> Result<(), String> {
    let begun = instance.is_initialized().await.map_err(|error| error.to_string())?;
    if begun || !voters.contains(&node) {
        return Ok(());
    }
    let voters: BTreeSet<u64> = voters.iter().map(|voter| voter.0).collect();
    instance.initialize(voters).await.map_err(|error| error.to_string())
}
