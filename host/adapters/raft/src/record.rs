//! What this room keeps in the log and beside snapshots, in bytes.
//!
//! Every record begins with its kind and its version, one byte each. A command
//! is kept as it came, so its body is the ledger's own format; the rest is CBOR
//! with integer keys.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};
use openraft::EntryPayload;
use quorate_ledger::Command;
use quorate_types::NodeId;

use crate::types::{
    CommittedLeaderId, Framed, LeaderId, LogId, Membership, Payload, StoredMembership, Vote,
};

/// Bytes before a record's body.
pub(crate) const HEAD_BYTES: usize = 2;

const VERSION: u8 = 1;

/// Kinds of records. A number is never given again.
mod kind {
    pub(super) const COMMAND: u8 = 1;
    pub(super) const BLANK: u8 = 2;
    pub(super) const MEMBERSHIP: u8 = 3;
    pub(super) const VOTE: u8 = 4;
    pub(super) const COMMITTED: u8 = 5;
    pub(super) const APPLIED_MEMBERSHIP: u8 = 6;
}

/// Why a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Too short for a head.
    #[error("a record of {0} bytes has no head")]
    Short(usize),
    /// Another kind, or a version of a newer program.
    #[error("record kind {kind} version {version} is not known here")]
    Unknown {
        /// The kind.
        kind: u8,
        /// Its version.
        version: u8,
    },
    /// A known kind with another body.
    #[error("the body of record kind {kind} is damaged: {reason}")]
    Body {
        /// The kind.
        kind: u8,
        /// What the decoder said.
        reason: String,
    },
}

/// A vote in CBOR, in the log and on the wire.
#[derive(Clone, Copy, Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct VoteBody {
    #[n(0)]
    term: u64,
    #[n(1)]
    node: u64,
    #[n(2)]
    committed: bool,
}

impl From<&Vote> for VoteBody {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            node: vote.leader_id.voted_for,
            committed: vote.committed,
        }
    }
}

impl From<VoteBody> for Vote {
    fn from(body: VoteBody) -> Self {
        let leader_id = LeaderId { term: body.term, voted_for: body.node };
        Self { leader_id, committed: body.committed }
    }
}

/// A log id in CBOR, in openraft's numbering.
#[derive(Clone, Copy, Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct LogIdBody {
    #[n(0)]
    term: u64,
    #[n(1)]
    index: u64,
}

impl From<&LogId> for LogIdBody {
    fn from(id: &LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<LogIdBody> for LogId {
    fn from(body: LogIdBody) -> Self {
        Self::new(CommittedLeaderId::new(body.term), body.index)
    }
}

/// A voter set in CBOR: two sets while it changes, one otherwise.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
struct MembershipBody {
    #[n(0)]
    voters: Vec<BTreeSet<u64>>,
    #[n(1)]
    nodes: BTreeSet<u64>,
}

impl From<&Membership> for MembershipBody {
    fn from(membership: &Membership) -> Self {
        Self {
            voters: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(node, ())| *node).collect(),
        }
    }
}

impl MembershipBody {
    fn into_membership(self) -> Result<Membership, String> {
        if self.voters.is_empty() && self.nodes.is_empty() {
            return Ok(Membership::default());
        }
        let nodes: BTreeMap<u64, ()> = self.nodes.into_iter().map(|node| (node, ())).collect();
        Membership::new(self.voters, nodes).map_err(|error| error.to_string())
    }
}

/// A voter set with the entry that set it.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
struct AppliedMembershipBody {
    #[n(0)]
    at: Option<LogIdBody>,
    #[n(1)]
    membership: MembershipBody,
}

impl Framed {
    /// Frames a command of the ledger.
    pub(crate) fn command(entry: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + entry.len());
        bytes.put_slice(&[kind::COMMAND, VERSION]);
        bytes.put_slice(entry);
        Self(bytes.freeze())
    }

    /// The command as the ledger encoded it.
    pub(crate) fn entry(&self) -> &[u8] {
        self.0.get(HEAD_BYTES..).unwrap_or_default()
    }
}

/// An entry's payload as it lies in the log. A command is not copied.
pub(crate) fn encode_payload(payload: &Payload) -> Bytes {
    match payload {
        EntryPayload::Blank => Bytes::from_static(&[kind::BLANK, VERSION]),
        EntryPayload::Normal(framed) => framed.0.clone(),
        EntryPayload::Membership(membership) => {
            write(kind::MEMBERSHIP, &MembershipBody::from(membership))
        }
    }
}

/// The payload in a record. A command is not copied.
pub(crate) fn decode_payload(record: Bytes) -> Result<Payload, RecordError> {
    let (kind, body) = head(&record)?;
    match kind {
        kind::COMMAND => Ok(EntryPayload::Normal(Framed(record))),
        kind::BLANK => Ok(EntryPayload::Blank),
        kind::MEMBERSHIP => {
            let membership = read::<MembershipBody>(kind, body)?
                .into_membership()
                .map_err(|reason| RecordError::Body { kind, reason })?;
            Ok(EntryPayload::Membership(membership))
        }
        _unknown => Err(RecordError::Unknown { kind, version: VERSION }),
    }
}

/// Whether a record is a command that makes this node a member.
pub(crate) fn admits(record: &[u8], node: NodeId) -> bool {
    matches!(head(record), Ok((kind::COMMAND, entry)) if Command::admits(entry, node))
}

/// A vote as the log keeps it.
pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    write(kind::VOTE, &VoteBody::from(vote))
}

/// The vote in a record.
pub(crate) fn decode_vote(record: &[u8]) -> Result<Vote, RecordError> {
    read_as::<VoteBody>(kind::VOTE, record).map(Vote::from)
}

/// The last committed entry, as the log keeps it.
pub(crate) fn encode_committed(committed: &LogId) -> Bytes {
    write(kind::COMMITTED, &LogIdBody::from(committed))
}

/// The last committed entry in a record.
pub(crate) fn decode_committed(record: &[u8]) -> Result<LogId, RecordError> {
    read_as::<LogIdBody>(kind::COMMITTED, record).map(LogId::from)
}

/// The voter set that goes with a snapshot.
pub(crate) fn encode_membership(membership: &StoredMembership) -> Bytes {
    let body = AppliedMembershipBody {
        at: membership.log_id().as_ref().map(LogIdBody::from),
        membership: MembershipBody::from(membership.membership()),
    };
    write(kind::APPLIED_MEMBERSHIP, &body)
}

/// The voter set that came with a snapshot.
pub(crate) fn decode_membership(record: &[u8]) -> Result<StoredMembership, RecordError> {
    let kind = kind::APPLIED_MEMBERSHIP;
    let body = read_as::<AppliedMembershipBody>(kind, record)?;
    let membership =
        body.membership.into_membership().map_err(|reason| RecordError::Body { kind, reason })?;
    Ok(StoredMembership::new(body.at.map(LogId::from), membership))
}

fn write<T: Encode<()>>(kind: u8, body: &T) -> Bytes {
    let mut bytes = vec![kind, VERSION];
    match minicbor::encode(body, &mut bytes) {
        Ok(()) => Bytes::from(bytes),
        Err(error) => unreachable!("a vector takes every byte: {error}"),
    }
}

fn head(record: &[u8]) -> Result<(u8, &[u8]), RecordError> {
    let short = RecordError::Short(record.len());
    let ([kind, version], body) = record.split_first_chunk::<HEAD_BYTES>().ok_or(short)?;
    if *version != VERSION {
        return Err(RecordError::Unknown { kind: *kind, version: *version });
    }
    Ok((*kind, body))
}

fn read_as<T: for<'b> Decode<'b, ()>>(wanted: u8, record: &[u8]) -> Result<T, RecordError> {
    let (kind, body) = head(record)?;
    if kind != wanted {
        return Err(RecordError::Unknown { kind, version: VERSION });
    }
    read(kind, body)
}

fn read<T: for<'b> Decode<'b, ()>>(kind: u8, body: &[u8]) -> Result<T, RecordError> {
    let damaged = |reason: String| RecordError::Body { kind, reason };
    let mut decoder = minicbor::Decoder::new(body);
    let value = decoder.decode().map_err(|error| damaged(error.to_string()))?;
    let rest = body.len() - decoder.position();
    if rest == 0 { Ok(value) } else { Err(damaged(format!("{rest} bytes follow it"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(ids: [u64; 3]) -> Membership {
        Membership::new_with_defaults(vec![BTreeSet::from(ids)], [])
    }

    #[test]
    fn every_payload_survives_the_log() {
        let command = EntryPayload::Normal(Framed::command(b"command"));
        for payload in [EntryPayload::Blank, command, EntryPayload::Membership(voters([1, 2, 3]))] {
            assert_eq!(decode_payload(encode_payload(&payload)), Ok(payload));
        }
        assert_eq!(Framed::command(b"command").entry(), b"command");
    }

    #[test]
    fn votes_and_positions_survive_the_log() {
        let vote = Vote::new_committed(7, 3);
        assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
        let id = LogId::new(CommittedLeaderId::new(7), 41);
        assert_eq!(decode_committed(&encode_committed(&id)), Ok(id));
        for stored in
            [StoredMembership::default(), StoredMembership::new(Some(id), voters([1, 2, 3]))]
        {
            assert_eq!(decode_membership(&encode_membership(&stored)), Ok(stored));
        }
    }

    #[test]
    fn a_newer_or_damaged_record_is_refused_by_name() {
        assert_eq!(decode_payload(Bytes::from_static(&[1])), Err(RecordError::Short(1)));
        let newer = Bytes::from_static(&[kind::BLANK, 2]);
        assert_eq!(
            decode_payload(newer),
            Err(RecordError::Unknown { kind: kind::BLANK, version: 2 })
        );
        let mut longer = encode_vote(&Vote::new(1, 1)).to_vec();
        longer.push(0);
        assert!(matches!(decode_vote(&longer), Err(RecordError::Body { kind: 4, .. })));
        assert!(matches!(decode_committed(&longer), Err(RecordError::Unknown { kind: 4, .. })));
    }
}
