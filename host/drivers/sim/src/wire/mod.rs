//! A wire between all nodes: ordered lanes with delay, loss and, on the raft
//! lanes, repeats; cuts both ways or one way; connections that are noticed to
//! break. What a life has sent arrives until its end is noticed; what is sent to a
//! life is lost with it.
//!
//! A lane is carried by a task of the node that it leads to: it ends with that
//! node's life, and stands still while the node is held. What connections do is
//! told in order, and before any frame that comes after it.

mod air;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::{AsyncRuntime as _, Mpsc as _, MpscReceiver as _};
use quorate_crank::{Post, Usher};
use quorate_types::{Gone, Inbox as _, Lane, NodeId, SendError, Wire, WireEvent};

use self::air::{Air, Letter, Track, Way};
use crate::disk::SimDisk;
use crate::knobs::Knobs;
use crate::runtime::{self, MpscReceiver, SimMpsc, SimRuntime, WORLD};
use crate::world::{World, locked};

/// Where a node's frames go.
pub(crate) type SimPost = Usher<Post<SimRuntime, SimDisk, SimWire>, SimWire>;

/// A lane takes this many frames, like the transport's.
const QUEUE_MAX: usize = 256;
/// The shortest way from node to node.
const WIRE_US_MIN: u64 = 200;
/// A process that is gone is noticed so soon: its machine refuses.
const REFUSED_AFTER: Duration = Duration::from_millis(2);
/// A cut is noticed so late: pings fail.
const TIMEOUT_AFTER: Duration = Duration::from_secs(2);

/// All lanes between all nodes. Clones share it.
#[derive(Clone)]
pub(crate) struct Mesh {
    world: World,
    air: Arc<Mutex<Air>>,
}

impl Mesh {
    pub(crate) fn new(world: World, seed: u64, knobs: &Knobs) -> Self {
        Self { world, air: Arc::new(Mutex::new(Air::new(seed, knobs))) }
    }

    /// A wire for a new life of `node`.
    pub(crate) fn wire(&self, node: NodeId) -> SimWire {
        let mut air = locked(&self.air);
        let port = air.ports.entry(node).or_default();
        port.life += 1;
        SimWire { mesh: self.clone(), node, life: port.life }
    }

    /// From now on `node` is there: it connects to whom it can reach.
    pub(crate) fn attach(&self, node: NodeId, post: SimPost) {
        let told = {
            let mut air = locked(&self.air);
            // Back before anybody noticed that it was gone: its earlier life's connections break.
            let mut told = air.leave(node, Gone::Closed);
            if let Some(port) = air.ports.get_mut(&node) {
                port.post = Some(post);
            }
            told.append(&mut air.connect());
            told
        };
        self.bring_news(told);
    }

    /// The node's life ends here and now; others notice soon.
    pub(crate) fn detach(&self, node: NodeId) {
        let (post, links, life) = {
            let mut air = locked(&self.air);
            let Some(port) = air.ports.get_mut(&node) else { return };
            port.life += 1;
            port.news.clear();
            let (post, life) = (port.post.take(), port.life);
            let ends = |(from, to, _): &Track| *from == node || *to == node;
            let links: Vec<_> = air.links.extract_if(.., |track, _| ends(track)).collect();
            (post, links, life)
        };
        drop((post, links)); // Outside the lock: a post holds a wire of this mesh.
        let mesh = self.clone();
        drop(runtime::spawn_at(WORLD, async move {
            SimRuntime::sleep(REFUSED_AFTER).await;
            let told = {
                let mut air = locked(&mesh.air);
                if air.ports.get(&node).is_none_or(|port| port.life != life) {
                    return;
                }
                air.leave(node, Gone::Refused)
            };
            mesh.bring_news(told);
        }));
    }

    /// From now on `node` lets these connect and no others.
    pub(crate) fn set_peers(&self, node: NodeId, peers: BTreeSet<NodeId>) {
        let told = locked(&self.air).set_peers(node, peers);
        self.bring_news(told);
    }

    /// Frames on these ways vanish, and no end ever notices.
    pub(crate) fn cut_unnoticed(&self, ways: &[Way]) {
        locked(&self.air).cuts.extend(ways);
    }

    /// Frames on these ways vanish; after a while both ends notice.
    pub(crate) fn cut(&self, ways: &[Way]) {
        let weather = {
            let mut air = locked(&self.air);
            air.cuts.extend(ways);
            air.weather += 1;
            air.weather
        };
        let (mesh, ways) = (self.clone(), ways.to_vec());
        drop(runtime::spawn_at(WORLD, async move {
            SimRuntime::sleep(TIMEOUT_AFTER).await;
            let mut told = BTreeSet::new();
            {
                let mut air = locked(&mesh.air);
                for way in ways {
                    if air.weather >= weather && air.cuts.contains(&way) {
                        told.append(&mut air.part(way, Gone::Timeout));
                    }
                }
            }
            mesh.bring_news(told);
        }));
    }

    pub(crate) fn heal(&self) {
        let told = {
            let mut air = locked(&self.air);
            air.cuts.clear();
            air.weather += 1;
            air.connect()
        };
        self.bring_news(told);
    }

    /// These ways take so much longer.
    pub(crate) fn slow(&self, ways: &[Way], by: Duration) {
        let by_us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        locked(&self.air).slow.extend(ways.iter().map(|way| (*way, by_us)));
    }

    /// All ways are as short as they were.
    pub(crate) fn bring_near(&self) {
        locked(&self.air).slow.clear();
    }

    /// The node stands still: after a while it has answered no ping.
    pub(crate) fn hold(&self, node: NodeId) {
        let weather = {
            let mut air = locked(&self.air);
            air.held.insert(node);
            air.weather += 1;
            air.weather
        };
        let mesh = self.clone();
        drop(runtime::spawn_at(WORLD, async move {
            SimRuntime::sleep(TIMEOUT_AFTER).await;
            let told = {
                let mut air = locked(&mesh.air);
                if air.weather < weather || !air.held.contains(&node) {
                    return;
                }
                air.leave(node, Gone::Timeout)
            };
            mesh.bring_news(told);
        }));
    }

    /// The node goes on.
    pub(crate) fn release(&self, node: NodeId) {
        let told = {
            let mut air = locked(&self.air);
            if !air.held.remove(&node) {
                return;
            }
            air.connect()
        };
        self.bring_news(told);
    }

    /// No more loss and repeats.
    pub(crate) fn clear_up(&self) {
        let mut air = locked(&self.air);
        (air.loss_ppm, air.repeat_ppm) = (0, 0);
        air.slow.clear();
    }

    /// Each of these is told what its connections have done, by a task of its own.
    fn bring_news(&self, told: BTreeSet<NodeId>) {
        for node in told {
            let mesh = self.clone();
            drop(runtime::spawn_at(node, async move { mesh.tell_news(node).await }));
        }
    }

    async fn tell_news(&self, node: NodeId) {
        loop {
            let (event, post) = {
                let mut air = locked(&self.air);
                let Some(port) = air.ports.get_mut(&node) else { return };
                let Some(post) = port.post.clone() else { return };
                let Some(event) = port.news.pop_front() else { return };
                (event, post)
            };
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
        let track = (from.node, to, lane);
        let mut air = locked(&self.air);
        let Some((at, over, copies)) = air.send(track, from.life)? else { return Ok(()) };
        let link = air.links.entry(track).or_insert_with(|| {
            let (link, letters) = SimMpsc::channel(QUEUE_MAX);
            drop(runtime::spawn_at(to, self.clone().carry(track, letters)));
            link
        });
        let link = link.clone();
        drop(air);
        for _ in 0..copies {
            let letter = Letter { at, over, frame: frame.clone() };
            link.try_send(letter).map_err(|_full| SendError::Full)?;
        }
        Ok(())
    }

    /// Carries one lane's frames in order, until one of its ends has gone.
    async fn carry(self, track: Track, mut letters: MpscReceiver<Letter>) {
        let (from, to, lane) = track;
        while let Some(letter) = letters.recv().await {
            runtime::sleep_until(letter.at).await;
            let arrived = locked(&self.air).arrive(track, &letter);
            let Some(post) = arrived else { continue };
            self.tell_news(to).await;
            let size = u64::try_from(letter.frame.len()).unwrap_or(u64::MAX);
            let way = from.0 * 16 + u64::from(lane.number());
            self.world.note(to, "frame", (way, size));
            post.deliver(WireEvent::Frame { from, lane, frame: letter.frame }).await;
            self.world.look(to);
        }
    }

    /// Ends everything, so that nothing holds anything.
    pub(crate) fn end(&self) {
        let (posts, links) = {
            let mut air = locked(&self.air);
            let posts: Vec<_> = air.ports.values_mut().map(|port| port.post.take()).collect();
            (posts, std::mem::take(&mut air.links))
        };
        drop((posts, links));
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
