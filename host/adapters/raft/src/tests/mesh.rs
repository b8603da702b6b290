//! A wire in memory: ordered lanes with delay and loss, cuts in one direction
//! or both, and an end to whatever a dead node's life still has under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::{AsyncRuntime, Instant, Watch, WatchReceiver, WatchSender};
use quorate_types::rng::Rng;
use quorate_types::{Lane, NodeId, SendError, Wire};

use super::slow_disk::SlowDisk;
use crate::raft::Raft;
use crate::types::locked;

type Bell<RT> = <<RT as AsyncRuntime>::Watch as Watch>::Sender<u64>;
type Ear<RT> = <<RT as AsyncRuntime>::Watch as Watch>::Receiver<u64>;

/// A lane takes this many frames, like a transport's.
const QUEUE_MAX: usize = 256;

/// How the wire behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) loss_ppm: u32,
    pub(super) delay_us: (u64, u64),
}

impl Weather {
    pub(super) const FAIR: Self = Self { loss_ppm: 0, delay_us: (100, 300) };
}

struct Letter<RT: AsyncRuntime> {
    at: RT::Instant,
    lives: (u64, u64),
    frame: Bytes,
}

struct Link<RT: AsyncRuntime> {
    queue: VecDeque<Letter<RT>>,
    bell: Bell<RT>,
}

struct Port<RT: AsyncRuntime> {
    life: u64,
    raft: Option<Raft<RT, SlowDisk<RT>>>,
}

struct State<RT: AsyncRuntime> {
    rng: Rng,
    weather: Weather,
    ports: BTreeMap<NodeId, Port<RT>>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    links: BTreeMap<(NodeId, NodeId, Lane), Link<RT>>,
    carried: BTreeMap<(NodeId, Lane), (usize, usize)>,
}

/// All lanes between all nodes.
pub(super) struct Mesh<RT: AsyncRuntime>(Arc<Mutex<State<RT>>>);

impl<RT: AsyncRuntime> Clone for Mesh<RT> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<RT: AsyncRuntime> Mesh<RT> {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: Rng::new(seed),
            weather: Weather::FAIR,
            ports: BTreeMap::new(),
            cuts: BTreeSet::new(),
            links: BTreeMap::new(),
            carried: BTreeMap::new(),
        })))
    }

    pub(super) fn weather(&self, weather: Weather) {
        locked(&self.0).weather = weather;
    }

    /// A wire for a new life of `node`; what its earlier lives sent or were sent is lost.
    pub(super) fn wire(&self, node: NodeId) -> MeshWire<RT> {
        let mut state = locked(&self.0);
        let port = state.ports.entry(node).or_insert(Port { life: 0, raft: None });
        port.life += 1;
        MeshWire { mesh: self.clone(), node, life: port.life }
    }

    /// From now on `node` is reached through `raft`.
    pub(super) fn attach(&self, node: NodeId, raft: Raft<RT, SlowDisk<RT>>) {
        if let Some(port) = locked(&self.0).ports.get_mut(&node) {
            port.raft = Some(raft);
        }
    }

    /// Ends the node's life on the wire.
    pub(super) fn detach(&self, node: NodeId) {
        let raft = {
            let mut state = locked(&self.0);
            let port = state.ports.get_mut(&node);
            port.and_then(|port| {
                port.life += 1;
                port.raft.take()
            })
        };
        drop(raft); // Outside the lock: it holds a wire of this mesh.
    }

    /// Frames from `from` to `to` vanish.
    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        locked(&self.0).cuts.insert((from, to));
    }

    pub(super) fn heal(&self) {
        locked(&self.0).cuts.clear();
    }

    pub(super) fn carried(&self, to: NodeId, lane: Lane) -> (usize, usize) {
        locked(&self.0).carried.get(&(to, lane)).copied().unwrap_or_default()
    }

    fn post(
        &self,
        from: &MeshWire<RT>,
        to: NodeId,
        lane: Lane,
        frame: Bytes,
    ) -> Result<(), SendError> {
        let mut state = locked(&self.0);
        let life_of =
            |node| state.ports.get(&node).filter(|port| port.raft.is_some()).map(|port| port.life);
        let sender = state.ports.get(&from.node).map(|port| port.life);
        let (Some(to_life), true) = (life_of(to), sender == Some(from.life)) else {
            return Err(SendError::Unconnected);
        };
        let Weather { loss_ppm, delay_us: (least, most) } = state.weather;
        if state.cuts.contains(&(from.node, to)) || state.rng.chance(loss_ppm) {
            return Ok(());
        }
        let delay = least + state.rng.below(most - least + 1);
        let at = RT::Instant::now() + Duration::from_micros(delay);
        let key = (from.node, to, lane);
        let link = state.links.entry(key).or_insert_with(|| {
            let (bell, ear) = RT::Watch::channel(0);
            drop(RT::spawn(self.clone().carry(key, ear)));
            Link { queue: VecDeque::new(), bell }
        });
        if link.queue.len() >= QUEUE_MAX {
            return Err(SendError::Full);
        }
        link.queue.push_back(Letter { at, lives: (from.life, to_life), frame });
        let bell = link.bell.clone();
        drop(state);
        bell.send_if_modified(|rung| {
            *rung += 1;
            true
        });
        Ok(())
    }

    /// Carries one lane's frames in order, for ever.
    async fn carry(self, key: (NodeId, NodeId, Lane), mut ear: Ear<RT>) {
        let (from, to, lane) = key;
        loop {
            let next = locked(&self.0).links.get_mut(&key).and_then(|link| link.queue.pop_front());
            let Some(letter) = next else {
                if ear.changed().await.is_err() {
                    return;
                }
                continue;
            };
            RT::sleep_until(letter.at).await;
            let raft = {
                let state = locked(&self.0);
                let life = |node| state.ports.get(&node).map_or(0, |port: &Port<RT>| port.life);
                let current = letter.lives == (life(from), life(to));
                let open = current && !state.cuts.contains(&(from, to));
                state.ports.get(&to).and_then(|port| port.raft.clone()).filter(|_| open)
            };
            if let Some(raft) = raft {
                {
                    let mut state = locked(&self.0);
                    let (frames, bytes) = state.carried.entry((to, lane)).or_default();
                    (*frames, *bytes) = (*frames + 1, *bytes + letter.frame.len());
                }
                raft.deliver(from, lane, letter.frame).await;
            }
        }
    }
}

/// One life's end of the mesh.
pub(super) struct MeshWire<RT: AsyncRuntime> {
    mesh: Mesh<RT>,
    node: NodeId,
    life: u64,
}

impl<RT: AsyncRuntime> Clone for MeshWire<RT> {
    fn clone(&self) -> Self {
        Self { mesh: self.mesh.clone(), node: self.node, life: self.life }
    }
}

impl<RT: AsyncRuntime> Wire for MeshWire<RT> {
    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        self.mesh.post(self, to, lane, frame)
    }
}
