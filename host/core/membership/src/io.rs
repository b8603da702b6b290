//! What goes into a node's membership and what comes out of it.

use bytes::Bytes;
use quorate_types::{AgentId, Gone, Incarnation, NodeId};

/// What arrives.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A frame on the gossip lane, from an authenticated peer.
    Frame(NodeId, &'a [u8]),
    /// Frames can be exchanged with this peer from now on.
    PeerUp(NodeId),
    /// They no longer can.
    PeerGone(NodeId, Gone),
    /// Every input that was there has been given, and the time has come. Verdicts are made here
    /// alone, so that an answer which waited in the socket is heard before its sender is judged.
    Tick,
}

/// What must be done, in this order. Nothing in it waits for a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Send a frame on the gossip lane. If it is lost, a later digest repairs that.
    Send {
        /// To whom.
        to: NodeId,
        /// At most `GOSSIP_FRAME_BYTES_MAX`.
        frame: Bytes,
    },
    /// This node thinks otherwise of a member than before.
    StatusChanged {
        /// Which member.
        node: NodeId,
        /// What it was.
        from: Status,
        /// What it is.
        to: Status,
        /// The life that was judged, as the member numbers it itself.
        incarnation: Incarnation,
        /// Why.
        reason: Reason,
    },
    /// A reading came, changed or went.
    ReadingChanged {
        /// Of this agent.
        agent: AgentId,
        /// As this node says.
        node: NodeId,
    },
}

/// What a node thinks of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// It answers, itself or by others' word.
    Alive,
    /// It does not answer, or was not heard yet: give it no new work.
    Suspect,
    /// It is gone.
    Down,
}

impl Status {
    /// The word for people and APIs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a status changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its frame came.
    Heard,
    /// Another node has its answer.
    HeardByOthers,
    /// It raised its version above the one that was suspected.
    Refuted,
    /// Neither it nor those asked to reach it answered.
    ProbesFailed,
    /// Its process is not there: the connection was refused.
    Refused,
    /// It stayed suspect for too long.
    SuspicionExpired,
}

impl Reason {
    /// In words, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Heard => "it answers",
            Self::HeardByOthers => "it answers another node",
            Self::Refuted => "it refuted the suspicion",
            Self::ProbesFailed => "it answered neither this node nor those asked to reach it",
            Self::Refused => "its connection was refused",
            Self::SuspicionExpired => "it stayed suspect for too long",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.words())
    }
}
