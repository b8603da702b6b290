//! Records: their keys, versions and limits, and the bodies this program knows.
//!
//! To gossip a record is a key and some bytes, so that a key of a newer program is
//! kept and forwarded. Bodies are CBOR arrays that begin with a version.

use minicbor::{Decode, Encode};
use quorate_types::{AgentId, Incarnation, LoadReading, NodeId};

/// Incarnations lie below this, so that the owner can always jump above a forged one.
pub(crate) const INCARNATION_MAX: Incarnation = Incarnation(1 << 62);

/// The body of one record, bytes. A presence with two long names is a quarter of it.
pub const VALUE_BYTES_MAX: usize = 1024;

/// Keys of one owner, deleted ones included: some thousand agents, an accusation of every
/// member, and as much again for what was deleted in this incarnation.
pub const KEYS_MAX: usize = 8192;

/// Bodies of one owner together, bytes: all keys at the size of a reading, four times over.
pub(crate) const OWNER_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(KEYS_MAX > 2 * crate::config::MEMBERS_MAX);
const _: () = assert!(OWNER_BYTES_MAX / KEYS_MAX >= 4 * 32);

const VERSION: u16 = 1;

/// Kinds of keys. A number is never given again.
mod kind {
    pub(super) const PRESENCE: u16 = 1;
    pub(super) const READING: u16 = 2;
    pub(super) const VERDICT: u16 = 3;
    pub(super) const EXTENSION: u16 = 4;
}

/// Where an owner stands. A newer life exceeds every counter of an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) incarnation: Incarnation,
    pub(crate) counter: u64,
}

/// What a record is about, among those of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: u16,
    pub(crate) id: u64,
}

/// A key that this program understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Presence,
    Reading(AgentId),
    Verdict(NodeId),
    /// Extensions, and kinds of newer programs: nothing to interpret.
    Opaque,
}

impl Key {
    pub(crate) const MIN: Self = Self { kind: 0, id: 0 };
    pub(crate) const PRESENCE: Self = Self { kind: kind::PRESENCE, id: 0 };

    pub(crate) const fn reading(agent: AgentId) -> Self {
        Self { kind: kind::READING, id: agent.0 }
    }

    pub(crate) const fn verdict(accused: NodeId) -> Self {
        Self { kind: kind::VERDICT, id: accused.0 }
    }

    pub(crate) const fn extension(id: u64) -> Self {
        Self { kind: kind::EXTENSION, id }
    }

    pub(crate) fn subject(self) -> Subject {
        match self.kind {
            kind::PRESENCE => Subject::Presence,
            kind::READING => Subject::Reading(AgentId(self.id)),
            kind::VERDICT => Subject::Verdict(NodeId(self.id)),
            _newer => Subject::Opaque,
        }
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Its name in the cluster file.
    pub name: String,
    /// Where its HTTP door is, if it has one.
    pub api: Option<String>,
    /// Whether it takes new work.
    pub standing: Standing,
}

/// Whether a node takes new work, by its own word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    #[default]
    Serving,
    /// It is about to leave.
    Leaving,
}

/// Why a record was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Its body is too large.
    #[error("a record of {bytes} bytes is larger than the limit of {VALUE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// This node has as many records as one may.
    #[error("this node has {KEYS_MAX} records, as many as one may have")]
    TooManyKeys,
    /// This node's records are as large together as one node's may be.
    #[error("this node's records would exceed {OWNER_BYTES_MAX} bytes")]
    TooManyBytes,
}

#[derive(Encode, Decode)]
struct PresenceBody<'b> {
    #[n(0)]
    version: u16,
    #[b(1)]
    name: &'b str,
    #[b(2)]
    api: Option<&'b str>,
    #[n(3)]
    leaving: bool,
}

#[derive(Encode, Decode)]
struct ReadingBody {
    #[n(0)]
    version: u16,
    #[n(1)]
    in_flight: u32,
    #[n(2)]
    load: u32,
    #[n(3)]
    latency_us: u64,
    #[n(4)]
    success_ppm: u32,
}

#[derive(Encode, Decode)]
struct VerdictBody {
    #[n(0)]
    version: u16,
    #[n(1)]
    incarnation: u64,
    #[n(2)]
    counter: u64,
    #[n(3)]
    down: bool,
}

fn encode<T: Encode<()>>(body: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    match minicbor::encode(body, &mut bytes) {
        Ok(()) => bytes,
        Err(error) => unreachable!("a vector takes every byte: {error}"),
    }
}

pub(crate) fn encode_presence(presence: &Presence) -> Vec<u8> {
    let leaving = match presence.standing {
        Standing::Serving => false,
        Standing::Leaving => true,
    };
    encode(&PresenceBody {
        version: VERSION,
        name: &presence.name,
        api: presence.api.as_deref(),
        leaving,
    })
}

/// None where a newer program wrote what this one cannot read.
pub(crate) fn decode_presence(bytes: &[u8]) -> Option<Presence> {
    let body: PresenceBody<'_> = minicbor::decode(bytes).ok()?;
    (body.version == VERSION).then(|| Presence {
        name: body.name.to_owned(),
        api: body.api.map(str::to_owned),
        standing: if body.leaving { Standing::Leaving } else { Standing::Serving },
    })
}

pub(crate) fn encode_reading(reading: LoadReading) -> Vec<u8> {
    let LoadReading { in_flight, load, latency_us, success_ppm } = reading;
    encode(&ReadingBody { version: VERSION, in_flight, load, latency_us, success_ppm })
}

pub(crate) fn decode_reading(bytes: &[u8]) -> Option<LoadReading> {
    let body: ReadingBody = minicbor::decode(bytes).ok()?;
    let ReadingBody { version, in_flight, load, latency_us, success_ppm } = body;
    (version == VERSION).then_some(LoadReading { in_flight, load, latency_us, success_ppm })
}

/// An accusation: the accused stood at `accused` and does not answer, or (`down`) is given up.
pub(crate) fn encode_verdict(accused: Version, down: bool) -> Vec<u8> {
    let Version { incarnation, counter } = accused;
    encode(&VerdictBody { version: VERSION, incarnation: incarnation.0, counter, down })
}

pub(crate) fn decode_verdict(bytes: &[u8]) -> Option<Version> {
    let body: VerdictBody = minicbor::decode(bytes).ok()?;
    (body.version == VERSION)
        .then_some(Version { incarnation: Incarnation(body.incarnation), counter: body.counter })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_survive_the_wire_and_stay_small() {
        let presence = Presence {
            name: "alpha".to_owned(),
            api: Some("http://127.0.0.1:7801".to_owned()),
            standing: Standing::Leaving,
        };
        assert_eq!(decode_presence(&encode_presence(&presence)), Some(presence));
        let reading =
            LoadReading { in_flight: 3, load: 7, latency_us: 12_345, success_ppm: 999_000 };
        let bytes = encode_reading(reading);
        assert!(bytes.len() <= 32, "a reading is {} bytes", bytes.len());
        assert_eq!(decode_reading(&bytes), Some(reading));
        let version = Version { incarnation: Incarnation(9), counter: 4 };
        assert_eq!(decode_verdict(&encode_verdict(version, true)), Some(version));
    }

    #[test]
    fn a_body_of_a_newer_version_is_not_guessed_at() {
        let mut bytes = encode_reading(LoadReading::default());
        assert_eq!(bytes[1], 1, "the version stands first");
        bytes[1] = 2;
        assert_eq!(decode_reading(&bytes), None);
        assert_eq!(decode_presence(b"\xff"), None);
        assert_eq!(Key { kind: 77, id: 1 }.subject(), Subject::Opaque);
    }
}
