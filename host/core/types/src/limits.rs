//! Bounds that several rooms must agree on. A bound that only one room needs
//! stands in that room.

/// A frame on any lane, bytes. Holds a 1,024-entry append of small commands or a 64 KiB blob chunk
/// many times over; a length above it is refused before anything is allocated.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// Input or result kept inside a task's record, bytes; larger content is a blob.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

/// A blob, bytes.
pub const BLOB_BYTES_MAX: u64 = 64 << 20;

/// One blob chunk on the wire, bytes.
pub const BLOB_CHUNK_BYTES: usize = 64 << 10;

/// A request or reply body of a call, bytes. Leaves a frame room for its head.
pub const CALL_BYTES_MAX: usize = 1 << 20;

/// Tasks submitted in one request.
pub const SUBMIT_BATCH_MAX: usize = 1024;

/// A command as it lies in the log, bytes; the largest is a batch of submissions.
pub const COMMAND_BYTES_MAX: usize = 2 << 20;

const _: () = assert!(COMMAND_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(CALL_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(INLINE_BYTES_MAX < CALL_BYTES_MAX);

/// Bytes of text that says why something failed, as a task's record keeps it; longer text is cut.
pub const REASON_BYTES_MAX: usize = 4096;

/// A namespace's name, bytes.
pub const NAMESPACE_BYTES_MAX: usize = 128;

/// A key, bytes.
pub const KEY_BYTES_MAX: usize = 1 << 10;

/// What a key holds, bytes; what is larger is a blob, and the key holds its digest.
pub const KV_VALUE_BYTES_MAX: usize = 64 << 10;

/// Conditions and acts in one transaction.
pub const KV_OPS_MAX: usize = 128;

/// Acts in one request. A command holds 16 of the largest; the rest is refused by its size.
pub const KV_ACTS_MAX: usize = 128;

/// A lease's time to live, milliseconds: below half a second it would end with one late packet,
/// beyond an hour it is no sign of life.
pub const LEASE_MS_MIN: u64 = 500;
/// See [`LEASE_MS_MIN`].
pub const LEASE_MS_MAX: u64 = 3_600_000;

/// What waits on one lane to one peer, bytes: two of the largest frames, so that one is written
/// while the next is prepared. A sender that keeps less under way is never told that it is full by
/// its own doing.
pub const LANE_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;
