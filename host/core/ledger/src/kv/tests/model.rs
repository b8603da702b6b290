//! The store as a child would write it: maps, and a list of all that ever changed.

use std::collections::BTreeMap;

use quorate_types::kv::{
    Act, Done, Expect, Holder, KvAnswer, KvRecord, LeaseId, LeaseInfo, Nonce, Op, OpDone, Revision,
    SeatAct, SeatKind, SeatStand, Txn, Value, What, segment,
};
use quorate_types::{Index, Refusal, Token};

use super::SPACE;

/// Who has a seat, and who waits for it with what.
pub(super) type Taken = (Holder, Vec<(LeaseId, Value)>);

#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) keys: BTreeMap<String, KvRecord>,
    pub(super) leases: BTreeMap<LeaseId, String>,
    pub(super) seats: BTreeMap<(SeatKind, String), Taken>,
    pub(super) changes: Vec<(Revision, What)>,
    answers: BTreeMap<(u128, u64), KvAnswer>,
    below: BTreeMap<u128, u64>,
    leases_given: u64,
    tokens_given: u64,
    at: Revision,
}

/// That something is refused; why is the store's own business.
fn no<T>() -> Result<T, Refusal> {
    Err(Refusal::Invalid(String::new()))
}

impl Model {
    pub(super) fn begin(&mut self, index: Index) {
        self.at = Revision { index, ordinal: 0 };
    }

    fn change(&mut self, what: What) -> Revision {
        let revision = self.at;
        self.at.ordinal += 1;
        self.changes.push((revision, what));
        revision
    }

    pub(super) fn request(&mut self, nonce: Option<Nonce>, acts: &[Act]) -> KvAnswer {
        if let Some(nonce) = nonce {
            if let Some(answer) = self.answers.get(&(nonce.client.0, nonce.seq)) {
                return answer.clone();
            }
            if nonce.seq < self.below.get(&nonce.client.0).copied().unwrap_or(0) {
                return acts.iter().map(|_| no()).collect();
            }
        }
        let answer: KvAnswer = acts.iter().map(|act| self.act(act)).collect();
        if let Some(Nonce { client, seq, below }) = nonce {
            let known = self.below.entry(client.0).or_default();
            *known = below.max(*known);
            let known = *known;
            self.answers.insert((client.0, seq), answer.clone());
            self.answers.retain(|(id, seq), _| *id != client.0 || *seq >= known);
        }
        answer
    }

    fn act(&mut self, act: &Act) -> Result<Done, Refusal> {
        match act {
            Act::Op(op) => self.op(op).map(Done::Op),
            Act::Txn(Txn { compare, then, otherwise }) => {
                let held = compare.iter().all(|one| self.holds(&one.key, &one.is));
                let before = self.clone();
                let ops = if held { then } else { otherwise };
                let results: Result<Vec<_>, _> = ops.iter().map(|op| self.op(op)).collect();
                if results.is_err() {
                    *self = before;
                }
                results.map(|results| Done::Txn { held, results })
            }
            Act::Grant { segment, ttl_ms } => {
                let lease = LeaseId::new(0, self.leases_given);
                self.leases_given += 1;
                let granted = self.at;
                self.at.ordinal += 1;
                self.leases.insert(lease, segment.clone());
                let (namespace, segment) = (SPACE.to_owned(), segment.clone());
                let info =
                    LeaseInfo { lease, namespace, segment, ttl_ms: *ttl_ms, granted, holds: 0 };
                Ok(Done::Granted(info))
            }
            Act::Revoke(lease) => {
                self.end(*lease);
                Ok(Done::Revoked)
            }
            Act::Seat { kind, name, lease, act } => {
                self.seat((*kind, name.clone()), *lease, act).map(Done::Seat)
            }
        }
    }

    fn op(&mut self, op: &Op) -> Result<OpDone, Refusal> {
        match op {
            Op::Get { key } => Ok(OpDone::Got(self.keys.get(key).cloned())),
            Op::Put { key, value, lease, expect } => {
                let hangs = lease
                    .is_none_or(|id| self.leases.get(&id).is_some_and(|of| of == segment(key)));
                if expect.as_ref().is_some_and(|is| !self.holds(key, is)) || !hangs {
                    return no();
                }
                let before = self.keys.get(key);
                let created = before.map_or(self.at, |record| record.created);
                let version = before.map_or(1, |record| record.version + 1);
                let record = KvRecord {
                    key: key.as_str().into(),
                    value: value.clone(),
                    created,
                    modified: self.at,
                    version,
                    lease: *lease,
                };
                self.keys.insert(key.clone(), record.clone());
                Ok(OpDone::Put { revision: self.change(What::Put(record)), version })
            }
            Op::Delete { key, expect } => {
                if expect.as_ref().is_some_and(|is| !self.holds(key, is)) {
                    return no();
                }
                let revision = self.delete(key, false);
                Ok(OpDone::Deleted { count: u64::from(revision.is_some()), revision })
            }
            Op::DeleteRange { prefix } => {
                let under = |key: &&String| key.starts_with(prefix);
                let keys: Vec<_> = self.keys.keys().filter(under).cloned().collect();
                let mut revision = None;
                for key in &keys {
                    revision = self.delete(key, false);
                }
                Ok(OpDone::Deleted { count: keys.len().try_into().unwrap(), revision })
            }
        }
    }

    fn delete(&mut self, key: &str, expired: bool) -> Option<Revision> {
        let record = self.keys.remove(key)?;
        Some(self.change(What::Deleted { key: record.key, expired }))
    }

    fn holds(&self, key: &str, is: &Expect) -> bool {
        let record = self.keys.get(key);
        match is {
            Expect::Absent => record.is_none(),
            Expect::Present => record.is_some(),
            Expect::Version(version) => record.map_or(0, |record| record.version) == *version,
            Expect::Modified(at) => record.is_some_and(|record| record.modified == *at),
            Expect::Value(value) => record.is_some_and(|record| record.value == *value),
        }
    }

    /// A lease ends: first its keys go, in order, then its seats are handed over.
    pub(super) fn end(&mut self, lease: LeaseId) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        let of = self.keys.iter().filter(|(_, record)| record.lease == Some(lease));
        let keys: Vec<_> = of.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.delete(&key, true);
        }
        let seats: Vec<_> = self.seats.keys().cloned().collect();
        for at in seats {
            self.leave(&at, lease);
        }
    }

    fn holder(&mut self, lease: LeaseId, value: Value) -> Holder {
        self.tokens_given += 1;
        Holder { lease, token: Token(self.tokens_given), revision: self.at, value }
    }

    fn tell_seat(&mut self, at: &(SeatKind, String)) {
        let holder = self.seats.get(at).map(|(holder, _)| holder.clone());
        self.change(What::Seat { kind: at.0, name: at.1.as_str().into(), holder });
    }

    fn leave(&mut self, at: &(SeatKind, String), lease: LeaseId) {
        let Some((holder, mut waiting)) = self.seats.get(at).cloned() else { return };
        if holder.lease != lease {
            waiting.retain(|(id, _)| *id != lease);
            self.seats.insert(at.clone(), (holder, waiting));
            return;
        }
        self.seats.remove(at);
        if !waiting.is_empty() {
            let (next, value) = waiting.remove(0);
            let holder = self.holder(next, value);
            self.seats.insert(at.clone(), (holder, waiting));
        }
        self.tell_seat(at);
    }

    fn stand(&self, at: &(SeatKind, String), lease: LeaseId) -> SeatStand {
        let Some((holder, waiting)) = self.seats.get(at) else { return SeatStand::Gone };
        if holder.lease == lease {
            return SeatStand::Holds { token: holder.token, revision: holder.revision };
        }
        match waiting.iter().position(|(id, _)| *id == lease) {
            Some(place) => SeatStand::Waits { before: (place + 1).try_into().unwrap() },
            None => SeatStand::Gone,
        }
    }

    fn seat(
        &mut self,
        at: (SeatKind, String),
        lease: LeaseId,
        act: &SeatAct,
    ) -> Result<SeatStand, Refusal> {
        match act {
            SeatAct::Acquire { value } => {
                if self.leases.get(&lease).is_none_or(|of| of != segment(&at.1)) {
                    return no();
                }
                if self.stand(&at, lease) == SeatStand::Gone {
                    if let Some((_, waiting)) = self.seats.get_mut(&at) {
                        waiting.push((lease, value.clone()));
                    } else {
                        let holder = self.holder(lease, value.clone());
                        self.seats.insert(at.clone(), (holder, Vec::new()));
                        self.tell_seat(&at);
                    }
                }
                Ok(self.stand(&at, lease))
            }
            SeatAct::Release => {
                if self.stand(&at, lease) != SeatStand::Gone {
                    self.leave(&at, lease);
                }
                Ok(SeatStand::Gone)
            }
            SeatAct::Proclaim { value } => {
                if !matches!(self.stand(&at, lease), SeatStand::Holds { .. }) {
                    return no();
                }
                if let Some((holder, _)) = self.seats.get_mut(&at) {
                    holder.value = value.clone();
                }
                self.tell_seat(&at);
                Ok(self.stand(&at, lease))
            }
        }
    }
}
