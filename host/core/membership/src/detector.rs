//! The failure detector: SWIM (Das et al. 2002) with Lifeguard (Dadgar et al. 2018).
//!
//! A peer that was silent for a period is pinged; without an answer `k` others are
//! asked to ping it; if they fail too it is suspect, and down when its suspicion
//! ends. Any frame of a connected peer is an answer, so a busy cluster sends no
//! pings at all. A refused connection is a death at once.
//!
//! Verdicts on silence are made in `tick` alone, and a tick that comes late asks
//! again before it judges: half of all false alarms are the observer's own stall
//! (net.md section 3).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quorate_types::rng::Rng;
use quorate_types::{Gone, NodeId, Time};

use crate::config::{Config, Detection};
use crate::errands::{Errand, Errands};
use crate::frame::{Ask, Asked, Message, Nonce};
use crate::health::Health;
use crate::io::{Reason, Status};
use crate::probe::{Peer, Probe, Suspicion};
use crate::record::Version;
use crate::suspicion::{self, Accusations};

/// Pings in one `probe_every`: every member of a full mesh.
const PINGS_MAX: usize = 64;

/// What the detector wants done.
#[derive(Debug)]
#[must_use]
pub(crate) enum Act {
    Send(NodeId, Message<'static>),
    /// The status is another now; `at` is the version that was judged.
    Judge {
        node: NodeId,
        from: Status,
        to: Status,
        at: Version,
        reason: Reason,
    },
}

/// What this node thinks of each other member.
#[derive(Debug)]
pub(crate) struct Detector {
    me: NodeId,
    spans: Detection,
    period: Duration,
    peers: BTreeMap<NodeId, Peer>,
    accusations: Accusations,
    errands: Errands,
    health: Health,
    last_nonce: u64,
    rng: Rng,
    acts: VecDeque<Act>,
}

impl Detector {
    pub(crate) fn new(config: &Config, now: Time, mut rng: Rng) -> Self {
        let spans = config.detection;
        let last_nonce = rng.next_u64() >> 1;
        let mut detector = Self {
            me: config.node,
            spans,
            period: Duration::ZERO,
            peers: BTreeMap::new(),
            accusations: Accusations::default(),
            errands: Errands::default(),
            health: Health::default(),
            last_nonce,
            rng,
            acts: VecDeque::new(),
        };
        detector.set_members(&config.members, now);
        detector
    }

    /// Watches these members and no others.
    pub(crate) fn set_members(&mut self, members: &BTreeSet<NodeId>, now: Time) {
        let rounds = members.len().saturating_sub(1).div_ceil(PINGS_MAX).max(1);
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        self.period = self.spans.probe_every.saturating_mul(rounds);
        let micros = u64::try_from(self.period.as_micros()).unwrap_or(u64::MAX).max(1);
        self.peers.retain(|node, _peer| members.contains(node));
        for node in members.iter().filter(|node| **node != self.me) {
            if !self.peers.contains_key(node) {
                let look_at = now + Duration::from_micros(self.rng.below(micros));
                let peer = Peer::unheard(now, now + self.spans.suspicion_max, look_at);
                self.peers.insert(*node, peer);
            }
        }
        self.accusations.retain(|node| members.contains(&node));
    }

    pub(crate) fn status(&self, node: NodeId) -> Option<Status> {
        if node == self.me {
            return Some(Status::Alive);
        }
        self.peers.get(&node).map(|peer| peer.status)
    }

    /// How far this node doubts itself, 0 to 8.
    pub(crate) fn health(&self) -> u32 {
        self.health.score()
    }

    pub(crate) fn poll_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        let peers = self.peers.values().filter_map(Peer::deadline);
        peers.chain(self.errands.deadline()).min()
    }

    pub(crate) fn peer_up(&mut self, now: Time, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.connected = true;
        peer.probe = Probe::Resting(Some(now));
    }

    pub(crate) fn peer_gone(&mut self, now: Time, node: NodeId, gone: Gone) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.connected = false;
        match gone {
            Gone::Refused => {
                peer.probe = Probe::Resting(None);
                if peer.status != Status::Down {
                    self.judge(now, node, Status::Down, Reason::Refused);
                }
            }
            // As good as a ping without an answer: the next tick asks others.
            Gone::Timeout | Gone::Closed if peer.status != Status::Down => {
                peer.probe = Probe::Resting(Some(now));
            }
            Gone::Timeout | Gone::Closed => peer.probe = Probe::Resting(None),
        }
    }

    /// A frame of this peer came. One that is not connected any more may have sent it long ago.
    pub(crate) fn heard(&mut self, now: Time, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.connected) else { return };
        peer.heard = Some(now);
        peer.forgiven = false;
        if peer.probe.in_flight() {
            peer.probe = Probe::Resting(Some(now + self.period));
        }
        if peer.status != Status::Alive {
            self.judge(now, node, Status::Alive, Reason::Heard);
        }
    }

    pub(crate) fn ping(&mut self, from: NodeId, nonce: u64) {
        self.acts.push_back(Act::Send(from, Message::Ack(Nonce { nonce })));
    }

    /// Given before `heard`, which ends the probe.
    pub(crate) fn ack(&mut self, now: Time, from: NodeId, nonce: u64) {
        let Some(peer) = self.peers.get(&from) else { return };
        match &peer.probe {
            Probe::Direct { nonce: sent, .. } if *sent == nonce => self.health.improve(now),
            Probe::Resting(_) | Probe::Direct { .. } | Probe::Indirect { .. } => {}
        }
        if let Some(errand) = self.errands.end(nonce, from) {
            self.report(&errand, true);
        }
    }

    /// Another node asks this one to ping a third.
    pub(crate) fn ask(&mut self, now: Time, asker: NodeId, ask: Ask) {
        let target = NodeId(ask.target);
        let until = now + self.spans.ping_timeout;
        let errand = Errand { asker, nonce: ask.nonce, target, until };
        let ping = self.next_nonce();
        let reachable = self.peers.get(&target).is_some_and(|peer| peer.connected);
        if reachable && self.errands.begin(ping, errand) {
            self.acts.push_back(Act::Send(target, Message::Ping(Nonce { nonce: ping })));
        } else {
            self.report(&errand, false);
        }
    }

    /// One of those who were asked answers.
    pub(crate) fn asked(&mut self, now: Time, from: NodeId, answer: Asked) {
        let node = NodeId(answer.target);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let (asked, until) = match &mut peer.probe {
            Probe::Indirect { nonce, asked, until } if *nonce == answer.nonce => (asked, until),
            Probe::Resting(_) | Probe::Direct { .. } | Probe::Indirect { .. } => return,
        };
        let waiting = asked.len();
        asked.retain(|other| *other != from);
        if asked.len() == waiting {
            return;
        }
        if !answer.reached {
            if asked.is_empty() {
                *until = now;
            }
            return;
        }
        peer.probe = Probe::Resting(Some(now + self.period));
        peer.forgiven = false;
        if peer.status != Status::Alive {
            self.judge(now, node, Status::Alive, Reason::HeardByOthers);
        }
    }

    /// A newer presence of this peer came, from itself or through others.
    pub(crate) fn learned(&mut self, now: Time, node: NodeId, version: Version) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if version <= peer.version {
            return;
        }
        peer.version = version;
        let accused = peer.suspicion.and_then(|suspicion| suspicion.accused);
        match peer.status {
            Status::Alive => {}
            Status::Suspect if accused.is_some_and(|accused| version > accused) => {
                self.judge(now, node, Status::Alive, Reason::Refuted);
            }
            // What was said before a death may arrive after it: look, do not believe.
            Status::Suspect | Status::Down => peer.hasten(now),
        }
    }

    /// Another node says that this peer does not answer, or takes that back.
    pub(crate) fn accused(&mut self, now: Time, by: NodeId, node: NodeId, at: Option<Version>) {
        self.accusations.set(by, node, at);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if at.is_none_or(|at| at < peer.version) {
            return;
        }
        match peer.status {
            Status::Alive => peer.hasten(now),
            Status::Suspect => {
                let wait = self.suspicion_timeout(node);
                if let Some(suspicion) =
                    self.peers.get_mut(&node).and_then(|peer| peer.suspicion.as_mut())
                {
                    suspicion.down_at = suspicion.down_at.min(suspicion.began + wait);
                }
            }
            Status::Down => {}
        }
    }

    /// Others accuse this node: it may be slow itself.
    pub(crate) fn doubted(&mut self, now: Time) {
        self.health.worsen(now);
    }

    /// Does what is due, after every input that was there.
    pub(crate) fn tick(&mut self, now: Time) {
        self.forgive(now);
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let probes: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| due(peer.probe.deadline()))
            .map(|(node, _)| *node)
            .collect();
        for node in probes {
            self.probe(now, node);
        }
        let dead: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| due(peer.suspicion.map(|suspicion| suspicion.down_at)))
            .map(|(node, _)| *node)
            .collect();
        for node in dead {
            self.judge(now, node, Status::Down, Reason::SuspicionExpired);
        }
        for errand in self.errands.expire(now) {
            self.report(&errand, false);
        }
    }

    /// A late tick: what waited for an answer meanwhile is asked once more before it is judged.
    fn forgive(&mut self, now: Time) {
        let earliest = self.peers.values().filter_map(Peer::deadline).min();
        let late = earliest.is_some_and(|at| at + self.spans.late_after < now);
        if !late {
            self.health.settle(now);
            return;
        }
        self.health.worsen(now);
        let grace = now + self.health.stretch(self.spans.ping_timeout);
        for peer in self.peers.values_mut().filter(|peer| !peer.forgiven && peer.overdue(now)) {
            peer.forgiven = true;
            peer.probe = Probe::Resting(Some(now));
            if let Some(suspicion) = &mut peer.suspicion {
                suspicion.down_at = suspicion.down_at.max(grace);
            }
        }
    }

    /// The transition table of one peer's probe.
    fn probe(&mut self, now: Time, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        match &peer.probe {
            // SWIM 3.1: the period's ping; what was heard within the period needs none.
            Probe::Resting(_) if peer.connected => {
                let next = peer.heard.map(|at| at + self.period).filter(|at| *at > now);
                if next.is_some() {
                    peer.probe = Probe::Resting(next);
                    return;
                }
                let nonce = self.next_nonce();
                let until = now + self.health.stretch(self.spans.ping_timeout);
                self.acts.push_back(Act::Send(node, Message::Ping(Nonce { nonce })));
                self.set_probe(node, Probe::Direct { nonce, until });
            }
            // SWIM 3.1: ping-req to k members.
            Probe::Resting(_) | Probe::Direct { .. } => self.ask_others(now, node),
            // SWIM 4.2: suspect it. Lifeguard: silence of those asked speaks against this node.
            Probe::Indirect { asked, .. } => {
                if !asked.is_empty() {
                    self.health.worsen(now);
                }
                self.failed(now, node);
            }
        }
    }

    fn ask_others(&mut self, now: Time, node: NodeId) {
        let asked = self.choose(node);
        if asked.is_empty() {
            self.failed(now, node);
            return;
        }
        let nonce = self.next_nonce();
        let until = now + self.health.stretch(self.spans.indirect_timeout);
        for other in &asked {
            let ask = Message::Ask(Ask { nonce, target: node.0 });
            self.acts.push_back(Act::Send(*other, ask));
        }
        self.set_probe(node, Probe::Indirect { nonce, asked, until });
    }

    fn failed(&mut self, now: Time, node: NodeId) {
        let Some(peer) = self.peers.get(&node) else { return };
        let given_up = peer.status == Status::Down && !peer.connected;
        let next = (!given_up).then(|| now + self.period);
        let suspect = peer.status == Status::Alive;
        self.set_probe(node, Probe::Resting(next));
        if suspect {
            self.judge(now, node, Status::Suspect, Reason::ProbesFailed);
        }
    }

    fn judge(&mut self, now: Time, node: NodeId, to: Status, reason: Reason) {
        let wait = self.suspicion_timeout(node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let from = std::mem::replace(&mut peer.status, to);
        assert_ne!(from, to, "a verdict changes something");
        let at = peer.suspicion.and_then(|suspicion| suspicion.accused).unwrap_or(peer.version);
        peer.suspicion = match to {
            Status::Alive | Status::Down => None,
            Status::Suspect => {
                Some(Suspicion { accused: Some(at), began: now, down_at: now + wait })
            }
        };
        if to == Status::Down && !peer.connected {
            peer.probe = Probe::Resting(None);
        }
        self.acts.push_back(Act::Judge { node, from, to, at, reason });
    }

    fn suspicion_timeout(&self, node: NodeId) -> Duration {
        let version = self.peers.get(&node).map(|peer| peer.version).unwrap_or_default();
        let confirmed = self
            .accusations
            .since(node, version)
            .filter(|by| self.status(*by).is_some_and(|status| status != Status::Down))
            .count();
        let Detection { suspicion_min, suspicion_max, .. } = self.spans;
        suspicion::timeout(self.peers.len() + 1, confirmed, suspicion_min, suspicion_max)
    }

    /// Up to k others that can be asked, at random.
    fn choose(&mut self, target: NodeId) -> Vec<NodeId> {
        let able = |(node, peer): (&NodeId, &Peer)| {
            (*node != target && peer.connected && peer.status != Status::Down).then_some(*node)
        };
        let mut others: Vec<NodeId> = self.peers.iter().filter_map(able).collect();
        let count = self.spans.indirect_probes.min(others.len());
        for place in 0..count {
            let left = u64::try_from(others.len() - place).unwrap_or(u64::MAX);
            let drawn = usize::try_from(self.rng.below(left)).unwrap_or(0);
            others.swap(place, place + drawn);
        }
        others.truncate(count);
        others
    }

    fn report(&mut self, errand: &Errand, reached: bool) {
        let Errand { asker, nonce, target, .. } = errand;
        let answer = Asked { nonce: *nonce, target: target.0, reached };
        self.acts.push_back(Act::Send(*asker, Message::Asked(answer)));
    }

    fn set_probe(&mut self, node: NodeId, probe: Probe) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.probe = probe;
        }
    }

    fn next_nonce(&mut self) -> u64 {
        self.last_nonce += 1;
        self.last_nonce
    }
}
