//! What a transport is told at its start, and what it refuses to start with.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quorate_types::NodeId;
use quorate_types::limits::LANE_BYTES_MAX;

/// A member as the list names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// The peer id of its node key, as [`peer_id_of`](crate::peer_id_of) prints it.
    pub peer_id: String,
    /// Where it listens; every member must reach it there.
    pub address: SocketAddr,
}

/// Bounds of one lane's queue to one peer. What does not fit is refused with `SendError::Full`
/// and lost; the sender's own deadline finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBound {
    /// Frames waiting.
    pub frames_max: usize,
    /// Bytes waiting. An empty queue takes any legal frame.
    pub bytes_max: usize,
}

impl Default for QueueBound {
    /// 16,384 frames are 47 ms of the 345 K frames/s that one connection carries with 64 in flight,
    /// beyond which a sender had better hear that the peer is slow. Two largest frames (8 MiB) let one
    /// be written while the next is prepared; seven full lanes to a stalled peer then hold 56 MiB.
    fn default() -> Self {
        Self { frames_max: 16_384, bytes_max: LANE_BYTES_MAX }
    }
}

/// When a silent connection is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingLimits {
    /// From an answer to the next ping.
    pub interval: Duration,
    /// How long an answer may take. Longer than `interval`, because a ping waits behind the bulk
    /// that shares its connection and behind a busy peer's scheduler.
    pub timeout: Duration,
    /// Failures in a row, with no frame from the peer between them, that close the connection. The
    /// first is never reported by the protocol, so 2 is the least that has an effect.
    pub failures_max: u32,
}

impl Default for PingLimits {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), timeout: Duration::from_secs(2), failures_max: 2 }
    }
}

/// Everything a [`Transport`](crate::Transport) is made of. `new` sets the limits, which may then be changed.
#[derive(Clone)]
pub struct TransportOptions {
    /// The ed25519 seed of this node's key: its peer id follows from it.
    pub key: [u8; 32],
    /// Which member this node is.
    pub node: NodeId,
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The list to begin with: every member is dialled, and nobody else gets in. An entry
    /// for `node` itself is allowed and must carry this key's peer id.
    pub peers: BTreeMap<NodeId, PeerAddress>,
    /// Bounds of each lane's queue to each peer.
    pub queue: QueueBound,
    /// When a silent connection is given up.
    pub ping: PingLimits,
    /// From the first byte of a connection to its authentication, and again until all its lanes are open.
    pub handshake_timeout: Duration,
    /// How long a lost peer's address may leave a plain TCP connect unanswered before the peer
    /// counts as silent. Three times the round trip between continents.
    pub probe_timeout: Duration,
    /// The first wait between two dials; doubled at each failure and jittered.
    pub redial_first: Duration,
    /// The longest wait between two dials. Dialling never ends.
    pub redial_max: Duration,
}

impl TransportOptions {
    /// The default limits around what differs from node to node.
    pub fn new(
        key: [u8; 32],
        node: NodeId,
        listen: SocketAddr,
        peers: BTreeMap<NodeId, PeerAddress>,
    ) -> Self {
        Self {
            key,
            node,
            listen,
            peers,
            queue: QueueBound::default(),
            ping: PingLimits::default(),
            handshake_timeout: Duration::from_secs(5),
            probe_timeout: Duration::from_millis(500),
            redial_first: Duration::from_millis(50),
            redial_max: Duration::from_secs(2),
        }
    }
}

/// Without the key.
impl fmt::Debug for TransportOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportOptions")
            .field("node", &self.node)
            .field("listen", &self.listen)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// Why a transport did not start: what, why, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A peer id does not parse.
    #[error(
        "the peer id of {node}, `{text}`, is not one ({reason}); copy it from that node's identity file"
    )]
    BadPeerId {
        /// Whose.
        node: NodeId,
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// One peer id stands for two nodes.
    #[error(
        "{first} and {second} carry the same peer id {peer_id}; each node needs a key of its own"
    )]
    SharedPeerId {
        /// One of them.
        first: NodeId,
        /// The other.
        second: NodeId,
        /// What they share.
        peer_id: String,
    },
    /// The cluster file gives this node another key's peer id.
    #[error(
        "the cluster file says that {node} has peer id {listed}, but this key's is {own}; \
         start the node with its own key, or correct the cluster file"
    )]
    NotOurKey {
        /// This node.
        node: NodeId,
        /// The cluster file's.
        listed: String,
        /// The key's.
        own: String,
    },
    /// Another process listens there.
    #[error("{address} is taken by another process; stop it, or choose another listen address")]
    PortTaken {
        /// The listen address.
        address: SocketAddr,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}; choose an address of this machine and a port it may use")]
    Listen {
        /// The listen address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The machine denies a thread, an event queue or the libraries their set-up.
    #[error("cannot set up {what}; check the limits on threads and open files")]
    Setup {
        /// What was being made.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}
