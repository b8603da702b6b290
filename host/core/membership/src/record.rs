//! Records: their keys, versions and limits, and the bodies this program knows.

use quorate_types::Incarnation;

/// Incarnations lie below this, so that the owner can always jump above a forged one.
pub const INCARNATION_MAX: Incarnation = Incarnation(1 << 62);

/// The body of one record, bytes.
pub const VALUE_BYTES_MAX: usize = 1024;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Its name in the cluster file.
    pub name: String,
    /// Where its HTTP door is, if it has one.
    pub api: Option<String>,
    /// Whether it takes new work.
    pub standing: Standing,
}

/// Whether a node takes new work, by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Serving,
    /// It is about to leave.
    Leaving,
}

/// Why a record was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Its body is too large.
    #[error("a record of {bytes} bytes is larger than the limit of {VALUE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// This node has as many records as one may.
    #[error("this node has {limit} records, as many as one may have")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}
