//! A backup: every group's whole state at one moment, and the blobs that records
//! refer to, as one stream of bytes that is whole or refused.
//!
//! `quorback`, the format (u32), then frames, all little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | kind |
//! | 4 | length of the payload, at most 1 MiB |
//! | … | payload |
//! | 4 | CRC-32 of the frame's number (u64), kind, length and payload |
//!
//! In this order: one *head* (CBOR: whose it is), each group as one *group* (CBOR:
//! which, and at which place in its log) and *parts* of its snapshot, each blob as
//! one *blob* (CBOR) and *parts*, an *absent* for each blob that no node had, and
//! one *end*: the counts, and the SHA-256 of every byte before it. Nothing follows.
//! A file that was cut has no end, one that was put together from two has frames
//! under wrong numbers.

mod read;
mod write;

#[cfg(test)]
mod tests;

use quorate_types::{Digest, Era, GroupId, Index, NodeId, Term, Time};
use serde::{Deserialize, Serialize};

pub use read::{BackupItem, BackupReader};
pub use write::BackupWriter;

/// The format that this program writes and reads.
pub const BACKUP_FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"quorback";
/// A payload: a part of a snapshot or of a blob.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// A head and the checksum around a payload.
const FRAME_HEAD_BYTES: usize = 5;
const SUM_BYTES: usize = 4;

/// Kinds of frames. A number is never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Head,
    Group,
    Blob,
    Absent,
    Part,
    End,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Head => 1,
            Self::Group => 2,
            Self::Blob => 3,
            Self::Absent => 4,
            Self::Part => 5,
            Self::End => 6,
        }
    }

    fn of(number: u8) -> Option<Self> {
        [Self::Head, Self::Group, Self::Blob, Self::Absent, Self::Part, Self::End]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// Whose backup it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupHead {
    /// The cluster's id.
    pub cluster: String,
    /// Which life of the cluster.
    pub era: Era,
    /// How many shards share its tasks and keys.
    pub shards: u16,
    /// The feature level that the cluster had agreed on.
    pub feature_level: u32,
    /// Which node gave it.
    pub node: NodeId,
    /// That node's wall time.
    pub taken: Time,
    /// Whether blobs are in it.
    pub blobs: bool,
}

/// A group in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupGroup {
    /// Which.
    pub group: GroupId,
    /// The last entry in it.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// The digest of its state.
    pub digest: Digest,
    /// Its snapshot, bytes.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Blob {
    digest: Digest,
    bytes: u64,
}

/// What a whole backup held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupTotals {
    /// Groups.
    pub groups: u32,
    /// Blobs.
    pub blobs: u64,
    /// Blobs that records refer to and that no node had.
    pub absent: u64,
    /// The SHA-256 of every byte before the last frame: the backup's own name.
    pub digest: Digest,
}

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read.
    #[error("the backup cannot be read")]
    Io(#[from] std::io::Error),
    /// Something else.
    #[error("this is no backup of quorate's")]
    Strange,
    /// Another format.
    #[error(
        "the backup has format {found} and this program reads {known}; use the one that wrote it"
    )]
    Format {
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It ends before its end.
    #[error(
        "the backup was cut: it ends at byte {at}, before its last frame; take or copy it anew"
    )]
    Cut {
        /// Where, bytes.
        at: u64,
    },
    /// Something in it is not what was written.
    #[error("the backup is damaged at byte {at}: {reason}; take or copy it anew")]
    Damaged {
        /// Where, bytes.
        at: u64,
        /// In what way.
        reason: String,
    },
}

/// The checksum of a frame with this number.
fn sum_of(number: u64, head: &[u8], payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&number.to_le_bytes());
    sum.update(head);
    sum.update(payload);
    sum.finalize()
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
