//! Who belongs to a cluster and who votes in its groups, as it is asked for and as
//! it is sent over HTTP.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{GroupId, NodeId};

/// A node that shall belong to the cluster, or have another address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// Its id, above every one that was given before.
    pub id: NodeId,
    /// For people.
    pub name: String,
    /// The peer id of its key, as `quorate node id` prints it.
    pub peer: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Which voters a group shall have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVoters {
    /// The group.
    pub group: GroupId,
    /// All of them, and no others.
    pub voters: BTreeSet<NodeId>,
}

/// Which feature level the cluster shall agree on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewLevel {
    /// The level; none is the highest that every member knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
}

/// Who shall lead a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewLeader {
    /// The group.
    pub group: GroupId,
    /// A voter; none lets the leader choose the one that has most of its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NodeId>,
}

/// What can be asked about members. Each is idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberRequest {
    /// Admit a node: from then on it may connect, and follows every group without a vote.
    Add(NewMember),
    /// Remove a node that votes in no group. Its connections are closed and its id is never given
    /// again.
    Remove(NodeId),
    /// Change a group's voters in one joint step.
    Voters(NewVoters),
    /// Hand a group's leadership over.
    Lead(NewLeader),
    /// Raise the feature level. It is never lowered.
    Level(NewLevel),
    /// Nobody of these is removed from the cluster until others are named: a group's leader asks for
    /// it before its voters change, and no door does.
    Reserve(NewVoters),
}

impl MemberRequest {
    /// The group whose leader does it.
    pub const fn group(&self) -> GroupId {
        match self {
            Self::Add(_) | Self::Remove(_) | Self::Level(_) | Self::Reserve(_) => GroupId::SYSTEM,
            Self::Voters(voters) => voters.group,
            Self::Lead(leader) => leader.group,
        }
    }
}

/// What an ed25519 key's peer id begins with: a multihash of no hash, of 36 bytes, which are an
/// ed25519 key of 32.
const HEAD: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
const PEER_BYTES: usize = HEAD.len() + 32;
const BASE58: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Whether this text is the peer id of an ed25519 key. One that lost a character is refused here
/// and not found out as a peer that never comes.
///
/// # Errors
/// What is wrong with it.
pub fn check_peer_id(text: &str) -> Result<(), String> {
    let mut bytes = [0_u8; PEER_BYTES];
    for digit in text.bytes() {
        let Some(value) = BASE58.iter().position(|known| *known == digit) else {
            return Err(format!("`{}` is no digit of a peer id", char::from(digit)));
        };
        let mut carry = u32::try_from(value).unwrap_or(0);
        for byte in bytes.iter_mut().rev() {
            carry += u32::from(*byte) * 58;
            *byte = u8::try_from(carry & 0xff).unwrap_or(0);
            carry >>= 8;
        }
        if carry > 0 {
            return Err("it is longer than a peer id".to_owned());
        }
    }
    if bytes.starts_with(&HEAD) {
        Ok(())
    } else {
        Err("it is not the peer id of an ed25519 key, which begins with 12D3KooW".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_is_known_and_one_that_was_cut_or_changed_is_not() {
        let good = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
        assert_eq!(check_peer_id(good), Ok(()));
        for bad in ["", "12D3KooW", &good[..51], &format!("{good}1"), &good.replace('K', "l")] {
            assert!(check_peer_id(bad).is_err(), "{bad}");
        }
        let long = check_peer_id(&format!("{good}11"));
        assert_eq!(long, Err("it is longer than a peer id".to_owned()));
    }
}
