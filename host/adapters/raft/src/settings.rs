//! The settings that safety and liveness hang on.
//!
//! openraft's defaults are not safe for us (an unset `enable_leader_restore`
//! means *on*, which was seen to break log matching), so every one that matters
//! is set here, its relations to the others are asserted, and a test holds it.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use quorate_types::Faults;

/// How fast a group notices that its leader is gone, against how much jitter it
/// forgives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Heartbeat 50 ms, election 150–300 ms.
    #[default]
    Default,
    /// One rack: heartbeat 20 ms, election 60–120 ms.
    Lan,
    /// Several sites: heartbeat 100 ms, election 500–1,000 ms.
    Wan,
}

/// A profile in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    heartbeat_ms: u64,
    election_min_ms: u64,
    election_max_ms: u64,
}

impl Timing {
    const fn new(heartbeat_ms: u64, election_min_ms: u64, election_max_ms: u64) -> Self {
        // A follower survives the loss of one heartbeat without campaigning.
        assert!(election_min_ms >= 3 * heartbeat_ms);
        assert!(election_max_ms >= 2 * election_min_ms, "candidates must rarely collide");
        Self { heartbeat_ms, election_min_ms, election_max_ms }
    }

    /// A leader without a quorum for so long restarts its own instance: it may be one that speaks
    /// but hears nobody, and would keep the others from electing for ever.
    pub(crate) const fn watchdog(self) -> Duration {
        let longest_twice = 2 * self.election_max_ms;
        Duration::from_millis(if longest_twice > 1_000 { longest_twice } else { 1_000 })
    }

    /// An append without an answer for so long is lost. openraft's own figure is three quarters of
    /// a heartbeat, less than a busy disk takes; a peer that is gone fails its requests at once.
    pub(crate) const fn append_timeout(self) -> Duration {
        Duration::from_millis(self.election_min_ms)
    }

    /// A leader whose oldest write has waited for its disk for so long hands over.
    pub(crate) const fn stall(self) -> Duration {
        Duration::from_millis(2 * self.election_max_ms)
    }

    /// The longest election timeout.
    pub(crate) const fn election_max(self) -> Duration {
        Duration::from_millis(self.election_max_ms)
    }
}

impl Profile {
    pub(crate) const fn timing(self) -> Timing {
        const DEFAULT: Timing = Timing::new(50, 150, 300);
        const LAN: Timing = Timing::new(20, 60, 120);
        const WAN: Timing = Timing::new(100, 500, 1_000);
        match self {
            Self::Default => DEFAULT,
            Self::Lan => LAN,
            Self::Wan => WAN,
        }
    }
}

/// When the log is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// A snapshot is taken after so many entries.
    pub entries_per_snapshot: u64,
    /// So many entries that are in a snapshot stay in the log, so that a follower that was away
    /// for a moment catches up from it.
    pub entries_kept: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { entries_per_snapshot: 50_000, entries_kept: 4_096 }
    }
}

/// When the log is cut although it has few entries, because they are large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSize {
    /// A snapshot is taken after so many bytes of entries.
    pub bytes_per_snapshot: u64,
    /// Of the entries that are in a snapshot, no more than so many bytes stay.
    pub bytes_kept: u64,
}

impl Default for LogSize {
    /// 50,000 entries of the usual 256 B have 13 MB: these bounds are for larger ones.
    fn default() -> Self {
        Self { bytes_per_snapshot: 64 << 20, bytes_kept: 16 << 20 }
    }
}

/// Entries in one append, at most; a follower's write is as large.
const APPEND_ENTRIES_MAX: u64 = 1_024;

/// After a request was lost. Long enough that a leader which hears nobody falls silent between
/// attempts and lets the others elect; the watchdog covers the rest.
pub(crate) const BACKOFF: Duration = Duration::from_millis(200);

/// One snapshot piece, or the installation at the end, takes at most so long.
const SNAPSHOT_TIMEOUT_MS: u64 = 10_000;

/// A snapshot is sent at this pace, bytes a second: a fifth of what one connection carries, so that
/// the appends which share it go on.
pub const SNAPSHOT_BYTES_PER_S: u64 = 64 << 20;

/// A snapshot piece without an answer is sent again after so long, until its time is over.
pub(crate) const PIECE_RETRY: Duration = Duration::from_millis(1_000);

/// openraft's configuration.
pub(crate) fn openraft_config(
    name: String,
    profile: Profile,
    compaction: Compaction,
    faults: &Faults,
) -> Result<Arc<Config>, openraft::ConfigError> {
    let timing = profile.timing();
    let config = Config {
        cluster_name: name,
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        // Off in everything that ships: a leader that crashed with an unflushed entry would come
        // back as leader of the same term and write another entry at the same (term, index).
        enable_leader_restore: Some(faults.leader_restore),
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(2 * timing.election_max_ms),
        allow_log_reversion: Some(false),
        max_payload_entries: APPEND_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(compaction.entries_per_snapshot),
        max_in_snapshot_log_to_keep: compaction.entries_kept,
        // A follower further behind than this is sent a snapshot; below a snapshot's distance that
        // would not bring it nearer.
        replication_lag_threshold: 2 * compaction.entries_per_snapshot,
        // Few entries a time cost a record each; many make a small log keep what it should not.
        purge_batch_size: compaction.entries_kept.clamp(1, 256),
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        ..Config::default()
    };
    config.validate().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(profile: Profile, faults: &Faults) -> Arc<Config> {
        openraft_config("test".to_owned(), profile, Compaction::default(), faults).unwrap()
    }

    #[test]
    fn what_ships_never_restores_a_leader() {
        for profile in [Profile::Default, Profile::Lan, Profile::Wan] {
            let config = config(profile, &Faults::none());
            assert_eq!(config.enable_leader_restore, Some(false));
            assert_eq!(config.enable_pre_vote, Some(true));
            assert_eq!(config.allow_log_reversion, Some(false));
            let probe = config.quorum_loss_probe_interval.unwrap();
            assert!(probe >= 2 * config.election_timeout_max, "{profile:?}");
            assert!(profile.timing().watchdog() >= 2 * profile.timing().election_max());
            assert!(profile.timing().watchdog() >= Duration::from_secs(1));
        }
    }

    #[test]
    fn the_planted_fault_is_passed_through() {
        let faults = Faults { leader_restore: true, ..Faults::none() };
        assert_eq!(config(Profile::Default, &faults).enable_leader_restore, Some(true));
    }
}
