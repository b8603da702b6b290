//! An entry of a group's log, as this room sees it: a position and opaque bytes.

use bytes::Bytes;
use quorate_types::{Index, Term};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position; the first is 1.
    pub index: Index,
    /// The term in which it was proposed.
    pub term: Term,
    /// Its body, opaque here.
    pub payload: Bytes,
}
