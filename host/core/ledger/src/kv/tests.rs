//! The store by itself: what each act promises, and random histories held against a
//! model that knows nothing of marks, indices or sharing.

mod histories;
mod model;
mod promises;

use quorate_types::kv::{
    Act, ClientId, Done, Expect, KvAnswer, KvRead, KvRequest, LeaseId, Nonce, Op, SeatAct,
    SeatKind, Value,
};
use quorate_types::{Faults, Index, Refusal, Time};

use super::{Kv, KvBounds};
use crate::{Command, Ledger, Outcome, ShardCommand};

const SPACE: &str = "default";

/// One ledger, and the next entry's index.
pub(super) struct Store {
    pub(super) ledger: Ledger,
    pub(super) now: Time,
    index: Index,
}

impl Store {
    pub(super) fn new(bounds: KvBounds) -> Self {
        let mut ledger = Ledger::new(&Faults::none());
        ledger.shard.kv = Kv::new(bounds);
        Self { ledger, now: Time(1_000_000), index: Index(0) }
    }

    /// Applies a command, and sees that the digest kept is the digest computed.
    pub(super) fn apply(&mut self, command: ShardCommand) -> Outcome {
        self.index = Index(self.index.0 + 2);
        let entry = Command::from(command).encode(self.now);
        let applied = self.ledger.apply(self.index, &entry).expect("an entry of our own");
        assert_eq!(self.ledger.digest(), self.ledger.recompute_digest());
        applied.outcome
    }

    pub(super) fn request(&mut self, nonce: Option<Nonce>, acts: Vec<Act>) -> KvAnswer {
        let request = KvRequest { namespace: SPACE.to_owned(), nonce, acts };
        let outcome = self.apply(ShardCommand::Kv(vec![request]));
        let Outcome::Kv(mut answers) = outcome else { panic!("{outcome:?}") };
        answers.remove(0)
    }

    pub(super) fn act(&mut self, act: Act) -> Result<Done, Refusal> {
        self.request(None, vec![act]).remove(0)
    }

    pub(super) fn put(&mut self, key: &str, value: &str) -> Result<Done, Refusal> {
        self.act(put(key, value, None, None))
    }

    pub(super) fn grant(&mut self, segment: &str) -> LeaseId {
        let done = self.act(Act::Grant { segment: segment.to_owned(), ttl_ms: 1000 });
        let Ok(Done::Granted(info)) = done else { panic!("{done:?}") };
        info.lease
    }

    /// The ledger as a snapshot would give it to another node.
    pub(super) fn restored(&self) -> Ledger {
        let mut empty = Ledger::new(&Faults::none());
        empty.shard.kv = Kv::new(self.ledger.shard.kv.bounds);
        let snapshot = self.ledger.snapshot();
        let restored = Ledger::restore(empty, &snapshot).expect("a snapshot of our own");
        assert_eq!(restored.digest(), self.ledger.digest());
        assert_eq!(restored.snapshot(), snapshot);
        restored
    }

    pub(super) fn found(&self, key: &str) -> Option<(String, u64)> {
        let read = KvRead::Get { namespace: SPACE.to_owned(), key: key.to_owned() };
        let found = self.ledger.kv_read(&read);
        let Ok(quorate_types::kv::KvFound::Get(record, _)) = found else { panic!("{found:?}") };
        record.map(|record| (text(&record.value), record.version))
    }
}

fn text(value: &Value) -> String {
    String::from_utf8(value.0.to_vec()).expect("text")
}

fn put(key: &str, value: &str, lease: Option<LeaseId>, expect: Option<Expect>) -> Act {
    Act::Op(Op::Put { key: key.to_owned(), value: value.into(), lease, expect })
}

fn seat(kind: SeatKind, name: &str, lease: LeaseId, act: SeatAct) -> Act {
    Act::Seat { kind, name: name.to_owned(), lease, act }
}

fn acquire(name: &str, lease: LeaseId) -> Act {
    seat(SeatKind::Lock, name, lease, SeatAct::Acquire { value: "".into() })
}

fn nonce(client: u128, seq: u64, below: u64) -> Option<Nonce> {
    Some(Nonce { client: ClientId(client), seq, below })
}
