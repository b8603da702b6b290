//! The words of the key-value store: keys, leases, seats (locks and named
//! elections), what can be done to them and what comes of it.
//!
//! A key is a `/`-separated path in a namespace; its first segment, with the
//! namespace, names the group that holds it. Whatever must be one act (a range, a
//! watch, a transaction, a lease and what hangs on it) stays within one first
//! segment, so that it stays within one group however many there are.
//!
//! A revision is a place in the history of a group. It grows with every change, and
//! is opaque to users.

pub mod act;
pub mod key;
pub mod read;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{BadId, Index};

pub use act::{
    Act, Compare, Done, Expect, KvAnswer, KvRequest, Nonce, Op, OpDone, SeatAct, SeatStand, Txn,
};
pub use key::{check_key, check_prefix, group_of, group_of_lease, segment};
pub use read::{
    Change, Changes, Holder, KvFound, KvRead, KvRecord, KvWatch, LeaseInfo, RangePage, SeatInfo,
    SeatPage, Subject, What,
};

/// A place in the history of a group: the index of an entry, and which of its changes. Shown and
/// parsed as 24 hexadecimal digits, which sort as revisions do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The entry.
    pub index: Index,
    /// The change within it; `u32::MAX` is after all of them.
    pub ordinal: u32,
}

impl Revision {
    /// After all that the entry at `index` changed.
    pub const fn end_of(index: Index) -> Self {
        Self { index, ordinal: u32::MAX }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:08x}", self.index.0, self.ordinal)
    }
}

impl FromStr for Revision {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let parts = (text.len() == 24).then(|| text.split_at_checked(16)).flatten();
        let read = |(index, ordinal)| {
            let index = Index(u64::from_str_radix(index, 16).ok()?);
            Some(Self { index, ordinal: u32::from_str_radix(ordinal, 16).ok()? })
        };
        parts.and_then(read).ok_or_else(|| BadId { kind: "Revision", text: text.to_owned() })
    }
}

/// A lease. The upper 16 bits name the shard that keeps it; shown as `l` and sixteen hexadecimal
/// digits, opaque to users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl LeaseId {
    const COUNT_BITS: u32 = 48;

    /// The lease with this number in this shard; the number must fit 48 bits.
    pub fn new(shard: u16, count: u64) -> Self {
        assert!(count < 1 << Self::COUNT_BITS, "a shard never numbers 2^48 leases");
        Self(u64::from(shard) << Self::COUNT_BITS | count)
    }

    /// The shard that keeps it.
    pub fn shard(self) -> u16 {
        u16::try_from(self.0 >> Self::COUNT_BITS).unwrap_or(u16::MAX)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l{:016x}", self.0)
    }
}

impl FromStr for LeaseId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        text.strip_prefix('l')
            .filter(|hex| hex.len() == 16)
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .map(Self)
            .ok_or_else(|| BadId { kind: "LeaseId", text: text.to_owned() })
    }
}

/// Who numbers its requests: 128 random bits that no other has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u128);

impl Serialize for ClientId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::ByteArray::new(self.0.to_be_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ClientId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteArray::<16>::deserialize(deserializer)?;
        Ok(Self(u128::from_be_bytes(bytes.into_array())))
    }
}

/// What a key holds. In JSON `{"text": …}` where it is text, `{"base64": …}` where it is not.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Value(pub Bytes);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} B)", self.0.len())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum ValueJson {
    Text(String),
    Base64(String),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        if !serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        match std::str::from_utf8(&self.0) {
            Ok(text) => ValueJson::Text(text.to_owned()),
            Err(_binary) => {
                ValueJson::Base64(base64::engine::general_purpose::STANDARD.encode(&self.0))
            }
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        use serde::de::Error as _;
        if !deserializer.is_human_readable() {
            return Bytes::deserialize(deserializer).map(Self);
        }
        match ValueJson::deserialize(deserializer)? {
            ValueJson::Text(text) => Ok(Self(text.into())),
            ValueJson::Base64(text) => base64::engine::general_purpose::STANDARD
                .decode(text)
                .map(|bytes| Self(bytes.into()))
                .map_err(D::Error::custom),
        }
    }
}

/// People read text and machines read numbers.
macro_rules! two_forms {
    ($name:ident, $compact:ty, $to:expr, $from:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    return serializer.collect_str(self);
                }
                let to: fn(&$name) -> $compact = $to;
                to(self).serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
                    return text.parse().map_err(serde::de::Error::custom);
                }
                let from: fn($compact) -> $name = $from;
                <$compact>::deserialize(deserializer).map(from)
            }
        }
    };
}
two_forms!(LeaseId, u64, |lease| lease.0, LeaseId);
two_forms!(Revision, (u64, u32), |revision| (revision.index.0, revision.ordinal), |(
    index,
    ordinal,
)| Revision {
    index: Index(index),
    ordinal
});

/// A lock, or a named election: a seat that one lease holds while others wait for it in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeatKind {
    /// A lock.
    Lock,
    /// A leadership with a value that its holder may change.
    Election,
}

impl fmt::Display for SeatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => "lock",
            Self::Election => "election",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    #[test]
    fn revisions_and_leases_survive_text_and_sort_as_text_does() {
        let early = Revision { index: Index(9), ordinal: u32::MAX };
        let late = Revision { index: Index(10), ordinal: 0 };
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(late.to_string().parse(), Ok(late));
        let lease = LeaseId::new(3, 77);
        assert_eq!((lease.to_string().parse(), lease.shard()), (Ok(lease), 3));
        for other in ["", "7", "l12", "00000000000000070000000g", "é00000000000000000000007"] {
            assert!(other.parse::<Revision>().is_err() && other.parse::<LeaseId>().is_err());
        }
    }

    #[test]
    fn a_value_survives_cbor_whole() {
        for bytes in [b"".as_slice(), b"text", &[0xff, 0x00]] {
            let value = Value(Bytes::copy_from_slice(bytes));
            assert_eq!(cbor::decode::<Value>(&cbor::encode(&value), 64).ok(), Some(value));
        }
    }

    #[test]
    fn what_tells_clients_apart_survives_cbor_and_a_value_is_not_printed() {
        let client = ClientId(u128::MAX - 7);
        assert_eq!(cbor::decode::<ClientId>(&cbor::encode(&client), 32).ok(), Some(client));
        let secret = Value::from("secret");
        assert_eq!((secret.0.as_ref(), &*format!("{secret:?}")), (&b"secret"[..], "Value(6 B)"));
        assert_eq!(
            [SeatKind::Lock, SeatKind::Election].map(|kind| kind.to_string()),
            ["lock", "election"]
        );
    }
}
