//! The seam to other nodes: authenticated, ordered lanes of frames.
//!
//! A frame arrives whole, at most once and in its lane's order, or not at all;
//! a broken connection or a full queue loses frames, so whoever needs an answer
//! asks with an id and a deadline.

use std::future::Future;

use bytes::Bytes;

use crate::id::NodeId;

/// One ordered stream of frames to one peer. Lanes never delay each other beyond
/// the connection they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Raft log replication.
    Append,
    /// Raft votes, pre-votes, hand-off and liveness; bulk never delays it.
    Vote,
    /// Raft snapshots.
    Snapshot,
    /// Presence, load readings, anti-entropy.
    Gossip,
    /// Routed calls and their replies.
    Call,
    /// Requests forwarded to a leader, credits, swap preparation.
    Control,
    /// Blob chunks.
    Blob,
}

impl Lane {
    /// Every lane, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Append,
        Self::Vote,
        Self::Snapshot,
        Self::Gossip,
        Self::Call,
        Self::Control,
        Self::Blob,
    ];

    /// The lane's number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Append => 0,
            Self::Vote => 1,
            Self::Snapshot => 2,
            Self::Gossip => 3,
            Self::Call => 4,
            Self::Control => 5,
            Self::Blob => 6,
        }
    }

    /// The lane with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// Why a peer is no longer connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The connection broke and a new one was refused: the process is not there.
    Refused,
    /// The connection broke, or pings failed, and the peer does not answer.
    Timeout,
    /// The connection was closed in order.
    Closed,
}

/// What arrives from the wire.
#[derive(Clone, Debug)]
pub enum WireEvent {
    /// A frame from an authenticated peer.
    Frame {
        /// Who sent it.
        from: NodeId,
        /// On which lane.
        lane: Lane,
        /// Its body, at most `FRAME_BYTES_MAX`.
        frame: Bytes,
    },
    /// Frames can be exchanged with this peer from now on.
    PeerUp(NodeId),
    /// They no longer can.
    PeerGone(NodeId, Gone),
}

/// Why a frame was not taken. It is lost; nothing is retried beneath the seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No connection.
    #[error("the peer is not connected")]
    Unconnected,
    /// The lane's queue is full.
    #[error("the peer's queue is full")]
    Full,
    /// Larger than `FRAME_BYTES_MAX`.
    #[error("the frame is larger than the limit")]
    TooLarge,
}

/// The sending half.
pub trait Wire: Clone + Send + Sync + 'static {
    /// Queues `frame` for `to` and returns at once.
    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError>;
}

/// The receiving half, given to a wire when it is made.
pub trait Inbox: Send + Sync + 'static {
    /// Takes one event. A future that waits holds back this peer's lane alone.
    fn deliver(&self, event: WireEvent) -> impl Future<Output = ()> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_found_by_its_number() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_number(lane.number()), Some(lane));
        }
        assert_eq!(Lane::from_number(7), None);
    }
}
