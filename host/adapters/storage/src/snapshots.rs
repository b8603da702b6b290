//! Snapshots (first publication: signatures).

use std::io;

use bytes::Bytes;
use quorate_types::{Disk, GroupId, Index, Term};

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry in it.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// The membership there, opaque here.
    pub membership: Bytes,
}

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Reading or writing failed.
    #[error("could not {act} `{file}`")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On which file.
        file: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// The snapshots of a node's groups. Clones share them.
#[derive(Clone, Debug)]
pub struct Snapshots<D> {
    _disk: D,
}

impl<D: Disk> Snapshots<D> {
    /// Snapshots in `snapshots/`; removes what unfinished writes left.
    pub async fn open(disk: D) -> Result<Self, SnapshotError> {
        Ok(Self { _disk: disk })
    }

    /// Makes `body` the group's latest snapshot, durable when this returns. Older ones go.
    pub async fn write(
        &self,
        _group: GroupId,
        _meta: SnapshotMeta,
        _body: Bytes,
    ) -> Result<(), SnapshotError> {
        Ok(())
    }

    /// The latest snapshot, verified.
    pub async fn latest(
        &self,
        _group: GroupId,
    ) -> Result<Option<(SnapshotMeta, Bytes)>, SnapshotError> {
        Ok(None)
    }
}
