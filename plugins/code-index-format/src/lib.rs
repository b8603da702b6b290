//! The bytes that a code index is made of: what `code-indexer` takes and gives,
//! what `code-searcher` takes, loads and gives, and the merge between them.
//!
//! Plain Rust without a dependency, for guests and hosts alike. Every format begins
//! with four bytes of its own. Numbers are LEB128 varints of at most ten bytes
//! (`varint` below) unless a width is named; widths are little-endian. Lists of
//! files ascend by id, lists of words by their bytes, and a reader refuses anything
//! else, so that equal contents are equal bytes.
//!
//! | bytes | what | layout after the four |
//! |---|---|---|
//! | `QIT1` | [`task`] | count varint; a file: id u32, SHA-256 32 bytes |
//! | `QIP1` | [`postings`] | count varint, a file: id delta varint, length varint; count varint, a word: [entry](postings) |
//! | `QIS1` | [`shard`] | number u32, shards u32, words u32, offset u32 a word, then the entries |
//! | `QIQ1` | [`query`] | count varint, a shard: SHA-256 32 bytes; count varint, a word: length varint, bytes |
//! | `QIA1` | [`query`] | count varint, a word's hits: count varint, a file: id delta varint, count varint |
//!
//! A *word* is a maximal run of the bytes `A-Z a-z 0-9 _`. A run of more than 64
//! bytes ([`WORD_BYTES_MAX`]) is no word and is skipped whole.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod bytes;
pub mod postings;
pub mod query;
pub mod shard;
pub mod task;

pub use bytes::FormatError;
pub use postings::{FileEntry, Hit, Postings, PostingsReader};
pub use query::{Query, decode_answer, encode_answer};
pub use shard::{Shard, merge, shard_of};
pub use task::{Input, decode_task, encode_task};

/// A longer run of word bytes is not a word.
pub const WORD_BYTES_MAX: usize = 64;

/// A SHA-256.
pub type Digest = [u8; 32];

/// Whether a byte can stand in a word.
#[inline]
pub const fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// A digest as the 64 lower-case hexadecimal digits by which blobs are asked for.
pub fn hex(digest: &Digest) -> alloc::string::String {
    let nibbles = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.filter_map(|nibble| char::from_digit(nibble.into(), 16)).collect()
}
