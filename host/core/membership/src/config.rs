//! What a node's membership is made with.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_types::{Incarnation, NodeId};

use crate::table::INCARNATION_AHEAD_MAX;

/// Members in one cluster. A digest names each of them in one frame; the full mesh
/// itself is meant for 64 (DESIGN section 6).
pub const MEMBERS_MAX: usize = 1024;

/// What it is made with. `Config::new` fills in spans that suit a LAN.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Every member, this node included; at most `MEMBERS_MAX`.
    pub members: BTreeSet<NodeId>,
    /// Names this life in gossip, below 2^52. It should exceed that of every earlier life
    /// (wall-clock microseconds since 1970 at the start do, until 2112); a smaller one costs an
    /// exchange in which peers say so and the node jumps above. It is not the number that the
    /// ledger gives.
    pub incarnation: Incarnation,
    /// How this node judges others.
    pub detection: Detection,
    /// Least span between two delta flushes; a change after a quiet spell goes at once.
    pub flush_every: Duration,
    /// Span between two digests, each to one random peer.
    pub sync_every: Duration,
}

/// The spans of failure detection.
#[derive(Clone, Copy, Debug)]
pub struct Detection {
    /// A peer that was silent for this long is pinged. Above 64 members it grows in proportion,
    /// so that a node never sends more than 64 pings in this span.
    pub probe_every: Duration,
    /// A ping is answered within this span, or others are asked to try.
    pub ping_timeout: Duration,
    /// Others answer within this span, or the peer is suspect. Longer than `ping_timeout`,
    /// which they wait themselves.
    pub indirect_timeout: Duration,
    /// How many others are asked (k of the SWIM paper).
    pub indirect_probes: usize,
    /// A suspect that many others accuse too is down after this span.
    pub suspicion_min: Duration,
    /// A suspect that nobody else accuses is down after this span.
    pub suspicion_max: Duration,
    /// A tick that comes this much after its time is late: the stall was ours.
    pub late_after: Duration,
}

impl Default for Detection {
    /// Silence is a suspicion after 450 ms and a death after 2.45 s to 10.45 s; net.md section 3
    /// counts no false death a day at 2 s on healthy hosts, and ten seconds are a lease.
    fn default() -> Self {
        Self {
            probe_every: Duration::from_millis(200),
            ping_timeout: Duration::from_millis(100),
            indirect_timeout: Duration::from_millis(150),
            indirect_probes: 2,
            suspicion_min: Duration::from_secs(2),
            suspicion_max: Duration::from_secs(10),
            late_after: Duration::from_millis(50),
        }
    }
}

impl Config {
    /// The defaults, for `node` among `members` in the life `incarnation`.
    pub fn new(node: NodeId, members: BTreeSet<NodeId>, incarnation: Incarnation) -> Self {
        Self {
            node,
            members,
            incarnation,
            detection: Detection::default(),
            flush_every: Duration::from_millis(10),
            sync_every: Duration::from_secs(1),
        }
    }

    /// Panics on a configuration that our own code must not make.
    pub(crate) fn check(&self) {
        let Detection { ping_timeout, indirect_timeout, suspicion_min, suspicion_max, .. } =
            self.detection;
        assert!(self.members.contains(&self.node), "a node is a member of its cluster");
        assert!(self.members.len() <= MEMBERS_MAX, "a digest names every member in one frame");
        assert!(
            self.incarnation.0 < INCARNATION_AHEAD_MAX,
            "whoever knows nothing of a node believes its first incarnation"
        );
        assert!(ping_timeout < indirect_timeout, "those who are asked wait for a ping themselves");
        assert!(suspicion_min <= suspicion_max, "confirmation shortens a suspicion");
        assert!(!self.flush_every.is_zero() && !self.sync_every.is_zero(), "time goes on");
    }
}
