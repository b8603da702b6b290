//! The bodies of frames in CBOR, and what they mean.

use bytes::Bytes;
use minicbor::{Decode, Encode, Encoder};

use super::{
    Append, Appended, Ballot, Chunk, FrameError, Received, SnapshotHead, Transfer, Transferred,
    Voted, Written, kind,
};
use crate::record::{self, LogIdBody, RecordError, VoteBody};
use crate::types::{Entry, LogId};

#[derive(Encode, Decode)]
#[cbor(map)]
struct EntryBody<'b> {
    #[n(0)]
    id: LogIdBody,
    #[cbor(b(1), with = "minicbor::bytes")]
    payload: &'b [u8],
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct AppendBody<'b> {
    #[n(0)]
    vote: VoteBody,
    #[n(1)]
    prev: Option<LogIdBody>,
    #[n(2)]
    commit: Option<LogIdBody>,
    #[b(3)]
    entries: Vec<EntryBody<'b>>,
}

/// One of the kinds of reply to an append, told apart by `result`.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct AppendedBody {
    #[n(0)]
    result: u8,
    #[n(1)]
    upto: Option<LogIdBody>,
    #[n(2)]
    vote: Option<VoteBody>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct BallotBody {
    #[n(0)]
    vote: VoteBody,
    #[n(1)]
    last: Option<LogIdBody>,
    #[n(2)]
    transfer: bool,
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct VotedBody {
    #[n(0)]
    vote: VoteBody,
    #[n(1)]
    granted: bool,
    #[n(2)]
    last: Option<LogIdBody>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct TransferBody {
    #[n(0)]
    from: VoteBody,
    #[n(1)]
    to: u64,
    #[n(2)]
    last: Option<LogIdBody>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct TransferredBody {
    #[n(0)]
    result: u8,
    #[n(1)]
    votes: Option<(VoteBody, VoteBody)>,
    #[n(2)]
    expected: Option<LogIdBody>,
    #[n(3)]
    actual: Option<LogIdBody>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SnapshotHeadBody<'b> {
    #[n(0)]
    vote: VoteBody,
    #[n(1)]
    last: Option<LogIdBody>,
    #[cbor(b(2), with = "minicbor::bytes")]
    membership: &'b [u8],
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct ChunkBody<'b> {
    #[n(0)]
    transfer: u64,
    #[n(1)]
    offset: u64,
    #[n(2)]
    total: u64,
    #[b(3)]
    head: Option<SnapshotHeadBody<'b>>,
    #[cbor(b(4), with = "minicbor::bytes")]
    data: &'b [u8],
    #[n(5)]
    sum: u32,
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct ReceivedBody {
    #[n(0)]
    result: u8,
    #[n(1)]
    vote: Option<VoteBody>,
    #[n(2)]
    offset: Option<u64>,
}

pub(super) fn write_append(append: &Append, encoder: &mut Encoder<&mut Vec<u8>>) -> Written {
    let payloads: Vec<(LogIdBody, Bytes)> = append
        .entries
        .iter()
        .map(|entry| (LogIdBody::from(&entry.log_id), record::encode_payload(&entry.payload)))
        .collect();
    let body = AppendBody {
        vote: (&append.vote).into(),
        prev: append.prev.as_ref().map(Into::into),
        commit: append.commit.as_ref().map(Into::into),
        entries: payloads.iter().map(|(id, payload)| EntryBody { id: *id, payload }).collect(),
    };
    encoder.encode(body)?;
    Ok(())
}

pub(super) fn read_append(frame: &Bytes, body: AppendBody<'_>) -> Result<Append, FrameError> {
    let prev: Option<LogId> = body.prev.map(Into::into);
    let mut next = prev.map_or(0, |prev| prev.index.saturating_add(1));
    let mut entries = Vec::with_capacity(body.entries.len());
    for entry in body.entries {
        let log_id: LogId = entry.id.into();
        if log_id.index != next {
            return Err(minicbor::decode::Error::message("entries do not follow each other").into());
        }
        next = next.saturating_add(1);
        let payload = record::decode_payload(frame.slice_ref(entry.payload))?;
        entries.push(Entry { log_id, payload });
    }
    let (vote, commit) = (body.vote.into(), body.commit.map(Into::into));
    Ok(Append { vote, prev, commit, entries })
}

pub(super) fn write_chunk(chunk: &Chunk, encoder: &mut Encoder<&mut Vec<u8>>) -> Written {
    let membership = chunk.head.as_ref().map(|head| record::encode_membership(&head.membership));
    let head =
        chunk.head.as_ref().zip(membership.as_ref()).map(|(head, membership)| SnapshotHeadBody {
            vote: (&head.vote).into(),
            last: head.last.as_ref().map(Into::into),
            membership,
        });
    let Chunk { transfer, offset, total, sum, .. } = *chunk;
    encoder.encode(ChunkBody { transfer, offset, total, head, data: &chunk.data, sum })?;
    Ok(())
}

pub(super) fn read_chunk(frame: &Bytes, body: ChunkBody<'_>) -> Result<Chunk, FrameError> {
    let head = body.head.map(|head| {
        Ok::<_, RecordError>(Box::new(SnapshotHead {
            vote: head.vote.into(),
            last: head.last.map(Into::into),
            membership: record::decode_membership(head.membership)?,
        }))
    });
    Ok(Chunk {
        transfer: body.transfer,
        offset: body.offset,
        total: body.total,
        head: head.transpose()?,
        data: frame.slice_ref(body.data),
        sum: body.sum,
    })
}

fn no_such_result(kind: u16) -> FrameError {
    minicbor::decode::Error::message(format!("frame kind {kind} has no such result")).into()
}

impl From<&Appended> for AppendedBody {
    fn from(appended: &Appended) -> Self {
        let (result, upto, vote) = match appended {
            Appended::Whole => (0, None, None),
            Appended::Upto(upto) => (1, upto.as_ref().map(Into::into), None),
            Appended::Conflict => (2, None, None),
            Appended::Higher(vote) => (3, None, Some(vote.into())),
        };
        Self { result, upto, vote }
    }
}

impl TryFrom<AppendedBody> for Appended {
    type Error = FrameError;
    fn try_from(body: AppendedBody) -> Result<Self, FrameError> {
        match (body.result, body.vote) {
            (0, None) => Ok(Self::Whole),
            (1, None) => Ok(Self::Upto(body.upto.map(Into::into))),
            (2, None) => Ok(Self::Conflict),
            (3, Some(vote)) => Ok(Self::Higher(vote.into())),
            _other => Err(no_such_result(kind::APPENDED)),
        }
    }
}

impl From<&Ballot> for BallotBody {
    fn from(ballot: &Ballot) -> Self {
        Self {
            vote: (&ballot.vote).into(),
            last: ballot.last.as_ref().map(Into::into),
            transfer: ballot.transfer,
        }
    }
}

impl From<BallotBody> for Ballot {
    fn from(body: BallotBody) -> Self {
        Self { vote: body.vote.into(), last: body.last.map(Into::into), transfer: body.transfer }
    }
}

impl From<&Voted> for VotedBody {
    fn from(voted: &Voted) -> Self {
        Self {
            vote: (&voted.vote).into(),
            granted: voted.granted,
            last: voted.last.as_ref().map(Into::into),
        }
    }
}

impl From<VotedBody> for Voted {
    fn from(body: VotedBody) -> Self {
        Self { vote: body.vote.into(), granted: body.granted, last: body.last.map(Into::into) }
    }
}

impl From<&Transfer> for TransferBody {
    fn from(transfer: &Transfer) -> Self {
        Self {
            from: (&transfer.from).into(),
            to: transfer.to,
            last: transfer.last.as_ref().map(Into::into),
        }
    }
}

impl From<TransferBody> for Transfer {
    fn from(body: TransferBody) -> Self {
        Self { from: body.from.into(), to: body.to, last: body.last.map(Into::into) }
    }
}

impl From<&Transferred> for TransferredBody {
    fn from(transferred: &Transferred) -> Self {
        match transferred {
            Transferred::Accepted => Self { result: 0, votes: None, expected: None, actual: None },
            Transferred::VoteChanged { expected, actual } => Self {
                result: 1,
                votes: Some((expected.into(), actual.into())),
                expected: None,
                actual: None,
            },
            Transferred::NotFlushed { expected, actual } => Self {
                result: 2,
                votes: None,
                expected: expected.as_ref().map(Into::into),
                actual: actual.as_ref().map(Into::into),
            },
        }
    }
}

impl TryFrom<TransferredBody> for Transferred {
    type Error = FrameError;
    fn try_from(body: TransferredBody) -> Result<Self, FrameError> {
        match (body.result, body.votes) {
            (0, None) => Ok(Self::Accepted),
            (1, Some((expected, actual))) => {
                Ok(Self::VoteChanged { expected: expected.into(), actual: actual.into() })
            }
            (2, None) => Ok(Self::NotFlushed {
                expected: body.expected.map(Into::into),
                actual: body.actual.map(Into::into),
            }),
            _other => Err(no_such_result(kind::TRANSFERRED)),
        }
    }
}

impl From<&Received> for ReceivedBody {
    fn from(received: &Received) -> Self {
        match received {
            Received::Upto(offset) => Self { result: 0, vote: None, offset: Some(*offset) },
            Received::Installed(vote) => Self { result: 1, vote: Some(vote.into()), offset: None },
            Received::Refused => Self { result: 2, vote: None, offset: None },
        }
    }
}

impl TryFrom<ReceivedBody> for Received {
    type Error = FrameError;
    fn try_from(body: ReceivedBody) -> Result<Self, FrameError> {
        match (body.result, body.vote, body.offset) {
            (0, None, Some(offset)) => Ok(Self::Upto(offset)),
            (1, Some(vote), None) => Ok(Self::Installed(vote.into())),
            (2, None, None) => Ok(Self::Refused),
            _other => Err(no_such_result(kind::RECEIVED)),
        }
    }
}
