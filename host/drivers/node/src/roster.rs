//! Whom this node connects to.
//!
//! The node file only begins it. Once the log has a list of members, that list is
//! handed to the wire each time it changes. A node that joins a running cluster knows
//! a member or two from its file, and whoever leads may be none of them; so it asks
//! those it knows for the list until its own log has one. Those who belonged to the
//! cluster before it was begun anew may connect too, and are told so by admission; they
//! get nothing else. Words are short frames on
//! the lane `Control` with a head of their own, like those about directories.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quorate_crank::Mailbox;
use quorate_ledger::{Ledger, Roster, RosterMember};
use quorate_raft::Observer;
use quorate_transport::{PeerAddress, Transport};
use quorate_types::limits::FRAME_BYTES_MAX;
use quorate_types::{EventKind, GroupId, Inbox, Index, Lane, NodeId, Term, Wire, WireEvent, cbor};

/// Words may be lost, and members come when they come.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Names frames of this file and their version.
const HEAD: [u8; 4] = *b"mem1";
const ASK: u8 = b'?';
const LIST: u8 = b'!';

type Copies = Box<dyn Fn(usize) + Send + Sync>;

/// The list as this node knows it. Clones share it.
#[derive(Clone)]
pub(crate) struct Contacts(Arc<Inner>);

struct Inner {
    node: NodeId,
    /// As the node file has them.
    file: BTreeMap<NodeId, PeerAddress>,
    /// Members of the era before.
    formers: BTreeMap<NodeId, PeerAddress>,
    seen: Mutex<Arc<Roster>>,
    wire: OnceLock<Transport>,
    /// Told how many members there are.
    count: OnceLock<Copies>,
}

impl Contacts {
    pub(crate) fn new(
        node: NodeId,
        file: BTreeMap<NodeId, PeerAddress>,
        formers: BTreeMap<NodeId, PeerAddress>,
    ) -> Self {
        let (seen, wire, count) = (Mutex::default(), OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner { node, file, formers, seen, wire, count }))
    }

    /// The wire is there.
    pub(crate) fn open(&self, wire: Transport) {
        assert!(self.0.wire.set(wire).is_ok(), "a node has one wire");
    }

    /// Tells from now on how many members there are.
    pub(crate) fn count_for(&self, told: impl Fn(usize) + Send + Sync + 'static) {
        let seen = Arc::clone(&self.seen());
        if seen.begun() {
            told(seen.members().count());
        }
        assert!(self.0.count.set(Box::new(told)).is_ok(), "one is told");
    }

    /// Asks the members that the node file names until the log has a list.
    pub(crate) async fn ask_for_the_list(self) {
        while !self.seen().begun() {
            for peer in self.0.file.keys().filter(|peer| **peer != self.0.node) {
                self.say(*peer, &[&HEAD[..], &[ASK]].concat());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    fn seen(&self) -> MutexGuard<'_, Arc<Roster>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log has this list.
    fn follow(&self, roster: &Arc<Roster>) {
        {
            let mut seen = self.seen();
            if !roster.begun() || Arc::ptr_eq(&seen, roster) {
                return;
            }
            *seen = Arc::clone(roster);
        }
        self.connect(roster.members(), BTreeMap::new());
        if let Some(count) = self.0.count.get() {
            count(roster.members().count());
        }
    }

    fn connect<'m>(
        &self,
        members: impl Iterator<Item = &'m RosterMember>,
        mut peers: BTreeMap<NodeId, PeerAddress>,
    ) {
        for member in members {
            match member.address.parse() {
                Ok(address) => {
                    let peer = PeerAddress { peer_id: member.peer.clone(), address };
                    peers.insert(member.id, peer);
                }
                Err(error) => tracing::warn!(node = %member.id, %error, "cannot be dialled"),
            }
        }
        for (node, former) in &self.0.formers {
            let is_back = peers.values().any(|peer| peer.peer_id == former.peer_id);
            if !is_back {
                peers.entry(*node).or_insert_with(|| former.clone());
            }
        }
        if let Some(wire) = self.0.wire.get() {
            wire.set_peers(peers);
        }
    }

    fn hear(&self, from: NodeId, kind: u8, body: &[u8]) {
        let roster = Arc::clone(&self.seen());
        match kind {
            ASK if roster.begun() => {
                let members: Vec<&RosterMember> = roster.members().collect();
                self.say(from, &[&HEAD[..], &[LIST], &cbor::encode(&members)].concat());
            }
            LIST if !roster.begun() => match cbor::decode(body, FRAME_BYTES_MAX) {
                Ok::<Vec<RosterMember>, _>(members) => {
                    self.connect(members.iter(), self.0.file.clone());
                }
                Err(error) => tracing::warn!(%from, %error, "a list of members cannot be read"),
            },
            _as_well_unasked => {}
        }
    }

    fn say(&self, to: NodeId, word: &[u8]) {
        if let Some(wire) = self.0.wire.get()
            && let Err(error) = wire.send(to, Lane::Control, Bytes::copy_from_slice(word))
        {
            tracing::debug!(%to, %error, "a word about members was not taken");
        }
    }
}

/// Takes this file's words out of what arrives, and passes the rest on.
pub(crate) struct Usher<I> {
    pub(crate) contacts: Contacts,
    pub(crate) inside: I,
}

impl<I: Inbox> Inbox for Usher<I> {
    async fn deliver(&self, event: WireEvent) {
        if let WireEvent::Frame { from, lane: Lane::Control, frame } = &event
            && let Some((kind, body)) = frame.strip_prefix(&HEAD).and_then(<[u8]>::split_first)
        {
            return self.contacts.hear(*from, *kind, body);
        }
        self.inside.deliver(event).await;
    }
}

/// Hears what the log room tells the kernel, and looks at the list in each new state.
pub(crate) struct Listener {
    pub(crate) contacts: Contacts,
    pub(crate) inside: Mailbox,
}

impl Listener {
    fn look(&self, group: GroupId, view: &Ledger) {
        if group == GroupId::SYSTEM {
            self.contacts.follow(view.roster());
        }
    }
}

impl Observer for Listener {
    fn applied(&self, group: GroupId, index: Index, events: &[EventKind], view: &Arc<Ledger>) {
        self.look(group, view);
        self.inside.applied(group, index, events, view);
    }

    fn restored(&self, group: GroupId, index: Index, view: &Arc<Ledger>) {
        self.look(group, view);
        self.inside.restored(group, index, view);
    }

    fn leadership(&self, group: GroupId, leader: Option<NodeId>, term: Term) {
        self.inside.leadership(group, leader, term);
    }

    fn membership(&self, group: GroupId, voters: &[NodeId], learners: &[NodeId]) {
        self.inside.membership(group, voters, learners);
    }

    fn failed(&self, group: GroupId, reason: String) {
        self.inside.failed(group, reason);
    }
}
