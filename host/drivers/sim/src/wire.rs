//! A wire between all nodes: ordered lanes with delay, loss and, on the raft
//! lanes, repeats; cuts both ways or one way; connections that are noticed to
//! break. Whatever a dead life sent or was sent is lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::{AsyncRuntime, Instant as _, Watch, WatchReceiver as _, WatchSender as _};
use openraft_rt_sim::{SimInstant, SimRuntime};
use quorate_crank::Post;
use quorate_types::rng::Rng;
use quorate_types::{Gone, Inbox as _, Lane, NodeId, SendError, Wire, WireEvent};

use crate::disk::SimDisk;
use crate::knobs::Knobs;
use crate::world::{World, locked};

type Bell = <<SimRuntime as AsyncRuntime>::Watch as Watch>::Sender<u64>;
type Ear = <<SimRuntime as AsyncRuntime>::Watch as Watch>::Receiver<u64>;

/// Where a node's frames go.
pub(crate) type SimPost = Post<SimRuntime, SimDisk, SimWire>;

/// A lane takes this many frames, like the transport's.
const QUEUE_MAX: usize = 256;
/// The shortest way from node to node.
const WIRE_US_MIN: u64 = 200;
/// A process that is gone is noticed so soon: its machine refuses.
const REFUSED_AFTER: Duration = Duration::from_millis(2);
/// A cut is noticed so late: pings fail.
const TIMEOUT_AFTER: Duration = Duration::from_secs(2);

struct Letter {
    at: SimInstant,
    lives: (u64, u64),
    frame: Bytes,
}

struct Link {
    queue: VecDeque<Letter>,
    bell: Bell,
}

#[derive(Default)]
struct Port {
    life: u64,
    post: Option<SimPost>,
}

struct Air {
    rng: Rng,
    loss_ppm: u32,
    repeat_ppm: u32,
    wire_us_max: u64,
    ports: BTreeMap<NodeId, Port>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// Counts cuts and heals, so that a late notice knows that it is stale.
    weather: u64,
    /// Pairs that believe in their connection, by both orders.
    up: BTreeSet<(NodeId, NodeId)>,
    links: BTreeMap<(NodeId, NodeId, Lane), Link>,
}

/// All lanes between all nodes. Clones share it.
#[derive(Clone)]
pub(crate) struct Mesh {
    world: World,
    air: Arc<Mutex<Air>>,
}

impl Mesh {
    pub(crate) fn new(world: World, seed: u64, knobs: &Knobs) -> Self {
        let air = Air {
            rng: Rng::new(seed),
            loss_ppm: knobs.loss_ppm,
            repeat_ppm: knobs.repeat_ppm,
            wire_us_max: knobs.wire_us_max.max(WIRE_US_MIN + 1),
            ports: BTreeMap::new(),
            cuts: BTreeSet::new(),
            weather: 0,
            up: BTreeSet::new(),
            links: BTreeMap::new(),
        };
        Self { world, air: Arc::new(Mutex::new(air)) }
    }

    /// A wire for a new life of `node`.
    pub(crate) fn wire(&self, node: NodeId) -> SimWire {
        let mut air = locked(&self.air);
        let port = air.ports.entry(node).or_default();
        port.life += 1;
        SimWire { mesh: self.clone(), node, life: port.life }
    }

    /// From now on `node` is there: it connects to whom it can reach.
    pub(crate) async fn attach(&self, node: NodeId, post: SimPost) {
        let stale: Vec<NodeId> = {
            let mut air = locked(&self.air);
            if let Some(port) = air.ports.get_mut(&node) {
                port.post = Some(post);
            }
            let stale = air.up.iter().filter(|(_, to)| *to == node).map(|(from, _)| *from);
            let stale = stale.collect();
            air.up.retain(|(from, to)| *from != node && *to != node);
            stale
        };
        // Back before anybody noticed that it was gone: its earlier life's connections break now.
        for peer in stale {
            self.tell(peer, WireEvent::PeerGone(node, Gone::Closed)).await;
        }
        self.connect().await;
    }

    /// The node's life ends here and now; others notice soon.
    pub(crate) fn detach(&self, node: NodeId) {
        let (post, life) = {
            let mut air = locked(&self.air);
            let Some(port) = air.ports.get_mut(&node) else { return };
            port.life += 1;
            (port.post.take(), port.life)
        };
        drop(post); // Outside the lock: it holds a wire of this mesh.
        let mesh = self.clone();
        drop(SimRuntime::spawn(async move {
            SimRuntime::sleep(REFUSED_AFTER).await;
            let told: Vec<NodeId> = {
                let mut air = locked(&mesh.air);
                if air.ports.get(&node).is_none_or(|port| port.life != life) {
                    return;
                }
                let told = air.up.iter().filter(|(_, to)| *to == node).map(|(from, _)| *from);
                let told = told.collect();
                air.up.retain(|(from, to)| *from != node && *to != node);
                told
            };
            for other in told {
                mesh.tell(other, WireEvent::PeerGone(node, Gone::Refused)).await;
            }
        }));
    }

    /// Frames from `from` to `to` vanish; after a while both notice.
    pub(crate) fn cut(&self, pairs: &[(NodeId, NodeId)]) {
        let weather = {
            let mut air = locked(&self.air);
            air.cuts.extend(pairs);
            air.weather += 1;
            air.weather
        };
        let (mesh, pairs) = (self.clone(), pairs.to_vec());
        drop(SimRuntime::spawn(async move {
            SimRuntime::sleep(TIMEOUT_AFTER).await;
            for (from, to) in pairs {
                let broke = {
                    let mut air = locked(&mesh.air);
                    if air.weather < weather || !air.cuts.contains(&(from, to)) {
                        continue;
                    }
                    let forth = air.up.remove(&(from, to));
                    air.up.remove(&(to, from)) || forth
                };
                if broke {
                    mesh.tell(from, WireEvent::PeerGone(to, Gone::Timeout)).await;
                    mesh.tell(to, WireEvent::PeerGone(from, Gone::Timeout)).await;
                }
            }
        }));
    }

    pub(crate) async fn heal(&self) {
        {
            let mut air = locked(&self.air);
            air.cuts.clear();
            air.weather += 1;
        }
        self.connect().await;
    }

    /// No more loss and repeats.
    pub(crate) fn clear_up(&self) {
        let mut air = locked(&self.air);
        (air.loss_ppm, air.repeat_ppm) = (0, 0);
    }

    /// Connects every pair that can be and is not.
    async fn connect(&self) {
        let fresh: Vec<(NodeId, NodeId)> = {
            let mut air = locked(&self.air);
            let live: Vec<NodeId> = air
                .ports
                .iter()
                .filter(|(_, port)| port.post.is_some())
                .map(|(node, _)| *node)
                .collect();
            let mut fresh = Vec::new();
            for from in &live {
                for to in live.iter().filter(|to| *to != from) {
                    let open =
                        !air.cuts.contains(&(*from, *to)) && !air.cuts.contains(&(*to, *from));
                    if open && air.up.insert((*from, *to)) {
                        fresh.push((*from, *to));
                    }
                }
            }
            fresh
        };
        for (from, to) in fresh {
            self.tell(from, WireEvent::PeerUp(to)).await;
        }
    }

    async fn tell(&self, node: NodeId, event: WireEvent) {
        let post = locked(&self.air).ports.get(&node).and_then(|port| port.post.clone());
        if let Some(post) = post {
            let kind = match &event {
                WireEvent::PeerUp(_) => "peer-up",
                WireEvent::PeerGone(..) => "peer-gone",
                WireEvent::Frame { .. } => "frame",
            };
            self.world.note(node, kind, (0, 0));
            post.deliver(event).await;
            self.world.look(node);
        }
    }

    /// Whether this wire is of the node's present life.
    fn is_of(&self, wire: &SimWire) -> bool {
        locked(&self.air).ports.get(&wire.node).is_some_and(|port| port.life == wire.life)
    }

    fn post(&self, from: &SimWire, to: NodeId, lane: Lane, frame: &Bytes) -> Result<(), SendError> {
        let mut air = locked(&self.air);
        let sender = air.ports.get(&from.node).map(|port| port.life);
        let (Some(to_life), true) =
            (air.ports.get(&to).map(|port| port.life), sender == Some(from.life))
        else {
            return Err(SendError::Unconnected);
        };
        if !air.up.contains(&(from.node, to)) {
            return Err(SendError::Unconnected);
        }
        let loss_ppm = air.loss_ppm;
        if air.cuts.contains(&(from.node, to)) || air.rng.chance(loss_ppm) {
            return Ok(());
        }
        let repeat_ppm = match lane {
            Lane::Append | Lane::Vote | Lane::Snapshot => air.repeat_ppm,
            Lane::Gossip | Lane::Call | Lane::Control | Lane::Blob => 0,
        };
        let copies = 1 + usize::from(air.rng.chance(repeat_ppm));
        let spread = air.wire_us_max - WIRE_US_MIN;
        let delay = WIRE_US_MIN + air.rng.below(spread);
        let at = SimInstant::now() + Duration::from_micros(delay);
        let key = (from.node, to, lane);
        let link = air.links.entry(key).or_insert_with(|| {
            let (bell, ear) = <<SimRuntime as AsyncRuntime>::Watch as Watch>::channel(0);
            drop(SimRuntime::spawn(self.clone().carry(key, ear)));
            Link { queue: VecDeque::new(), bell }
        });
        if link.queue.len() >= QUEUE_MAX {
            return Err(SendError::Full);
        }
        for _ in 0..copies {
            let lives = (from.life, to_life);
            link.queue.push_back(Letter { at, lives, frame: frame.clone() });
        }
        let bell = link.bell.clone();
        drop(air);
        bell.send_if_modified(|rung| {
            *rung += 1;
            true
        });
        Ok(())
    }

    /// Carries one lane's frames in order, for ever.
    async fn carry(self, key: (NodeId, NodeId, Lane), mut ear: Ear) {
        let (from, to, lane) = key;
        loop {
            let next =
                locked(&self.air).links.get_mut(&key).and_then(|link| link.queue.pop_front());
            let Some(letter) = next else {
                if ear.changed().await.is_err() {
                    return;
                }
                continue;
            };
            SimRuntime::sleep_until(letter.at).await;
            let post = {
                let air = locked(&self.air);
                let life = |node| air.ports.get(&node).map_or(0, |port| port.life);
                let open =
                    letter.lives == (life(from), life(to)) && !air.cuts.contains(&(from, to));
                air.ports.get(&to).and_then(|port| port.post.clone()).filter(|_| open)
            };
            if let Some(post) = post {
                let size = u64::try_from(letter.frame.len()).unwrap_or(u64::MAX);
                let way = from.0 * 16 + u64::from(lane.number());
                self.world.note(to, "frame", (way, size));
                post.deliver(WireEvent::Frame { from, lane, frame: letter.frame }).await;
                self.world.look(to);
            }
        }
    }

    /// Ends everything, so that nothing holds anything.
    pub(crate) fn end(&self) {
        let posts: Vec<Option<SimPost>> = {
            let mut air = locked(&self.air);
            air.links.clear();
            air.ports.values_mut().map(|port| port.post.take()).collect()
        };
        drop(posts);
    }
}

/// One life's end of the mesh.
#[derive(Clone)]
pub(crate) struct SimWire {
    mesh: Mesh,
    node: NodeId,
    life: u64,
}

impl Wire for SimWire {
    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let sent = self.mesh.post(self, to, lane, &frame);
        if self.mesh.is_of(self) {
            self.mesh.world.look(self.node);
        }
        sent
    }
}
