//! The native stream beside HTTP: what a client and a node say to each other after
//! `GET /v1/stream` with `Upgrade: quorate/1`.
//!
//! Each way go frames: a length (u32, big-endian, at most [`FRAME_BYTES_MAX`]) and a
//! CBOR value, an [`Asked`] or a [`Said`]. Requests are told apart by numbers that
//! the client gives; answers come in any order. A reset of the stream ends the
//! leases that were bound to it, and its watches.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cbor::{self, DecodeError};
use crate::door::{Consistency, Refusal};
use crate::kv::{Changes, KvAnswer, KvFound, KvRead, KvRequest, KvWatch, LeaseId};
use crate::limits::FRAME_BYTES_MAX;
use crate::task::TaskSpec;
use crate::view::Submitted;

/// The path to upgrade at.
pub const PATH: &str = "/v1/stream";
/// The protocol to upgrade to.
pub const PROTOCOL: &str = "quorate/1";
/// The length before each frame, bytes.
const HEAD_BYTES: usize = 4;

/// From client to node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// Acts; `Said::Kv` answers.
    #[serde(rename = "k")]
    Kv {
        /// Number, deadline in milliseconds.
        #[serde(rename = "i")]
        ask: (u64, u64),
        /// The acts.
        #[serde(rename = "r")]
        request: KvRequest,
    },
    /// Questions; `Said::Found` answers.
    #[serde(rename = "r")]
    Read {
        /// Number, deadline in milliseconds.
        #[serde(rename = "i")]
        ask: (u64, u64),
        /// The questions.
        reads: Vec<KvRead>,
        /// How fresh.
        consistency: Consistency,
    },
    /// A sign of life of a lease; `Said::Kept` answers.
    Keep {
        /// Number, deadline in milliseconds.
        ask: (u64, u64),
        /// The lease.
        lease: LeaseId,
    },
    /// The lease ends with this stream. No answer.
    Bind {
        /// Whose.
        namespace: String,
        /// The lease.
        lease: LeaseId,
    },
    /// The lease ends with this stream no more. No answer.
    Unbind {
        /// The lease.
        lease: LeaseId,
    },
    /// Tasks; `Said::Submitted` answers.
    Submit {
        /// Number, deadline in milliseconds.
        ask: (u64, u64),
        /// The tasks, each with an idempotency key.
        specs: Vec<TaskSpec>,
    },
    /// Changes from now on; `Said::Changed` as they come, a refusal last.
    Watch {
        /// Number.
        id: u64,
        /// Of what.
        watch: KvWatch,
    },
    /// No more of them. No answer.
    Unwatch {
        /// The number of the watch.
        id: u64,
    },
}

/// From node to client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// To `Kv`.
    #[serde(rename = "k")]
    Kv(u64, Result<KvAnswer, Refusal>),
    /// To `Read`; the flag marks stale answers.
    #[serde(rename = "r")]
    Found(u64, Result<(Vec<Result<KvFound, Refusal>>, bool), Refusal>),
    /// To `Keep`: the term that begins now, milliseconds.
    Kept(u64, Result<u64, Refusal>),
    /// To `Submit`, in order.
    Submitted(u64, Result<Vec<Result<Submitted, Refusal>>, Refusal>),
    /// To `Watch`.
    Changed(u64, Result<Changes, Refusal>),
}

/// Why a stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A frame is longer than may be; nothing was allocated for it.
    #[error("a frame of {got} bytes; the limit is {FRAME_BYTES_MAX}")]
    TooLong {
        /// What its head says.
        got: usize,
    },
    /// A frame is not what it should be.
    #[error("a frame cannot be read: {0}")]
    Garbled(#[from] DecodeError),
}

/// Appends a frame.
///
/// # Errors
/// `TooLong`; nothing was appended.
pub fn put_frame<T: Serialize>(out: &mut BytesMut, body: &T) -> Result<(), LinkError> {
    let begin = out.len();
    out.put_u32(0);
    cbor::append(out, body);
    let got = out.len() - begin - HEAD_BYTES;
    match u32::try_from(got) {
        Ok(length) if got <= FRAME_BYTES_MAX => {
            if let Some(head) = out.get_mut(begin..begin + HEAD_BYTES) {
                head.copy_from_slice(&length.to_be_bytes());
            }
            Ok(())
        }
        Ok(_) | Err(_) => {
            out.truncate(begin);
            Err(LinkError::TooLong { got })
        }
    }
}

/// Takes the first frame off, if it is whole. A length is checked as soon as it is there.
///
/// # Errors
/// `TooLong`.
pub fn take_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, LinkError> {
    let Some(head) = buffer.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let got = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if got > FRAME_BYTES_MAX {
        return Err(LinkError::TooLong { got });
    }
    if buffer.len() < HEAD_BYTES + got {
        buffer.reserve(HEAD_BYTES + got - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEAD_BYTES);
    Ok(Some(buffer.split_to(got).freeze()))
}

/// What a frame says.
///
/// # Errors
/// `Garbled`.
pub fn read_frame<T: DeserializeOwned>(frame: &[u8]) -> Result<T, LinkError> {
    Ok(cbor::decode(frame, FRAME_BYTES_MAX)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_however_they_are_cut() {
        let frames = [
            Asked::Keep { ask: (1, 2), lease: LeaseId::new(0, 3) },
            Asked::Unwatch { id: u64::MAX },
        ];
        let mut whole = BytesMut::new();
        for frame in &frames {
            put_frame(&mut whole, frame).expect("short");
        }
        let mut buffer = BytesMut::new();
        let mut read = Vec::new();
        for byte in whole {
            buffer.put_u8(byte);
            while let Some(frame) = take_frame(&mut buffer).expect("short") {
                read.push(read_frame::<Asked>(&frame).expect("ours"));
            }
        }
        assert_eq!(read, frames);
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_body_comes() {
        let mut buffer = BytesMut::from(u32::MAX.to_be_bytes().as_slice());
        assert!(matches!(take_frame(&mut buffer), Err(LinkError::TooLong { .. })));
        let value = crate::kv::Value(vec![7; FRAME_BYTES_MAX].into());
        let mut out = BytesMut::new();
        assert!(matches!(put_frame(&mut out, &value), Err(LinkError::TooLong { .. })));
        assert!(out.is_empty(), "nothing of it is left");
    }

    #[test]
    fn the_longest_frame_passes_and_room_is_made_for_it_once() {
        let mut whole = BytesMut::new();
        whole.put_u32(u32::try_from(FRAME_BYTES_MAX).expect("it fits"));
        whole.put_bytes(7, FRAME_BYTES_MAX);
        let mut few = BytesMut::from(&whole[..9]);
        assert!(take_frame(&mut few).is_ok_and(|frame| frame.is_none()), "not whole yet");
        assert!(few.capacity() >= whole.len(), "so that it is not copied as it grows");
        let mut most = BytesMut::from(&whole[..whole.len() - 1]);
        assert!(take_frame(&mut most).is_ok_and(|frame| frame.is_none()), "not whole yet");
        for buffer in [&few, &most] {
            assert!(buffer.capacity() <= 2 * whole.len(), "no more than it may need");
        }
        let frame = take_frame(&mut whole).expect("as long as may be").expect("whole");
        assert_eq!((frame.len(), whole.len()), (FRAME_BYTES_MAX, 0));
    }
}
