//! What one replica says to another, in bytes.
//!
//! A frame is a CBOR map with integer keys: kind, version, group, request id,
//! body. The head stands first and in this order, so that a driver can find the
//! group without reading further. Commands inside a frame are not copied when
//! it is read.

mod body;

use std::convert::Infallible;

use bytes::Bytes;
use minicbor::{Decoder, Encoder};
use quorate_types::GroupId;

use self::body::{
    AppendedBody, BallotBody, ReceivedBody, TransferBody, TransferredBody, VotedBody, read_append,
    read_chunk, write_append, write_chunk,
};
use crate::record::RecordError;
use crate::types::{Entry, LogId, StoredMembership, Vote};

const VERSION: u16 = 1;
const HEAD_KEYS: u64 = 5;

type Written = Result<(), minicbor::encode::Error<Infallible>>;

/// Kinds of frames. A number is never given again.
mod kind {
    pub(super) const APPEND: u16 = 1;
    pub(super) const APPENDED: u16 = 2;
    pub(super) const VOTE: u16 = 3;
    pub(super) const PRE_VOTE: u16 = 4;
    pub(super) const VOTED: u16 = 5;
    pub(super) const TRANSFER: u16 = 6;
    pub(super) const TRANSFERRED: u16 = 7;
    pub(super) const CHUNK: u16 = 8;
    pub(super) const RECEIVED: u16 = 9;
}

/// Why a frame cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// Not a frame of this room.
    #[error("not a frame: {0}")]
    Malformed(#[from] minicbor::decode::Error),
    /// From a newer program, or of no kind at all.
    #[error("frame kind {kind} version {version} is not known here")]
    Unknown {
        /// The kind.
        kind: u16,
        /// Its version.
        version: u16,
    },
    /// Of another group.
    #[error("a frame of group {got} came to group {own}")]
    Group {
        /// Its group.
        got: GroupId,
        /// The group that it came to.
        own: GroupId,
    },
    /// It carries a record that cannot be read.
    #[error("in a frame: {0}")]
    Record(#[from] RecordError),
}

/// A request or a reply; a reply repeats its request's id.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) group: GroupId,
    pub(crate) id: u64,
    pub(crate) message: Message,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Append(Append),
    Appended(Appended),
    Vote(Ballot),
    PreVote(Ballot),
    Voted(Voted),
    Transfer(Transfer),
    Transferred(Transferred),
    Chunk(Chunk),
    Received(Received),
}

/// Entries, or none for a heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Append {
    pub(crate) vote: Vote,
    pub(crate) prev: Option<LogId>,
    pub(crate) commit: Option<LogId>,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Appended {
    /// All of them are durable.
    Whole,
    /// Those up to here are durable.
    Upto(Option<LogId>),
    /// What precedes them is not what the follower has.
    Conflict,
    /// The follower knows a higher vote.
    Higher(Vote),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ballot {
    pub(crate) vote: Vote,
    pub(crate) last: Option<LogId>,
    /// The election was asked for by the leader itself, or by its death.
    pub(crate) transfer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Voted {
    pub(crate) vote: Vote,
    pub(crate) granted: bool,
    pub(crate) last: Option<LogId>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Transfer {
    pub(crate) from: Vote,
    pub(crate) to: u64,
    pub(crate) last: Option<LogId>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Transferred {
    Accepted,
    VoteChanged { expected: Vote, actual: Vote },
    NotFlushed { expected: Option<LogId>, actual: Option<LogId> },
}

/// A piece of a snapshot. A sending begins with the head and no data; the receiver says where to
/// go on, which after a lost connection is where it had come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chunk {
    /// Names the snapshot by its content and place, so that whoever sends it is understood.
    pub(crate) transfer: u64,
    pub(crate) offset: u64,
    pub(crate) total: u64,
    pub(crate) head: Option<Box<SnapshotHead>>,
    pub(crate) data: Bytes,
    /// CRC-32 of the data.
    pub(crate) sum: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SnapshotHead {
    pub(crate) vote: Vote,
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Received {
    /// All before this offset is here; go on from it.
    Upto(u64),
    /// Installed, or refused by a higher vote.
    Installed(Vote),
    /// Begin again.
    Refused,
}

/// The group that a frame of this room belongs to, for a driver that has several.
pub fn group_of(frame: &[u8]) -> Option<GroupId> {
    read_head(&mut Decoder::new(frame)).ok().map(|(_kind, group, _id)| group)
}

impl Frame {
    /// The frame in bytes.
    #[cfg(test)]
    pub(crate) fn encode(&self) -> Bytes {
        encode(self.group, self.id, &self.message)
    }

    /// The frame in these bytes. Commands share the bytes.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        let mut decoder = Decoder::new(bytes);
        let ((kind, version), group, id) = read_head(&mut decoder)?;
        if version != VERSION {
            return Err(FrameError::Unknown { kind, version });
        }
        let message = match kind {
            kind::APPEND => Message::Append(read_append(bytes, decoder.decode()?)?),
            kind::APPENDED => Message::Appended(decoder.decode::<AppendedBody>()?.try_into()?),
            kind::VOTE => Message::Vote(decoder.decode::<BallotBody>()?.into()),
            kind::PRE_VOTE => Message::PreVote(decoder.decode::<BallotBody>()?.into()),
            kind::VOTED => Message::Voted(decoder.decode::<VotedBody>()?.into()),
            kind::TRANSFER => Message::Transfer(decoder.decode::<TransferBody>()?.into()),
            kind::TRANSFERRED => {
                Message::Transferred(decoder.decode::<TransferredBody>()?.try_into()?)
            }
            kind::CHUNK => Message::Chunk(read_chunk(bytes, decoder.decode()?)?),
            kind::RECEIVED => Message::Received(decoder.decode::<ReceivedBody>()?.try_into()?),
            _unknown => return Err(FrameError::Unknown { kind, version }),
        };
        Ok(Self { group, id, message })
    }
}

/// A frame in bytes.
pub(crate) fn encode(group: GroupId, id: u64, message: &Message) -> Bytes {
    let mut bytes = Vec::with_capacity(64);
    match message.write(group, id, &mut bytes) {
        Ok(()) => Bytes::from(bytes),
        Err(error) => unreachable!("a vector takes every byte: {error}"),
    }
}

impl Message {
    fn write(&self, group: GroupId, id: u64, bytes: &mut Vec<u8>) -> Written {
        let mut encoder = Encoder::new(bytes);
        encoder.map(HEAD_KEYS)?;
        encoder.u8(0)?.u16(self.kind())?.u8(1)?.u16(VERSION)?;
        encoder.u8(2)?.u32(group.0)?.u8(3)?.u64(id)?.u8(4)?;
        match self {
            Self::Append(append) => return write_append(append, &mut encoder),
            Self::Chunk(chunk) => return write_chunk(chunk, &mut encoder),
            Self::Appended(appended) => encoder.encode(AppendedBody::from(appended))?,
            Self::Vote(ballot) | Self::PreVote(ballot) => {
                encoder.encode(BallotBody::from(ballot))?
            }
            Self::Voted(voted) => encoder.encode(VotedBody::from(voted))?,
            Self::Transfer(transfer) => encoder.encode(TransferBody::from(transfer))?,
            Self::Transferred(transferred) => encoder.encode(TransferredBody::from(transferred))?,
            Self::Received(received) => encoder.encode(ReceivedBody::from(received))?,
        };
        Ok(())
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Append(_) => kind::APPEND,
            Self::Appended(_) => kind::APPENDED,
            Self::Vote(_) => kind::VOTE,
            Self::PreVote(_) => kind::PRE_VOTE,
            Self::Voted(_) => kind::VOTED,
            Self::Transfer(_) => kind::TRANSFER,
            Self::Transferred(_) => kind::TRANSFERRED,
            Self::Chunk(_) => kind::CHUNK,
            Self::Received(_) => kind::RECEIVED,
        }
    }
}

type Head = ((u16, u16), GroupId, u64);

fn read_head(decoder: &mut Decoder<'_>) -> Result<Head, minicbor::decode::Error> {
    let wrong = |what| Err(minicbor::decode::Error::message(what));
    if decoder.map()? != Some(HEAD_KEYS) || decoder.u8()? != 0 {
        return wrong("no head of five keys");
    }
    let kind = decoder.u16()?;
    if decoder.u8()? != 1 {
        return wrong("no version");
    }
    let version = decoder.u16()?;
    if decoder.u8()? != 2 {
        return wrong("no group");
    }
    let group = GroupId(decoder.u32()?);
    if decoder.u8()? != 3 {
        return wrong("no id");
    }
    let id = decoder.u64()?;
    if decoder.u8()? != 4 {
        return wrong("no body");
    }
    Ok(((kind, version), group, id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use openraft::EntryPayload;

    use super::*;
    use crate::types::{CommittedLeaderId, Framed, Membership};

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term), index)
    }

    fn every_message() -> Vec<Message> {
        let vote = Vote::new_committed(3, 1);
        let voters = Membership::new_with_defaults(vec![BTreeSet::from([1, 2, 3])], []);
        let entries = vec![
            Entry { log_id: id(2, 5), payload: EntryPayload::Blank },
            Entry { log_id: id(3, 6), payload: EntryPayload::Normal(Framed::command(b"x")) },
            Entry { log_id: id(3, 7), payload: EntryPayload::Membership(voters.clone()) },
        ];
        let membership = StoredMembership::new(Some(id(1, 0)), voters);
        let head = Some(Box::new(SnapshotHead { vote, last: Some(id(2, 4)), membership }));
        let data = Bytes::from_static(b"state");
        let (expected, actual) = (Some(id(1, 1)), None);
        vec![
            Message::Append(Append { vote, prev: Some(id(2, 4)), commit: None, entries }),
            Message::Appended(Appended::Whole),
            Message::Appended(Appended::Upto(None)),
            Message::Appended(Appended::Conflict),
            Message::Appended(Appended::Higher(vote)),
            Message::Vote(Ballot { vote: Vote::new(4, 2), last: None, transfer: true }),
            Message::PreVote(Ballot { vote, last: Some(id(3, 7)), transfer: false }),
            Message::Voted(Voted { vote, granted: true, last: Some(id(3, 7)) }),
            Message::Transfer(Transfer { from: vote, to: 2, last: Some(id(3, 7)) }),
            Message::Transferred(Transferred::Accepted),
            Message::Transferred(Transferred::VoteChanged { expected: vote, actual: vote }),
            Message::Transferred(Transferred::NotFlushed { expected, actual }),
            Message::Chunk(Chunk { transfer: 9, offset: 0, total: 5, head, data, sum: 7 }),
            Message::Received(Received::Upto(3)),
            Message::Received(Received::Installed(vote)),
            Message::Received(Received::Refused),
        ]
    }

    #[test]
    fn every_message_survives_the_wire_and_names_its_group() {
        for message in every_message() {
            let frame = Frame { group: GroupId(7), id: u64::MAX, message };
            let bytes = frame.encode();
            assert_eq!(group_of(&bytes), Some(GroupId(7)));
            assert_eq!(Frame::decode(&bytes).unwrap(), frame);
        }
    }

    #[test]
    fn a_cut_frame_is_refused_at_every_length() {
        for message in every_message() {
            let bytes = Frame { group: GroupId(0), id: 1, message }.encode();
            for length in 0..bytes.len() {
                assert!(Frame::decode(&bytes.slice(..length)).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn unknown_kinds_versions_and_gaps_are_refused() {
        let frame = Frame { group: GroupId(0), id: 1, message: every_message().remove(1) };
        let mut bytes = frame.encode().to_vec();
        assert_eq!((bytes[2], bytes[4]), (2, 1), "kind and version stand here");
        bytes[4] = 2;
        let newer = Frame::decode(&Bytes::from(bytes.clone()));
        assert!(matches!(newer, Err(FrameError::Unknown { kind: 2, version: 2 })), "{newer:?}");
        (bytes[2], bytes[4]) = (23, 1);
        let other = Frame::decode(&Bytes::from(bytes));
        assert!(matches!(other, Err(FrameError::Unknown { kind: 23, version: 1 })), "{other:?}");

        let Message::Append(mut append) = every_message().remove(0) else { panic!("an append") };
        append.entries.remove(1);
        let gap = Frame { group: GroupId(0), id: 1, message: Message::Append(append) }.encode();
        assert!(matches!(Frame::decode(&gap), Err(FrameError::Malformed(_))));
    }
}
