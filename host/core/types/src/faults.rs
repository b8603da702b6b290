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
    /// storage: a vote is kept in memory alone.
    pub vote_dropped: bool,
    /// storage: the newest vote is not written again before its segment is used anew.
    pub vote_not_carried: bool,
    /// storage: every group's vote is written as the system group's.
    pub groups_mixed: bool,
    /// sim, in place of node's admission: a node whose disk was emptied returns under its old id.
    pub wiped_returns: bool,
    /// sim's disk, in place of storage: the log is never synced.
    pub log_unsynced: bool,
    /// sim's disk, in place of storage: a snapshot is renamed before it is synced.
    pub snapshot_unsynced: bool,
    /// sim's disk, in place of storage: a blob is renamed before it is synced.
    pub blob_unsynced: bool,
    /// sim's disk, in place of storage: directories are never synced.
    pub names_unsynced: bool,
    /// raft: a snapshot is without its membership.
    pub snapshot_forgets_members: bool,
    /// raft: a read asks no quorum whether this node still leads.
    pub read_unconfirmed: bool,
    /// raft: the last two commands of a batch are applied in each other's place.
    pub apply_swapped: bool,
    /// raft: a command is stamped anew, by this node's clock, when it is applied.
    pub clock_in_apply: bool,
    /// raft: openraft's `enable_leader_restore` is on.
    pub leader_restore: bool,
    /// ledger: it is an older program, which knows feature levels up to this one.
    pub feature_level_known: Option<u32>,
    /// ledger: the n-th completion (from 1) is acknowledged and forgotten.
    pub completion_dropped: Option<u64>,
    /// ledger: the n-th completion (from 1) happens twice.
    pub completion_doubled: Option<u64>,
    /// ledger: a task whose lease is lost is not queued again.
    pub requeue_lost: bool,
    /// ledger: any token ends a lease.
    pub fence_ignored: bool,
    /// ledger: every lease of a shard has the same token.
    pub token_reused: bool,
    /// ledger: a task that is cancelled goes on.
    pub cancel_forgotten: bool,
    /// ledger: the digest does not follow a task that changes.
    pub digest_stale: bool,
    /// ledger: a restored state does not know the idempotency keys of its tasks.
    pub keys_not_restored: bool,
}

impl Faults {
    /// None: what ships.
    pub fn none() -> Self {
        Self::default()
    }
}
