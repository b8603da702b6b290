//! The digest of a set of records, kept up to date by one addition or subtraction
//! a change: the sum, modulo 2^256, of the SHA-256 of each record (`AdHash` of
//! Bellare and Micciancio, Eurocrypt 1997).
//!
//! It is there to find replicas that diverged. It does not withstand somebody who
//! chooses records so that sums collide; nothing here relies on that.
//!
//! A record's bytes are written by [`Canonical`]: fixed-width big-endian numbers,
//! lengths before contents, a tag before every choice. The `canonical!` macro names
//! every field of a struct, so that a new field that is left out does not compile.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use quorate_types::view::Decision;
use quorate_types::{
    AgentId, AgentSpec, CapabilitySet, Digest, GroupId, Incarnation, Index, LoadReading, NodeId,
    Payload, PolicyEpoch, Retry, TaskId, TaskSpec, Time, Timeouts, Token, TraceId,
};

/// The hash of one record, as a 256-bit number, least significant word first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark([u64; 4]);

impl Mark {
    /// The hash of `record` among records of this `kind`.
    pub(crate) fn of<T: Canonical + ?Sized>(kind: &str, record: &T) -> Self {
        let Digest(bytes) = digest_of(kind, record);
        let (words, _rest) = bytes.as_chunks::<8>();
        let mut limbs = [0; 4];
        for (limb, word) in limbs.iter_mut().zip(words) {
            *limb = u64::from_le_bytes(*word);
        }
        Self(limbs)
    }
}

impl Mark {
    /// Its words, for a record that speaks of another by its hash.
    pub(crate) const fn words(&self) -> &[u64; 4] {
        &self.0
    }
}

/// The SHA-256 of a record's canonical bytes.
pub(crate) fn digest_of<T: Canonical + ?Sized>(kind: &str, record: &T) -> Digest {
    let mut canon = Canon(Sha256::new());
    kind.write(&mut canon);
    record.write(&mut canon);
    Digest(canon.0.finalize().into())
}

/// The digest of a set of marks, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetHash([u64; 4]);

impl SetHash {
    /// Puts a record in.
    pub(crate) fn add(&mut self, Mark(mark): Mark) {
        let mut carry = false;
        for (limb, word) in self.0.iter_mut().zip(mark) {
            let (sum, first) = limb.overflowing_add(word);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
    }

    /// Takes out a record that was put in.
    pub(crate) fn remove(&mut self, Mark(mark): Mark) {
        let mut borrow = false;
        for (limb, word) in self.0.iter_mut().zip(mark) {
            let (rest, first) = limb.overflowing_sub(word);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            *limb = rest;
            borrow = first || second;
        }
    }

    /// Puts in all of another set.
    pub(crate) fn join(&mut self, Self(other): Self) {
        self.add(Mark(other));
    }

    /// The sum, most significant byte first.
    pub(crate) fn digest(self) -> Digest {
        let mut bytes = [0; 32];
        for (place, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0.iter().rev()) {
            *place = limb.to_be_bytes();
        }
        Digest(bytes)
    }
}

/// Where canonical bytes go.
pub(crate) struct Canon(Sha256);

/// A value with one canonical form.
pub(crate) trait Canonical {
    /// Writes that form.
    fn write(&self, canon: &mut Canon);
}

macro_rules! canonical {
    ($name:ty { $($field:ident),+ $(,)? }) => {
        impl $crate::set_hash::Canonical for $name {
            fn write(&self, canon: &mut $crate::set_hash::Canon) {
                let Self { $($field),+ } = self;
                $($field.write(canon);)+
            }
        }
    };
}
pub(crate) use canonical;

macro_rules! big_endian {
    ($($number:ty),+) => {$(
        impl Canonical for $number {
            fn write(&self, canon: &mut Canon) {
                canon.0.update(self.to_be_bytes());
            }
        }
    )+};
}
big_endian!(u8, u16, u32, u64, u128);

macro_rules! wrapped {
    ($($name:ident),+) => {$(
        impl Canonical for $name {
            fn write(&self, canon: &mut Canon) {
                self.0.write(canon);
            }
        }
    )+};
}
wrapped!(AgentId, GroupId, Incarnation, Index, NodeId, PolicyEpoch, TaskId, Time, Token, TraceId);

fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Canonical for bool {
    fn write(&self, canon: &mut Canon) {
        u8::from(*self).write(canon);
    }
}

impl Canonical for [u8] {
    fn write(&self, canon: &mut Canon) {
        length(self.len()).write(canon);
        canon.0.update(self);
    }
}

impl Canonical for str {
    fn write(&self, canon: &mut Canon) {
        self.as_bytes().write(canon);
    }
}

impl Canonical for String {
    fn write(&self, canon: &mut Canon) {
        self.as_str().write(canon);
    }
}

impl Canonical for Bytes {
    fn write(&self, canon: &mut Canon) {
        self.as_ref().write(canon);
    }
}

impl Canonical for Digest {
    fn write(&self, canon: &mut Canon) {
        canon.0.update(self.0);
    }
}

impl<T: Canonical + ?Sized> Canonical for Arc<T> {
    fn write(&self, canon: &mut Canon) {
        self.as_ref().write(canon);
    }
}

impl<T: Canonical> Canonical for Option<T> {
    fn write(&self, canon: &mut Canon) {
        self.is_some().write(canon);
        if let Some(value) = self {
            value.write(canon);
        }
    }
}

impl<T: Canonical> Canonical for Vec<T> {
    fn write(&self, canon: &mut Canon) {
        length(self.len()).write(canon);
        self.iter().for_each(|item| item.write(canon));
    }
}

impl<K: Canonical, V: Canonical> Canonical for BTreeMap<K, V> {
    fn write(&self, canon: &mut Canon) {
        length(self.len()).write(canon);
        for (key, value) in self {
            key.write(canon);
            value.write(canon);
        }
    }
}

impl<A: Canonical, B: Canonical> Canonical for (A, B) {
    fn write(&self, canon: &mut Canon) {
        self.0.write(canon);
        self.1.write(canon);
    }
}

impl<A: Canonical, B: Canonical, C: Canonical> Canonical for (A, B, C) {
    fn write(&self, canon: &mut Canon) {
        self.0.write(canon);
        self.1.write(canon);
        self.2.write(canon);
    }
}

impl Canonical for CapabilitySet {
    fn write(&self, canon: &mut Canon) {
        length(self.names().len()).write(canon);
        self.names().iter().for_each(|name| name.write(canon));
    }
}

impl Canonical for Payload {
    fn write(&self, canon: &mut Canon) {
        match self {
            Self::Inline(bytes) => {
                0_u8.write(canon);
                bytes.write(canon);
            }
            Self::Blob { digest, size } => {
                1_u8.write(canon);
                digest.write(canon);
                size.write(canon);
            }
        }
    }
}

canonical!(Timeouts { queue_ms, start_ms, heartbeat_ms, run_ms });
canonical!(Retry { attempts_max, backoff_ms, backoff_max_ms, jitter_ppm });
canonical!(TaskSpec {
    namespace,
    queue,
    capabilities,
    content_type,
    input,
    priority,
    not_before,
    deadline,
    timeouts,
    retry,
    idempotency_key,
    labels,
    trace,
    retention_ms,
});
canonical!(AgentSpec { namespace, name, node, node_incarnation, capabilities, slots, hosted });
canonical!(LoadReading { in_flight, load, latency_us, success_ppm });
canonical!(Decision {
    agent,
    policy_epoch,
    policy,
    fallback,
    candidates,
    reading,
    token,
    at,
    ended,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_hash_forgets_order_and_what_was_taken_out() {
        let marks: Vec<Mark> = (0..64_u64).map(|n| Mark::of("n", &n)).collect();
        let (mut up, mut down) = (SetHash::default(), SetHash::default());
        marks.iter().for_each(|mark| up.add(*mark));
        marks.iter().rev().for_each(|mark| down.add(*mark));
        assert_eq!(up, down);
        assert_ne!(up, SetHash::default());
        marks.iter().for_each(|mark| up.remove(*mark));
        assert_eq!(up, SetHash::default(), "carries and borrows cancel");
    }

    #[test]
    fn equal_bytes_at_other_borders_are_another_record() {
        let split = |a: &str, b: &str| digest_of("pair", &(a.to_owned(), b.to_owned()));
        assert_ne!(split("ab", "c"), split("a", "bc"));
        assert_ne!(digest_of("a", &1_u64), digest_of("b", &1_u64), "kinds are apart");
    }
}
