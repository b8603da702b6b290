//! Keys, leases, and seats (locks and named elections): the part of a shard that
//! serves coordination.
//!
//! A request brings acts, each done whole or not at all, with an outcome of its own.
//! Every change gets a revision, the entry's index and its place within the entry,
//! and is kept for watchers in a bounded window that is state like all the rest: a
//! watcher goes on at any node, and after any snapshot, at the revision it saw last.
//!
//! * `ops`: acts on keys, and transactions.
//! * `lease`: leases, and what ends with them.
//! * `seat`: one holder, others in order of asking; a holder's end is the next one's
//!   beginning, in the same entry.
//! * `client`: answers kept so that a repeat is answered and not done again.
//! * `window`: the last changes.
//! * `read`: what doors ask.
//! * `keep`: into a snapshot and back.
//!
//! A lease has no clock here: its end is an entry that the leader proposes. Whatever
//! is larger than its bound is refused by name.

mod client;
pub(crate) mod keep;
mod lease;
mod ops;
mod read;
mod seat;
mod window;

pub(crate) use read::joined;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use quorate_types::kv::{
    ClientId, Done, Holder, KvAnswer, KvRecord, KvRequest, LeaseId, Revision, SeatKind, Value,
};
use quorate_types::{Index, Refusal, Time, Token};

use crate::outcome::Outcome;
use crate::set_hash::{Canon, Canonical, Mark, SetHash, canonical};
use crate::shard::Moment;

use client::Client;
use window::Window;

/// How much is held. The same everywhere outside tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvBounds {
    /// Keys.
    pub(crate) keys_max: usize,
    /// Keys with what they hold, bytes: a snapshot is below 1 GiB with all the rest.
    pub(crate) bytes_max: u64,
    /// Leases. Each has a clock at the leader.
    pub(crate) leases_max: usize,
    /// Keys and seats that hang on one lease: they end in one entry.
    pub(crate) attached_max: usize,
    /// Seats that are held or waited for.
    pub(crate) seats_max: usize,
    /// Leases that wait for one seat.
    pub(crate) waiting_max: usize,
    /// Clients whose answers are kept; the one that was silent longest is forgotten first.
    pub(crate) clients_max: usize,
    /// Requests of one client without its word that their answers arrived.
    pub(crate) answers_max: usize,
    /// All answers kept, bytes.
    pub(crate) answer_bytes_max: u64,
    /// Changes kept for watchers: two seconds of the busiest log, and minutes of a usual one.
    pub(crate) window_max: usize,
    /// The same, bytes.
    pub(crate) window_bytes_max: u64,
}

impl Default for KvBounds {
    fn default() -> Self {
        Self {
            keys_max: 1_000_000,
            bytes_max: 256 << 20,
            leases_max: 1 << 16,
            attached_max: 1024,
            seats_max: 1 << 16,
            waiting_max: 1024,
            clients_max: 1 << 16,
            answers_max: 4096,
            answer_bytes_max: 64 << 20,
            window_max: 1 << 17,
            window_bytes_max: 32 << 20,
        }
    }
}

/// The counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counters {
    /// Leases numbered so far; the next has this number.
    pub(crate) leases: u64,
    /// The newest fencing token; 0 before the first.
    pub(crate) token: Token,
    /// The newest change that is no longer kept.
    pub(crate) forgotten: Revision,
}

/// A key's record with its hash.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) record: KvRecord,
    mark: Mark,
}

/// A lease's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lease {
    pub(crate) id: LeaseId,
    pub(crate) namespace: Arc<str>,
    pub(crate) segment: String,
    pub(crate) ttl_ms: u64,
    pub(crate) granted: Revision,
}

/// One that waits for a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Waiter {
    pub(crate) lease: LeaseId,
    pub(crate) value: Value,
}

/// A lock or an election that somebody has. Its record goes with its last lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seat {
    pub(crate) namespace: Arc<str>,
    pub(crate) kind: SeatKind,
    pub(crate) name: Arc<str>,
    pub(crate) holder: Holder,
    /// In order of asking.
    pub(crate) waiting: Vec<Waiter>,
}

/// What hangs on a lease.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Attached {
    Key(Arc<str>),
    Seat(SeatKind, Arc<str>),
}

/// One namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) keys: OrdMap<Arc<str>, Arc<Kept>>,
    pub(crate) seats: OrdMap<(SeatKind, Arc<str>), Arc<Seat>>,
}

impl Canonical for Mark {
    fn write(&self, canon: &mut Canon) {
        self.words().iter().for_each(|word| word.write(canon));
    }
}

impl Canonical for SeatKind {
    fn write(&self, canon: &mut Canon) {
        match self {
            Self::Lock => 0_u8,
            Self::Election => 1_u8,
        }
        .write(canon);
    }
}

impl Canonical for Value {
    fn write(&self, canon: &mut Canon) {
        self.0.write(canon);
    }
}

impl Canonical for LeaseId {
    fn write(&self, canon: &mut Canon) {
        self.0.write(canon);
    }
}

canonical!(Revision { index, ordinal });
canonical!(Counters { leases, token, forgotten });
canonical!(KvRecord { key, value, created, modified, version, lease });
canonical!(Lease { id, namespace, segment, ttl_ms, granted });
canonical!(Holder { lease, token, revision, value });
canonical!(Waiter { lease, value });
canonical!(Seat { namespace, kind, name, holder, waiting });

/// The state.
#[derive(Clone, Debug)]
pub(crate) struct Kv {
    pub(crate) counters: Counters,
    pub(crate) spaces: OrdMap<Arc<str>, Space>,
    pub(crate) leases: OrdMap<LeaseId, Arc<Lease>>,
    pub(crate) clients: OrdMap<ClientId, Client>,
    pub(crate) window: Window,
    /// What hangs on each lease; derived.
    attached: OrdMap<LeaseId, OrdSet<Attached>>,
    /// Clients by the second of their last request; derived.
    idle: OrdSet<(u64, ClientId)>,
    /// Derived counts.
    totals: Totals,
    /// Derived from all records.
    sum: SetHash,
    bounds: KvBounds,
    /// The number of its shard, in its leases' ids.
    shard: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    keys: usize,
    bytes: u64,
    seats: usize,
    answer_bytes: u64,
}

/// An entry under way: it numbers its changes.
struct Turn {
    now: Time,
    index: Index,
    next: u32,
}

impl Turn {
    fn revision(&mut self) -> Revision {
        let revision = Revision { index: self.index, ordinal: self.next };
        self.next = self.next.saturating_add(1);
        revision
    }
}

impl Default for Kv {
    fn default() -> Self {
        Self::new(KvBounds::default())
    }
}

impl Kv {
    /// The keys of the shard with this number.
    pub(crate) fn of(shard: u16) -> Self {
        Self { shard, ..Self::default() }
    }

    pub(crate) fn new(bounds: KvBounds) -> Self {
        Self {
            shard: 0,
            counters: Counters::default(),
            spaces: OrdMap::new(),
            leases: OrdMap::new(),
            clients: OrdMap::new(),
            window: Window::default(),
            attached: OrdMap::new(),
            idle: OrdSet::new(),
            totals: Totals::default(),
            sum: SetHash::default(),
            bounds,
        }
    }

    /// Carries out requests, each unless it was before.
    pub(crate) fn apply(&mut self, at: Moment, requests: Vec<KvRequest>) -> Outcome {
        let mut turn = Turn { now: at.now, index: at.index, next: 0 };
        self.forget_silent(at.now);
        let answers = requests.into_iter().map(|request| self.request(&mut turn, request));
        Outcome::Kv(answers.collect())
    }

    /// Ends leases that showed no sign of life.
    pub(crate) fn expire(&mut self, at: Moment, leases: &[LeaseId]) -> Outcome {
        let mut turn = Turn { now: at.now, index: at.index, next: 0 };
        for lease in leases {
            self.end_lease(&mut turn, *lease);
        }
        Outcome::Done
    }

    fn request(&mut self, turn: &mut Turn, request: KvRequest) -> KvAnswer {
        let KvRequest { namespace, nonce, acts } = request;
        if let Some(nonce) = &nonce
            && let Some(answer) = self.answered(nonce, acts.len())
        {
            return answer;
        }
        let namespace = self.named(&namespace);
        let mut room = client::ANSWER_BYTES_MAX;
        let acts = acts.into_iter();
        let answer: KvAnswer = acts.map(|act| self.act(turn, &namespace, act, &mut room)).collect();
        if let Some(nonce) = &nonce {
            self.remember(turn.now, nonce, &answer);
        }
        answer
    }

    fn act(
        &mut self,
        turn: &mut Turn,
        namespace: &Arc<str>,
        act: quorate_types::kv::Act,
        room: &mut u64,
    ) -> Result<Done, Refusal> {
        use quorate_types::kv::Act;
        act.check()?;
        match act {
            Act::Op(op) => self.op(turn, namespace, op, room).map(Done::Op),
            Act::Txn(txn) => self.txn(turn, namespace, txn, room),
            Act::Grant { segment, ttl_ms } => self.grant(turn, namespace, segment, ttl_ms),
            Act::Revoke(lease) => self.revoke(turn, namespace, lease),
            Act::Seat { kind, name, lease, act } => {
                self.seat(turn, namespace, (kind, name.into()), lease, act).map(Done::Seat)
            }
        }
    }

    /// A namespace's name, shared with what is there under it.
    fn named(&self, namespace: &str) -> Arc<str> {
        let known = self.spaces.get_key_value(namespace);
        known.map_or_else(|| namespace.into(), |(name, _space)| Arc::clone(name))
    }

    fn space(&mut self, namespace: &Arc<str>) -> &mut Space {
        self.spaces.entry(Arc::clone(namespace)).or_default()
    }

    fn drop_if_empty(&mut self, namespace: &str) {
        let empty = |space: &Space| space.keys.is_empty() && space.seats.is_empty();
        if self.spaces.get(namespace).is_some_and(empty) {
            self.spaces.remove(namespace);
        }
    }

    pub(crate) fn kept(&self, namespace: &str, key: &str) -> Option<&Arc<Kept>> {
        self.spaces.get(namespace)?.keys.get(key)
    }

    /// Adds or replaces a key.
    fn store_key(&mut self, namespace: &Arc<str>, record: KvRecord) -> Arc<Kept> {
        let kept = Arc::new(Kept { mark: key_mark(namespace, &record), record });
        self.sum.add(kept.mark);
        self.totals.bytes += weight(&kept.record);
        let key = Arc::clone(&kept.record.key);
        let before = self.space(namespace).keys.insert(Arc::clone(&key), Arc::clone(&kept));
        let lease = kept.record.lease;
        if let Some(before) = before {
            self.sum.remove(before.mark);
            self.totals.bytes -= weight(&before.record);
            if before.record.lease != lease {
                self.detach(before.record.lease, &Attached::Key(Arc::clone(&key)));
                self.attach(lease, Attached::Key(key));
            }
        } else {
            self.totals.keys += 1;
            self.attach(lease, Attached::Key(key));
        }
        kept
    }

    fn drop_key(&mut self, namespace: &str, key: &str) -> Option<Arc<Kept>> {
        let gone = self.spaces.get_mut(namespace)?.keys.remove(key)?;
        self.sum.remove(gone.mark);
        self.totals.keys -= 1;
        self.totals.bytes -= weight(&gone.record);
        self.detach(gone.record.lease, &Attached::Key(Arc::clone(&gone.record.key)));
        Some(gone)
    }

    fn store_lease(&mut self, lease: Lease) {
        self.sum.add(Mark::of("kv-lease", &lease));
        if let Some(before) = self.leases.insert(lease.id, Arc::new(lease)) {
            self.sum.remove(Mark::of("kv-lease", &*before));
        }
    }

    fn store_seat(&mut self, seat: Seat) {
        self.sum.add(Mark::of("kv-seat", &seat));
        let at = (seat.kind, Arc::clone(&seat.name));
        let namespace = Arc::clone(&seat.namespace);
        if let Some(before) = self.space(&namespace).seats.insert(at, Arc::new(seat)) {
            self.sum.remove(Mark::of("kv-seat", &*before));
        } else {
            self.totals.seats += 1;
        }
    }

    fn drop_seat(&mut self, namespace: &str, at: &(SeatKind, Arc<str>)) {
        let Some(space) = self.spaces.get_mut(namespace) else { return };
        if let Some(before) = space.seats.remove(at) {
            self.sum.remove(Mark::of("kv-seat", &*before));
            self.totals.seats -= 1;
        }
    }

    fn attach(&mut self, lease: Option<LeaseId>, what: Attached) {
        if let Some(lease) = lease {
            self.attached.entry(lease).or_default().insert(what);
        }
    }

    fn detach(&mut self, lease: Option<LeaseId>, what: &Attached) {
        let Some(lease) = lease else { return };
        let Some(attached) = self.attached.get_mut(&lease) else { return };
        attached.remove(what);
        if attached.is_empty() {
            self.attached.remove(&lease);
        }
    }

    /// The set hash of all that is here.
    pub(crate) fn sum(&self) -> SetHash {
        let mut sum = self.sum;
        sum.add(Mark::of("kv", &self.counters));
        sum
    }

    /// The same, from scratch.
    pub(crate) fn recompute_sum(&self) -> SetHash {
        let mut sum = SetHash::default();
        sum.add(Mark::of("kv", &self.counters));
        for (namespace, space) in &self.spaces {
            let keys = space.keys.values();
            keys.for_each(|kept| sum.add(key_mark(namespace, &kept.record)));
            space.seats.values().for_each(|seat| sum.add(Mark::of("kv-seat", &**seat)));
        }
        self.leases.values().for_each(|lease| sum.add(Mark::of("kv-lease", &**lease)));
        self.clients.values().flat_map(Client::marks).for_each(|mark| sum.add(mark));
        self.window.marks().for_each(|mark| sum.add(mark));
        sum
    }
}

fn key_mark(namespace: &Arc<str>, record: &KvRecord) -> Mark {
    struct Of<'a>(&'a str, &'a KvRecord);
    impl Canonical for Of<'_> {
        fn write(&self, canon: &mut Canon) {
            self.0.write(canon);
            self.1.write(canon);
        }
    }
    Mark::of("kv-key", &Of(namespace, record))
}

/// What a key counts, bytes.
fn weight(record: &KvRecord) -> u64 {
    u64::try_from(record.key.len() + record.value.0.len()).unwrap_or(u64::MAX)
}

fn full(what: &str, limit: usize) -> Refusal {
    Refusal::Busy {
        what: format!("{what} ({limit} at most)"),
        retry_after_ms: crate::bounds::BUSY_RETRY_MS,
    }
}
