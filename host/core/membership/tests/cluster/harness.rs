//! A cluster of bare cores on an event heap: seeded delays, loss, cuts, stalls and
//! deaths. Lanes keep their order, as the wire seam promises.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_membership::{
    Config, Effect, GOSSIP_FRAME_BYTES_MAX, Input, Membership, Presence, Reason, Status,
};
use quorate_types::rng::Rng;
use quorate_types::{AgentId, Gone, Incarnation, LoadReading, NodeId, Time};

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn n(id: u64) -> NodeId {
    NodeId(id)
}

pub(crate) fn reading(in_flight: u32) -> LoadReading {
    LoadReading { in_flight, load: in_flight, latency_us: 1000, success_ppm: 1_000_000 }
}

pub(crate) fn named(name: &str) -> Presence {
    Presence { name: name.to_owned(), ..Presence::default() }
}

/// A verdict, as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) at: Time,
    pub(crate) by: NodeId,
    pub(crate) of: NodeId,
    pub(crate) to: Status,
    pub(crate) incarnation: Incarnation,
    pub(crate) reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Frame { from: NodeId, to: NodeId, life: u64, frame: Bytes },
    Up { at: NodeId, peer: NodeId },
    Gone { at: NodeId, peer: NodeId, how: u8 },
    Tick { at: NodeId, life: u64 },
    Wake { at: NodeId },
}

#[derive(Debug)]
struct Node {
    core: Membership,
    life: u64,
    running: bool,
    /// It is stopped and its inputs wait.
    stalled: bool,
    backlog: VecDeque<Event>,
    armed: Option<Time>,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) faults: Vec<String>,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// Every effect with its time and node, hashed.
    pub(crate) trace: u64,
    pub(crate) loss_ppm: u32,
    nodes: BTreeMap<NodeId, Node>,
    members: BTreeSet<NodeId>,
    tune: fn(&mut Config),
    heap: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    lanes: BTreeMap<(NodeId, NodeId), Time>,
    cuts: BTreeSet<(NodeId, NodeId)>,
}

impl Cluster {
    /// `count` nodes, numbered from 1, all started at once and not yet connected.
    pub(crate) fn of(count: u64, seed: u64) -> Self {
        Self::tuned(count, seed, |_config| {})
    }

    pub(crate) fn tuned(count: u64, seed: u64, tune: fn(&mut Config)) -> Self {
        let mut cluster = Self {
            now: Time::from_millis(1000),
            rng: Rng::new(seed),
            verdicts: Vec::new(),
            faults: Vec::new(),
            frames: 0,
            bytes: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            loss_ppm: 0,
            nodes: BTreeMap::new(),
            members: (1..=count).map(NodeId).collect(),
            tune,
            heap: BinaryHeap::new(),
            sequence: 0,
            lanes: BTreeMap::new(),
            cuts: BTreeSet::new(),
        };
        for node in cluster.members.clone() {
            cluster.start(node, 1_000_000);
        }
        cluster
    }

    /// The same, connected and settled: everybody has heard everybody.
    pub(crate) fn settled(count: u64, seed: u64) -> Self {
        let mut cluster = Self::of(count, seed);
        cluster.connect_all();
        cluster.run(ms(2000));
        assert!(cluster.all_alive(), "a quiet cluster settles");
        cluster.verdicts.clear();
        cluster
    }

    pub(crate) fn start(&mut self, node: NodeId, incarnation: u64) {
        let mut config = Config::new(node, self.members.clone(), Incarnation(incarnation));
        (self.tune)(&mut config);
        let core = Membership::new(config, self.rng.next_u64());
        let life = self.nodes.get(&node).map_or(0, |node| node.life) + 1;
        let fresh = Node {
            core,
            life,
            running: true,
            stalled: false,
            backlog: VecDeque::new(),
            armed: None,
        };
        self.nodes.insert(node, fresh);
        self.step(node, None);
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = NodeId> + use<> {
        self.members.clone().into_iter()
    }

    pub(crate) fn core(&self, node: NodeId) -> &Membership {
        &self.nodes[&node].core
    }

    /// A user's command at a node.
    pub(crate) fn command(&mut self, node: NodeId, command: impl FnOnce(&mut Membership)) {
        command(&mut self.nodes.get_mut(&node).unwrap().core);
        self.step(node, None);
    }

    pub(crate) fn publish(&mut self, node: NodeId, agent: u64, value: u32) {
        self.command(node, |core| core.publish_reading(AgentId(agent), reading(value)));
    }

    pub(crate) fn connect(&mut self, one: NodeId, other: NodeId) {
        let at = self.now + ms(1);
        self.push(at, Event::Up { at: one, peer: other });
        self.push(at, Event::Up { at: other, peer: one });
    }

    pub(crate) fn connect_all(&mut self) {
        for one in self.members() {
            for other in self.members().filter(|other| *other > one) {
                self.connect(one, other);
            }
        }
    }

    /// Both ends of a connection learn that it ended.
    pub(crate) fn disconnect(&mut self, one: NodeId, other: NodeId, how: Gone) {
        let how = how as u8;
        let at = self.now + ms(1);
        self.push(at, Event::Gone { at: one, peer: other, how });
        self.push(at, Event::Gone { at: other, peer: one, how });
    }

    /// Frames between them are lost from now on; nobody is told.
    pub(crate) fn cut(&mut self, one: NodeId, other: NodeId) {
        self.cuts.extend([(one, other), (other, one)]);
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// SIGKILL: the process is gone, and the kernel of its host refuses connections.
    pub(crate) fn kill(&mut self, node: NodeId) {
        self.nodes.get_mut(&node).unwrap().running = false;
        let at = self.now + ms(1);
        for peer in self.members().filter(|peer| *peer != node) {
            self.push(at, Event::Gone { at: peer, peer: node, how: Gone::Refused as u8 });
        }
    }

    /// Power loss: nobody is told.
    pub(crate) fn vanish(&mut self, node: NodeId) {
        self.nodes.get_mut(&node).unwrap().running = false;
    }

    /// The process stands still; what arrives waits and is there when it goes on.
    pub(crate) fn stall(&mut self, node: NodeId, span: Duration) {
        self.nodes.get_mut(&node).unwrap().stalled = true;
        let at = self.now + span;
        self.push(at, Event::Wake { at: node });
    }

    /// A frame that no core made.
    pub(crate) fn inject(&mut self, from: NodeId, to: NodeId, frame: Bytes) {
        let life = self.nodes[&to].life;
        let at = self.now + ms(1);
        self.push(at, Event::Frame { from, to, life, frame });
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.heap.peek().is_some_and(|Reverse((at, _, _))| *at <= end) {
            self.next();
        }
        self.now = end;
    }

    /// Runs until `done`, at most for `span`, looking every 20 us; how long it took.
    pub(crate) fn run_until(&mut self, span: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let begin = self.now;
        while !done(self) {
            let at = self.heap.peek().map(|Reverse((at, _, _))| *at).unwrap();
            assert!(at <= begin + span, "not within {span:?}");
            self.run(at.since(self.now) + Duration::from_micros(20));
        }
        self.now.since(begin)
    }

    pub(crate) fn status(&self, by: NodeId, of: NodeId) -> Status {
        self.core(by).status(of).unwrap()
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().filter(|(_, node)| node.running).map(|(id, _)| *id)
    }

    /// Every running node says this of `of`.
    pub(crate) fn all_say(&self, of: NodeId, status: Status) -> bool {
        self.running().filter(|by| *by != of).all(|by| self.status(by, of) == status)
    }

    pub(crate) fn all_alive(&self) -> bool {
        self.running().all(|of| self.all_say(of, Status::Alive))
    }

    /// How many running nodes hold this reading.
    pub(crate) fn holders(&self, agent: u64, value: u32) -> usize {
        let held = |by: &NodeId| {
            self.core(*by).reading(AgentId(agent)).is_some_and(|(held, _)| held == reading(value))
        };
        self.running().filter(held).count()
    }

    pub(crate) fn verdicts_of(&self, of: NodeId) -> impl Iterator<Item = &Verdict> + '_ {
        self.verdicts.iter().filter(move |verdict| verdict.of == of)
    }

    fn next(&mut self) {
        let Reverse((at, _, event)) = self.heap.pop().unwrap();
        assert!(at >= self.now, "time runs forward");
        self.now = at;
        let node = match &event {
            Event::Frame { to, .. } => *to,
            Event::Up { at, .. } | Event::Gone { at, .. } => *at,
            Event::Tick { at, .. } | Event::Wake { at } => *at,
        };
        let state = self.nodes.get_mut(&node).unwrap();
        match event {
            _ if !state.running => {}
            Event::Wake { .. } => {
                state.stalled = false;
                let waiting = std::mem::take(&mut state.backlog);
                for event in waiting {
                    self.input(node, event);
                }
                self.step(node, None);
            }
            Event::Tick { life, .. } => {
                if life == state.life && state.armed == Some(at) && !state.stalled {
                    state.armed = None;
                    self.step(node, None);
                }
            }
            Event::Frame { .. } | Event::Up { .. } | Event::Gone { .. } if state.stalled => {
                state.backlog.push_back(event);
            }
            Event::Frame { .. } | Event::Up { .. } | Event::Gone { .. } => {
                self.step(node, Some(event));
            }
        }
    }

    /// One step as a kernel takes it: inputs, tick, effects, one timer.
    fn step(&mut self, node: NodeId, event: Option<Event>) {
        if let Some(event) = event {
            self.input(node, event);
        }
        let now = self.now;
        let state = self.nodes.get_mut(&node).unwrap();
        if state.stalled || !state.running {
            return;
        }
        state.core.tick(now);
        let mut effects = Vec::new();
        while let Some(effect) = state.core.poll_effect() {
            effects.push(effect);
        }
        let due = state.core.poll_timeout().map(|at| at.max(now + Duration::from_micros(1)));
        let life = state.life;
        if let Some(at) = due.filter(|_| due != state.armed) {
            state.armed = due;
            self.push(at, Event::Tick { at: node, life });
        }
        for effect in effects {
            self.effect(node, effect);
        }
    }

    fn input(&mut self, node: NodeId, event: Event) {
        let now = self.now;
        let state = self.nodes.get_mut(&node).unwrap();
        let input = match &event {
            Event::Frame { life, .. } if *life != state.life => return,
            Event::Frame { from, frame, .. } => Input::Frame(*from, frame),
            Event::Up { peer, .. } => Input::PeerUp(*peer),
            Event::Gone { peer, how: 0, .. } => Input::PeerGone(*peer, Gone::Refused),
            Event::Gone { peer, how: 1, .. } => Input::PeerGone(*peer, Gone::Timeout),
            Event::Gone { peer, .. } => Input::PeerGone(*peer, Gone::Closed),
            Event::Tick { .. } | Event::Wake { .. } => Input::Tick,
        };
        if let Err(error) = state.core.handle(now, input) {
            self.faults.push(error.to_string());
        }
    }

    fn effect(&mut self, by: NodeId, effect: Effect) {
        self.hash(&self.now.0.to_le_bytes());
        self.hash(&by.0.to_le_bytes());
        match effect {
            Effect::Send { to, frame } => {
                assert!(frame.len() <= GOSSIP_FRAME_BYTES_MAX, "a frame of {}", frame.len());
                self.hash(&frame);
                self.frames += 1;
                self.bytes += u64::try_from(frame.len()).unwrap();
                self.send(by, to, frame);
            }
            Effect::StatusChanged { node: of, from, to, incarnation, reason } => {
                assert_ne!(from, to, "{by} says nothing new of {of}");
                self.hash(to.word().as_bytes());
                let at = self.now;
                self.verdicts.push(Verdict { at, by, of, to, incarnation, reason });
            }
            Effect::ReadingChanged { agent, node } => {
                self.hash(&agent.0.to_le_bytes());
                self.hash(&node.0.to_le_bytes());
            }
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, frame: Bytes) {
        let delay = self.delay();
        let lost = self.rng.chance(self.loss_ppm);
        if lost || self.cuts.contains(&(from, to)) {
            return;
        }
        let lane = self.lanes.entry((from, to)).or_default();
        let at = (self.now + delay).max(*lane);
        *lane = at;
        let life = self.nodes[&to].life;
        self.push(at, Event::Frame { from, to, life, frame });
    }

    /// Lognormal with a median of 0.25 ms and sigma 0.5, and 30 us (net.md section 2).
    fn delay(&mut self) -> Duration {
        let mut unit = || (self.rng.below(1 << 52) as f64 + 1.0) / (1_u64 << 52) as f64;
        let normal = (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
        Duration::from_secs_f64(250e-6 * (0.5 * normal).exp() + 30e-6)
    }

    fn push(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence, event)));
    }

    fn hash(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
