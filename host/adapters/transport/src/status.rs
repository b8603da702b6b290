//! What the transport knows of each peer, for people and metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_types::{Gone, NodeId};
use tokio::sync::watch;

/// How it stands with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Not connected since the start.
    Connecting,
    /// Frames can be exchanged.
    Up,
    /// Lost, for this reason; dialled again until it comes.
    Gone(Gone),
}

/// A peer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which member.
    pub node: NodeId,
    /// Its peer id.
    pub peer_id: String,
    /// Where it is dialled.
    pub address: SocketAddr,
    /// How it stands.
    pub state: PeerState,
    /// Why the last dial or connection failed; none once the peer is up.
    pub problem: Option<String>,
    /// The last answered ping's round trip.
    pub round_trip: Option<Duration>,
}

/// A snapshot of all peers, by node.
pub type Peers = BTreeMap<NodeId, PeerStatus>;

/// Where the peers' tasks write and the transport's owner reads.
#[derive(Clone)]
pub(crate) struct Board(Arc<watch::Sender<Peers>>);

impl Board {
    pub(crate) fn new(peers: Peers) -> Self {
        Self(Arc::new(watch::Sender::new(peers)))
    }

    pub(crate) fn change(&self, node: NodeId, change: impl FnOnce(&mut PeerStatus)) {
        self.0.send_modify(|peers| {
            if let Some(status) = peers.get_mut(&node) {
                change(status);
            }
        });
    }

    /// A peer came to the list.
    pub(crate) fn add(&self, status: PeerStatus) {
        self.0.send_modify(|peers| drop(peers.insert(status.node, status)));
    }

    /// It is on the list no more.
    pub(crate) fn remove(&self, node: NodeId) {
        self.0.send_modify(|peers| drop(peers.remove(&node)));
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Peers> {
        self.0.subscribe()
    }
}
