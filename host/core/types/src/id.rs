//! Identifiers. A number is given once and never used again; a digest names
//! content by its SHA-256 (FIPS 180-4).

use std::fmt;
use std::str::FromStr;
use std::task::Poll;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                text.strip_prefix($prefix)
                    .unwrap_or(text)
                    .parse()
                    .map($name)
                    .map_err(|_source| BadId { kind: stringify!($name), text: text.to_owned() })
            }
        }
    };
}

/// A text that is not an identifier of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {} {kind}", article(kind))]
pub struct BadId {
    /// The type that was wanted.
    pub kind: &'static str,
    /// What was given.
    pub text: String,
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}

number!(
    /// A node: one process with one data directory. Given at admission, never reused.
    NodeId, u64, "n"
);
number!(
    /// A Raft group. Group 0 is the system group; shards follow.
    GroupId, u32, "g"
);
number!(
    /// An agent of record, as the system machine numbered it.
    AgentId, u64, "a"
);
number!(
    /// One life of a node or an agent; a newer one fences every older one.
    Incarnation, u64, "i"
);
number!(
    /// One activation of a policy in its slot; grows by one with each.
    PolicyEpoch, u64, "e"
);
number!(
    /// A position in a Raft log. The first entry has index 1; 0 means none.
    Index, u64, ""
);
number!(
    /// A Raft term.
    Term, u64, ""
);
number!(
    /// A fencing token: grows with every lease of a shard, so an old holder is recognised.
    Token, u64, ""
);
number!(
    /// One routed call, unique within the node that accepted it and its incarnation.
    CallId, u64, "c"
);

impl GroupId {
    /// Members, agents of record, slots and keys live here.
    pub const SYSTEM: Self = Self(0);
}

/// A task. The upper 16 bits name the shard that owns it, the lower 48 count within it.
///
/// Shown and parsed as `t` and sixteen hexadecimal digits; opaque to users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

impl TaskId {
    const SEQUENCE_BITS: u32 = 48;

    /// The task with this sequence number in this shard; the sequence must fit 48 bits.
    pub fn new(shard: u16, sequence: u64) -> Self {
        assert!(sequence < 1 << Self::SEQUENCE_BITS, "a shard never numbers 2^48 tasks");
        Self(u64::from(shard) << Self::SEQUENCE_BITS | sequence)
    }

    /// The shard that owns the task.
    pub fn shard(self) -> u16 {
        u16::try_from(self.0 >> Self::SEQUENCE_BITS).unwrap_or(u16::MAX)
    }

    /// The task's number within its shard.
    pub fn sequence(self) -> u64 {
        self.0 & ((1 << Self::SEQUENCE_BITS) - 1)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{:016x}", self.0)
    }
}

impl FromStr for TaskId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        text.strip_prefix('t')
            .filter(|hex| hex.len() == 16)
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .map(Self)
            .ok_or_else(|| BadId { kind: "TaskId", text: text.to_owned() })
    }
}

/// A trace: one id from the door through log, routing and component (W3C trace-context, 16 bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for TraceId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        (text.len() == 32)
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| BadId { kind: "TraceId", text: text.to_owned() })
    }
}

/// The SHA-256 of some content, 32 bytes; shown as 64 hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Read between two turns: half a millisecond.
const TURN_BYTES: usize = 1 << 20;

/// Lets the executor's other tasks run once.
async fn others_first() {
    let mut waited = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// The same, with the other tasks of the thread in between: a large blob takes tens of
    /// milliseconds, which heartbeats must not wait for.
    pub async fn in_turns(content: &[u8]) -> Self {
        let mut hash = Sha256::new();
        for (at, turn) in content.chunks(TURN_BYTES).enumerate() {
            if at > 0 {
                others_first().await;
            }
            hash.update(turn);
        }
        Self(hash.finalize().into())
    }

    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { kind: "Digest", text: text.to_owned() };
        if text.len() != 64 || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_source| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_source| bad())?;
        }
        Ok(Self(bytes))
    }
}

/// People read text and machines read bytes: each of these is a string in JSON
/// and compact in CBOR.
macro_rules! two_forms {
    ($name:ident, $compact:ty, $to:expr, $from:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    let to: fn(&$name) -> $compact = $to;
                    to(self).serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    let from: fn($compact) -> $name = $from;
                    <$compact>::deserialize(deserializer).map(from)
                }
            }
        }
    };
}

two_forms!(TaskId, u64, |id| id.0, TaskId);
two_forms!(
    TraceId,
    serde_bytes::ByteArray<16>,
    |id| serde_bytes::ByteArray::new(id.0.to_be_bytes()),
    |bytes| TraceId(u128::from_be_bytes(bytes.into_array()))
);
two_forms!(
    Digest,
    serde_bytes::ByteArray<32>,
    |digest| serde_bytes::ByteArray::new(digest.0),
    |bytes| Digest(bytes.into_array())
);

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_digest_taken_in_turns_is_the_same_and_lets_others_run() {
        let content = vec![7; 3 * TURN_BYTES + 1];
        let mut taking = pin!(Digest::in_turns(&content));
        let mut context = Context::from_waker(Waker::noop());
        let mut turns = 1;
        let digest = loop {
            match taking.as_mut().poll(&mut context) {
                Poll::Ready(digest) => break digest,
                Poll::Pending => turns += 1,
            }
        };
        assert_eq!((digest, turns), (Digest::of(&content), 4));
    }

    #[test]
    fn a_task_id_names_its_shard_and_survives_text() {
        let id = TaskId::new(7, 0x1234_5678_9abc);
        assert_eq!((id.shard(), id.sequence()), (7, 0x1234_5678_9abc));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("t12".parse::<TaskId>().is_err(), "too short");
    }

    #[test]
    fn a_text_that_is_no_id_is_told_what_it_is_not() {
        let told = "x".parse::<AgentId>().expect_err("no number").to_string();
        assert_eq!(told, "`x` is not an AgentId");
        let told = "x".parse::<TaskId>().expect_err("no number").to_string();
        assert_eq!(told, "`x` is not a TaskId");
    }

    #[test]
    fn a_digest_survives_text_and_refuses_other_text() {
        let digest = Digest::of(b"abc");
        assert!(digest.to_string().starts_with("ba7816bf"), "FIPS 180-4 test vector");
        assert_eq!(digest.short(), "ba7816bf8f01");
        assert_eq!(format!("{digest:?}"), "Digest(ba7816bf8f01)");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("ba78".parse::<Digest>().is_err(), "too short");
        assert!("é".repeat(32).parse::<Digest>().is_err(), "not hexadecimal");
    }
}
