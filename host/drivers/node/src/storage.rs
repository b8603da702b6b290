//! A data directory that no node has open, for people: what lies in it, and whether
//! it is sound. Nothing is changed.
//!
//! Checks: identity, life and the directories of others can be read; every segment
//! that counts reads to its end; every block of every snapshot, and its ledger's
//! digest computed from scratch against the one it states; the log applied to it as
//! far as it is known to be committed, and the digest kept along the way against
//! one from scratch; every blob through its name.

mod backed_up;
mod check;

use std::collections::BTreeMap;
use std::path::Path;

use quorate_raft::{log_committed, log_vote};
use quorate_storage::{
    Blobs, DataDir, LogOptions, LogSurvey, RecoveredGroup, SegmentState, Snapshots, lives,
};
use quorate_types::{GroupId, Index, NodeId, Term};
use serde::Serialize;

use crate::disk::{FileDisk, FileDiskError};
pub(crate) use backed_up::read_group;
pub use backed_up::{BackedUp, look_at_backup};
pub use check::{Check, verify};

/// Why a directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It cannot be opened, or a node has it open.
    #[error(transparent)]
    Disk(#[from] FileDiskError),
    /// Something in it cannot be read at all.
    #[error("cannot read the data directory")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no identity, so nobody knows what this is.
    #[error("`{0}` is no data directory of a node: it has no `identity`")]
    NoIdentity(String),
}

/// All that lies in a data directory.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Whose it is.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// Its peer id.
    pub peer: String,
    /// The directory's own id.
    pub directory: String,
    /// How often it was started.
    pub lives: u64,
    /// Whether the last life closed its log; none where the log cannot be read.
    pub closed_in_order: Option<bool>,
    /// Why the log would be refused, if it would be.
    pub damage: Option<String>,
    /// The log's files.
    pub segments: Vec<SegmentView>,
    /// Groups in the log.
    pub groups: Vec<GroupKept>,
    /// Snapshots.
    pub snapshots: Vec<SnapshotKept>,
    /// How many blobs.
    pub blobs: usize,
}

/// A segment of the log.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentView {
    /// Its number.
    pub number: u64,
    /// `live`, `free` or `unwritten`.
    pub state: &'static str,
    /// The file's length, bytes.
    pub bytes: u64,
    /// Where its frames end, bytes.
    pub used: u64,
    /// Frames in it.
    pub frames: u64,
    /// Entries in it, by group.
    pub entries: BTreeMap<GroupId, EntryRange>,
}

/// Entries of one group in one segment; some may be purged, or there twice.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EntryRange {
    /// How many.
    pub count: u64,
    /// The lowest index.
    pub first: Index,
    /// The highest index.
    pub last: Index,
}

/// A group as the log keeps it.
#[derive(Clone, Debug, Serialize)]
pub struct GroupKept {
    /// The group.
    pub group: GroupId,
    /// The term of its vote.
    pub term: Option<Term>,
    /// For whom it voted in that term.
    pub voted_for: Option<NodeId>,
    /// Up to where it is known to be committed.
    pub committed: Option<Index>,
    /// Up to where it was purged.
    pub purged: Option<Index>,
    /// Its last entry.
    pub last: Option<Index>,
    /// Live entries.
    pub entries: usize,
}

/// A snapshot file.
#[derive(Clone, Debug, Serialize)]
pub struct SnapshotKept {
    /// The group.
    pub group: GroupId,
    /// The last entry in it.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// Its length, bytes.
    pub bytes: u64,
}

fn read_error(error: impl std::error::Error + Send + Sync + 'static) -> InspectError {
    InspectError::Read(Box::new(error))
}

/// Looks at a data directory.
pub async fn inspect(root: &Path) -> Result<Inspection, InspectError> {
    let disk = FileDisk::open_to_read(root)?;
    let identity = DataDir::read(&disk).await.map_err(read_error)?;
    let identity = identity.ok_or_else(|| InspectError::NoIdentity(root.display().to_string()))?;
    let log = LogSurvey::take(&disk, &LogOptions::new(identity.directory)).await;
    let log = log.map_err(read_error)?;
    let snapshots = Snapshots::as_they_lie(disk.clone()).list().await.map_err(read_error)?;
    let snapshots = snapshots.into_iter().map(|file| SnapshotKept {
        group: file.group,
        index: file.index,
        term: file.term,
        bytes: file.bytes,
    });
    let blobs = Blobs::as_they_lie(disk.clone()).list().await.map_err(read_error)?.len();
    let found = log.recovered.as_ref().ok();
    let groups = found.map(|found| found.groups.iter().map(|(id, group)| kept(*id, group)));
    Ok(Inspection {
        cluster: identity.cluster,
        node: identity.node,
        peer: identity.peer,
        directory: identity.directory.to_string(),
        lives: lives(&disk).await.map_err(read_error)?,
        closed_in_order: found.map(|found| found.sealed),
        damage: log.recovered.as_ref().err().map(ToString::to_string),
        segments: log.segments.iter().map(segment).collect(),
        groups: groups.into_iter().flatten().collect(),
        snapshots: snapshots.collect(),
        blobs,
    })
}

fn segment(found: &quorate_storage::SegmentSurvey) -> SegmentView {
    let state = match found.state {
        SegmentState::Live => "live",
        SegmentState::Free => "free",
        SegmentState::Unwritten => "unwritten",
    };
    let range = |(count, first, last): (u64, Index, Index)| EntryRange { count, first, last };
    SegmentView {
        number: found.number,
        state,
        bytes: found.bytes,
        used: found.used,
        frames: found.frames,
        entries: found.entries.iter().map(|(group, entries)| (*group, range(*entries))).collect(),
    }
}

fn kept(group: GroupId, found: &RecoveredGroup) -> GroupKept {
    let vote = found.vote.as_ref().and_then(|vote| log_vote(vote).ok());
    GroupKept {
        group,
        term: vote.map(|(term, ..)| term),
        voted_for: vote.map(|(_, node, _)| node),
        committed: found.committed.as_ref().and_then(|mark| log_committed(mark).ok()),
        purged: found.purged.map(|(index, _)| index),
        last: found.last.map(|(index, _)| index),
        entries: found.entries,
    }
}
