//! The kernel itself: its parts, and where each input goes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_dispatch::{CallEffect, Calls, PolicyRef, PolicySource, Registry};
use quorate_ledger::{Command, Ledger, Views};
use quorate_membership::Membership;
use quorate_types::rng::Rng;
use quorate_types::{
    AgentId, CallId, Digest, EventKind, GroupId, Index, Lane, NodeId, PolicyEpoch, Term, Time,
    WireEvent,
};

use crate::asks::Asks;
use crate::frame::{self, Control, Routed};
use crate::home::Home;
use crate::hosting::Hosting;
use crate::io::{Effect, Input, KernelConfig, Now, Ticket};
use crate::kv::KvDesk;
use crate::leading::Leading;
use crate::member::MemberDesk;
use crate::offers::Offers;
use crate::partings::Partings;
use crate::reads::Reads;
use crate::spread::Spread;
use crate::swap::Swaps;

/// The policy that answers before any is activated: the default of DESIGN section 6.
pub(crate) const POLICY_DEFAULT: &str = "peak-ewma";

/// Who leads a group, as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) leader: Option<NodeId>,
    pub(crate) term: Term,
}

/// One node.
pub struct Kernel {
    pub(crate) config: KernelConfig,
    pub(crate) rng: Rng,
    pub(crate) view: Views,
    /// How far each group's log is applied here.
    pub(crate) applied: BTreeMap<GroupId, Index>,
    pub(crate) leadership: BTreeMap<GroupId, Leadership>,
    pub(crate) members: Membership,
    /// Peers that frames can be sent to.
    pub(crate) up: BTreeSet<NodeId>,
    pub(crate) registry: Registry,
    pub(crate) registry_stale: bool,
    /// Agents whose readings the registry does not have yet, and when it takes them in.
    pub(crate) readings_changed: BTreeSet<AgentId>,
    pub(crate) readings_at: Time,
    pub(crate) calls: Calls,
    pub(crate) asks: Asks,
    pub(crate) reads: Reads,
    pub(crate) partings: Partings,
    pub(crate) kv: KvDesk,
    pub(crate) members_desk: MemberDesk,
    pub(crate) spread: Spread,
    pub(crate) home: Home,
    pub(crate) hosting: Hosting,
    /// The groups that this node leads.
    pub(crate) leading: BTreeMap<GroupId, Leading>,
    /// Proposals of its own as a leader, by the group that they went to.
    pub(crate) proposing: BTreeMap<Ticket, GroupId>,
    /// What agents wait with, told to whoever leads a shard.
    pub(crate) offers: Offers,
    pub(crate) policy: PolicyRef,
    pub(crate) swaps: Swaps,
    pub(crate) source: Box<dyn PolicySource>,
    pub(crate) effects: VecDeque<Effect>,
    next_ticket: u64,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("node", &self.config.node)
            .field("applied", &self.applied)
            .field("leadership", &self.leadership)
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// A node that begins a life. Its first inputs come from the log and the wire.
    pub fn new(config: KernelConfig, source: Box<dyn PolicySource>, now: Now) -> Self {
        let mut rng = Rng::new(config.seed);
        let policy = PolicyRef {
            name: POLICY_DEFAULT.to_owned(),
            digest: Digest::default(),
            epoch: PolicyEpoch(0),
            config: Vec::new(),
        };
        let members = crate::presence::membership(&config, now, rng.next_u64());
        let mut kernel = Self {
            calls: Calls::new(policy.clone(), rng.next_u64()),
            home: Home::new(&config),
            hosting: Hosting::default(),
            rng,
            view: Views::new(config.layout),
            applied: BTreeMap::new(),
            leadership: BTreeMap::new(),
            members,
            up: BTreeSet::new(),
            registry: Registry::default(),
            registry_stale: true,
            readings_changed: BTreeSet::new(),
            readings_at: Time::ZERO,
            asks: Asks::default(),
            reads: Reads::default(),
            partings: Partings::default(),
            kv: KvDesk::default(),
            members_desk: MemberDesk::default(),
            spread: Spread::default(),
            leading: BTreeMap::new(),
            proposing: BTreeMap::new(),
            offers: Offers::default(),
            policy,
            swaps: Swaps::default(),
            source,
            effects: VecDeque::new(),
            next_ticket: 0,
            config,
        };
        kernel.announce(now);
        kernel
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Ask { id, request, within } => self.ask_from_door(now, id, request, within),
            Input::Forget(id) => self.forget_door(id),
            Input::Call { id, spec } => {
                self.refresh_registry(now);
                self.calls.start(now.mono, id, *spec, &self.registry, self.source.as_ref());
            }
            Input::CancelCall(id) => self.calls.cancel(now.mono, id),
            Input::Wire(event) => self.take_from_wire(now, event),
            Input::Applied { group, index, events, view } => {
                self.applied(now, group, index, &events, view);
            }
            Input::Leadership { group, leader, term } => {
                self.set_leadership(now, group, Leadership { leader, term });
            }
            Input::Proposed(ticket, result) => self.proposed(now, ticket, result),
            Input::Barrier(ticket, result) => self.barrier_passed(now, ticket, result),
            Input::GroupChanged(ticket, result) => self.group_changed(now, ticket, result),
            Input::GroupMembers { group, voters, learners } => {
                self.spread.unsettle(now);
                self.group_members(group, voters, learners);
            }
            Input::WorkEnded(work, result) => self.work_ended(now, work, result),
            Input::Prepared(ticket, digest, result) => self.prepared(now, ticket, digest, result),
            Input::Unused(blobs) => self.ask_unused(now, blobs),
        }
    }

    /// Does what is due, after the inputs of a step.
    pub fn settle(&mut self, now: Now) {
        self.refresh_registry(now);
        self.calls.tick(now.mono, &self.registry, self.source.as_ref());
        self.settle_asks(now);
        self.settle_reads(now);
        self.settle_home(now);
        self.settle_swaps(now);
        self.settle_kv(now);
        self.settle_members(now);
        self.settle_leading(now);
        self.settle_spread(now);
        self.settle_presence(now);
        self.drain_calls(now);
        self.settle_hosting(now);
    }

    /// What must be done, until none.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When `settle` is due even if nothing arrives.
    pub fn poll_timeout(&self) -> Option<Time> {
        [
            self.calls.poll_timeout(),
            self.asks.poll_timeout(),
            self.reads.poll_timeout(),
            self.home.poll_timeout(),
            self.hosting.poll_timeout(),
            self.spread.poll_timeout(),
            self.swaps.poll_timeout(),
            self.leading.values().filter_map(Leading::poll_timeout).min(),
            self.members.poll_timeout(),
            self.members_desk.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The state that this node has applied.
    pub fn view(&self) -> &Views {
        &self.view
    }

    /// Whether requests can be served: each group's leader is known and this node has a numbered
    /// life.
    pub fn ready(&self) -> Result<(), String> {
        if let Some(group) = self.config.layout.groups().find(|group| self.leader(*group).is_none())
        {
            return Err(format!("no leader of group {group} is known"));
        }
        if self.home.incarnation.is_none() {
            return Err("this node's life has not been numbered by the log yet".to_owned());
        }
        Ok(())
    }

    pub(crate) fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.leadership.get(&group)?.leader
    }

    pub(crate) fn leads(&self, group: GroupId) -> bool {
        self.leader(group) == Some(self.config.node)
    }

    pub(crate) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    pub(crate) fn propose(
        &mut self,
        now: Now,
        group: GroupId,
        command: impl Into<Command>,
    ) -> Ticket {
        let ticket = self.ticket();
        let entry: Bytes = command.into().encode(self.stamped(now, group).wall);
        self.effects.push_back(Effect::Propose(ticket, group, entry));
        ticket
    }

    pub(crate) fn send_control(&mut self, to: NodeId, frame: &Control) {
        self.effects.push_back(Effect::Send(to, Lane::Control, frame::encode(frame)));
    }

    pub(crate) fn send_routed(&mut self, to: NodeId, frame: &Routed) {
        self.effects.push_back(Effect::Send(to, Lane::Call, frame::encode(frame)));
    }

    fn applied(
        &mut self,
        now: Now,
        group: GroupId,
        index: Index,
        events: &[EventKind],
        view: Arc<Ledger>,
    ) {
        let before = self.applied.insert(group, index).unwrap_or(Index(0));
        assert!(index >= before, "entries are applied in order");
        let same_agents = self.view.group(group).is_some_and(|before| before.has_agents_of(&view));
        self.view.set(group, view);
        // A snapshot tells no events, nor do entries that are about keys alone.
        let agents_changed = events
            .iter()
            .any(|event| matches!(event, EventKind::AgentUp { .. } | EventKind::AgentDown { .. }))
            || events.is_empty() && !same_agents;
        self.registry_stale |= agents_changed;
        if group == GroupId::SYSTEM {
            self.follow_roster(now);
        }
        self.follow_policy(now);
        self.observe_as_leader(now, (group, index), events, agents_changed);
        self.follow_leases(now, group, events);
        self.reads_applied(now, group);
    }

    fn set_leadership(&mut self, now: Now, group: GroupId, leadership: Leadership) {
        let before = self.leadership.insert(group, leadership);
        if before == Some(leadership) {
            return;
        }
        self.leader_moved(now, group);
        let led = before.is_some_and(|before| before.leader == Some(self.config.node));
        if self.leads(group) && !led {
            self.begin_leading(now, group);
        } else if led && !self.leads(group) {
            self.end_leading(group);
        }
        self.redirect_asks(now);
        self.home.tell_leader_again();
    }

    fn take_from_wire(&mut self, now: Now, event: WireEvent) {
        match event {
            WireEvent::PeerUp(peer) => self.peer_up(now, peer),
            WireEvent::PeerGone(peer, how) => self.peer_gone(now, peer, how),
            WireEvent::Frame { from, lane, frame } => match lane {
                Lane::Gossip => self.gossip_frame(now, from, &frame),
                Lane::Control => match frame::decode(&frame) {
                    Ok(control) => self.control(now, from, control),
                    Err(error) => tracing::warn!(%from, error, "a control frame cannot be read"),
                },
                Lane::Call => match frame::decode(&frame) {
                    Ok(routed) => self.routed(now, from, routed),
                    Err(error) => tracing::warn!(%from, error, "a call frame cannot be read"),
                },
                Lane::Append | Lane::Vote | Lane::Snapshot | Lane::Blob => {
                    unreachable!("frames of {lane:?} go to the raft and blob rooms")
                }
            },
        }
    }

    fn control(&mut self, now: Now, from: NodeId, frame: Control) {
        match frame {
            Control::Ask { id, group, errand, within_ms } => {
                self.ask_from_peer(now, from, (id, group), errand, within_ms);
            }
            Control::Answer { id, result } => self.answer_from_peer(now, from, id, result),
            Control::Alive(agents) => self.renew_agents(now, &agents),
            Control::Started(leases) => self.stop_start_clocks(&leases),
            Control::Offer { agent, incarnation, open, as_of } => {
                self.take_offer(now, agent, incarnation, open, &as_of);
            }
        }
    }

    fn routed(&mut self, now: Now, from: NodeId, frame: Routed) {
        match frame {
            Routed::Begin { call, attempt, agent, incarnation, within_ms, spec } => {
                let within = Duration::from_millis(within_ms);
                self.host_call(now, from, (call, attempt), (agent, incarnation), within, *spec);
            }
            Routed::Abandon { call, attempt } => self.drop_hosted(from, call, attempt),
            Routed::Said { call, attempt, said } => {
                self.deliver_call(now, from, (call, attempt), said.into());
            }
        }
    }

    pub(crate) fn deliver_call(
        &mut self,
        now: Now,
        from: NodeId,
        (call, attempt): (CallId, u32),
        said: quorate_dispatch::Delivery,
    ) {
        let (registry, source) = (&self.registry, self.source.as_ref());
        self.calls.deliver(now.mono, from, (call, attempt), said, registry, source);
    }

    fn drain_calls(&mut self, now: Now) {
        while let Some(effect) = self.calls.poll_effect() {
            match effect {
                CallEffect::Tell { call, event } => {
                    self.effects.push_back(Effect::Tell(call, event))
                }
                CallEffect::Abandon { call, attempt, node } if node == self.config.node => {
                    self.drop_hosted(node, call, attempt);
                }
                CallEffect::Abandon { call, attempt, node } => {
                    self.send_routed(node, &Routed::Abandon { call, attempt });
                }
                CallEffect::Dispatch { call, attempt, agent, incarnation, node, within, spec } => {
                    if node == self.config.node {
                        let (attempt, life) = ((call, attempt), (agent, incarnation));
                        self.host_call(now, node, attempt, life, within, *spec);
                    } else {
                        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
                        let begin =
                            Routed::Begin { call, attempt, agent, incarnation, within_ms, spec };
                        self.send_routed(node, &begin);
                    }
                }
            }
        }
    }
}
