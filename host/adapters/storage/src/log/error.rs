//! Why a log is not opened, takes an operation not, or takes none any more.

use std::sync::Arc;

use quorate_types::{GroupId, Index};

use crate::data_dir::JOIN_ANEW;
use crate::disk_error::DiskError;

/// Why an open log takes nothing any more. Final: only a new start reads the disk again.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a log cannot be opened. The disk was not changed, except where a call to it failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Something that was durable cannot be read.
    #[error("`{file}` is damaged at byte {offset}: {reason}. It is left as it is: {JOIN_ANEW}")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it, bytes.
        offset: usize,
        /// In what way.
        reason: &'static str,
    },
    /// A segment that counts is not there.
    #[error("`{file}` is missing. Put it back; if it is lost: {JOIN_ANEW}")]
    Missing {
        /// The file.
        file: String,
    },
    /// A segment lies under another's name.
    #[error(
        "`{file}` holds segment {found}: files of the log were exchanged or copied over each \
         other. Put them back as they were; if that is not possible: {JOIN_ANEW}"
    )]
    Misplaced {
        /// The file.
        file: String,
        /// Which segment it holds.
        found: u64,
    },
    /// Entries are missing between others.
    #[error(
        "the log of group {group} has entries {after} and {before} and none between: {JOIN_ANEW}"
    )]
    Hole {
        /// The group.
        group: GroupId,
        /// The entry before.
        after: Index,
        /// The entry behind.
        before: Index,
    },
    /// Another format.
    #[error(
        "`{file}` has log format {found}, this program reads {known}; start the one that wrote it"
    )]
    Format {
        /// The file.
        file: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A sound frame of a newer program.
    #[error(
        "`{file}` has a frame of kind {kind} version {version} at byte {offset}, which this \
         program does not know; start the newer one that wrote it"
    )]
    Unknown {
        /// The file.
        file: String,
        /// Where in it, bytes.
        offset: usize,
        /// The frame's kind.
        kind: u8,
        /// Its version.
        version: u8,
    },
    /// The options do not suit this log.
    #[error("segments of {got} bytes are too small: this log needs at least {least}")]
    SegmentBytes {
        /// As asked for.
        got: u32,
        /// The least that does.
        least: usize,
    },
}

/// Why an operation was not taken. Nothing happened and its `done` is not called.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubmitError {
    /// Too much waits for the disk; wait with [`Log::room`](crate::Log::room), or refuse the work.
    #[error("{queued} operations with {queued_bytes} bytes already wait for the disk")]
    Busy {
        /// How many wait.
        queued: usize,
        /// How much that is, bytes.
        queued_bytes: usize,
    },
    /// The disk is full and what is allocated is kept for votes and marks. Wait with
    /// [`Log::room`](crate::Log::room): it works again when there is space.
    #[error("the disk is full: appends may take {left} bytes more until there is space again")]
    Full {
        /// How much would have been taken, bytes.
        left: usize,
    },
    /// A body larger than a segment holds.
    #[error("a body of {got} bytes where a segment holds at most {limit}")]
    TooLarge {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not what may follow the group's log as it stands.
    #[error("group {group}: {what} does not follow a log that ends at {last}")]
    OutOfOrder {
        /// The group.
        group: GroupId,
        /// What was asked.
        what: String,
        /// Where its log ends.
        last: Index,
    },
    /// An earlier write failed.
    #[error("the log failed earlier")]
    Failed(#[source] Arc<LogError>),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}
