//! Acts on keys by number, as the store's own words.

use quorate_types::kv::{self, Compare, Expect, Op, Txn, Value};

use crate::checkers::keys::{Act, Ask, Is, KEYS};

/// Keys by their number.
pub(super) const NAMES: [&str; KEYS] = ["a", "b", "c"];

pub(super) fn path(segment: &str, key: usize) -> String {
    format!("{segment}/{}", NAMES[key])
}

pub(super) fn prefix(segment: &str) -> String {
    format!("{segment}/")
}

pub(super) fn wire_of(segment: &str, act: &Act) -> kv::Act {
    let ops = |asks: &[Ask]| asks.iter().map(|ask| op_of(segment, *ask)).collect();
    match act {
        Act::One(ask) => kv::Act::Op(op_of(segment, *ask)),
        Act::Txn { compare, then, otherwise } => {
            let compare = compare
                .iter()
                .map(|(key, is)| Compare { key: path(segment, *key), is: expect_of(*is) });
            let (then, otherwise) = (ops(then), ops(otherwise));
            kv::Act::Txn(Txn { compare: compare.collect(), then, otherwise })
        }
        Act::Range => unreachable!("a range is read, not logged"),
    }
}

fn op_of(segment: &str, ask: Ask) -> Op {
    match ask {
        Ask::Get(key) => Op::Get { key: path(segment, key) },
        Ask::Put(key, value, is) => Op::Put {
            key: path(segment, key),
            value: Value::from(value.to_string().as_str()),
            lease: None,
            expect: is.map(expect_of),
        },
        Ask::Delete(key, is) => Op::Delete { key: path(segment, key), expect: is.map(expect_of) },
        Ask::DeleteAll => Op::DeleteRange { prefix: prefix(segment) },
    }
}

fn expect_of(is: Is) -> Expect {
    match is {
        Is::Absent => Expect::Absent,
        Is::Present => Expect::Present,
        Is::Version(version) => Expect::Version(version),
        Is::Value(value) => Expect::Value(Value::from(value.to_string().as_str())),
    }
}
