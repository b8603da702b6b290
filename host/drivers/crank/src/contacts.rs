//! Whom a node connects to.
//!
//! The node's file only begins it. Once the log has a list of members, that list is
//! handed to the wire each time it changes. But a node that joins, or comes back
//! after long, has not read that list yet, or reads old ones on its way to the newest:
//! whoever leads may be on none of them, and would never get through. So members ask
//! each other for a newer list than their own, when they meet and now and then, and a
//! list that a member gives counts until the log has passed it. The newest is kept on
//! disk, for the next start. Words are short frames on the lane `Control` with a head
//! of their own, like those about directories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use quorate_ledger::{Ledger, Roster, RosterMember};
use quorate_raft::Observer;
use quorate_storage::{keep_members, kept_members};
use quorate_types::limits::FRAME_BYTES_MAX;
use quorate_types::{
    Disk, EventKind, GroupId, Inbox, Index, Lane, NodeId, Term, Wire, WireEvent, cbor,
};

use crate::post::Mailbox;

/// Words may be lost, and members come when they come.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Who has a list, and is at rest, asks this much more seldom.
const RESTING: u32 = 4;

/// Names frames of this file and their version.
const HEAD: [u8; 4] = *b"mem1";
/// The list, please: from who has none.
const ASK: u8 = b'?';
/// The list.
const LIST: u8 = b'!';
/// The list, if it is newer than that of this index.
const ASK_NEWER: u8 = b'>';
/// The list as of this index.
const NEWER: u8 = b'<';

/// How a member is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The peer id of its key.
    pub peer: String,
    /// Where it listens, as its wire reads it.
    pub address: String,
}

/// Connects to these and to no others.
pub type Dial = Box<dyn Fn(BTreeMap<NodeId, Contact>) + Send + Sync>;
type Copies = Box<dyn Fn(usize) + Send + Sync>;

/// The list as this node knows it. Clones share it.
pub struct Contacts<W>(Arc<Inner<W>>);

struct Inner<W> {
    node: NodeId,
    /// As the node file has them.
    file: BTreeMap<NodeId, Contact>,
    state: Mutex<State>,
    wire: OnceLock<(W, Dial)>,
    /// Told how many members there are.
    count: OnceLock<Copies>,
}

#[derive(Default)]
struct State {
    /// The list in the log, as far as it is applied here, and its index.
    seen: Arc<Roster>,
    at: Index,
    /// Of the list that is dialled by, where a member gave it or it was kept.
    heard: Index,
    /// The list that is dialled by and not kept yet, where there is one.
    unkept: Option<(Index, Vec<RosterMember>)>,
    up: BTreeSet<NodeId>,
}

impl<W> Clone for Contacts<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> std::fmt::Debug for Contacts<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contacts").field("node", &self.0.node).finish_non_exhaustive()
    }
}

impl<W: Wire> Contacts<W> {
    /// The list of the node's file.
    pub fn new(node: NodeId, file: BTreeMap<NodeId, Contact>) -> Self {
        let (state, wire, count) = (Mutex::default(), OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner { node, file, state, wire, count }))
    }

    /// The wire is there; it knows the list of the file, or is told the one that was kept on
    /// `disk`. What is begun ends with the last clone.
    pub async fn open<RT: AsyncRuntime, D: Disk>(&self, wire: W, dial: Dial, disk: D) {
        assert!(self.0.wire.set((wire, dial)).is_ok(), "a node has one wire");
        match kept_members(&disk).await {
            Ok(Some(kept)) => match cbor::decode::<(Index, Vec<RosterMember>)>(&kept, kept.len()) {
                Ok((at, members)) => {
                    self.0.state().heard = at;
                    self.0.connect(members.iter(), BTreeMap::new());
                }
                Err(error) => tracing::warn!(%error, "the list of members is of another version"),
            },
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the list of members was not read"),
        }
        drop(RT::spawn(look_after::<RT, W, D>(Arc::downgrade(&self.0), disk)));
    }

    /// Tells from now on how many members there are.
    pub fn count_for(&self, told: impl Fn(usize) + Send + Sync + 'static) {
        let seen = Arc::clone(&self.0.state().seen);
        if seen.begun() {
            told(seen.members().count());
        }
        assert!(self.0.count.set(Box::new(told)).is_ok(), "one is told");
    }

    /// The log has this state.
    fn follow(&self, view: &Ledger) {
        let roster = view.roster();
        let passed = {
            let mut state = self.0.state();
            if !roster.begun() || Arc::ptr_eq(&state.seen, roster) {
                state.at = state.at.max(view.index());
                return;
            }
            (state.seen, state.at) = (Arc::clone(roster), view.index());
            let passed = state.at >= state.heard;
            if passed {
                state.unkept = Some((state.at, roster.members().cloned().collect()));
            }
            passed
        };
        if passed {
            self.0.connect(roster.members(), BTreeMap::new());
        }
        if let Some(count) = self.0.count.get() {
            count(roster.members().count());
        }
    }
}

impl<W: Wire> Inner<W> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect<'m>(
        &self,
        members: impl Iterator<Item = &'m RosterMember>,
        mut list: BTreeMap<NodeId, Contact>,
    ) {
        let contact = |member: &RosterMember| Contact {
            peer: member.peer.clone(),
            address: member.address.clone(),
        };
        list.extend(members.map(|member| (member.id, contact(member))));
        if let Some((_wire, dial)) = self.wire.get() {
            dial(list);
        }
    }

    /// Asks a member for a list that is newer than this node's.
    fn ask(&self, peer: NodeId) {
        let (begun, newest) = {
            let state = self.state();
            (state.seen.begun(), state.at.max(state.heard))
        };
        self.say(peer, &[&HEAD[..], &[ASK_NEWER], &newest.0.to_be_bytes()].concat());
        if !begun {
            // For members that know no other word.
            self.say(peer, &[&HEAD[..], &[ASK]].concat());
        }
    }

    fn hear(&self, from: NodeId, kind: u8, body: &[u8]) {
        let (roster, at) = {
            let state = self.state();
            (Arc::clone(&state.seen), state.at)
        };
        let list = |head: &[u8]| {
            let members: Vec<&RosterMember> = roster.members().collect();
            self.say(from, &[&HEAD[..], head, &cbor::encode(&members)].concat());
        };
        match (kind, body.split_first_chunk::<8>()) {
            (ASK, _) if roster.begun() => list(&[LIST]),
            (LIST, _) if !roster.begun() && self.state().heard == Index(0) => {
                self.take(from, None, body);
            }
            (ASK_NEWER, Some((theirs, []))) if roster.begun() => {
                if u64::from_be_bytes(*theirs) < at.0 {
                    list(&[&[NEWER], &at.0.to_be_bytes()[..]].concat());
                }
            }
            (NEWER, Some((of, body))) => {
                self.take(from, Some(Index(u64::from_be_bytes(*of))), body);
            }
            (_as_well_unasked, _) => {}
        }
    }

    /// A member gave a list: it counts until the log has passed it.
    fn take(&self, from: NodeId, of: Option<Index>, body: &[u8]) {
        let members: Vec<RosterMember> = match cbor::decode(body, FRAME_BYTES_MAX) {
            Ok(members) => members,
            Err(error) => {
                return tracing::warn!(%from, %error, "a list of members cannot be read");
            }
        };
        if let Some(of) = of {
            let mut state = self.state();
            if of <= state.at.max(state.heard) {
                return;
            }
            state.heard = of;
            state.unkept = Some((of, members.clone()));
        }
        // A list without an index may be an old one: who was known before stays known.
        let besides = if of.is_some() { BTreeMap::new() } else { self.file.clone() };
        self.connect(members.iter(), besides);
    }

    fn say(&self, to: NodeId, word: &[u8]) {
        if let Some((wire, _dial)) = self.wire.get()
            && let Err(error) = wire.send(to, Lane::Control, Bytes::copy_from_slice(word))
        {
            tracing::debug!(%to, %error, "a word about members was not taken");
        }
    }
}

/// Asks now and then, and keeps what is new, for as long as there is a node.
async fn look_after<RT: AsyncRuntime, W: Wire, D: Disk>(node: Weak<Inner<W>>, disk: D) {
    loop {
        let (begun, unkept) = {
            let Some(node) = node.upgrade() else { return };
            let (begun, up, unkept) = {
                let mut state = node.state();
                (state.seen.begun(), state.up.clone(), state.unkept.take())
            };
            up.into_iter().for_each(|peer| node.ask(peer));
            (begun, unkept)
        };
        if let Some(list) = unkept
            && let Err(error) = keep_members(&disk, cbor::encode(&list).into()).await
        {
            tracing::warn!(%error, "the list of members was not kept");
            let Some(node) = node.upgrade() else { return };
            node.state().unkept.get_or_insert(list);
        }
        RT::sleep(if begun { ASK_EVERY * RESTING } else { ASK_EVERY }).await;
    }
}

/// Takes this file's words out of what arrives, and passes the rest on.
#[derive(Clone, Debug)]
pub struct Usher<I, W> {
    /// Whose words.
    pub contacts: Contacts<W>,
    /// Whatever else comes.
    pub inside: I,
}

impl<I: Inbox, W: Wire> Inbox for Usher<I, W> {
    async fn deliver(&self, event: WireEvent) {
        let contacts = &self.contacts.0;
        match &event {
            WireEvent::Frame { from, lane: Lane::Control, frame } => {
                if let Some((kind, body)) = frame.strip_prefix(&HEAD).and_then(<[u8]>::split_first)
                {
                    return contacts.hear(*from, *kind, body);
                }
            }
            WireEvent::Frame { .. } => {}
            WireEvent::PeerUp(peer) => {
                contacts.state().up.insert(*peer);
                contacts.ask(*peer);
            }
            WireEvent::PeerGone(peer, _how) => {
                contacts.state().up.remove(peer);
            }
        }
        self.inside.deliver(event).await;
    }
}

/// Hears what the log room tells the kernel, and looks at the list in each new state.
#[derive(Debug)]
pub struct Listener<W> {
    /// Who follows the list.
    pub contacts: Contacts<W>,
    /// The kernel's.
    pub inside: Mailbox,
}

impl<W: Wire> Listener<W> {
    fn look(&self, group: GroupId, view: &Ledger) {
        if group == GroupId::SYSTEM {
            self.contacts.follow(view);
        }
    }
}

impl<W: Wire> Observer for Listener<W> {
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
