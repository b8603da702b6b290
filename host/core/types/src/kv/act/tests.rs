//! What is refused before it is sent, and where the rest goes.

use super::*;

fn text(bytes: usize) -> Value {
    Value(vec![b'v'; bytes].into())
}

fn get(key: &str) -> Op {
    Op::Get { key: key.to_owned() }
}

fn put(key: &str, value: Value) -> Op {
    Op::Put { key: key.to_owned(), value, lease: None, expect: None }
}

fn present(key: &str) -> Compare {
    Compare { key: key.to_owned(), is: Expect::Present }
}

fn seat(name: &str, act: SeatAct) -> Act {
    let (kind, lease) = (SeatKind::Lock, LeaseId::new(2, 1));
    Act::Seat { kind, name: name.to_owned(), lease, act }
}

fn grant(segment: &str, ttl_ms: u64) -> Act {
    Act::Grant { segment: segment.to_owned(), ttl_ms }
}

fn is_invalid(act: &Act) -> bool {
    matches!(act.check(), Err(Refusal::Invalid(_)))
}

#[test]
fn a_value_may_be_as_large_as_the_limit_and_no_larger() {
    let larger = KV_VALUE_BYTES_MAX + 1;
    let acts = |bytes| {
        [
            Act::Op(put("a", text(bytes))),
            seat("a", SeatAct::Acquire { value: text(bytes) }),
            seat("a", SeatAct::Proclaim { value: text(bytes) }),
            Act::Txn(Txn { then: vec![put("a", text(bytes))], ..Txn::default() }),
        ]
    };
    for act in acts(KV_VALUE_BYTES_MAX) {
        assert_eq!(act.check(), Ok(()), "{act:?}");
    }
    for act in acts(larger) {
        let told = act.check();
        let (got, limit) = (65_537, 65_536);
        assert_eq!(told, Err(Refusal::TooLarge { what: "the value".to_owned(), got, limit }));
    }
}

#[test]
fn every_act_names_a_key_or_a_prefix_of_one_segment() {
    let delete = |key: &str| Op::Delete { key: key.to_owned(), expect: None };
    let range = |prefix: &str| Op::DeleteRange { prefix: prefix.to_owned() };
    for op in [get("a/b"), put("a/b", text(0)), delete("a/b"), range("a/b")] {
        assert_eq!((op.path(), Act::Op(op.clone()).check()), ("a/b", Ok(())));
    }
    for op in [get("a/"), put("a/", text(0)), delete("a/"), range("/")] {
        assert!(is_invalid(&Act::Op(op.clone())), "{op:?}");
    }
    assert!(matches!(Act::Op(range("a")).check(), Err(Refusal::Across(_))));
    assert!(is_invalid(&seat("a//b", SeatAct::Release)));
    assert_eq!(seat("a/b", SeatAct::Release).check(), Ok(()));
    assert_eq!(Act::Revoke(LeaseId::new(0, 1)).check(), Ok(()));
}

#[test]
fn a_lease_is_for_one_first_segment_and_a_time_between_the_limits() {
    for ttl_ms in [LEASE_MS_MIN, LEASE_MS_MAX] {
        assert_eq!(grant("app", ttl_ms).check(), Ok(()));
    }
    for ttl_ms in [LEASE_MS_MIN - 1, LEASE_MS_MAX + 1] {
        assert!(is_invalid(&grant("app", ttl_ms)), "{ttl_ms}");
    }
    assert!(is_invalid(&grant("", LEASE_MS_MIN)));
    assert!(matches!(grant("app/a", LEASE_MS_MIN).check(), Err(Refusal::Across(_))));
}

#[test]
fn a_transaction_has_a_bounded_number_of_parts_in_one_segment() {
    // The limit counts the conditions and both lists together.
    let txn = |conditions, then, otherwise| {
        Act::Txn(Txn {
            compare: vec![present("a/x"); conditions],
            then: vec![get("a/y"); then],
            otherwise: vec![get("a"); otherwise],
        })
    };
    for parts in
        [(KV_OPS_MAX, 0, 0), (0, KV_OPS_MAX, 0), (0, 0, KV_OPS_MAX), (1, 2, 125), (0, 0, 0)]
    {
        assert_eq!(txn(parts.0, parts.1, parts.2).check(), Ok(()), "{parts:?}");
    }
    for parts in [(KV_OPS_MAX + 1, 0, 0), (1, KV_OPS_MAX, 0), (1, 0, KV_OPS_MAX), (100, 28, 1)] {
        assert!(is_invalid(&txn(parts.0, parts.1, parts.2)), "{parts:?}");
    }
    let across = [
        Txn { compare: vec![present("a"), present("b/x")], ..Txn::default() },
        Txn { compare: vec![present("a")], then: vec![get("b")], ..Txn::default() },
        Txn { then: vec![get("a/x")], otherwise: vec![get("ax/x")], ..Txn::default() },
    ];
    for txn in across {
        assert!(matches!(Act::Txn(txn.clone()).check(), Err(Refusal::Across(_))), "{txn:?}");
    }
    let wrong = Txn { compare: vec![present("a//b")], ..Txn::default() };
    assert!(is_invalid(&Act::Txn(wrong)), "a condition is on a key");
}

#[test]
fn a_request_has_a_namespace_and_a_bounded_number_of_acts() {
    let request = |namespace: &str, count| KvRequest {
        namespace: namespace.to_owned(),
        nonce: None,
        acts: vec![Act::Op(get("a")); count],
    };
    for count in [1, KV_ACTS_MAX] {
        assert_eq!(request("n", count).check(), Ok(()), "{count}");
    }
    for wrong in [request("n", 0), request("n", KV_ACTS_MAX + 1), request("", 1)] {
        assert!(matches!(wrong.check(), Err(Refusal::Invalid(_))), "{wrong:?}");
    }
}

#[test]
fn acts_go_to_the_group_of_their_first_segment() {
    let three = Layout::new(3).expect("a number of shards");
    let mut homes = Vec::new();
    for first in ["a", "b", "c", "d"] {
        let home = group_of(three, "n", first);
        let path = format!("{first}/x");
        let txn = Txn { then: vec![get(&path)], ..Txn::default() };
        let compared = Txn { compare: vec![present(&path)], ..Txn::default() };
        let acts = vec![
            Act::Op(get(&path)),
            Act::Txn(txn),
            Act::Txn(compared),
            grant(first, LEASE_MS_MIN),
            seat(&path, SeatAct::Release),
        ];
        let request = KvRequest { namespace: "n".to_owned(), nonce: None, acts };
        assert!(request.groups(three).all(|group| group == home), "{first}");
        assert_eq!(request.group(three), Some(home));
        homes.push((home, request));
    }
    let revoke = Act::Revoke(LeaseId::new(3, 1));
    assert_eq!(revoke.group(three, "n"), GroupId(3), "a lease's id names its group");
    let (home, mut mixed) = homes.pop().expect("some");
    let (_, other) = homes.into_iter().find(|(other, _)| *other != home).expect("they spread");
    mixed.acts.extend(other.acts);
    assert_eq!(mixed.group(three), None, "not all of it belongs to one");
}
