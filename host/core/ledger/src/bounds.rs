//! How much the ledger holds, and what it refuses to hold.
//!
//! Bounds are part of the replicated rules: a node with other ones would diverge,
//! so they are constants of the program and change only with a feature level.

use quorate_types::limits::{BLOB_BYTES_MAX, INLINE_BYTES_MAX, REASON_BYTES_MAX};
use quorate_types::text::clipped;
use quorate_types::{AgentSpec, Payload, Refusal, TaskSpec};

/// The feature level of a new cluster: every command kind that `entry` numbers.
pub(crate) const FEATURE_LEVEL_FIRST: u32 = 1;

/// The highest feature level of this program.
pub const FEATURE_LEVEL_KNOWN: u32 = 1;

/// Slots that can hold a policy.
pub(crate) const SLOTS_MAX: usize = 64;

/// Adoptions in one entry: below 1 KiB each, half of what a command may have.
pub(crate) const ADOPTIONS_MAX: usize = 1024;

/// Attempts lost with their agents after which a task is held to be what kills them. A rolling
/// restart of a large cluster costs a long task an attempt a node, so it is not small.
pub(crate) const LOST_MAX: u32 = 20;

/// Routing decisions kept with a task, as `Why` promises.
pub(crate) const DECISIONS_MAX: usize = 16;

/// Policy epochs whose assignments are counted; the oldest go first.
pub(crate) const EPOCHS_MAX: usize = 64;

/// Records that one `Sweep` ends or forgets: 1,024 of a few microseconds each do not delay the
/// entries behind it noticeably.
pub(crate) const SWEEP_MAX: usize = 1024;

/// What a refused submitter should wait, milliseconds: time for some hundreds of completions.
pub(crate) const BUSY_RETRY_MS: u64 = 500;

const NAME_BYTES_MAX: usize = 128;
const CAPABILITIES_MAX: usize = 64;
const LABELS_MAX: usize = 32;
const TEXT_BYTES_MAX: usize = 256;
const SLOTS_PER_AGENT_MAX: u32 = 10_000;
const ATTEMPTS_MAX: u32 = 1000;
const RETENTION_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// A reason or an error as kept; the rest is cut.
const CONFIG_BYTES_MAX: usize = 64 << 10;

/// How many records are held. The same everywhere outside tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Agents of record, retired ones included. Beyond it the longest retired is forgotten; with as
    /// many alive, registration is refused. 64 Ki records of below 1 KiB stay below 64 MiB.
    pub(crate) agents_max: usize,
    /// Unfinished tasks; more are refused as busy. At 10,000 completions a second ten seconds' worth.
    pub(crate) open_max: usize,
    /// Inline content of unfinished tasks, bytes: 100,000 tasks of 2.5 KiB, or 4,096 of the largest.
    pub(crate) open_bytes_max: u64,
    /// Finished records kept before their retention ends.
    pub(crate) finished_max: usize,
    /// Inline content of finished records, bytes.
    pub(crate) finished_bytes_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            agents_max: 1 << 16,
            open_max: 100_000,
            open_bytes_max: 256 << 20,
            finished_max: 1_000_000,
            finished_bytes_max: 256 << 20,
        }
    }
}

/// Whether a text about a member may stand in the list.
pub(crate) fn check_member_text(what: &str, value: &str) -> Result<(), Refusal> {
    name(what, value)
}

/// Whether the ledger takes a task of this description.
///
/// # Errors
/// `Invalid` or `TooLarge`, naming the field.
pub fn check_task(spec: &TaskSpec) -> Result<(), Refusal> {
    name("namespace", &spec.namespace)?;
    name("queue", &spec.queue)?;
    text("content_type", &spec.content_type)?;
    capabilities(&spec.capabilities)?;
    check_payload("input", &spec.input)?;
    spec.idempotency_key.as_deref().map_or(Ok(()), |key| text("idempotency_key", key))?;
    if spec.priority > 9 {
        return invalid(format!("priority is {}; it goes from 0 to 9", spec.priority));
    }
    if spec.labels.len() > LABELS_MAX {
        return invalid(format!("{} labels; at most {LABELS_MAX} are kept", spec.labels.len()));
    }
    for (label, value) in &spec.labels {
        name("a label", label)?;
        (value.len() <= TEXT_BYTES_MAX)
            .then_some(())
            .ok_or_else(|| long(&format!("label `{label}`"), value.len(), TEXT_BYTES_MAX))?;
    }
    if !(1..=ATTEMPTS_MAX).contains(&spec.retry.attempts_max) {
        return invalid(format!("retry.attempts_max goes from 1 to {ATTEMPTS_MAX}"));
    }
    if spec.retry.jitter_ppm > 1_000_000 {
        return invalid("retry.jitter_ppm goes from 0 to 1000000".to_owned());
    }
    if spec.retention_ms > RETENTION_MS_MAX {
        return invalid(format!("retention_ms is at most {RETENTION_MS_MAX}, thirty days"));
    }
    Ok(())
}

/// Whether the ledger takes an agent of this description.
///
/// # Errors
/// `Invalid` or `TooLarge`, naming the field.
pub fn check_agent(spec: &AgentSpec) -> Result<(), Refusal> {
    name("namespace", &spec.namespace)?;
    name("name", &spec.name)?;
    capabilities(spec.capabilities.names())?;
    if !(1..=SLOTS_PER_AGENT_MAX).contains(&spec.slots) {
        return invalid(format!("slots goes from 1 to {SLOTS_PER_AGENT_MAX}"));
    }
    Ok(())
}

/// Whether the ledger takes this content inline, or this blob.
///
/// # Errors
/// `TooLarge`, naming `what`.
pub fn check_payload(what: &str, payload: &Payload) -> Result<(), Refusal> {
    match payload {
        Payload::Inline(bytes) if bytes.len() > INLINE_BYTES_MAX => {
            Err(long(&format!("{what} (inline)"), bytes.len(), INLINE_BYTES_MAX))
        }
        Payload::Blob { size, .. } if *size > BLOB_BYTES_MAX => Err(Refusal::TooLarge {
            what: format!("{what} (blob)"),
            got: *size,
            limit: BLOB_BYTES_MAX,
        }),
        Payload::Inline(_) | Payload::Blob { .. } => Ok(()),
    }
}

/// Whether a slot takes a policy of these words.
pub(crate) fn check_policy(policy: &crate::command::Activate) -> Result<(), Refusal> {
    name("slot", &policy.slot)?;
    name("name", &policy.name)?;
    text("world", &policy.world)?;
    if policy.config.len() > CONFIG_BYTES_MAX {
        return Err(long("config", policy.config.len(), CONFIG_BYTES_MAX));
    }
    Ok(())
}

/// A reason no longer than is kept.
pub(crate) fn clip(reason: String) -> String {
    clipped(reason, REASON_BYTES_MAX)
}

fn capabilities(names: &[String]) -> Result<(), Refusal> {
    if names.len() > CAPABILITIES_MAX {
        return invalid(format!("{} capabilities; at most {CAPABILITIES_MAX}", names.len()));
    }
    names.iter().try_for_each(|capability| name("a capability", capability))
}

fn name(what: &str, value: &str) -> Result<(), Refusal> {
    bounded(what, value, NAME_BYTES_MAX)
}

fn text(what: &str, value: &str) -> Result<(), Refusal> {
    bounded(what, value, TEXT_BYTES_MAX)
}

fn bounded(what: &str, value: &str, limit: usize) -> Result<(), Refusal> {
    if value.is_empty() {
        return invalid(format!("{what} is empty"));
    }
    if value.len() > limit { Err(long(what, value.len(), limit)) } else { Ok(()) }
}

fn invalid(reason: String) -> Result<(), Refusal> {
    Err(Refusal::Invalid(reason))
}

fn long(what: &str, got: usize, limit: usize) -> Refusal {
    let bytes = |count| u64::try_from(count).unwrap_or(u64::MAX);
    Refusal::TooLarge { what: what.to_owned(), got: bytes(got), limit: bytes(limit) }
}
