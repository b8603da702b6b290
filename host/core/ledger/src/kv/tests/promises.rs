//! What is promised, one scenario each.

use std::time::Duration;

use quorate_types::kv::{
    Act, Changes, Compare, Done, Expect, KvWatch, LeaseId, Op, OpDone, Revision, SeatAct, SeatKind,
    SeatStand, Subject, Txn, What,
};
use quorate_types::limits::KV_VALUE_BYTES_MAX;
use quorate_types::{Refusal, Token};

use super::{SPACE, Store, acquire, nonce, put, seat};
use crate::ShardCommand;
use crate::kv::KvBounds;

fn store() -> Store {
    Store::new(KvBounds::default())
}

fn watch(subject: Subject, after: Revision) -> KvWatch {
    KvWatch { namespace: SPACE.to_owned(), subject, after: Some(after) }
}

fn token(done: Result<Done, Refusal>) -> Option<Token> {
    let done = done.expect("taken");
    let Done::Seat(stand) = done else { panic!("{done:?}") };
    match stand {
        SeatStand::Holds { token, .. } => Some(token),
        SeatStand::Waits { .. } | SeatStand::Gone => None,
    }
}

#[test]
fn a_put_counts_versions_and_a_condition_guards_it() {
    let mut store = store();
    store.put("app/a", "1").expect("put");
    let guarded = |version| put("app/a", "2", None, Some(Expect::Version(version)));
    assert!(matches!(store.act(guarded(2)), Err(Refusal::Conflict(_))));
    assert!(store.act(guarded(1)).is_ok());
    assert_eq!(store.found("app/a"), Some(("2".to_owned(), 2)));
    let once = put("app/a", "3", None, Some(Expect::Absent));
    assert!(matches!(store.act(once.clone()), Err(Refusal::Conflict(_))));
    store.act(Act::Op(Op::DeleteRange { prefix: "app/".to_owned() })).expect("deleted");
    assert!(store.act(once).is_ok());
    assert_eq!(store.found("app/a"), Some(("3".to_owned(), 1)), "it begins anew");
}

#[test]
fn a_transaction_is_done_whole_or_not_at_all() {
    let mut store = store();
    let put_op =
        |key: &str, expect| Op::Put { key: key.to_owned(), value: "x".into(), lease: None, expect };
    let absent = Compare { key: "app/a".to_owned(), is: Expect::Absent };
    let txn = Txn {
        compare: vec![absent],
        then: vec![put_op("app/a", None), put_op("app/b", None)],
        otherwise: vec![put_op("app/c", None), put_op("app/a", Some(Expect::Version(9)))],
    };
    let done = store.act(Act::Txn(txn.clone())).expect("done");
    assert!(matches!(done, Done::Txn { held: true, results } if results.len() == 2));
    let before = store.ledger.shard.kv.sum();
    assert!(matches!(store.act(Act::Txn(txn)), Err(Refusal::Conflict(_))));
    assert_eq!(store.ledger.shard.kv.sum(), before, "the half that was done is taken back");
    let across =
        Txn { then: vec![put_op("app/a", None), put_op("other/a", None)], ..Txn::default() };
    assert!(matches!(store.act(Act::Txn(across)), Err(Refusal::Across(_))));
}

#[test]
fn a_repeat_is_answered_and_not_done_again() {
    let mut store = store();
    let request = |value: &str| vec![put("app/a", value, None, None)];
    let first = store.request(nonce(1, 1, 1), request("1"));
    let second = store.request(nonce(1, 2, 1), request("2"));
    assert_eq!(store.request(nonce(1, 1, 1), request("1")), first);
    assert_eq!(store.found("app/a"), Some(("2".to_owned(), 2)));
    store.ledger = store.restored();
    assert_eq!(store.request(nonce(1, 2, 2), request("2")), second, "also after a snapshot");
    store.request(nonce(1, 3, 3), request("3"));
    let late = store.request(nonce(1, 2, 2), request("2"));
    assert!(matches!(late[0], Err(Refusal::Conflict(_))), "{late:?}");
    assert_eq!(store.found("app/a"), Some(("3".to_owned(), 3)));
}

#[test]
fn answers_are_bounded_by_silence_and_by_number() {
    let bounds = KvBounds { clients_max: 2, answers_max: 2, ..KvBounds::default() };
    let mut store = Store::new(bounds);
    let request = || vec![put("app/a", "x", None, None)];
    for seq in 1..=2 {
        assert!(store.request(nonce(1, seq, 1), request())[0].is_ok());
    }
    let unread = store.request(nonce(1, 3, 1), request());
    assert!(matches!(unread[0], Err(Refusal::Busy { .. })), "it never said what arrived");
    store.now += Duration::from_secs(5);
    store.request(nonce(2, 1, 1), request());
    store.now += Duration::from_secs(5);
    store.request(nonce(3, 1, 1), request());
    assert_eq!(store.ledger.shard.kv.clients.len(), 2, "who was silent longest is forgotten");
    store.now += super::super::client::SILENT_MAX + Duration::from_secs(7);
    store.put("app/b", "x").expect("put");
    assert_eq!(store.ledger.shard.kv.clients.len(), 0);
    assert_eq!(store.ledger.shard.kv.totals.answer_bytes, 0);
}

#[test]
fn what_hangs_on_a_lease_ends_with_it() {
    let mut store = store();
    let lease = store.grant("app");
    store.act(put("app/a", "x", Some(lease), None)).expect("put");
    store.act(put("app/b", "x", Some(lease), None)).expect("put");
    store.put("app/b", "free now").expect("put");
    let elsewhere = store.act(put("other/a", "x", Some(lease), None));
    assert!(matches!(elsewhere, Err(Refusal::Across(_))), "{elsewhere:?}");
    store.apply(ShardCommand::KvExpire(vec![lease, LeaseId(99)]));
    assert_eq!(store.found("app/a"), None);
    assert!(store.found("app/b").is_some());
    let gone = store.act(put("app/a", "x", Some(lease), None));
    assert!(matches!(gone, Err(Refusal::NotFound(_))), "{gone:?}");
    assert_eq!(store.act(Act::Revoke(lease)), Ok(Done::Revoked), "as often as one likes");
}

#[test]
fn a_lock_goes_to_the_next_in_order_with_a_greater_token() {
    let mut store = store();
    let [one, two, three] = ["app"; 3].map(|segment| store.grant(segment));
    let first = token(store.act(acquire("app/lock", one))).expect("free");
    assert_eq!(token(store.act(acquire("app/lock", two))), None);
    assert_eq!(token(store.act(acquire("app/lock", three))), None);
    assert_eq!(token(store.act(acquire("app/lock", one))), Some(first), "asked again");
    let seen = Revision::end_of(store.ledger.index());
    store.apply(ShardCommand::KvExpire(vec![one]));
    let second = token(store.act(acquire("app/lock", two))).expect("handed over");
    assert!(second > first);
    let subject = Subject::Seat(SeatKind::Lock, "app/lock".to_owned());
    let told = store.ledger.kv_changes(&watch(subject, seen), 10).expect("kept");
    let [change] = told.changes.as_slice() else { panic!("one act, not {told:?}") };
    let What::Seat { holder: Some(holder), .. } = &change.what else { panic!("{change:?}") };
    assert_eq!((holder.lease, holder.token), (two, second));
    store.act(seat(SeatKind::Lock, "app/lock", three, SeatAct::Release)).expect("waits no more");
    store.act(Act::Revoke(two)).expect("revoked");
    let again = token(store.act(acquire("app/lock", three))).expect("free");
    assert!(again > second, "tokens grow though the record was gone");
}

#[test]
fn a_leader_proclaims_and_nobody_else_does() {
    let mut store = store();
    let [one, two] = ["app"; 2].map(|segment| store.grant(segment));
    let campaign = |lease, value: &str| {
        seat(SeatKind::Election, "app/leader", lease, SeatAct::Acquire { value: value.into() })
    };
    let proclaim = |lease| {
        seat(SeatKind::Election, "app/leader", lease, SeatAct::Proclaim { value: "new".into() })
    };
    let held = token(store.act(campaign(one, "one"))).expect("elected");
    store.act(campaign(two, "two")).expect("waits");
    assert!(matches!(store.act(proclaim(two)), Err(Refusal::Conflict(_))));
    assert_eq!(token(store.act(proclaim(one))), Some(held), "the term goes on");
}

#[test]
fn a_watch_goes_on_where_it_was_and_says_when_it_cannot() {
    let bounds = KvBounds { window_max: 3, ..KvBounds::default() };
    let mut store = Store::new(bounds);
    let start = Revision::end_of(store.ledger.index());
    store.put("app/a", "1").expect("put");
    store.put("other/a", "1").expect("put");
    store.act(Act::Op(Op::Delete { key: "app/a".to_owned(), expect: None })).expect("deleted");
    let subject = Subject::Prefix("app/".to_owned());
    let all = |store: &Store, limit, after| {
        store.ledger.kv_changes(&watch(subject.clone(), after), limit)
    };
    let first = all(&store, 1, start).expect("kept");
    assert!(matches!(first.changes[0].what, What::Put(_)));
    store.ledger = store.restored();
    let second = all(&store, 10, first.seen).expect("kept");
    assert!(matches!(second.changes[0].what, What::Deleted { expired: false, .. }));
    assert_eq!((second.changes.len(), second.seen), (1, Revision::end_of(store.ledger.index())));
    let none = all(&store, 10, second.seen).expect("kept");
    assert_eq!(none, Changes { changes: Vec::new(), seen: second.seen });
    for value in ["1", "2", "3"] {
        store.put("app/b", value).expect("put");
    }
    assert!(matches!(all(&store, 10, first.seen), Err(Refusal::Compacted(_))));
    assert_eq!(all(&store, 10, second.seen).expect("all of it is there").changes.len(), 3);
}

#[test]
fn whatever_is_too_large_is_refused_by_name() {
    let bounds = KvBounds {
        keys_max: 2,
        bytes_max: 100,
        leases_max: 1,
        attached_max: 1,
        ..KvBounds::default()
    };
    let mut store = Store::new(bounds);
    store.put("app/a", "x").expect("put");
    let long = "x".repeat(KV_VALUE_BYTES_MAX + 1);
    assert!(matches!(store.put("app/a", &long), Err(Refusal::TooLarge { .. })));
    assert!(matches!(store.put("app/b", &long[..100]), Err(Refusal::Busy { .. })));
    store.put("app/b", "x").expect("put");
    assert!(matches!(store.put("app/c", "x"), Err(Refusal::Busy { .. })));
    assert!(matches!(store.put("/app", "x"), Err(Refusal::Invalid(_))));
    let lease = store.grant("app");
    let more = store.act(Act::Grant { segment: "app".to_owned(), ttl_ms: 1000 });
    assert!(matches!(more, Err(Refusal::Busy { .. })));
    store.act(put("app/a", "x", Some(lease), None)).expect("one");
    assert!(matches!(store.act(put("app/b", "x", Some(lease), None)), Err(Refusal::Busy { .. })));
    let short = store.act(Act::Grant { segment: "app".to_owned(), ttl_ms: 1 });
    assert!(matches!(short, Err(Refusal::Invalid(_))));
}

#[test]
fn an_answer_is_held_to_what_a_frame_carries() {
    let mut store = store();
    store.put("app/a", &"x".repeat(KV_VALUE_BYTES_MAX)).expect("put");
    let get = Act::Op(Op::Get { key: "app/a".to_owned() });
    let answer = store.request(None, vec![get; 20]);
    let whole = answer.iter().filter(|one| matches!(one, Ok(Done::Op(OpDone::Got(Some(_))))));
    assert_eq!(whole.count(), 15);
    assert!(matches!(answer[19], Err(Refusal::TooLarge { .. })));
}
