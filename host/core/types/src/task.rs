//! A task as submitted, and the words for what becomes of it.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::agent::Wanted;
use crate::id::{Digest, TraceId};
use crate::time::Time;

/// The namespace of whoever names none.
pub const NAMESPACE_DEFAULT: &str = "default";

/// Content of a task or of its result: small inside the record, large by digest.
///
/// In JSON `{"text": …}`, `{"base64": …}` or `{"blob": sha256, "size": bytes}`.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// The bytes themselves, at most `INLINE_BYTES_MAX`.
    Inline(Bytes),
    /// A blob of the cluster, at most `BLOB_BYTES_MAX`.
    Blob {
        /// Its SHA-256.
        digest: Digest,
        /// Its length, bytes.
        size: u64,
    },
}

impl Default for Payload {
    fn default() -> Self {
        Self::Inline(Bytes::new())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} B)", bytes.len()),
            Self::Blob { digest, size } => write!(f, "Blob({}, {size} B)", digest.short()),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PayloadJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

#[derive(Serialize, Deserialize)]
enum PayloadCbor {
    #[serde(rename = "i")]
    Inline(Bytes),
    #[serde(rename = "b")]
    Blob(Digest, u64),
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        if !serializer.is_human_readable() {
            return match self {
                Self::Inline(bytes) => PayloadCbor::Inline(bytes.clone()),
                Self::Blob { digest, size } => PayloadCbor::Blob(*digest, *size),
            }
            .serialize(serializer);
        }
        let mut json = PayloadJson { text: None, base64: None, blob: None, size: None };
        match self {
            Self::Inline(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => json.text = Some(text.to_owned()),
                Err(_binary) => {
                    json.base64 = Some(base64::engine::general_purpose::STANDARD.encode(bytes));
                }
            },
            Self::Blob { digest, size } => {
                json.blob = Some(*digest);
                json.size = Some(*size);
            }
        }
        json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        use serde::de::Error as _;
        if !deserializer.is_human_readable() {
            return Ok(match PayloadCbor::deserialize(deserializer)? {
                PayloadCbor::Inline(bytes) => Self::Inline(bytes),
                PayloadCbor::Blob(digest, size) => Self::Blob { digest, size },
            });
        }
        match PayloadJson::deserialize(deserializer)? {
            PayloadJson { text: Some(text), base64: None, blob: None, size: None } => {
                Ok(Self::Inline(text.into()))
            }
            PayloadJson { text: None, base64: Some(text), blob: None, size: None } => {
                base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .map(|bytes| Self::Inline(bytes.into()))
                    .map_err(D::Error::custom)
            }
            PayloadJson { text: None, base64: None, blob: Some(digest), size: Some(size) } => {
                Ok(Self::Blob { digest, size })
            }
            _other => {
                Err(D::Error::custom("give exactly one of `text`, `base64`, or `blob` with `size`"))
            }
        }
    }
}

/// The four timeouts of a task, milliseconds; absent means the queue's default (section 8 of the design).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Submitted to first leased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<u64>,
    /// Leased to started by its agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<u64>,
    /// Between two signs of life of a lease: the lease's term.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
    /// Started to finished, one attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_ms: Option<u64>,
}

/// What follows a failed attempt: exponential back-off with jitter, then the dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Failed attempts after which the task is a dead letter. Attempts lost to a dead node do not count.
    pub attempts_max: u32,
    /// Wait after the first failure, milliseconds; doubles with each.
    pub backoff_ms: u64,
    /// Longest wait, milliseconds.
    pub backoff_max_ms: u64,
    /// Share of the wait drawn at random, parts in a million.
    pub jitter_ppm: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts_max: 3, backoff_ms: 200, backoff_max_ms: 30_000, jitter_ppm: 100_000 }
    }
}

/// A task as its owner describes it (task record v1, section 8 of the design).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskSpec {
    /// Whose it is; the scope of its idempotency key.
    pub namespace: String,
    /// The queue it waits in.
    pub queue: String,
    /// All of these its agent must have.
    pub capabilities: Vec<String>,
    /// Media type of the input.
    pub content_type: String,
    /// What to work on.
    pub input: Payload,
    /// 0–9; higher goes first.
    pub priority: u8,
    /// Not leased before this ledger time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// A dead letter if unfinished at this ledger time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Its timeouts.
    pub timeouts: Timeouts,
    /// What follows a failure.
    pub retry: Retry,
    /// The same key with the same body is the same task; with another body a conflict.
    /// Kept as long as the task's record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Free labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The trace it belongs to.
    pub trace: TraceId,
    /// How long its finished record is kept, milliseconds.
    pub retention_ms: u64,
}

impl TaskSpec {
    /// What the task asks of its agent.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            namespace: self.namespace.clone(),
            capabilities: self.capabilities.iter().cloned().collect(),
        }
    }
}

/// Finished records are kept this long unless the task says otherwise: 24 h.
pub const RETENTION_MS_DEFAULT: u64 = 24 * 3600 * 1000;

impl Default for TaskSpec {
    fn default() -> Self {
        Self {
            namespace: NAMESPACE_DEFAULT.to_owned(),
            queue: "default".to_owned(),
            capabilities: Vec::new(),
            content_type: "application/octet-stream".to_owned(),
            input: Payload::default(),
            priority: 5,
            not_before: None,
            deadline: None,
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            idempotency_key: None,
            labels: BTreeMap::new(),
            trace: TraceId::default(),
            retention_ms: RETENTION_MS_DEFAULT,
        }
    }
}

/// A task on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// What its owner asked for.
    pub spec: TaskSpec,
    /// Where the owner gave no idempotency key, the accepting node's own, so that the node may
    /// propose again after a lost leader without submitting twice: (node, incarnation, count).
    pub nonce: (u64, u64, u64),
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// Waits for an agent.
    Queued,
    /// An agent holds its lease.
    Leased,
    /// Failed and waits for its next attempt.
    Retrying,
    /// Done; its result is kept until its retention ends.
    Completed,
    /// Out of attempts, or past its deadline.
    DeadLetter,
    /// Cancelled by its owner.
    Cancelled,
}

impl TaskState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Leased,
        Self::Retrying,
        Self::Completed,
        Self::DeadLetter,
        Self::Cancelled,
    ];

    /// Whether nothing more will happen to the task.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Leased | Self::Retrying => false,
            Self::Completed | Self::DeadLetter | Self::Cancelled => true,
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Retrying => "retrying",
            Self::Completed => "completed",
            Self::DeadLetter => "dead-letter",
            Self::Cancelled => "cancelled",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    #[test]
    fn a_spec_survives_cbor() {
        let spec = TaskSpec {
            input: Payload::Blob { digest: Digest::of(b"x"), size: 1 },
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            ..TaskSpec::default()
        };
        let bytes = cbor::encode(&spec);
        assert_eq!(cbor::decode::<TaskSpec>(&bytes, 4096).ok(), Some(spec));
    }

    #[test]
    fn a_task_asks_for_its_capabilities_and_is_not_printed_whole() {
        let spec = TaskSpec {
            namespace: "a".to_owned(),
            capabilities: vec!["b".to_owned(), "a".to_owned()],
            ..TaskSpec::default()
        };
        assert_eq!(spec.wanted().to_string(), "[a, b] in namespace `a`");
        let input = Payload::Inline(Bytes::from_static(b"secret"));
        let blob = Payload::Blob { digest: Digest::of(b"abc"), size: 3 };
        assert_eq!(format!("{input:?} {blob:?}"), "Inline(6 B) Blob(ba7816bf8f01, 3 B)");
    }

    #[test]
    fn states_are_told_as_they_are_filtered_by() {
        let told = TaskState::ALL.map(|state| state.to_string());
        let words = ["queued", "leased", "retrying", "completed", "dead-letter", "cancelled"];
        assert_eq!(told, words);
        let last = TaskState::ALL.map(TaskState::is_final);
        assert_eq!(last, [false, false, false, true, true, true]);
    }
}
