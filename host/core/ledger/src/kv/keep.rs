//! The store in a snapshot: counters and counts in its head, then record after record.
//! A change that put what is still there refers to it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use quorate_types::kv::{Holder, KvRecord, Revision, SeatKind};

use super::client::{Answered, Client};
use super::window::Told;
use super::{Counters, Kept, Kv, Lease, Seat, key_mark};

/// What the head says. Absent in snapshots of before there was a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    counters: Counters,
    records: u64,
}

/// A record.
#[derive(Serialize, Deserialize)]
pub(crate) enum Record {
    Key(Arc<str>, KvRecord),
    Lease(Lease),
    Seat(Seat),
    Answered(Answered),
    Change(Revision, Arc<str>, Changed),
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Changed {
    /// What the key holds now.
    Put(Arc<str>),
    /// What the key held then.
    Was(KvRecord),
    Deleted(Arc<str>, bool),
    Seat(SeatKind, Arc<str>, Option<Holder>),
}

impl Kv {
    /// What the head says.
    pub(crate) fn head(&self) -> Head {
        let answers: usize = self.clients.values().map(Client::len).sum();
        let records = self.totals.keys
            + self.totals.seats
            + self.leases.len()
            + answers
            + self.window.changes.len();
        Head { counters: self.counters, records: u64::try_from(records).unwrap_or(u64::MAX) }
    }

    /// Every record, in the order in which they can be put back.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> {
        let leases = self.leases.values().map(|lease| Record::Lease(Lease::clone(lease)));
        let keys = self.spaces.iter().flat_map(|(namespace, space)| {
            let of = |kept: &Arc<Kept>| Record::Key(Arc::clone(namespace), kept.record.clone());
            space.keys.values().map(of)
        });
        let seats = self.spaces.values().flat_map(|space| space.seats.values());
        let seats = seats.map(|seat| Record::Seat(Seat::clone(seat)));
        let answers = self.clients.values().flat_map(Client::answers);
        let answers = answers.map(|answered| Record::Answered(answered.clone()));
        let changes = self.window.changes.iter().map(|(revision, noted)| {
            let changed = self.changed(&noted.namespace, &noted.told);
            Record::Change(*revision, Arc::clone(&noted.namespace), changed)
        });
        leases.chain(keys).chain(seats).chain(answers).chain(changes)
    }

    fn changed(&self, namespace: &str, told: &Told) -> Changed {
        match told {
            Told::Put(kept) => {
                let now = self.kept(namespace, &kept.record.key);
                if now.is_some_and(|now| now.mark == kept.mark) {
                    Changed::Put(Arc::clone(&kept.record.key))
                } else {
                    Changed::Was(kept.record.clone())
                }
            }
            Told::Deleted { key, expired } => Changed::Deleted(Arc::clone(key), *expired),
            Told::Seat { kind, name, holder } => {
                Changed::Seat(*kind, Arc::clone(name), holder.clone())
            }
        }
    }

    /// Begins to fill an empty store; so many records follow.
    pub(crate) fn restore_head(&mut self, head: Head) -> u64 {
        self.counters = head.counters;
        head.records
    }

    /// Puts a record back; false where it fits nothing that is there.
    pub(crate) fn restore(&mut self, record: Record) -> bool {
        match record {
            Record::Lease(lease) => self.store_lease(lease),
            Record::Key(namespace, record) => {
                let namespace = self.named(&namespace);
                self.store_key(&namespace, record);
            }
            Record::Seat(seat) => {
                let leases: Vec<_> = std::iter::once(seat.holder.lease)
                    .chain(seat.waiting.iter().map(|waiter| waiter.lease))
                    .collect();
                for lease in leases {
                    let what = super::Attached::Seat(seat.kind, Arc::clone(&seat.name));
                    self.attach(Some(lease), what);
                }
                self.store_seat(seat);
            }
            Record::Answered(answered) => self.keep(answered),
            Record::Change(revision, namespace, changed) => {
                return self.restore_change(revision, &namespace, changed);
            }
        }
        true
    }

    fn restore_change(&mut self, revision: Revision, name: &str, changed: Changed) -> bool {
        let namespace = self.named(name);
        let told = match changed {
            Changed::Put(key) => match self.kept(&namespace, &key) {
                Some(kept) => Told::Put(Arc::clone(kept)),
                None => return false,
            },
            Changed::Was(record) => {
                let mark = key_mark(&namespace, &record);
                Told::Put(Arc::new(Kept { record, mark }))
            }
            Changed::Deleted(key, expired) => Told::Deleted { key, expired },
            Changed::Seat(kind, name, holder) => Told::Seat { kind, name, holder },
        };
        if self.window.changes.contains_key(&revision) {
            return false;
        }
        self.tell(&namespace, revision, told);
        true
    }
}
