//! Where things that arrive go.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use openraft_rt::AsyncRuntime;
use quorate_kernel::io::Input;
use quorate_ledger::Ledger;
use quorate_raft::Observer;
use quorate_types::{Disk, EventKind, GroupId, Inbox, Index, Lane, NodeId, Term, Wire, WireEvent};

use crate::bell::Bell;
use crate::blobs::BlobExchange;
use crate::events::EventLog;
use crate::groups::Groups;
use crate::queue::Queue;

/// Inputs that wait for the kernel. A frame is small or bounded by its lane; 65,536 of 1 KiB are
/// 64 MiB. Beyond it frames are lost, which whoever sent them expects of a wire.
const INPUTS_MAX: usize = 65_536;

/// The kernel's inputs, and the log's word to watchers.
#[derive(Clone, Debug)]
pub struct Mailbox {
    pub(crate) inputs: Queue<Input>,
    pub(crate) events: EventLog,
    pub(crate) changed: Bell,
    failed: Arc<OnceLock<String>>,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            inputs: Queue::new(INPUTS_MAX),
            events: EventLog::default(),
            changed: Bell::default(),
            failed: Arc::new(OnceLock::new()),
        }
    }
}

impl Mailbox {
    /// Why this node cannot go on, if it cannot: its log has stopped for good, or its kernel fell.
    pub fn failure(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// This node cannot go on.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!(reason, "this node stops");
        if self.failed.set(reason).is_ok() {
            self.inputs.close();
            self.changed.close();
        }
    }
}

impl Observer for Mailbox {
    fn applied(&self, group: GroupId, index: Index, events: &[EventKind], view: &Arc<Ledger>) {
        self.events.append(group, index, events);
        self.changed.ring(view.kv_newest());
        if tracing::enabled!(tracing::Level::DEBUG) {
            tell_applied(group, index, events, view);
        }
        // Bounded by what the raft room has under way: it must not be lost.
        self.inputs.push_always(Input::Applied {
            group,
            index,
            events: events.to_vec(),
            view: Arc::clone(view),
        });
    }

    fn restored(&self, group: GroupId, index: Index, view: &Arc<Ledger>) {
        self.events.skip_to(group, index);
        self.changed.ring(view.kv_newest());
        let view = Arc::clone(view);
        self.inputs.push_always(Input::Applied { group, index, events: Vec::new(), view });
    }

    fn leadership(&self, group: GroupId, leader: Option<NodeId>, term: Term) {
        self.inputs.push_always(Input::Leadership { group, leader, term });
    }

    fn membership(&self, group: GroupId, voters: &[NodeId], learners: &[NodeId]) {
        let (voters, learners) = (voters.to_vec(), learners.to_vec());
        self.inputs.push_always(Input::GroupMembers { group, voters, learners });
    }

    fn failed(&self, group: GroupId, reason: String) {
        self.fail(format!("the log of group {group} has stopped: {reason}"));
    }
}

/// For the log: what an entry did to which task of which trace.
fn tell_applied(group: GroupId, index: Index, events: &[EventKind], view: &Ledger) {
    for event in events {
        let EventKind::Task { task, state, .. } = event else { continue };
        let trace = view.trace_of(*task).unwrap_or_default();
        tracing::debug!(%group, %index, %trace, %task, %state, "applied");
    }
}

/// Sorts what the wire brings. Made before the wire; the raft room and the blob
/// exchange, which need the wire, are put in afterwards. Clones share it.
pub struct Post<RT: AsyncRuntime, D: Disk, W: Wire>(Arc<Rooms<RT, D, W>>);

struct Rooms<RT: AsyncRuntime, D: Disk, W: Wire> {
    mailbox: Mailbox,
    groups: OnceLock<Groups<RT, D>>,
    blobs: OnceLock<BlobExchange<RT, D, W>>,
    /// Peers that came before the rooms did.
    early: Mutex<BTreeSet<NodeId>>,
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Clone for Post<RT, D, W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> std::fmt::Debug for Post<RT, D, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").field("mailbox", &self.0.mailbox).finish_non_exhaustive()
    }
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Post<RT, D, W> {
    /// Sorts into this mailbox, and into rooms that are yet to come.
    pub fn new(mailbox: Mailbox) -> Self {
        Self(Arc::new(Rooms {
            mailbox,
            groups: OnceLock::new(),
            blobs: OnceLock::new(),
            early: Mutex::default(),
        }))
    }

    /// The rooms are there.
    pub fn open(&self, groups: Groups<RT, D>, blobs: BlobExchange<RT, D, W>) {
        let early = self.early();
        for peer in early.iter() {
            groups.peer_up(*peer);
            blobs.peer_up(*peer);
        }
        let fresh = self.0.groups.set(groups).is_ok() && self.0.blobs.set(blobs).is_ok();
        assert!(fresh, "a post is opened once");
    }

    fn early(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.0.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who can be reached matters to the exchange also before it is there.
    fn peer(&self, peer: NodeId, up: bool) {
        let mut early = self.early();
        match self.0.blobs.get() {
            Some(blobs) if up => blobs.peer_up(peer),
            Some(blobs) => blobs.peer_gone(peer),
            None if up => {
                early.insert(peer);
            }
            None => {
                early.remove(&peer);
            }
        }
    }
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Inbox for Post<RT, D, W> {
    async fn deliver(&self, event: WireEvent) {
        let rooms = &self.0;
        match event {
            WireEvent::Frame { from, lane, frame } => match lane {
                Lane::Append | Lane::Vote | Lane::Snapshot => {
                    if let Some(groups) = rooms.groups.get() {
                        groups.deliver(from, lane, frame).await;
                    }
                }
                Lane::Blob => {
                    if let Some(blobs) = rooms.blobs.get() {
                        blobs.deliver(from, &frame);
                    }
                }
                Lane::Gossip | Lane::Call | Lane::Control => {
                    let event = WireEvent::Frame { from, lane, frame };
                    if rooms.mailbox.inputs.push(Input::Wire(event)).is_err() {
                        tracing::warn!(%from, ?lane, "the kernel's mailbox is full; a frame is lost");
                    }
                }
            },
            WireEvent::PeerUp(peer) => {
                self.peer(peer, true);
                if let Some(groups) = rooms.groups.get() {
                    groups.peer_up(peer);
                }
                rooms.mailbox.inputs.push_always(Input::Wire(WireEvent::PeerUp(peer)));
            }
            WireEvent::PeerGone(peer, how) => {
                self.peer(peer, false);
                if let Some(groups) = rooms.groups.get() {
                    groups.peer_gone(peer, how);
                }
                rooms.mailbox.inputs.push_always(Input::Wire(WireEvent::PeerGone(peer, how)));
            }
        }
    }
}
