//! Flush and anti-entropy: which records go to whom.
//!
//! A node pushes its own records alone, to every connected peer, after the mark of
//! what that peer was sent. Once a sync span it sends a digest of everything to one
//! random peer; each side then sends what the other lacks, of any owner. So a peer
//! that cannot hear an owner hears it through others, one sync span later.
//!
//! Records of this node that this node did not write are answered by a new
//! incarnation that says again what stands: it exceeds whatever was forged, and
//! drops it everywhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_types::rng::Rng;
use quorate_types::{Incarnation, NodeId, Time};

use crate::config::Config;
use crate::frame::{Deltas, Digest, FrameFault, Known, Message, Packing};
use crate::record::{KEYS_MAX, Key, PublishError, Version};
use crate::table::{INCARNATION_AHEAD_MAX, Origin, Table, owner};

/// Frames in answer to one digest: 1 MiB, then the next digest goes on. A node of 64 with a
/// thousand agents each is told everything in three.
const SYNC_FRAMES_MAX: usize = 16;

/// A peer's digests are answered this many times in a sync span at most, and this node is moved
/// to a new incarnation no more often: what a liar can make it send is bounded.
const SERVED_IN_SYNC_MAX: u32 = 20;

/// Once this many of its own keys are deleted, a node begins a new incarnation without them.
const DELETED_MAX: usize = KEYS_MAX / 4;

/// A connected peer.
#[derive(Debug, Default)]
struct Link {
    /// It was sent all of this node's records up to this counter of this incarnation.
    sent: u64,
    served: Option<Time>,
}

/// Keys whose record is another now, by owner.
pub(crate) type Changes = Vec<(NodeId, BTreeSet<Key>)>;

/// All records, and what each peer was told.
#[derive(Debug)]
pub(crate) struct Gossip {
    me: NodeId,
    tables: BTreeMap<NodeId, Table>,
    links: BTreeMap<NodeId, Link>,
    flush_every: Duration,
    sync_every: Duration,
    flushed: Option<Time>,
    /// Whether some link was not sent everything.
    dirty: bool,
    sync_at: Option<Time>,
    reborn: Option<Time>,
    rng: Rng,
    outbox: VecDeque<(NodeId, Bytes)>,
}

impl Gossip {
    pub(crate) fn new(config: &Config, rng: Rng) -> Self {
        let mut tables: BTreeMap<NodeId, Table> =
            config.members.iter().map(|node| (*node, Table::default())).collect();
        tables.insert(config.node, Table::new(config.incarnation));
        Self {
            me: config.node,
            tables,
            links: BTreeMap::new(),
            flush_every: config.flush_every,
            sync_every: config.sync_every,
            flushed: None,
            dirty: false,
            sync_at: None,
            reborn: None,
            rng,
            outbox: VecDeque::new(),
        }
    }

    /// Records of others than these are forgotten.
    pub(crate) fn set_members(&mut self, members: &BTreeSet<NodeId>) {
        self.tables.retain(|node, _table| members.contains(node));
        self.links.retain(|node, _link| members.contains(node));
        for node in members {
            self.tables.entry(*node).or_default();
        }
        // Marks of what a link was sent are by owner: begin anew.
        self.dirty = !self.links.is_empty();
    }

    pub(crate) fn table(&self, node: NodeId) -> Option<&Table> {
        self.tables.get(&node)
    }

    pub(crate) fn poll_send(&mut self) -> Option<(NodeId, Bytes)> {
        self.outbox.pop_front()
    }

    /// When the next flush or digest is due.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let flush = self.dirty.then(|| self.flushed.map_or(Time::ZERO, |at| at + self.flush_every));
        [flush, self.sync_at].into_iter().flatten().min()
    }

    /// This node writes one of its records, or deletes it.
    pub(crate) fn write(&mut self, key: Key, value: Option<&[u8]>) -> Result<(), PublishError> {
        let own = self.own_mut();
        own.write(key, value)?;
        if own.deleted() > DELETED_MAX {
            let next = Incarnation(own.incarnation().0 + 1);
            self.begin(next);
        }
        self.dirty = !self.links.is_empty();
        Ok(())
    }

    /// Says again what stands, above `claimed`, which somebody says of this node.
    pub(crate) fn exceed(&mut self, now: Time, claimed: Incarnation) {
        let rest = self.sync_every / SERVED_IN_SYNC_MAX;
        let own = self.own().incarnation();
        // No honest node can have been brought to believe more.
        let absurd = claimed.0 > own.0.saturating_add(INCARNATION_AHEAD_MAX);
        if absurd || self.reborn.is_some_and(|at| now < at + rest) {
            return;
        }
        self.reborn = Some(now);
        self.begin(Incarnation(own.max(claimed).0 + 1));
    }

    /// A peer is connected and may be in any life: it is told everything.
    pub(crate) fn link_up(&mut self, peer: NodeId) {
        self.links.insert(peer, Link::default());
        self.dirty = true;
        if self.me < peer {
            self.send_digest(peer, true);
        }
    }

    pub(crate) fn link_down(&mut self, peer: NodeId) {
        self.links.remove(&peer);
    }

    /// Records came. What is wrong with the first bad delta, if one is; the others are merged.
    pub(crate) fn deltas(
        &mut self,
        now: Time,
        from: NodeId,
        deltas: &Deltas<'_>,
        pushed: bool,
    ) -> (Changes, Result<(), FrameFault>) {
        let mut changes = Changes::new();
        let mut result = Ok(());
        for delta in &deltas.deltas {
            let owner = owner(delta);
            if pushed && owner != from {
                return (changes, Err(FrameFault::NotTheOwner { owner }));
            }
            let me = self.me;
            let Some(table) = self.tables.get_mut(&owner) else {
                // A member that this node does not know of; whoever does will be asked again.
                continue;
            };
            let origin = if owner == from { Origin::Owner } else { Origin::Relay };
            if let Err(fault) = table.check(delta, origin) {
                result = result.and(Err(FrameFault::Delta { owner, fault }));
            } else if owner == me {
                if table.is_belied_by(delta) {
                    self.exceed(now, Incarnation(delta.incarnation));
                }
            } else {
                let changed = table.merge(delta);
                if !changed.is_empty() {
                    changes.push((owner, changed));
                }
            }
        }
        (changes, result)
    }

    /// A digest came: send what it lacks, and ask for what this node lacks.
    pub(crate) fn digest(&mut self, now: Time, from: NodeId, digest: &Digest) {
        let theirs: BTreeMap<NodeId, Version> = digest.known.iter().map(known).collect();
        let of = |node: &NodeId| theirs.get(node).copied().unwrap_or_default();
        let said_of_me = of(&self.me);
        if said_of_me > self.own().seen() {
            self.exceed(now, said_of_me.incarnation);
        }
        let own = self.own().seen();
        let rest = self.sync_every / SERVED_IN_SYNC_MAX;
        let Some(link) = self.links.get_mut(&from) else { return };
        if said_of_me < own {
            let same_life = said_of_me.incarnation == own.incarnation;
            link.sent = if same_life { link.sent.min(said_of_me.counter) } else { 0 };
            self.dirty = true;
        }
        if link.served.is_some_and(|at| now < at + rest) {
            return;
        }
        link.served = Some(now);
        let mut packing = Packing::new(SYNC_FRAMES_MAX);
        let mut behind = false;
        for (node, table) in self.tables.iter().filter(|(node, _)| ![self.me, from].contains(node))
        {
            let (mine, theirs) = (table.seen(), of(node));
            behind |= theirs > mine;
            let same_life = mine.incarnation == theirs.incarnation;
            let since = if same_life { theirs.counter } else { 0 };
            if mine > theirs && !packing.add(*node, table, since) {
                break;
            }
        }
        behind |= self.table(from).is_some_and(|table| of(&from) > table.seen());
        for deltas in packing.finish() {
            self.outbox.push_back((from, Message::Relay(deltas).encode()));
        }
        if digest.reply && behind {
            self.send_digest(from, false);
        }
    }

    /// Flushes and sends a digest, where due.
    pub(crate) fn tick(&mut self, now: Time) {
        let flush_due = self.flushed.is_none_or(|at| now >= at + self.flush_every);
        if self.dirty && flush_due {
            self.flushed = Some(now);
            self.flush();
        }
        match self.sync_at {
            // The first comes at a random point of the span, so that nodes take turns.
            None => self.sync_at = Some(now + self.jitter()),
            Some(at) if now >= at => {
                self.sync_at = Some(now + self.sync_every);
                if let Some(peer) = self.random_link() {
                    self.send_digest(peer, true);
                }
            }
            Some(_later) => {}
        }
    }

    fn flush(&mut self) {
        self.dirty = false;
        let own = self.own();
        let top = own.top();
        // Peers at one mark share the encoded frames: a change costs one encoding.
        let mut frames: BTreeMap<u64, Vec<Bytes>> = BTreeMap::new();
        for link in self.links.values().filter(|link| link.sent < top) {
            frames.entry(link.sent).or_insert_with(|| {
                let mut packing = Packing::new(usize::MAX);
                packing.add(self.me, own, link.sent);
                packing.finish().map(|deltas| Message::Push(deltas).encode()).collect()
            });
        }
        for (peer, link) in &mut self.links {
            let frames = frames.get(&link.sent).into_iter().flatten();
            self.outbox.extend(frames.map(|frame| (*peer, frame.clone())));
            link.sent = top;
        }
    }

    fn send_digest(&mut self, to: NodeId, reply: bool) {
        let known = self.tables.iter().map(|(owner, table)| {
            let Version { incarnation, counter } = table.seen();
            Known { owner: owner.0, incarnation: incarnation.0, seen: counter }
        });
        let digest = Digest { reply, known: known.collect() };
        self.outbox.push_back((to, Message::Digest(digest).encode()));
    }

    fn begin(&mut self, incarnation: Incarnation) {
        self.own_mut().begin(incarnation);
        for link in self.links.values_mut() {
            link.sent = 0;
        }
        self.dirty = !self.links.is_empty();
    }

    fn own(&self) -> &Table {
        &self.tables[&self.me]
    }

    fn own_mut(&mut self) -> &mut Table {
        self.tables.entry(self.me).or_default()
    }

    fn random_link(&mut self) -> Option<NodeId> {
        let count = u64::try_from(self.links.len()).unwrap_or(u64::MAX);
        let place = usize::try_from(self.rng.below(count.max(1))).unwrap_or(0);
        self.links.keys().nth(place).copied()
    }

    fn jitter(&mut self) -> Duration {
        let micros = u64::try_from(self.sync_every.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng.below(micros.max(1)))
    }
}

fn known(known: &Known) -> (NodeId, Version) {
    let Known { owner, incarnation, seen } = *known;
    (NodeId(owner), Version { incarnation: Incarnation(incarnation), counter: seen })
}
