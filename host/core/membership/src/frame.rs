//! What nodes say to each other on the gossip lane, in bytes.
//!
//! A frame is a CBOR array of kind, version and body; a body is an array whose
//! places are numbered. Nothing is allocated for a frame above its limit.

use bytes::Bytes;
use minicbor::{Decode, Decoder, Encode, Encoder};
use quorate_types::NodeId;
use quorate_types::limits::FRAME_BYTES_MAX;

use crate::config::MEMBERS_MAX;
use crate::record::VALUE_BYTES_MAX;
use crate::table::{Delta, DeltaFault, Table};

/// A frame on the gossip lane, bytes. Small, so that a ping never waits behind much.
pub const GOSSIP_FRAME_BYTES_MAX: usize = 64 << 10;

/// An encoded record without its body: array 1, counter 9, kind 3, id 9, length 3.
const RECORD_BYTES: usize = 25;
/// An encoded delta without its records: array 1, four numbers of 9, length 5.
const DELTA_BYTES: usize = 42;
/// The frame around deltas: array 1, kind and version 3 each, body 1, length 5.
const HEAD_BYTES: usize = 13;
/// One owner in a digest: array 1, three numbers of 9.
const KNOWN_BYTES: usize = 28;

const _: () = assert!(GOSSIP_FRAME_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(HEAD_BYTES + 1 + MEMBERS_MAX * KNOWN_BYTES <= GOSSIP_FRAME_BYTES_MAX);
const _: () =
    assert!(HEAD_BYTES + DELTA_BYTES + RECORD_BYTES + VALUE_BYTES_MAX < GOSSIP_FRAME_BYTES_MAX);

const VERSION: u16 = 1;

/// Kinds of frames. A number is never given again.
mod kind {
    pub(super) const PING: u16 = 1;
    pub(super) const ACK: u16 = 2;
    pub(super) const ASK: u16 = 3;
    pub(super) const ASKED: u16 = 4;
    pub(super) const PUSH: u16 = 5;
    pub(super) const DIGEST: u16 = 6;
    pub(super) const RELAY: u16 = 7;
}

/// Why a frame was not taken, or not wholly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("gossip frame from {from}: {fault}")]
pub struct FrameError {
    /// Who sent it.
    pub from: NodeId,
    /// What is wrong with it.
    pub fault: FrameFault,
}

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// The sender is no member.
    #[error("the sender is no other member")]
    Stranger,
    /// It is too large to be read.
    #[error("{bytes} bytes exceed the limit of {GOSSIP_FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is not a gossip frame.
    #[error("it cannot be read: {0}")]
    Malformed(String),
    /// It is of a newer program, or of no kind at all.
    #[error("kind {kind} version {version} is not known here")]
    Unknown {
        /// The kind.
        kind: u16,
        /// Its version.
        version: u16,
    },
    /// It brings records of another node as if they were the sender's.
    #[error("it writes records of {owner}, which only {owner} may")]
    NotTheOwner {
        /// Whose they are.
        owner: NodeId,
    },
    /// It brings records that cannot be the owner's. Those of other owners in it are kept.
    #[error("records of {owner}: {fault}")]
    Delta {
        /// Whose they are said to be.
        owner: NodeId,
        /// Why not.
        fault: DeltaFault,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Nonce {
    #[n(0)]
    pub(crate) nonce: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Ask {
    #[n(0)]
    pub(crate) nonce: u64,
    #[n(1)]
    pub(crate) target: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Asked {
    #[n(0)]
    pub(crate) nonce: u64,
    #[n(1)]
    pub(crate) target: u64,
    #[n(2)]
    pub(crate) reached: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Known {
    #[n(0)]
    pub(crate) owner: u64,
    #[n(1)]
    pub(crate) incarnation: u64,
    #[n(2)]
    pub(crate) seen: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Digest {
    /// Whether the sender waits for a digest in turn, where the receiver lacks something.
    #[n(0)]
    pub(crate) reply: bool,
    #[n(1)]
    pub(crate) known: Vec<Known>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Deltas<'b> {
    #[b(0)]
    pub(crate) deltas: Vec<Delta<'b>>,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message<'b> {
    /// Are you there?
    Ping(Nonce),
    /// I am.
    Ack(Nonce),
    /// Ask another whether it is there (ping-req of the SWIM paper).
    Ask(Ask),
    /// It is, or it did not answer (nack of the Lifeguard paper).
    Asked(Asked),
    /// Changes of the sender's own records.
    Push(Deltas<'b>),
    /// What the sender has of each owner.
    Digest(Digest),
    /// What the receiver lacks of others' records.
    Relay(Deltas<'b>),
}

impl Message<'_> {
    pub(crate) fn encode(&self) -> Bytes {
        match self {
            Self::Ping(body) => frame(kind::PING, body),
            Self::Ack(body) => frame(kind::ACK, body),
            Self::Ask(body) => frame(kind::ASK, body),
            Self::Asked(body) => frame(kind::ASKED, body),
            Self::Push(body) => frame(kind::PUSH, body),
            Self::Digest(body) => frame(kind::DIGEST, body),
            Self::Relay(body) => frame(kind::RELAY, body),
        }
    }
}

fn frame<T: Encode<()>>(kind: u16, body: &T) -> Bytes {
    let mut encoder = Encoder::new(Vec::new());
    let written = encoder
        .array(3)
        .and_then(|encoder| encoder.u16(kind))
        .and_then(|encoder| encoder.u16(VERSION))
        .and_then(|encoder| encoder.encode(body))
        .map(drop);
    if let Err(error) = written {
        unreachable!("a vector takes every byte: {error}");
    }
    let bytes = encoder.into_writer();
    assert!(bytes.len() <= GOSSIP_FRAME_BYTES_MAX, "a frame of {} bytes", bytes.len());
    bytes.into()
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Message<'_>, FrameFault> {
    if bytes.len() > GOSSIP_FRAME_BYTES_MAX {
        return Err(FrameFault::TooLarge { bytes: bytes.len() });
    }
    let mut decoder = Decoder::new(bytes);
    let (kind, version) = head(&mut decoder)?;
    if version != VERSION {
        return Err(FrameFault::Unknown { kind, version });
    }
    let message = match kind {
        kind::PING => Message::Ping(body(&mut decoder)?),
        kind::ACK => Message::Ack(body(&mut decoder)?),
        kind::ASK => Message::Ask(body(&mut decoder)?),
        kind::ASKED => Message::Asked(body(&mut decoder)?),
        kind::PUSH => Message::Push(body(&mut decoder)?),
        kind::DIGEST => Message::Digest(body(&mut decoder)?),
        kind::RELAY => Message::Relay(body(&mut decoder)?),
        _newer => return Err(FrameFault::Unknown { kind, version }),
    };
    if decoder.position() != bytes.len() {
        return Err(FrameFault::Malformed("bytes follow its end".to_owned()));
    }
    Ok(message)
}

fn malformed(error: minicbor::decode::Error) -> FrameFault {
    FrameFault::Malformed(error.to_string())
}

fn head(decoder: &mut Decoder<'_>) -> Result<(u16, u16), FrameFault> {
    match decoder.array().map_err(malformed)? {
        Some(3) => {}
        Some(_) | None => return Err(FrameFault::Malformed("not an array of three".to_owned())),
    }
    Ok((decoder.u16().map_err(malformed)?, decoder.u16().map_err(malformed)?))
}

fn body<'b, T: Decode<'b, ()>>(decoder: &mut Decoder<'b>) -> Result<T, FrameFault> {
    decoder.decode().map_err(malformed)
}

/// Lays deltas into as few frames as hold them, each within the limit.
#[derive(Debug)]
pub(crate) struct Packing<'t> {
    /// Frames that are full.
    full: Vec<Vec<Delta<'t>>>,
    open: Vec<Delta<'t>>,
    open_bytes: usize,
    frames_max: usize,
}

impl<'t> Packing<'t> {
    /// What does not fit into `frames_max` frames is left for another time.
    pub(crate) fn new(frames_max: usize) -> Self {
        Self { full: Vec::new(), open: Vec::new(), open_bytes: HEAD_BYTES, frames_max }
    }

    /// What of `table` changed after `since`; false once the frames are used up.
    pub(crate) fn add(&mut self, owner: NodeId, table: &'t Table, since: u64) -> bool {
        let seen = table.seen();
        let mut delta = Delta {
            owner: owner.0,
            incarnation: seen.incarnation.0,
            since,
            upto: since,
            records: Vec::new(),
        };
        let mut delta_bytes = DELTA_BYTES;
        for record in table.after(since) {
            let record_bytes = RECORD_BYTES + record.value.map_or(0, <[u8]>::len);
            if self.open_bytes + delta_bytes + record_bytes > GOSSIP_FRAME_BYTES_MAX {
                let upto = delta.upto;
                let next = Delta { since: upto, records: Vec::new(), ..delta };
                if !delta.records.is_empty() {
                    self.open.push(delta);
                }
                delta = next;
                delta_bytes = DELTA_BYTES;
                if !self.close() {
                    return false;
                }
            }
            delta_bytes += record_bytes;
            // Beyond `seen` the table has gaps, which a mark must not hide.
            delta.upto = record.counter.min(seen.counter).max(delta.upto);
            delta.records.push(record);
        }
        if self.open_bytes + delta_bytes > GOSSIP_FRAME_BYTES_MAX && !self.close() {
            return false;
        }
        delta.upto = seen.counter.max(delta.upto);
        self.open.push(delta);
        self.open_bytes += delta_bytes;
        true
    }

    fn close(&mut self) -> bool {
        if !self.open.is_empty() {
            self.full.push(std::mem::take(&mut self.open));
        }
        self.open_bytes = HEAD_BYTES;
        self.full.len() < self.frames_max
    }

    /// The frames, to be sent in this order.
    pub(crate) fn finish(mut self) -> impl Iterator<Item = Deltas<'t>> {
        self.close();
        self.full.into_iter().map(|deltas| Deltas { deltas })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Key;
    use quorate_types::Incarnation;

    fn table(records: u64, body: usize) -> Table {
        let mut table = Table::new(Incarnation(1));
        for id in 0..records {
            table.write(Key::extension(id), Some(&vec![7; body])).unwrap();
        }
        table
    }

    #[test]
    fn every_message_survives_the_wire() {
        let owned = table(3, 5);
        let mut packing = Packing::new(1);
        assert!(packing.add(NodeId(4), &owned, 1));
        let deltas = packing.finish().next().unwrap();
        assert_eq!(deltas.deltas[0].records.len(), 2, "those after the first");
        let known = vec![Known { owner: 1, incarnation: 2, seen: 3 }];
        for message in [
            Message::Ping(Nonce { nonce: 1 }),
            Message::Ack(Nonce { nonce: u64::MAX }),
            Message::Ask(Ask { nonce: 2, target: 9 }),
            Message::Asked(Asked { nonce: 2, target: 9, reached: true }),
            Message::Push(deltas.clone()),
            Message::Digest(Digest { reply: true, known }),
            Message::Relay(deltas),
        ] {
            assert_eq!(decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn a_large_table_is_split_and_its_marks_form_a_chain() {
        let owned = table(900, 1000);
        let mut packing = Packing::new(usize::MAX);
        assert!(packing.add(NodeId(4), &owned, 0));
        let mut copy = Table::default();
        let mut frames = 0;
        for deltas in packing.finish() {
            let frame = Message::Push(deltas.clone()).encode();
            assert!(frame.len() > GOSSIP_FRAME_BYTES_MAX / 4, "frames are filled");
            for delta in &deltas.deltas {
                assert_eq!(delta.since, copy.seen().counter);
                copy.merge(delta);
            }
            frames += 1;
        }
        assert_eq!(frames, 15);
        assert_eq!(copy, owned);
    }

    #[test]
    fn a_gap_is_not_passed_on_as_if_it_were_whole() {
        let owned = table(6, 5);
        let mut gapped = Table::default();
        for (since, records) in [(0, 2), (4, 6)] {
            let mut packing = Packing::new(1);
            packing.add(NodeId(4), &owned, since);
            let mut deltas = packing.finish().next().unwrap();
            deltas.deltas[0].records.retain(|record| record.counter <= records);
            deltas.deltas[0].upto = records;
            gapped.merge(&deltas.deltas[0]);
        }
        let mut packing = Packing::new(1);
        packing.add(NodeId(4), &gapped, 0);
        let relayed = packing.finish().next().unwrap();
        let counters: Vec<u64> = relayed.deltas[0].records.iter().map(|it| it.counter).collect();
        assert_eq!((counters, relayed.deltas[0].upto), (vec![1, 2, 5, 6], 2));
    }

    #[test]
    fn a_budget_of_frames_cuts_a_delta_where_it_can_go_on() {
        let owned = table(900, 1000);
        let mut copy = Table::default();
        for _round in 0..8 {
            let mut packing = Packing::new(2);
            packing.add(NodeId(4), &owned, copy.seen().counter);
            let frames: Vec<_> = packing.finish().collect();
            assert!(frames.len() <= 2);
            for delta in frames.iter().flat_map(|frame| &frame.deltas) {
                copy.merge(delta);
            }
        }
        assert_eq!(copy, owned);
    }

    #[test]
    fn what_is_not_a_frame_is_named() {
        let good = Message::Ping(Nonce { nonce: 300 }).encode();
        for cut in 0..good.len() {
            assert!(matches!(decode(&good[..cut]), Err(FrameFault::Malformed(_))), "cut at {cut}");
        }
        let mut longer = good.to_vec();
        longer.push(0);
        assert!(matches!(decode(&longer), Err(FrameFault::Malformed(_))));
        let mut newer = good.to_vec();
        newer[2] = 2;
        assert_eq!(decode(&newer), Err(FrameFault::Unknown { kind: 1, version: 2 }));
        let vast = vec![0; GOSSIP_FRAME_BYTES_MAX + 1];
        assert_eq!(decode(&vast), Err(FrameFault::TooLarge { bytes: vast.len() }));
        // An array that claims 2^32 records allocates none of them.
        let claim = b"\x83\x05\x01\x81\x9a\xff\xff\xff\xff";
        assert!(matches!(decode(claim), Err(FrameFault::Malformed(_))));
    }
}
