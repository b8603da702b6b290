//! A command as it lies in the log: kind (u16), version (u16), the leader's wall
//! time in microseconds (u64), all big-endian, then the body in CBOR.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use quorate_types::{Index, NodeId, Payload, TaskId, Time, Token, cbor};

use crate::command::{AgentAdoption, Command, ShardCommand, SystemCommand};
use crate::outcome::ApplyError;

const HEADER_BYTES: usize = 12;

/// Kinds as numbered in the log. A number is never given again.
mod kind {
    pub(super) const NODE_UP: u16 = 1;
    pub(super) const NODE_DOWN: u16 = 2;
    pub(super) const REGISTER_AGENT: u16 = 3;
    pub(super) const RETIRE_AGENT: u16 = 4;
    pub(super) const ACTIVATE_POLICY: u16 = 5;
    pub(super) const RAISE_FEATURE_LEVEL: u16 = 6;
    pub(super) const SEED_MEMBERS: u16 = 7;
    pub(super) const ADMIT_MEMBER: u16 = 8;
    pub(super) const REMOVE_MEMBER: u16 = 9;
    pub(super) const RESERVE_VOTERS: u16 = 10;
    pub(super) const SUBMIT: u16 = 101;
    pub(super) const ASSIGN: u16 = 102;
    pub(super) const COMPLETE: u16 = 103;
    pub(super) const FAIL: u16 = 104;
    pub(super) const EXPIRE: u16 = 105;
    pub(super) const CANCEL: u16 = 106;
    pub(super) const ADOPT_AGENTS: u16 = 107;
    pub(super) const ADOPT_POLICY: u16 = 108;
    pub(super) const SWEEP: u16 = 109;
    pub(super) const KV: u16 = 110;
    pub(super) const KV_EXPIRE: u16 = 111;
}

/// The only version that any kind has yet.
const VERSION: u16 = 1;

impl Command {
    /// The entry to propose. `at` is the proposing leader's wall time; ledger time is the larger
    /// of it and of what came before. Whoever proposes keeps it within `COMMAND_BYTES_MAX`.
    pub fn encode(&self, at: Time) -> Bytes {
        match self {
            Self::System(command) => encode_system(command, at),
            Self::Shard(command) => encode_shard(command, at),
        }
    }

    /// Whether an entry, once it is applied, has made this node a member at some time.
    pub fn admits(entry: &[u8], node: NodeId) -> bool {
        let kinds = [kind::SEED_MEMBERS, kind::ADMIT_MEMBER].map(u16::to_be_bytes);
        if !kinds.iter().any(|kind| entry.starts_with(kind)) {
            return false;
        }
        match Self::decode(entry) {
            Ok((Self::System(SystemCommand::AdmitMember(member)), _at)) => member.id == node,
            Ok((Self::System(SystemCommand::SeedMembers(members)), _at)) => {
                members.iter().any(|member| member.id == node)
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// The command in an entry, and its stamp.
    pub fn decode(entry: &[u8]) -> Result<(Self, Time), ApplyError> {
        let short = || ApplyError::Short(entry.len());
        let (header, body) = entry.split_first_chunk::<HEADER_BYTES>().ok_or_else(short)?;
        let [k0, k1, v0, v1, at @ ..] = *header;
        let (kind, version) = (u16::from_be_bytes([k0, k1]), u16::from_be_bytes([v0, v1]));
        if version != VERSION {
            return Err(ApplyError::Unknown { kind, version });
        }
        let command = match kind {
            kind::NODE_UP => SystemCommand::NodeUp(read(kind, body)?).into(),
            kind::NODE_DOWN => SystemCommand::NodeDown(read(kind, body)?).into(),
            kind::REGISTER_AGENT => SystemCommand::RegisterAgent(read(kind, body)?).into(),
            kind::RETIRE_AGENT => SystemCommand::RetireAgent(read(kind, body)?).into(),
            kind::ACTIVATE_POLICY => SystemCommand::ActivatePolicy(read(kind, body)?).into(),
            kind::RAISE_FEATURE_LEVEL => SystemCommand::RaiseFeatureLevel(read(kind, body)?).into(),
            kind::SEED_MEMBERS => SystemCommand::SeedMembers(read(kind, body)?).into(),
            kind::ADMIT_MEMBER => SystemCommand::AdmitMember(read(kind, body)?).into(),
            kind::REMOVE_MEMBER => SystemCommand::RemoveMember(read(kind, body)?).into(),
            kind::RESERVE_VOTERS => SystemCommand::ReserveVoters(read(kind, body)?).into(),
            kind::SUBMIT => ShardCommand::Submit(read(kind, body)?).into(),
            kind::ASSIGN => ShardCommand::Assign(read(kind, body)?).into(),
            kind::COMPLETE => {
                let (task, token, result) = read::<(TaskId, Token, Payload)>(kind, body)?;
                ShardCommand::Complete { task, token, result }.into()
            }
            kind::FAIL => {
                let (task, token, error, retry) =
                    read::<(TaskId, Token, String, bool)>(kind, body)?;
                ShardCommand::Fail { task, token, error, retry }.into()
            }
            kind::EXPIRE => {
                let (leases, reason) = read::<(Vec<(TaskId, Token)>, String)>(kind, body)?;
                ShardCommand::Expire { leases, reason }.into()
            }
            kind::CANCEL => ShardCommand::Cancel(read(kind, body)?).into(),
            kind::ADOPT_AGENTS => {
                let (from, agents) = read::<(Index, Vec<AgentAdoption>)>(kind, body)?;
                ShardCommand::AdoptAgents { from, agents }.into()
            }
            kind::ADOPT_POLICY => ShardCommand::AdoptPolicy(read(kind, body)?).into(),
            kind::SWEEP => {
                read::<()>(kind, body)?;
                ShardCommand::Sweep.into()
            }
            kind::KV => ShardCommand::Kv(read(kind, body)?).into(),
            kind::KV_EXPIRE => ShardCommand::KvExpire(read(kind, body)?).into(),
            _unknown => return Err(ApplyError::Unknown { kind, version }),
        };
        Ok((command, Time(u64::from_be_bytes(at))))
    }
}

fn encode_system(command: &SystemCommand, at: Time) -> Bytes {
    match command {
        SystemCommand::NodeUp(up) => write(kind::NODE_UP, at, up),
        SystemCommand::NodeDown(down) => write(kind::NODE_DOWN, at, down),
        SystemCommand::RegisterAgent(spec) => write(kind::REGISTER_AGENT, at, spec),
        SystemCommand::RetireAgent(retire) => write(kind::RETIRE_AGENT, at, retire),
        SystemCommand::ActivatePolicy(activate) => write(kind::ACTIVATE_POLICY, at, activate),
        SystemCommand::RaiseFeatureLevel(level) => write(kind::RAISE_FEATURE_LEVEL, at, level),
        SystemCommand::SeedMembers(members) => write(kind::SEED_MEMBERS, at, members),
        SystemCommand::AdmitMember(member) => write(kind::ADMIT_MEMBER, at, member),
        SystemCommand::RemoveMember(node) => write(kind::REMOVE_MEMBER, at, node),
        SystemCommand::ReserveVoters(reservation) => write(kind::RESERVE_VOTERS, at, reservation),
    }
}

fn encode_shard(command: &ShardCommand, at: Time) -> Bytes {
    match command {
        ShardCommand::Submit(submissions) => write(kind::SUBMIT, at, submissions),
        ShardCommand::Assign(assignments) => write(kind::ASSIGN, at, assignments),
        ShardCommand::Complete { task, token, result } => {
            write(kind::COMPLETE, at, &(task, token, result))
        }
        ShardCommand::Fail { task, token, error, retry } => {
            write(kind::FAIL, at, &(task, token, error, retry))
        }
        ShardCommand::Expire { leases, reason } => write(kind::EXPIRE, at, &(leases, reason)),
        ShardCommand::Cancel(task) => write(kind::CANCEL, at, task),
        ShardCommand::AdoptAgents { from, agents } => {
            write(kind::ADOPT_AGENTS, at, &(from, agents))
        }
        ShardCommand::AdoptPolicy(adoption) => write(kind::ADOPT_POLICY, at, adoption),
        ShardCommand::Sweep => write(kind::SWEEP, at, &()),
        ShardCommand::Kv(requests) => write(kind::KV, at, requests),
        ShardCommand::KvExpire(leases) => write(kind::KV_EXPIRE, at, leases),
    }
}

fn write<T: Serialize>(kind: u16, at: Time, body: &T) -> Bytes {
    let body = cbor::encode(body);
    let mut entry = BytesMut::with_capacity(HEADER_BYTES + body.len());
    entry.put_u16(kind);
    entry.put_u16(VERSION);
    entry.put_u64(at.0);
    entry.put_slice(&body);
    entry.freeze()
}

fn read<T: DeserializeOwned>(kind: u16, body: &[u8]) -> Result<T, ApplyError> {
    // An entry that lies in the log was accepted by a quorum; its size is no longer a question.
    cbor::decode(body, usize::MAX)
        .map_err(|error| ApplyError::Body { kind, reason: error.to_string() })
}
