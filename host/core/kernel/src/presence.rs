//! What gossip and the wire say of others, joined with what the ledger says of
//! them into the index that routing uses.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_dispatch::{Candidate, Entry};
use quorate_ledger::Agent;
use quorate_membership::{self as membership, Membership, Status};
use quorate_types::{AgentId, Gone, Incarnation, Lane, LoadReading, NodeId};

use crate::io::{Effect, KernelConfig, Now};
use crate::kernel::Kernel;

/// What is assumed of an agent that has said nothing yet: idle and sound.
const UNREAD: LoadReading =
    LoadReading { in_flight: 0, load: 0, latency_us: 0, success_ppm: 1_000_000 };

/// Readings are flushed this often between nodes, so that one is late by as much anyway.
const READINGS_EVERY: Duration = Duration::from_millis(10);

/// The membership core of this node.
///
/// Gossip numbers lives by the wall clock at their start, so that a new life is
/// known for one before the log has numbered it.
pub(crate) fn membership(config: &KernelConfig, now: Now, seed: u64) -> Membership {
    let members = config.members.keys().copied().collect();
    let incarnation = Incarnation(now.wall.0);
    Membership::new(membership::Config::new(config.node, members, incarnation), seed)
}

impl Kernel {
    pub(crate) fn peer_up(&mut self, now: Now, peer: NodeId) {
        self.up.insert(peer);
        self.reach_moved(now, peer, true);
        self.reachability_changed();
        self.members.peer_up(now.mono, peer);
        self.redirect_asks(now);
        self.catch_up_with_peer(now);
        if self.leadership.values().any(|led| led.leader == Some(peer)) {
            self.home.tell_leader_again();
        }
    }

    pub(crate) fn peer_gone(&mut self, now: Now, peer: NodeId, how: Gone) {
        tracing::info!(node = %self.config.node, %peer, ?how, "peer gone");
        self.up.remove(&peer);
        self.reach_moved(now, peer, false);
        self.reachability_changed();
        self.members.peer_gone(now.mono, peer, how);
        self.follow_members();
        self.refresh_registry(now);
        self.drop_hosted_for(peer);
        self.calls.lost_node(now.mono, peer, &self.registry, self.source.as_ref());
        self.asks_lost_node(now, peer);
    }

    pub(crate) fn gossip_frame(&mut self, now: Now, from: NodeId, frame: &[u8]) {
        if let Err(error) = self.members.handle_frame(now.mono, from, frame) {
            tracing::warn!(%from, %error, "a gossip frame cannot be read");
        }
        self.follow_members();
    }

    pub(crate) fn settle_presence(&mut self, now: Now) {
        self.members.tick(now.mono);
        self.follow_members();
    }

    fn follow_members(&mut self) {
        while let Some(effect) = self.members.poll_effect() {
            match effect {
                membership::Effect::Send { to, frame } => {
                    self.effects.push_back(Effect::Send(to, Lane::Gossip, frame));
                }
                membership::Effect::StatusChanged { node, from, to, reason, .. } => {
                    tracing::info!(at = %self.config.node, %node, ?from, ?to, %reason, "member status");
                    self.reachability_changed();
                }
                membership::Effect::ReadingChanged { agent, .. } => {
                    self.readings_changed.insert(agent);
                }
            }
        }
    }

    /// Other nodes than before may be given work.
    pub(crate) fn reachability_changed(&mut self) {
        self.registry_stale = true;
        self.placements_stale();
    }

    pub(crate) fn is_down(&self, node: NodeId) -> bool {
        self.members.status(node) == Some(Status::Down)
    }

    /// Whether new work should be sent to this node: connected, and not suspect.
    pub(crate) fn is_reachable(&self, node: NodeId) -> bool {
        node == self.config.node
            || self.up.contains(&node) && self.members.status(node) == Some(Status::Alive)
    }

    pub(crate) fn status_word(&self, node: NodeId) -> &'static str {
        if node == self.config.node {
            return "alive";
        }
        self.members.status(node).unwrap_or(Status::Down).word()
    }

    pub(crate) fn candidate(&self, agent: &Agent) -> Candidate {
        Candidate {
            agent: agent.id,
            incarnation: agent.incarnation,
            node: agent.spec.node,
            capacity: agent.spec.slots,
            weight: 1,
            reading: self.reading(agent.id).unwrap_or(UNREAD),
        }
    }

    /// Brings the index of agents that calls can be routed to up to date. It is built anew when
    /// agents or nodes came or went. Readings are taken in at the pace of gossip, each by itself:
    /// every change of the index costs every router a new table.
    pub(crate) fn refresh_registry(&mut self, now: Now) {
        if !self.registry_stale {
            if self.readings_at <= now.mono && !self.readings_changed.is_empty() {
                self.readings_at = now.mono + READINGS_EVERY;
                let changed = std::mem::take(&mut self.readings_changed);
                let readings =
                    changed.into_iter().map(|agent| (agent, self.reading(agent).unwrap_or(UNREAD)));
                let readings: Vec<_> = readings.collect();
                self.registry.set_readings(readings);
            }
            return;
        }
        self.registry_stale = false;
        self.readings_changed.clear();
        let entries: BTreeMap<AgentId, Entry> = self
            .view
            .agents()
            .filter(|agent| agent.spec.hosted && self.is_reachable(agent.spec.node))
            .map(|agent| {
                let entry = Entry {
                    namespace: agent.spec.namespace.clone(),
                    capabilities: agent.spec.capabilities.clone(),
                    candidate: self.candidate(agent),
                };
                (agent.id, entry)
            })
            .collect();
        self.registry.set(entries);
    }
}
