//! How records lie in a segment. This header is the specification of format 2.
//!
//! A segment is a file of fixed size, filled with zeroes before its first use
//! and later recycled with whatever its last use left in it. From offset 0 it
//! holds frames, back to back, none of which leaves the segment. Numbers are
//! little-endian. One frame:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | `0xC7` |
//! | 1 | 1 | kind, below |
//! | 2 | 1 | version of the kind, 1 |
//! | 3 | 1 | 0 |
//! | 4 | 4 | group |
//! | 8 | 8 | index |
//! | 16 | 8 | term |
//! | 24 | 4 | length of the body |
//! | 28 | 4 | witness: where in this segment the write began that carried this frame |
//! | 32 | 4 | CRC-32 of the body |
//! | 36 | 4 | CRC-32 of the 36 bytes above |
//! | 40 | … | body, then zeroes to a multiple of 8 |
//!
//! Both checksums (CRC-32/ISO-HDLC) start from one over the directory's id and
//! the segment's number; the head's goes on with its place in the segment (u64,
//! left out at place 0, so that programs of every format can read there which
//! format this is). So what an earlier use of the file left, another directory's
//! file, or a block that the disk put in a wrong place is no frame here: it is the
//! end of the log, or damage. The id is not known to clients, so that no payload
//! can pretend to be a frame.
//!
//! | kind | | group, index, term | body |
//! |---|---|---|---|
//! | 1 | segment | index: its number | format u32, size u32, `first` u64, `previous_end` u32, 0 u32 |
//! | 2 | entry | of the entry | its payload |
//! | 3 | vote | group | opaque |
//! | 4 | committed mark | group | opaque |
//! | 5 | truncate | group, last index that stays | – |
//! | 6 | purge | group, last index (and its term) that goes | – |
//! | 7 | released | index: segments up to this number hold nothing that counts | – |
//! | 8 | seal | – ; closed in order here | – |
//!
//! A disk is taken to write a sector of 512 bytes whole or not at all, so that a
//! torn write does no harm to older frames in the sector where it begins.
//!
//! The **witness** tells a torn write from rot. A write starts only when all
//! before it is durable, and a disk may finish a write's sectors in any order.
//! So behind a frame that cannot be read there may be readable ones of the same
//! write, and that is a torn tail: never acknowledged, dropped. A readable frame
//! whose witness lies behind the damage proves that the damaged place was durable
//! once: that is rot, and the log is refused. For the same reason a segment is
//! durable to its end (`previous_end` in its successor) before the next begins.
//! Rot within the very last write cannot be told from tearing; a seal, written
//! when a log is closed in order, leaves nothing before it in that state.

use bytes::{BufMut, BytesMut};
use crc32fast::Hasher;
use quorate_types::{GroupId, Index, Term};

use crate::data_dir::DirectoryId;

/// The format of the log, in each segment's first frame.
pub(super) const FORMAT: u32 = 2;
/// Bytes of a frame before its body.
pub(super) const HEAD_BYTES: usize = 40;
/// Frames start at multiples of this.
pub(super) const ALIGN: usize = 8;
/// The first frame of a segment.
pub(super) const SEGMENT_FRAME_BYTES: usize = HEAD_BYTES + SEGMENT_BODY_BYTES;

const SEGMENT_BODY_BYTES: usize = 24;
const MAGIC: u8 = 0xC7;
const VERSION: u8 = 1;
const CHECKED_BYTES: usize = 36;

const _: () =
    assert!(SEGMENT_FRAME_BYTES.is_multiple_of(ALIGN) && HEAD_BYTES.is_multiple_of(ALIGN));

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Segment,
    Entry,
    Vote,
    Committed,
    Truncate,
    Purge,
    Released,
    Seal,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Segment,
        Self::Entry,
        Self::Vote,
        Self::Committed,
        Self::Truncate,
        Self::Purge,
        Self::Released,
        Self::Seal,
    ];

    const fn number(self) -> u8 {
        match self {
            Self::Segment => 1,
            Self::Entry => 2,
            Self::Vote => 3,
            Self::Committed => 4,
            Self::Truncate => 5,
            Self::Purge => 6,
            Self::Released => 7,
            Self::Seal => 8,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// A frame's meaning, apart from where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) group: GroupId,
    pub(super) index: Index,
    pub(super) term: Term,
}

impl Head {
    /// A frame of a group that has no position.
    pub(super) const fn of_group(kind: Kind, group: GroupId) -> Self {
        Self { kind, group, index: Index(0), term: Term(0) }
    }

    /// A frame about segments, which belongs to no group.
    pub(super) const fn of_segment(kind: Kind, number: u64) -> Self {
        Self { kind, group: GroupId(0), index: Index(number), term: Term(0) }
    }
}

/// A frame as read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) head: Head,
    /// Where the write began that carried it.
    pub(super) witness: usize,
    pub(super) body: &'a [u8],
    /// Where the next frame would start.
    pub(super) end: usize,
}

/// Why there is no frame at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoFrame {
    /// No frame of this segment was ever finished here: blank, stale or damaged.
    Unreadable,
    /// The head is sound, the body is not.
    BadBody,
    /// A sound frame of a newer program.
    Unknown {
        /// Its kind.
        kind: u8,
        /// Its version.
        version: u8,
    },
}

/// Bytes that a body of this length takes as a frame.
pub(super) const fn framed_bytes(body: usize) -> usize {
    (HEAD_BYTES + body).next_multiple_of(ALIGN)
}

/// Writes and reads the frames of one segment.
#[derive(Clone, Debug)]
pub(super) struct Framing {
    start: Hasher,
}

impl Framing {
    /// The framing of segment `number` in this directory.
    pub(super) fn new(directory: DirectoryId, number: u64) -> Self {
        let mut start = Hasher::new();
        start.update(&directory.0);
        start.update(&number.to_le_bytes());
        Self { start }
    }

    /// The number of the segment whose first frame these bytes look like, sound or not.
    pub(super) fn claimed(bytes: &[u8]) -> Option<u64> {
        let head = bytes.first_chunk::<HEAD_BYTES>()?;
        (head[0] == MAGIC && head[1] == Kind::Segment.number()).then(|| u64_at(head, 8))
    }

    fn sum(&self, bytes: &[u8]) -> u32 {
        let mut sum = self.start.clone();
        sum.update(bytes);
        sum.finalize()
    }

    /// The checksum of a head at this place.
    fn head_sum(&self, at: usize, bytes: &[u8]) -> u32 {
        let mut sum = self.start.clone();
        if at > 0 {
            sum.update(&u64::try_from(at).unwrap_or(u64::MAX).to_le_bytes());
        }
        sum.update(bytes);
        sum.finalize()
    }

    /// Appends one frame to `out`, which holds what its write has put so far; `witness` is where
    /// that write will lie. Bodies are below 4 GiB, as segments are.
    pub(super) fn put(&self, out: &mut BytesMut, head: Head, witness: u32, body: &[u8]) {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        assert!(length < u32::MAX, "a body fits its segment");
        let begin = out.len();
        let at = usize::try_from(witness).unwrap_or(usize::MAX) + begin;
        out.reserve(framed_bytes(body.len()));
        out.put_slice(&[MAGIC, head.kind.number(), VERSION, 0]);
        out.put_u32_le(head.group.0);
        out.put_u64_le(head.index.0);
        out.put_u64_le(head.term.0);
        out.put_u32_le(length);
        out.put_u32_le(witness);
        out.put_u32_le(self.sum(body));
        let sum = self.head_sum(at, &out[begin..]);
        out.put_u32_le(sum);
        out.put_slice(body);
        out.put_bytes(0, framed_bytes(body.len()) - HEAD_BYTES - body.len());
    }

    /// The frame at `at` of `segment`.
    pub(super) fn read<'a>(&self, segment: &'a [u8], at: usize) -> Result<Frame<'a>, NoFrame> {
        let head = segment.get(at..).and_then(<[u8]>::first_chunk::<HEAD_BYTES>);
        let head = head.ok_or(NoFrame::Unreadable)?;
        if head[0] != MAGIC || self.head_sum(at, &head[..CHECKED_BYTES]) != u32_at(head, 36) {
            return Err(NoFrame::Unreadable);
        }
        let (kind, version) = (head[1], head[2]);
        let unknown = NoFrame::Unknown { kind, version };
        let kind = Kind::from_number(kind).filter(|_| version == VERSION).ok_or(unknown)?;
        let body = at + HEAD_BYTES;
        let length = usize::try_from(u32_at(head, 24)).unwrap_or(usize::MAX);
        let body =
            segment.get(body..).and_then(|rest| rest.get(..length)).ok_or(NoFrame::BadBody)?;
        if self.sum(body) != u32_at(head, 32) {
            return Err(NoFrame::BadBody);
        }
        let group = GroupId(u32_at(head, 4));
        let (index, term) = (Index(u64_at(head, 8)), Term(u64_at(head, 16)));
        let witness = usize::try_from(u32_at(head, 28)).unwrap_or(usize::MAX);
        let end = at + framed_bytes(length);
        Ok(Frame { head: Head { kind, group, index, term }, witness, body, end })
    }
}

/// The body of a segment's first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentBody {
    /// The format of the log.
    pub(super) format: u32,
    /// The file's length; a shorter file was cut.
    pub(super) size: u32,
    /// The lowest segment that counted when this one began.
    pub(super) first: u64,
    /// Where the frames of the segment before this one end; 0 for the first of all.
    pub(super) previous_end: u32,
}

impl SegmentBody {
    pub(super) fn encode(self) -> [u8; SEGMENT_BODY_BYTES] {
        let mut out = [0; SEGMENT_BODY_BYTES];
        out[0..4].copy_from_slice(&self.format.to_le_bytes());
        out[4..8].copy_from_slice(&self.size.to_le_bytes());
        out[8..16].copy_from_slice(&self.first.to_le_bytes());
        out[16..20].copy_from_slice(&self.previous_end.to_le_bytes());
        out
    }

    /// None for another length. A newer format may have one, but keeps its number first, so the
    /// caller looks at [`format_of`] before.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        (body.len() == SEGMENT_BODY_BYTES).then(|| Self {
            format: u32_at(body, 0),
            size: u32_at(body, 4),
            first: u64_at(body, 8),
            previous_end: u32_at(body, 16),
        })
    }
}

/// The format number at the start of a segment's first body.
pub(super) fn format_of(body: &[u8]) -> u32 {
    if body.len() < 4 { 0 } else { u32_at(body, 0) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Head =
        Head { kind: Kind::Entry, group: GroupId(7), index: Index(11), term: Term(3) };

    const PLACE: usize = 104;

    fn framing(number: u64) -> Framing {
        Framing::new(DirectoryId([9; 16]), number)
    }

    /// A frame at place 104 of a write that began at 96.
    fn framed(body: &[u8]) -> BytesMut {
        let mut write = BytesMut::zeroed(PLACE - 96);
        framing(4).put(&mut write, ENTRY, 96, body);
        let mut segment = BytesMut::zeroed(96);
        segment.extend_from_slice(&write);
        segment
    }

    #[test]
    fn a_frame_is_read_as_written() {
        for length in [0, 1, 7, 8, 9, 1000] {
            let body = vec![0x5a; length];
            let bytes = framed(&body);
            let frame = framing(4).read(&bytes, PLACE).expect("sound");
            assert_eq!((frame.head, frame.witness, frame.body), (ENTRY, 96, body.as_slice()));
            let end = PLACE + framed_bytes(length);
            assert_eq!((frame.end, bytes.len()), (end, end));
        }
    }

    #[test]
    fn every_flipped_bit_of_head_and_body_is_seen() {
        let bytes = framed(b"payload!");
        for bit in PLACE * 8..bytes.len() * 8 {
            let mut rotten = bytes.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert!(framing(4).read(&rotten, PLACE).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_segment_place_or_directory_is_no_frame_here() {
        let bytes = framed(b"x");
        assert_eq!(framing(5).read(&bytes, PLACE).err(), Some(NoFrame::Unreadable));
        let foreign = Framing::new(DirectoryId([8; 16]), 4);
        assert_eq!(foreign.read(&bytes, PLACE).err(), Some(NoFrame::Unreadable));
        assert!(framing(4).read(&bytes, PLACE).is_ok());
        for moved in [0, ALIGN, PLACE - ALIGN, PLACE + ALIGN] {
            let mut elsewhere = BytesMut::zeroed(moved);
            elsewhere.extend_from_slice(&bytes[PLACE..]);
            assert_eq!(framing(4).read(&elsewhere, moved).err(), Some(NoFrame::Unreadable));
        }
    }

    #[test]
    fn a_newer_kind_is_known_as_such() {
        let mut bytes = framed(b"x");
        bytes[PLACE + 1] = 99;
        let sum = framing(4).head_sum(PLACE, &bytes[PLACE..][..CHECKED_BYTES]);
        bytes[PLACE + 36..][..4].copy_from_slice(&sum.to_le_bytes());
        let unknown = NoFrame::Unknown { kind: 99, version: 1 };
        assert_eq!(framing(4).read(&bytes, PLACE).err(), Some(unknown));
    }

    #[test]
    fn a_segment_body_is_read_as_written() {
        let body = SegmentBody { format: FORMAT, size: 4096, first: 3, previous_end: 4000 };
        assert_eq!(SegmentBody::decode(&body.encode()), Some(body));
        assert_eq!(SegmentBody::decode(&[0; 3]), None);
    }
}
