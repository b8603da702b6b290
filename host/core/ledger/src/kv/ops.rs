//! Acts on keys. Each looks first and changes then, so that a refusal has changed
//! nothing; a transaction that is refused half-way is taken back whole.

use std::sync::Arc;

use quorate_types::Refusal;
use quorate_types::kv::{
    Compare, Done, Expect, KvRecord, LeaseId, Op, OpDone, Revision, Txn, Value, segment,
};

use super::{Kept, Kv, Turn, full, weight};
use crate::kv::window::Told;

/// Keys that one act takes away; more are refused, and go by narrower prefixes.
const DELETED_MAX: usize = 10_000;

impl Kv {
    pub(super) fn op(
        &mut self,
        turn: &mut Turn,
        namespace: &Arc<str>,
        op: Op,
        room: &mut u64,
    ) -> Result<OpDone, Refusal> {
        match op {
            Op::Get { key } => {
                let record = self.kept(namespace, &key).map(|kept| kept.record.clone());
                let bytes = record.as_ref().map_or(0, weight);
                *room = room.checked_sub(bytes).ok_or_else(super::client::too_much)?;
                Ok(OpDone::Got(record))
            }
            Op::Put { key, value, lease, expect } => {
                self.put(turn, namespace, key, value, lease, expect.as_ref())
            }
            Op::Delete { key, expect } => {
                self.expect(namespace, &key, expect.as_ref())?;
                let revision = self.delete(turn, namespace, &key, false);
                Ok(OpDone::Deleted { count: u64::from(revision.is_some()), revision })
            }
            Op::DeleteRange { prefix } => self.delete_range(turn, namespace, &prefix),
        }
    }

    fn put(
        &mut self,
        turn: &mut Turn,
        namespace: &Arc<str>,
        key: String,
        value: Value,
        lease: Option<LeaseId>,
        expect: Option<&Expect>,
    ) -> Result<OpDone, Refusal> {
        self.expect(namespace, &key, expect)?;
        let before = self.kept(namespace, &key).cloned();
        self.has_room(before.as_deref(), &key, &value)?;
        let held = before.as_ref().and_then(|kept| kept.record.lease);
        if lease != held {
            self.may_hang(namespace, &key, lease)?;
        }
        let revision = turn.revision();
        let (key, created, version) = match before {
            Some(kept) => {
                let record = &kept.record;
                (Arc::clone(&record.key), record.created, record.version.saturating_add(1))
            }
            None => (key.into(), revision, 1),
        };
        let record = KvRecord { key, value, created, modified: revision, version, lease };
        let kept = self.store_key(namespace, record);
        self.tell(namespace, revision, Told::Put(kept));
        Ok(OpDone::Put { revision, version })
    }

    fn has_room(&self, before: Option<&Kept>, key: &str, value: &Value) -> Result<(), Refusal> {
        if before.is_none() && self.totals.keys >= self.bounds.keys_max {
            return Err(full("the key-value store", self.bounds.keys_max));
        }
        let given = u64::try_from(key.len() + value.0.len()).unwrap_or(u64::MAX);
        let taken = before.map_or(0, |kept| weight(&kept.record));
        if given > taken && self.totals.bytes - taken + given > self.bounds.bytes_max {
            return Err(Refusal::Busy {
                what: format!("the key-value store ({} bytes at most)", self.bounds.bytes_max),
                retry_after_ms: crate::bounds::BUSY_RETRY_MS,
            });
        }
        Ok(())
    }

    /// Takes a key away; where it was there, the revision of that.
    pub(super) fn delete(
        &mut self,
        turn: &mut Turn,
        namespace: &Arc<str>,
        key: &str,
        expired: bool,
    ) -> Option<Revision> {
        let gone = self.drop_key(namespace, key)?;
        let revision = turn.revision();
        let key = Arc::clone(&gone.record.key);
        self.tell(namespace, revision, Told::Deleted { key, expired });
        self.drop_if_empty(namespace);
        Some(revision)
    }

    fn delete_range(
        &mut self,
        turn: &mut Turn,
        namespace: &Arc<str>,
        prefix: &str,
    ) -> Result<OpDone, Refusal> {
        let keys: Vec<Arc<str>> = self
            .under(namespace, prefix, None)
            .take(DELETED_MAX + 1)
            .map(|kept| Arc::clone(&kept.record.key))
            .collect();
        if keys.len() > DELETED_MAX {
            return Err(Refusal::Invalid(format!(
                "more than {DELETED_MAX} keys are under `{prefix}`; delete them by longer prefixes"
            )));
        }
        let mut last = None;
        for key in &keys {
            last = self.delete(turn, namespace, key, false);
        }
        let count = u64::try_from(keys.len()).unwrap_or(u64::MAX);
        Ok(OpDone::Deleted { count, revision: last })
    }

    pub(super) fn txn(
        &mut self,
        turn: &mut Turn,
        namespace: &Arc<str>,
        txn: Txn,
        room: &mut u64,
    ) -> Result<Done, Refusal> {
        let Txn { compare, then, otherwise } = txn;
        let holds = |Compare { key, is }: &Compare| self.holds(namespace, key, is);
        let held = compare.iter().all(holds);
        let (before, first, spare) = (self.clone(), turn.next, *room);
        let ops = if held { then } else { otherwise };
        let results: Result<Vec<OpDone>, Refusal> =
            ops.into_iter().map(|op| self.op(turn, namespace, op, room)).collect();
        match results {
            Ok(results) => Ok(Done::Txn { held, results }),
            Err(refusal) => {
                *self = before;
                (turn.next, *room) = (first, spare);
                Err(refusal)
            }
        }
    }

    fn holds(&self, namespace: &str, key: &str, is: &Expect) -> bool {
        let record = self.kept(namespace, key).map(|kept| &kept.record);
        match is {
            Expect::Absent => record.is_none(),
            Expect::Present => record.is_some(),
            // As many do, a key that is not there has been put no times.
            Expect::Version(version) => record.map_or(0, |record| record.version) == *version,
            Expect::Modified(at) => record.is_some_and(|record| record.modified == *at),
            Expect::Value(value) => record.is_some_and(|record| record.value == *value),
        }
    }

    fn expect(&self, namespace: &str, key: &str, expect: Option<&Expect>) -> Result<(), Refusal> {
        let Some(expect) = expect else { return Ok(()) };
        if self.holds(namespace, key, expect) {
            return Ok(());
        }
        let now = match self.kept(namespace, key).map(|kept| &kept.record) {
            None => "it is not there".to_owned(),
            Some(record) => {
                format!("it has version {}, of revision {}", record.version, record.modified)
            }
        };
        Err(Refusal::Conflict(format!("key `{key}` is not as expected: {now}")))
    }

    /// Whether this lease may hold this key, where there is one.
    fn may_hang(&self, namespace: &str, key: &str, lease: Option<LeaseId>) -> Result<(), Refusal> {
        let Some(id) = lease else { return Ok(()) };
        self.lease_for(namespace, segment(key), id)?;
        self.room_on(id)
    }
}
