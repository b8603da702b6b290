//! Nodes on loopback whose inboxes are channels.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_transport::{
    PeerAddress, Peers, PingLimits, StartError, Transport, TransportOptions, peer_id_of,
};
use quorate_types::{Gone, Inbox, Lane, NodeId, SendError, Wire, WireEvent};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// A bound for what must happen; reaching it is a failure, never a way to wait.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn key(node: u64) -> [u8; 32] {
    [u8::try_from(node).unwrap(); 32]
}

/// The member list of one test. Each test gets loopback addresses of its own, so that tests may run
/// at once, a dead node's port stays free for its restart, and no outgoing socket is given it.
pub(crate) struct Cluster {
    pub(crate) peers: BTreeMap<NodeId, PeerAddress>,
}

impl Cluster {
    pub(crate) fn of(nodes: u64) -> Self {
        static TESTS: AtomicU8 = AtomicU8::new(1);
        let test = TESTS.fetch_add(1, Ordering::Relaxed);
        let [.., high, low] = std::process::id().to_be_bytes();
        let peers = (1..=nodes).map(|node| {
            let port = 7400 + u16::try_from(node).unwrap();
            let ip = Ipv4Addr::new(127, high, low, test);
            let address = SocketAddr::from((ip, port));
            (NodeId(node), PeerAddress { peer_id: peer_id_of(&key(node)), address })
        });
        Self { peers: peers.collect() }
    }

    pub(crate) fn address(&self, node: u64) -> SocketAddr {
        self.peers[&NodeId(node)].address
    }

    pub(crate) fn options(&self, node: u64) -> TransportOptions {
        TransportOptions::new(key(node), NodeId(node), self.address(node), self.peers.clone())
    }

    /// Pings fast enough for a test that waits for their failure.
    pub(crate) fn watchful_options(&self, node: u64) -> TransportOptions {
        let mut options = self.options(node);
        options.ping = PingLimits {
            interval: Duration::from_millis(50),
            timeout: Duration::from_millis(200),
            failures_max: 2,
        };
        options
    }

    pub(crate) fn start(&self, node: u64) -> Node {
        Node::start(self.options(node)).unwrap()
    }
}

/// An inbox that can be made to hold back one lane.
struct Ear {
    events: mpsc::UnboundedSender<WireEvent>,
    held: watch::Receiver<Option<Lane>>,
}

impl Inbox for Ear {
    async fn deliver(&self, event: WireEvent) {
        if let WireEvent::Frame { lane, .. } = &event {
            self.held.clone().wait_for(|held| *held != Some(*lane)).await.ok();
        }
        self.events.send(event).ok();
    }
}

pub(crate) struct Node {
    pub(crate) transport: Transport,
    pub(crate) events: mpsc::UnboundedReceiver<WireEvent>,
    held: watch::Sender<Option<Lane>>,
}

impl Node {
    pub(crate) fn start(options: TransportOptions) -> Result<Self, StartError> {
        let (events, on_events) = mpsc::unbounded_channel();
        let (held, on_held) = watch::channel(None);
        let transport = Transport::start(options, Ear { events, held: on_held })?;
        Ok(Self { transport, events: on_events, held })
    }

    /// Lets this node's inbox take no frame of `lane`, or all again.
    pub(crate) fn hold(&self, lane: Option<Lane>) {
        self.held.send_replace(lane);
    }

    pub(crate) async fn next(&mut self) -> WireEvent {
        timeout(SOON, self.events.recv()).await.expect("an event comes").expect("the node runs")
    }

    pub(crate) async fn frame(&mut self) -> (NodeId, Lane, Bytes) {
        match self.next().await {
            WireEvent::Frame { from, lane, frame } => (from, lane, frame),
            other @ (WireEvent::PeerUp(_) | WireEvent::PeerGone(..)) => {
                panic!("a frame was expected, not {other:?}")
            }
        }
    }

    pub(crate) async fn up(&mut self, peer: u64) {
        match self.next().await {
            WireEvent::PeerUp(node) if node == NodeId(peer) => {}
            other => panic!("n{peer} up was expected, not {other:?}"),
        }
    }

    pub(crate) async fn gone(&mut self, peer: u64) -> Gone {
        match self.next().await {
            WireEvent::PeerGone(node, gone) if node == NodeId(peer) => gone,
            other => panic!("n{peer} gone was expected, not {other:?}"),
        }
    }

    pub(crate) fn send(
        &self,
        to: u64,
        lane: Lane,
        frame: impl Into<Bytes>,
    ) -> Result<(), SendError> {
        self.transport.send(NodeId(to), lane, frame.into())
    }

    /// Waits until the peers' status is as asked.
    pub(crate) async fn see(&self, what: impl FnMut(&Peers) -> bool) {
        let mut peers = self.transport.watch_peers();
        timeout(SOON, peers.wait_for(what))
            .await
            .expect("the status comes")
            .expect("the node runs");
    }
}

/// Both are up to each other.
pub(crate) async fn pair(cluster: &Cluster) -> (Node, Node) {
    let (mut one, mut two) = (cluster.start(1), cluster.start(2));
    one.up(2).await;
    two.up(1).await;
    (one, two)
}
