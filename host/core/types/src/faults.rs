//! Planted faults: bugs that the harness must find. A value given at
//! construction, `Faults::none()` in `quorate`; no feature, no variable.

/// Which bugs to have. Each field names the room that obeys it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// storage: a vote is acknowledged before it is durable.
    pub vote_acked_early: bool,
    /// storage: an append is acknowledged before its fsync.
    pub append_acked_early: bool,
    /// storage: recovery drops the last durable entry.
    pub recovery_drops_last: bool,
    /// raft: openraft's `enable_leader_restore` is on.
    pub leader_restore: bool,
    /// ledger: the n-th completion (from 1) is acknowledged and forgotten.
    pub completion_dropped: Option<u64>,
    /// ledger: the n-th completion (from 1) happens twice.
    pub completion_doubled: Option<u64>,
}

impl Faults {
    /// None: what ships.
    pub fn none() -> Self {
        Self::default()
    }
}
