//! What a run got done. A run that does nothing breaks nothing, so it is counted.

use std::fmt;
use std::ops::AddAssign;

/// What is counted here was given up, so that there should be none.
pub const UNJUDGED: &str = "histories unjudged";

/// How often something was done and acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Submissions acknowledged.
    pub acks: u64,
    /// Tasks completed.
    pub completed: u64,
    /// Tasks that ended as dead letters.
    pub dead_letters: u64,
    /// Attempts that were lost or had failed and were followed by another.
    pub requeued: u64,
    /// Cancellations acknowledged.
    pub cancelled: u64,
    /// Completions acknowledged to outside workers.
    pub outside: u64,
    /// Calls answered with a reply.
    pub calls: u64,
    /// Calls that ended in a typed refusal.
    pub calls_refused: u64,
    /// Blobs acknowledged.
    pub blobs: u64,
    /// Linearizable reads answered.
    pub reads: u64,
    /// Policies activated and adopted.
    pub swaps: u64,
    /// Nodes that were let in.
    pub joined: u64,
    /// Changes of voters acknowledged.
    pub revoted: u64,
    /// Members removed.
    pub removed: u64,
    /// Acts on keys whose outcome is known.
    pub keys: u64,
    /// And those of which nobody knows.
    pub keys_unknown: u64,
    /// Seats that somebody was told to hold.
    pub seats: u64,
    /// Changes that watchers were shown.
    pub changes: u64,
    /// Histories of keys that took too long to judge.
    pub unjudged: u64,
}

impl Tally {
    /// The names and counts, in one order.
    pub fn counts(&self) -> [(&'static str, u64); 19] {
        let Self {
            acks,
            completed,
            dead_letters,
            requeued,
            cancelled,
            outside,
            calls,
            calls_refused,
            blobs,
            reads,
            swaps,
            joined,
            revoted,
            removed,
            keys,
            keys_unknown,
            seats,
            changes,
            unjudged,
        } = *self;
        [
            ("acknowledgements", acks),
            ("completed", completed),
            ("dead letters", dead_letters),
            ("requeued", requeued),
            ("cancelled", cancelled),
            ("completed outside", outside),
            ("calls answered", calls),
            ("calls refused", calls_refused),
            ("blobs", blobs),
            ("reads", reads),
            ("swaps", swaps),
            ("joined", joined),
            ("changes of voters", revoted),
            ("removed", removed),
            ("acts on keys", keys),
            ("acts without an outcome", keys_unknown),
            ("seats held", seats),
            ("changes shown", changes),
            (UNJUDGED, unjudged),
        ]
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.acks += other.acks;
        self.completed += other.completed;
        self.dead_letters += other.dead_letters;
        self.requeued += other.requeued;
        self.cancelled += other.cancelled;
        self.outside += other.outside;
        self.calls += other.calls;
        self.calls_refused += other.calls_refused;
        self.blobs += other.blobs;
        self.reads += other.reads;
        self.swaps += other.swaps;
        self.joined += other.joined;
        self.revoted += other.revoted;
        self.removed += other.removed;
        self.keys += other.keys;
        self.keys_unknown += other.keys_unknown;
        self.seats += other.seats;
        self.changes += other.changes;
        self.unjudged += other.unjudged;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts().map(|(name, count)| format!("{count} {name}"));
        f.write_str(&counts.join(", "))
    }
}
