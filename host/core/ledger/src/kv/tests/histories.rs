//! Random histories: the store answers as the model does, holds what the model
//! holds and tells watchers what the model told; a snapshot at any point is the
//! same store.

use proptest::prelude::*;

use quorate_types::Index;
use quorate_types::kv::{
    Act, Compare, Expect, KvFound, KvRead, KvWatch, LeaseId, Op, Revision, SeatAct, SeatKind,
    Subject, Txn,
};

use super::model::Model;
use super::{SPACE, Store, nonce};
use crate::ShardCommand;
use crate::kv::KvBounds;

const KEYS: [&str; 5] = ["a/x", "a/x/y", "a/z", "a", "b/x"];
const PREFIXES: [&str; 3] = ["a/", "a/x", "b/"];

#[derive(Clone, Debug)]
enum Move {
    Request { client: u8, lag: u64, fresh: bool, acts: Vec<Act> },
    Expire(Vec<LeaseId>),
    Restore,
}

fn key() -> impl Strategy<Value = String> {
    proptest::sample::select(KEYS.as_slice()).prop_map(str::to_owned)
}

fn lease() -> impl Strategy<Value = LeaseId> {
    (0..6_u64).prop_map(|count| LeaseId::new(0, count))
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Absent),
        Just(Expect::Present),
        (0..4_u64).prop_map(Expect::Version),
        (1..40_u64)
            .prop_map(|index| { Expect::Modified(Revision { index: Index(index), ordinal: 0 }) }),
        (0..3_u8).prop_map(|value| Expect::Value(value.to_string().as_str().into())),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let maybe = |weight| proptest::option::weighted(weight, expect());
    let put = (key(), 0..3_u8, proptest::option::weighted(0.3, lease()), maybe(0.2));
    prop_oneof![
        2 => key().prop_map(|key| Op::Get { key }),
        8 => put.prop_map(|(key, value, lease, expect)| {
            Op::Put { key, value: value.to_string().as_str().into(), lease, expect }
        }),
        2 => (key(), maybe(0.3)).prop_map(|(key, expect)| Op::Delete { key, expect }),
        1 => proptest::sample::select(PREFIXES.as_slice())
            .prop_map(|prefix| Op::DeleteRange { prefix: prefix.to_owned() }),
    ]
}

fn txn() -> impl Strategy<Value = Act> {
    let ops = || proptest::collection::vec(op(), 0..4);
    let compare = (key(), expect()).prop_map(|(key, is)| Compare { key, is });
    let txn = (proptest::collection::vec(compare, 0..3), ops(), ops());
    txn.prop_map(|(compare, then, otherwise)| Act::Txn(Txn { compare, then, otherwise }))
        .prop_filter("within one first segment", |act| act.check().is_ok())
}

fn act() -> impl Strategy<Value = Act> {
    let kind = prop_oneof![Just(SeatKind::Lock), Just(SeatKind::Election)];
    let value = || (0..3_u8).prop_map(|value| value.to_string().as_str().into());
    let seat_act = prop_oneof![
        5 => value().prop_map(|value| SeatAct::Acquire { value }),
        2 => Just(SeatAct::Release),
        1 => value().prop_map(|value| SeatAct::Proclaim { value }),
    ];
    let name = proptest::sample::select(["a/s", "b/s"].as_slice()).prop_map(str::to_owned);
    let segment = proptest::sample::select(["a", "b"].as_slice()).prop_map(str::to_owned);
    prop_oneof![
        8 => op().prop_map(Act::Op),
        3 => txn(),
        2 => segment.prop_map(|segment| Act::Grant { segment, ttl_ms: 1000 }),
        1 => lease().prop_map(Act::Revoke),
        6 => (kind, name, lease(), seat_act)
            .prop_map(|(kind, name, lease, act)| Act::Seat { kind, name, lease, act }),
    ]
}

fn moves() -> impl Strategy<Value = Move> {
    let acts = proptest::collection::vec(act(), 1..4);
    prop_oneof![
        20 => (0..3_u8, 0..4_u64, proptest::bool::weighted(0.8), acts)
            .prop_map(|(client, lag, fresh, acts)| Move::Request { client, lag, fresh, acts }),
        2 => proptest::collection::vec(lease(), 1..3).prop_map(Move::Expire),
        1 => Just(Move::Restore),
    ]
}

struct History {
    store: Store,
    model: Model,
    sent: [u64; 3],
}

impl History {
    fn play(&mut self, one: &Move) {
        let next = Index(self.store.index.0 + 2);
        match one {
            Move::Request { client, lag, fresh, acts } => {
                let sent = &mut self.sent[usize::from(*client)];
                *sent += u64::from(*fresh || *sent == 0);
                let seq = if *fresh { *sent } else { sent.saturating_sub(*lag).max(1) };
                // Client 2 does not number its requests.
                let nonce = nonce(u128::from(*client), seq, seq.saturating_sub(*lag).max(1))
                    .filter(|_| *client < 2);
                self.model.begin(next);
                let due = self.model.request(nonce, acts);
                let got = self.store.request(nonce, acts.clone());
                assert_eq!(got.len(), due.len());
                for (got, due) in got.iter().zip(&due) {
                    assert_eq!(got.as_ref().ok(), due.as_ref().ok(), "{got:?} for {acts:?}");
                }
            }
            Move::Expire(leases) => {
                self.model.begin(next);
                leases.iter().for_each(|lease| self.model.end(*lease));
                self.store.apply(ShardCommand::KvExpire(leases.clone()));
            }
            Move::Restore => self.store.ledger = self.store.restored(),
        }
    }

    fn check(&self) {
        let mut told = Vec::new();
        for segment in ["a", "b"] {
            let prefix = format!("{segment}/");
            let due = self.model.keys.values().filter(|record| record.key.starts_with(&prefix));
            let read = |cursor| KvRead::Range {
                namespace: SPACE.to_owned(),
                prefix: prefix.clone(),
                cursor,
                limit: 2,
            };
            let (mut cursor, mut keys) = (None, Vec::new());
            loop {
                let Ok(KvFound::Range(page)) = self.store.ledger.kv_read(&read(cursor)) else {
                    panic!("a range within one segment")
                };
                keys.extend(page.keys);
                cursor = page.cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert!(due.eq(keys.iter()), "{keys:?}");
            let subjects = [SeatKind::Lock, SeatKind::Election]
                .map(|kind| Subject::Seat(kind, format!("{segment}/s")))
                .into_iter()
                .chain([Subject::Prefix(prefix), Subject::Key(segment.to_owned())]);
            for subject in subjects {
                let after = Some(Revision::default());
                let watch = KvWatch { namespace: SPACE.to_owned(), subject, after };
                let changes = self.store.ledger.kv_changes(&watch, usize::MAX).expect("all kept");
                told.extend(changes.changes.into_iter().map(|one| (one.revision, one.what)));
            }
        }
        told.sort_by_key(|(revision, _)| *revision);
        assert_eq!(told, self.model.changes, "what watchers were told");
        let leases = self.store.ledger.kv_leases_from(LeaseId(0)).map(|(lease, _)| lease);
        assert!(leases.eq(self.model.leases.keys().copied()));
        for ((kind, name), (holder, waiting)) in &self.model.seats {
            let (namespace, name) = (SPACE.to_owned(), name.clone());
            let read = KvRead::Seat { namespace, kind: *kind, name };
            let Ok(KvFound::Seat(seat, _)) = self.store.ledger.kv_read(&read) else {
                panic!("a seat")
            };
            assert_eq!(seat.holder.as_ref(), Some(holder));
            assert!(seat.waiting.iter().eq(waiting.iter().map(|(lease, _)| lease)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_store_does_as_the_model(moves in proptest::collection::vec(moves(), 1..60)) {
        let store = Store::new(KvBounds::default());
        let mut history = History { store, model: Model::default(), sent: [0; 3] };
        for one in &moves {
            history.play(one);
        }
        history.check();
        history.store.ledger = history.store.restored();
        history.check();
    }

    #[test]
    fn small_bounds_hold_and_keep_the_digest(
        moves in proptest::collection::vec(moves(), 1..60),
    ) {
        let bounds = KvBounds {
            keys_max: 3,
            bytes_max: 12,
            leases_max: 2,
            attached_max: 2,
            seats_max: 1,
            waiting_max: 1,
            clients_max: 1,
            answers_max: 3,
            answer_bytes_max: 1500,
            window_max: 5,
            window_bytes_max: 400,
        };
        let mut store = Store::new(bounds);
        let mut sent = 0;
        for one in moves {
            match one {
                Move::Request { client, lag, acts, .. } => {
                    sent += 1;
                    let below = u64::saturating_sub(sent, lag).max(1);
                    store.request(nonce(u128::from(client), sent, below), acts);
                }
                Move::Expire(leases) => {
                    store.apply(ShardCommand::KvExpire(leases));
                }
                Move::Restore => store.ledger = store.restored(),
            }
            let kv = &store.ledger.shard.kv;
            prop_assert!(kv.totals.keys <= 3 && kv.totals.bytes <= 12 && kv.totals.seats <= 1);
            prop_assert!(kv.leases.len() <= 2 && kv.window.changes.len() <= 5);
            prop_assert!(kv.clients.len() <= 1);
        }
    }
}
