//! The whole state as bytes: kind (u16), version (u16), digest (32 bytes), then CBOR
//! items: a head with counts, and record after record. Places are not written; a
//! restored ledger computes them anew, and its digest, which must be the one stated.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use quorate_types::{Digest, GroupId, Index, Time, cbor};

use crate::kv;
use crate::ledger::Ledger;
use crate::outcome::RestoreError;
use crate::roster::Roster;
use crate::shard::{self, Adopted, AdoptedPolicy, Decided};
use crate::system::{self, Agent, Node, Policy};

/// The kind of a snapshot of a group, whatever it carries: both machines are in it.
const KIND: u16 = 1001;
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 36;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    group: GroupId,
    index: Index,
    time: Time,
    system: system::Counters,
    shard: shard::Counters,
    /// Not in snapshots of before there was a list.
    #[serde(default)]
    roster: Roster,
    nodes: u64,
    agents: u64,
    policies: u64,
    tasks: u64,
    adopted_agents: u64,
    adopted_policies: u64,
    decided: u64,
    /// Not in snapshots of before there was a store.
    #[serde(default)]
    kv: kv::keep::Head,
}

impl Ledger {
    /// The whole state, with its kind, version and digest.
    pub fn snapshot(&self) -> Bytes {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let head = Head {
            group: self.group(),
            index: self.index,
            time: self.time,
            system: self.system.counters.clone(),
            shard: self.shard.counters.clone(),
            roster: Roster::clone(&self.system.roster),
            nodes: count(self.system.nodes.len()),
            agents: count(self.system.agents.len()),
            policies: count(self.system.policies.len()),
            tasks: count(self.shard.tasks.len()),
            adopted_agents: count(self.shard.agents.len()),
            adopted_policies: count(self.shard.policies.len()),
            decided: count(self.shard.decided.len()),
            kv: self.shard.kv.head(),
        };
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&KIND.to_be_bytes());
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.digest().0);
        write(&mut bytes, &head);
        self.system.nodes.values().for_each(|node| write(&mut bytes, node));
        self.system.agents.values().for_each(|agent| write(&mut bytes, agent));
        self.system.policies.values().for_each(|policy| write(&mut bytes, policy));
        self.shard.tasks.values().for_each(|kept| write(&mut bytes, &kept.task));
        self.shard.agents.values().for_each(|adopted| write(&mut bytes, adopted));
        self.shard.policies.values().for_each(|adopted| write(&mut bytes, adopted));
        self.shard.decided.values().for_each(|decided| write(&mut bytes, decided));
        self.shard.kv.records().for_each(|record| write(&mut bytes, &record));
        bytes.into()
    }

    /// The state that a snapshot holds, in the place of an empty one of the same group.
    ///
    /// # Errors
    /// When the bytes are not a snapshot of this version, are of another group, or do not have the
    /// digest they state.
    pub fn restore(empty: Self, snapshot: &[u8]) -> Result<Self, RestoreError> {
        let short = || RestoreError::Short(snapshot.len());
        let (header, mut rest) = snapshot.split_first_chunk::<HEADER_BYTES>().ok_or_else(short)?;
        let [k0, k1, v0, v1, stated @ ..] = *header;
        let (kind, version) = (u16::from_be_bytes([k0, k1]), u16::from_be_bytes([v0, v1]));
        if (kind, version) != (KIND, VERSION) {
            return Err(RestoreError::Unknown { kind, version });
        }
        let ledger = empty.filled(&mut rest)?;
        if !rest.is_empty() {
            return Err(RestoreError::Body(format!("{} bytes follow the last record", rest.len())));
        }
        if ledger.digest() != Digest(stated) {
            return Err(RestoreError::Digest);
        }
        Ok(ledger)
    }

    fn filled(self, rest: &mut &[u8]) -> Result<Self, RestoreError> {
        let head: Head = read(rest)?;
        let mut ledger = self;
        if head.group != ledger.group() {
            return Err(RestoreError::Group { found: head.group, wanted: ledger.group() });
        }
        ledger.index = head.index;
        ledger.advance(head.time);
        ledger.system.restore_counters(head.system);
        ledger.system.roster = Arc::new(head.roster);
        ledger.shard.restore_counters(head.shard);
        for _node in 0..head.nodes {
            ledger.system.store_node(read::<Node>(rest)?);
        }
        for _agent in 0..head.agents {
            ledger.system.store_agent(read::<Agent>(rest)?);
        }
        for _policy in 0..head.policies {
            ledger.system.store_policy(read::<Policy>(rest)?);
        }
        for _task in 0..head.tasks {
            if !ledger.shard.restore_task(read(rest)?) {
                return Err(RestoreError::Body("a task is in it twice".to_owned()));
            }
        }
        for _adopted in 0..head.adopted_agents {
            ledger.shard.restore_agent(read::<Adopted>(rest)?);
        }
        for _adopted in 0..head.adopted_policies {
            ledger.shard.restore_policy(read::<AdoptedPolicy>(rest)?);
        }
        for _decided in 0..head.decided {
            ledger.shard.restore_decided(read::<Decided>(rest)?);
        }
        for _record in 0..ledger.shard.kv.restore_head(head.kv) {
            if !ledger.shard.kv.restore(read(rest)?) {
                return Err(RestoreError::Body("a change of a key fits none".to_owned()));
            }
        }
        Ok(ledger)
    }
}

fn write<T: Serialize>(bytes: &mut Vec<u8>, record: &T) {
    bytes.extend_from_slice(&cbor::encode(record));
}

fn read<T: DeserializeOwned>(rest: &mut &[u8]) -> Result<T, RestoreError> {
    cbor::decode_first(rest).map_err(|error| RestoreError::Body(error.to_string()))
}
