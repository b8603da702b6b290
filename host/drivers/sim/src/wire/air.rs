//! What is between the nodes: who is there, who is connected, what is cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_types::rng::Rng;
use quorate_types::{Gone, Lane, NodeId, SendError, WireEvent};

use super::{SimPost, WIRE_US_MIN};
use crate::knobs::Knobs;
use crate::runtime::{self, MpscSender};

/// From whom to whom.
pub(super) type Way = (NodeId, NodeId);
/// A way's lane.
pub(super) type Track = (NodeId, NodeId, Lane);

/// A frame under way.
pub(super) struct Letter {
    pub(super) at: Duration,
    /// The connection that it was sent over; it is lost with it.
    pub(super) over: u64,
    pub(super) frame: Bytes,
}

#[derive(Default)]
pub(super) struct Port {
    pub(super) life: u64,
    pub(super) post: Option<SimPost>,
    /// What its connections have done and it has not been told, in order.
    pub(super) news: VecDeque<WireEvent>,
}

pub(super) struct Air {
    pub(super) rng: Rng,
    pub(super) loss_ppm: u32,
    pub(super) repeat_ppm: u32,
    pub(super) wire_us_max: u64,
    pub(super) ports: BTreeMap<NodeId, Port>,
    pub(super) cuts: BTreeSet<Way>,
    /// Ways that take so many microseconds more.
    pub(super) slow: BTreeMap<Way, u64>,
    /// Nodes that are held: they answer no ping.
    pub(super) held: BTreeSet<NodeId>,
    /// Whom each node lets connect; anybody where there is no list.
    pub(super) lists: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// Counts cuts and heals, so that a late notice knows that it is stale.
    pub(super) weather: u64,
    /// Connections that both ends believe in, each end's under its own order, by their number.
    pub(super) up: BTreeMap<Way, u64>,
    connections: u64,
    pub(super) links: BTreeMap<Track, MpscSender<Letter>>,
}

impl Air {
    pub(super) fn new(seed: u64, knobs: &Knobs) -> Self {
        Self {
            rng: Rng::new(seed),
            loss_ppm: knobs.loss_ppm,
            repeat_ppm: knobs.repeat_ppm,
            wire_us_max: knobs.wire_us_max.max(WIRE_US_MIN + 1),
            ports: BTreeMap::new(),
            cuts: BTreeSet::new(),
            slow: BTreeMap::new(),
            held: BTreeSet::new(),
            lists: BTreeMap::new(),
            weather: 0,
            up: BTreeMap::new(),
            connections: 0,
            links: BTreeMap::new(),
        }
    }

    fn is_open(&self, way: Way) -> bool {
        !self.cuts.contains(&way) && !self.held.contains(&way.0) && !self.held.contains(&way.1)
    }

    /// Whether each of these is on the other's list.
    fn is_admitted(&self, (one, other): Way) -> bool {
        let admits = |node, peer| self.lists.get(node).is_none_or(|list| list.contains(peer));
        admits(&one, &other) && admits(&other, &one)
    }

    /// From now on `node` lets these connect and no others; who has news.
    pub(super) fn set_peers(&mut self, node: NodeId, peers: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        self.lists.insert(node, peers);
        let others: Vec<NodeId> = self.ports.keys().copied().collect();
        let strange = others.into_iter().filter(|other| !self.is_admitted((node, *other)));
        let strange: Vec<NodeId> = strange.collect();
        let mut told: BTreeSet<NodeId> =
            strange.into_iter().flat_map(|other| self.part((node, other), Gone::Closed)).collect();
        told.append(&mut self.connect());
        told
    }

    /// Connects every pair that can be and is not; who has news.
    pub(super) fn connect(&mut self) -> BTreeSet<NodeId> {
        let live = self.ports.iter().filter(|(_, port)| port.post.is_some());
        let live: Vec<NodeId> = live.map(|(node, _)| *node).collect();
        let mut told = BTreeSet::new();
        for (from, to) in live.iter().flat_map(|from| live.iter().map(|to| (*from, *to))) {
            let open = self.is_open((from, to)) && self.is_open((to, from));
            let open = open && self.is_admitted((from, to));
            if from != to && open && !self.up.contains_key(&(from, to)) {
                self.connections += 1;
                self.up.insert((from, to), self.connections);
                self.tell(from, WireEvent::PeerUp(to));
                told.insert(from);
            }
        }
        told
    }

    /// The connection of these two breaks, if there is one; each end hears how.
    pub(super) fn part(&mut self, (one, other): Way, how: Gone) -> BTreeSet<NodeId> {
        let mut told = BTreeSet::new();
        for (node, peer) in [(one, other), (other, one)] {
            if self.up.remove(&(node, peer)).is_some() {
                self.tell(node, WireEvent::PeerGone(peer, how));
                told.insert(node);
            }
        }
        told
    }

    /// All connections of `node` break.
    pub(super) fn leave(&mut self, node: NodeId, how: Gone) -> BTreeSet<NodeId> {
        let peers: Vec<NodeId> = self.ports.keys().copied().filter(|peer| *peer != node).collect();
        peers.into_iter().flat_map(|peer| self.part((peer, node), how)).collect()
    }

    fn tell(&mut self, node: NodeId, event: WireEvent) {
        if let Some(port) = self.ports.get_mut(&node)
            && port.post.is_some()
        {
            port.news.push_back(event);
        }
    }

    /// When copies of a frame arrive, on which connection; none where it is lost.
    pub(super) fn send(
        &mut self,
        (from, to, lane): Track,
        life: u64,
    ) -> Result<Option<(Duration, u64, usize)>, SendError> {
        let is_of = |port: &Port| port.life == life && port.post.is_some();
        let over = self.up.get(&(from, to)).copied();
        let (Some(over), true) = (over, self.ports.get(&from).is_some_and(is_of)) else {
            return Err(SendError::Unconnected);
        };
        let is_there = self.ports.get(&to).is_some_and(|port| port.post.is_some());
        let loss_ppm = self.loss_ppm;
        if !is_there || self.cuts.contains(&(from, to)) || self.rng.chance(loss_ppm) {
            return Ok(None);
        }
        let repeat_ppm = match lane {
            Lane::Append | Lane::Vote | Lane::Snapshot => self.repeat_ppm,
            Lane::Gossip | Lane::Call | Lane::Control | Lane::Blob => 0,
        };
        let copies = 1 + usize::from(self.rng.chance(repeat_ppm));
        let more_us = self.slow.get(&(from, to)).copied().unwrap_or(0);
        let spread = self.wire_us_max - WIRE_US_MIN + more_us;
        let delay = WIRE_US_MIN + more_us + self.rng.below(spread);
        Ok(Some((runtime::elapsed() + Duration::from_micros(delay), over, copies)))
    }

    /// Where a letter arrives, if its connection still stands.
    pub(super) fn arrive(&self, (from, to, _): Track, letter: &Letter) -> Option<SimPost> {
        let open =
            !self.cuts.contains(&(from, to)) && self.up.get(&(from, to)) == Some(&letter.over);
        self.ports.get(&to).and_then(|port| port.post.clone()).filter(|_| open)
    }
}
