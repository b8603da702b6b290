//! What this room has put into the log, for whoever looks at a directory that no
//! node has open, and what it would put there, for whoever makes one: records become
//! words without openraft's types.

use std::collections::BTreeSet;

use bytes::Bytes;
use openraft::EntryPayload;
use quorate_types::{Index, NodeId, Term};

use crate::record;
use crate::types::{Membership, StoredMembership, Vote, index_of, log_id};

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// A command, as the ledger encoded it.
    Command(Bytes),
    /// What a new leader begins its term with.
    Blank,
    /// A voter set; two while it changes.
    Voters(Vec<Vec<NodeId>>),
}

/// A record's payload.
pub fn log_entry(payload: Bytes) -> Result<LogEntry, String> {
    let payload = record::decode_payload(payload).map_err(|error| error.to_string())?;
    Ok(match payload {
        EntryPayload::Blank => LogEntry::Blank,
        EntryPayload::Normal(framed) => LogEntry::Command(framed.0.slice(record::HEAD_BYTES..)),
        EntryPayload::Membership(membership) => {
            let set = |voters: &std::collections::BTreeSet<u64>| {
                voters.iter().copied().map(NodeId).collect()
            };
            LogEntry::Voters(membership.get_joint_config().iter().map(set).collect())
        }
    })
}

/// A group's vote: the term, for whom, and whether that one is known to lead.
pub fn log_vote(record: &[u8]) -> Result<(Term, NodeId, bool), String> {
    let vote = record::decode_vote(record).map_err(|error| error.to_string())?;
    Ok((Term(vote.leader_id.term), NodeId(vote.leader_id.voted_for), vote.committed))
}

/// A group's committed mark: the last entry known to be committed.
pub fn log_committed(record: &[u8]) -> Result<Index, String> {
    let committed = record::decode_committed(record).map_err(|error| error.to_string())?;
    Ok(index_of(committed.index))
}

/// The voters in the membership that goes with a snapshot; of both sets while they change.
pub fn snapshot_voters(membership: &[u8]) -> Result<Vec<NodeId>, String> {
    let stored = record::decode_membership(membership).map_err(|error| error.to_string())?;
    Ok(stored.membership().voter_ids().map(NodeId).collect())
}

/// The membership of a snapshot at this place from which a group of these voters begins.
pub fn founding_membership(voters: &BTreeSet<NodeId>, index: Index, term: Term) -> Bytes {
    let voters: BTreeSet<u64> = voters.iter().map(|voter| voter.0).collect();
    let membership = Membership::new_with_defaults(vec![voters], []);
    record::encode_membership(&StoredMembership::new(log_id(index, term), membership))
}

/// A committed mark at this place; none before the first entry.
pub fn committed_mark(index: Index, term: Term) -> Option<Bytes> {
    log_id(index, term).map(|id| record::encode_committed(&id))
}

/// A vote of this node for itself that has won nothing: it grants none in this term any more.
pub fn vote_for_itself(term: Term, node: NodeId) -> Bytes {
    record::encode_vote(&Vote::new(term.0, node.0))
}
