//! The records of one owner, and how deltas of them merge.
//!
//! Each write takes the owner's next counter. A delta carries the newest record of
//! every key that changed after `since`, up to `upto`; so whoever has everything up
//! to `since` has everything up to `upto` afterwards. That mark, `seen`, is what a
//! digest compares; a lost delta leaves it behind and the next digest shows it.
//! A deleted key stays as a record without a body until the owner's next life.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use quorate_types::{Incarnation, NodeId};

use crate::record::{
    INCARNATION_MAX, KEYS_MAX, Key, OWNER_BYTES_MAX, PublishError, VALUE_BYTES_MAX, Version,
};

/// How far a counter may run ahead of what is known. An honest owner needs 49 days at a
/// thousand writes a second to go this far unheard; a forged jump to the end is refused.
pub(crate) const COUNTER_AHEAD_MAX: u64 = 1 << 32;

/// How far another node's word may move an owner's incarnation. Covers microseconds since 1970
/// from nothing; the owner itself may say any below `INCARNATION_MAX`.
pub(crate) const INCARNATION_AHEAD_MAX: u64 = 1 << 52;

/// One record on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Record<'b> {
    #[n(0)]
    pub(crate) counter: u64,
    #[n(1)]
    pub(crate) kind: u16,
    #[n(2)]
    pub(crate) id: u64,
    #[cbor(b(3), with = "minicbor::bytes")]
    pub(crate) value: Option<&'b [u8]>,
}

impl Record<'_> {
    fn key(&self) -> Key {
        Key { kind: self.kind, id: self.id }
    }
}

/// What changed in one owner's records.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Delta<'b> {
    #[n(0)]
    pub(crate) owner: u64,
    #[n(1)]
    pub(crate) incarnation: u64,
    #[n(2)]
    pub(crate) since: u64,
    #[n(3)]
    pub(crate) upto: u64,
    /// Ascending by counter, all above `since`.
    #[b(4)]
    pub(crate) records: Vec<Record<'b>>,
}

/// Whose word a delta is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Owner,
    Relay,
}

/// Why a delta is refused. It is refused whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeltaFault {
    /// Its marks and counters contradict each other.
    #[error("its counters are out of order")]
    Disorder,
    /// A counter is too far ahead of what is known.
    #[error("counter {counter} is too far ahead of {known}")]
    CounterAhead {
        /// The counter.
        counter: u64,
        /// The highest known.
        known: u64,
    },
    /// An incarnation is too far ahead of what is known, or not below `INCARNATION_MAX`.
    #[error("incarnation {incarnation} is too far ahead of {known}")]
    IncarnationAhead {
        /// The incarnation.
        incarnation: Incarnation,
        /// The one known.
        known: Incarnation,
    },
    /// A body is too large.
    #[error("a record of {bytes} bytes is larger than the limit of {VALUE_BYTES_MAX}")]
    ValueTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The owner would have too many records, or too large ones together.
    #[error("the owner would exceed {KEYS_MAX} records or {OWNER_BYTES_MAX} bytes")]
    OwnerTooLarge,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    counter: u64,
    value: Option<Box<[u8]>>,
}

impl Stored {
    fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.len())
    }
}

/// One owner's records as one node has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    incarnation: Incarnation,
    /// Everything up to here is in `records`, unless overwritten since.
    seen: u64,
    /// The highest counter in `records`, or `seen` if that is higher.
    top: u64,
    records: BTreeMap<Key, Stored>,
    /// The same by counter. A set of pairs: a liar may give one counter to two keys.
    order: BTreeSet<(u64, Key)>,
    bytes: usize,
    deleted: usize,
}

impl Table {
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        Self { incarnation, ..Self::default() }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(crate) fn seen(&self) -> Version {
        Version { incarnation: self.incarnation, counter: self.seen }
    }

    pub(crate) fn top(&self) -> u64 {
        self.top
    }

    /// Keys that were deleted in this life and still take room.
    pub(crate) fn deleted(&self) -> usize {
        self.deleted
    }

    pub(crate) fn value(&self, key: Key) -> Option<&[u8]> {
        self.records.get(&key)?.value.as_deref()
    }

    pub(crate) fn version(&self, key: Key) -> Option<Version> {
        let counter = self.records.get(&key)?.counter;
        Some(Version { incarnation: self.incarnation, counter })
    }

    /// Records that changed after `since`, oldest change first.
    pub(crate) fn after(&self, since: u64) -> impl Iterator<Item = Record<'_>> + '_ {
        let start = (since.saturating_add(1), Key::MIN);
        self.order.range(start..).filter_map(|(counter, key)| {
            let stored = self.records.get(key)?;
            let value = stored.value.as_deref();
            Some(Record { counter: *counter, kind: key.kind, id: key.id, value })
        })
    }

    /// The owner writes; none deletes. Deleting what is not there changes nothing.
    pub(crate) fn write(&mut self, key: Key, value: Option<&[u8]>) -> Result<(), PublishError> {
        let old = self.records.get(&key);
        let old_bytes = old.map_or(0, Stored::bytes);
        match value {
            Some(value) if value.len() > VALUE_BYTES_MAX => {
                return Err(PublishError::TooLarge { bytes: value.len() });
            }
            Some(_value) if old.is_none() && self.records.len() >= KEYS_MAX => {
                return Err(PublishError::TooManyKeys);
            }
            Some(value) if self.bytes - old_bytes + value.len() > OWNER_BYTES_MAX => {
                return Err(PublishError::TooManyBytes);
            }
            None if old.is_none_or(|old| old.value.is_none()) => return Ok(()),
            Some(_) | None => {}
        }
        assert_eq!(self.seen, self.top, "an owner has seen all it wrote");
        self.put(key, self.top + 1, value);
        self.seen = self.top;
        Ok(())
    }

    /// The owner begins a new life and says again what stands; what was deleted is forgotten.
    pub(crate) fn begin(&mut self, incarnation: Incarnation) {
        assert!(incarnation > self.incarnation, "lives are numbered upward");
        let old = std::mem::replace(self, Self::new(incarnation));
        for (_counter, key) in old.order {
            if let Some(value) = old.records.get(&key).and_then(|stored| stored.value.as_deref()) {
                self.put(key, self.top + 1, Some(value));
            }
        }
        self.seen = self.top;
    }

    /// Whether a delta may be merged.
    pub(crate) fn check(&self, delta: &Delta<'_>, origin: Origin) -> Result<(), DeltaFault> {
        let incarnation = Incarnation(delta.incarnation);
        let reach = match origin {
            Origin::Owner => INCARNATION_MAX.0,
            Origin::Relay => self.incarnation.0.saturating_add(INCARNATION_AHEAD_MAX),
        };
        if incarnation >= INCARNATION_MAX || incarnation.0 > reach {
            let known = self.incarnation;
            return Err(DeltaFault::IncarnationAhead { incarnation, known });
        }
        let same_life = incarnation == self.incarnation;
        let known = if same_life { self.top } else { 0 };
        let last = delta.records.last().map_or(delta.upto, |record| record.counter.max(delta.upto));
        if last - known.min(last) > COUNTER_AHEAD_MAX {
            return Err(DeltaFault::CounterAhead { counter: last, known });
        }
        let (mut keys, mut bytes) =
            if same_life { (self.records.len(), self.bytes) } else { (0, 0) };
        let mut before = delta.since;
        for record in &delta.records {
            if record.counter <= before {
                return Err(DeltaFault::Disorder);
            }
            before = record.counter;
            let size = record.value.map_or(0, <[u8]>::len);
            if size > VALUE_BYTES_MAX {
                return Err(DeltaFault::ValueTooLarge { bytes: size });
            }
            let old = self.records.get(&record.key()).filter(|_old| same_life);
            keys += usize::from(old.is_none());
            bytes = (bytes + size).saturating_sub(old.map_or(0, Stored::bytes));
        }
        if delta.upto < delta.since {
            return Err(DeltaFault::Disorder);
        }
        if keys > KEYS_MAX || bytes > OWNER_BYTES_MAX {
            return Err(DeltaFault::OwnerTooLarge);
        }
        Ok(())
    }

    /// Merges a delta that `check` let pass; the keys whose record is another now, or gone.
    pub(crate) fn merge(&mut self, delta: &Delta<'_>) -> BTreeSet<Key> {
        let incarnation = Incarnation(delta.incarnation);
        let mut changed = BTreeSet::new();
        if incarnation < self.incarnation {
            return changed;
        }
        if incarnation > self.incarnation {
            let old = std::mem::replace(self, Self::new(incarnation));
            changed.extend(old.records.into_keys());
        }
        for record in &delta.records {
            let key = record.key();
            if self.records.get(&key).is_none_or(|old| old.counter < record.counter) {
                self.put(key, record.counter, record.value);
                changed.insert(key);
            }
        }
        if self.seen >= delta.since && self.seen < delta.upto {
            self.seen = delta.upto;
            self.top = self.top.max(self.seen);
        }
        changed
    }

    /// Whether a delta that others relay says of this owner what it did not say.
    pub(crate) fn is_belied_by(&self, delta: &Delta<'_>) -> bool {
        let incarnation = Incarnation(delta.incarnation);
        if incarnation != self.incarnation {
            return incarnation > self.incarnation;
        }
        let forged = |record: &Record<'_>| {
            self.records.get(&record.key()).is_none_or(|own| own.counter < record.counter)
        };
        delta.upto > self.top || delta.records.iter().any(forged)
    }

    fn put(&mut self, key: Key, counter: u64, value: Option<&[u8]>) {
        let stored = Stored { counter, value: value.map(Box::from) };
        self.bytes += stored.bytes();
        self.deleted += usize::from(stored.value.is_none());
        if let Some(old) = self.records.insert(key, stored) {
            self.bytes -= old.bytes();
            self.deleted -= usize::from(old.value.is_none());
            self.order.remove(&(old.counter, key));
        }
        self.order.insert((counter, key));
        self.top = self.top.max(counter);
        debug_assert_eq!(self.order.len(), self.records.len(), "each key stands in the order once");
    }
}

/// An owner as a delta names it.
pub(crate) fn owner(delta: &Delta<'_>) -> NodeId {
    NodeId(delta.owner)
}

#[cfg(test)]
mod tests;
