//! What passed and what was lost, by lane, over all peers. Written by the lanes'
//! tasks and by senders, read by metrics; relaxed, since nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_types::{Lane, SendError};

/// A reading of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// Frames written to a connection.
    pub frames_sent: u64,
    /// Their bodies, bytes.
    pub bytes_sent: u64,
    /// Frames read and given to the inbox.
    pub frames_received: u64,
    /// Their bodies, bytes.
    pub bytes_received: u64,
    /// Refused: the queue was full.
    pub refused_full: u64,
    /// Refused: no connection.
    pub refused_unconnected: u64,
    /// Refused: larger than the limit.
    pub refused_too_large: u64,
    /// Taken, and lost with their connection before they were written.
    pub lost: u64,
}

/// A reading of the whole transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By lane number.
    pub lanes: [LaneCounts; Lane::ALL.len()],
    /// Connections to members on which all lanes opened.
    pub connections: u64,
    /// Dials that failed, for any reason.
    pub dials_failed: u64,
    /// Dials that met another key than the member's.
    pub wrong_identity: u64,
    /// Connections from peers outside the allow-list, refused after their handshake.
    pub strangers_refused: u64,
    /// Connections closed because the peer broke the framing.
    pub malformed: u64,
    /// Connections closed because pings failed.
    pub pings_failed: u64,
    /// Lane streams opened again on a living connection.
    pub lanes_reopened: u64,
}

impl Counts {
    /// One lane's reading.
    pub fn lane(&self, lane: Lane) -> LaneCounts {
        self.lanes[usize::from(lane.number())]
    }
}

#[derive(Default)]
pub(crate) struct LaneCounters {
    frames_sent: AtomicU64,
    bytes_sent: AtomicU64,
    frames_received: AtomicU64,
    bytes_received: AtomicU64,
    refused_full: AtomicU64,
    refused_unconnected: AtomicU64,
    refused_too_large: AtomicU64,
    lost: AtomicU64,
}

/// `usize` is at most 64 bits wide here.
fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl LaneCounters {
    pub(crate) fn sent(&self, frames: usize, bytes: usize) {
        self.frames_sent.fetch_add(wide(frames), Ordering::Relaxed);
        self.bytes_sent.fetch_add(wide(bytes), Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.frames_received.fetch_add(1, Ordering::Relaxed);
        self.bytes_received.fetch_add(wide(bytes), Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, error: SendError) {
        let counter = match error {
            SendError::Unconnected => &self.refused_unconnected,
            SendError::Full => &self.refused_full,
            SendError::TooLarge => &self.refused_too_large,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn lost(&self, frames: usize) {
        self.lost.fetch_add(wide(frames), Ordering::Relaxed);
    }

    fn read(&self) -> LaneCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LaneCounts {
            frames_sent: of(&self.frames_sent),
            bytes_sent: of(&self.bytes_sent),
            frames_received: of(&self.frames_received),
            bytes_received: of(&self.bytes_received),
            refused_full: of(&self.refused_full),
            refused_unconnected: of(&self.refused_unconnected),
            refused_too_large: of(&self.refused_too_large),
            lost: of(&self.lost),
        }
    }
}

/// A count of events that concern no lane.
#[derive(Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    lanes: [LaneCounters; Lane::ALL.len()],
    pub(crate) connections: Tally,
    pub(crate) dials_failed: Tally,
    pub(crate) wrong_identity: Tally,
    pub(crate) strangers_refused: Tally,
    pub(crate) malformed: Tally,
    pub(crate) pings_failed: Tally,
    pub(crate) lanes_reopened: Tally,
}

impl Counters {
    pub(crate) fn lane(&self, lane: Lane) -> &LaneCounters {
        &self.lanes[usize::from(lane.number())]
    }

    pub(crate) fn read(&self) -> Counts {
        Counts {
            lanes: std::array::from_fn(|lane| self.lanes[lane].read()),
            connections: self.connections.read(),
            dials_failed: self.dials_failed.read(),
            wrong_identity: self.wrong_identity.read(),
            strangers_refused: self.strangers_refused.read(),
            malformed: self.malformed.read(),
            pings_failed: self.pings_failed.read(),
            lanes_reopened: self.lanes_reopened.read(),
        }
    }
}
