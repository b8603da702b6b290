//! Bodies of the HTTP door `/v1`, spoken by `api` and `client` alike. Records of
//! `view` and `task` cross as they are; here stand the wrappers around them.

use serde::{Deserialize, Serialize};

use crate::agent::LoadReading;
use crate::id::{AgentId, Digest, Incarnation, Token, TraceId};
use crate::kv::{KvRecord, LeaseId, LeaseInfo, Op, OpDone, RangePage, Revision, SeatInfo, Value};
use crate::problem::Problem;
use crate::task::{NAMESPACE_DEFAULT, Payload, TaskSpec};
use crate::view::{
    AgentView, LeaseGrant, MemberView, NodeView, PolicyView, Submitted, TaskView, Why,
};

/// Milliseconds within which the caller wants an answer or a typed error.
pub const HEADER_DEADLINE_MS: &str = "quorate-deadline-ms";
/// The agent that answered a call.
pub const HEADER_AGENT: &str = "quorate-agent";
/// The policy epoch that chose it.
pub const HEADER_POLICY_EPOCH: &str = "quorate-policy-epoch";
/// Attempts that the call took, from 1.
pub const HEADER_ATTEMPTS: &str = "quorate-attempts";
/// The trace that a request belongs to.
pub const HEADER_TRACE: &str = "quorate-trace";
/// The longest deadline or wait that a request may ask for, milliseconds.
pub const DEADLINE_MS_MAX: u64 = 300_000;

/// Several tasks at once: `POST /v1/tasks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitMany {
    /// At most `SUBMIT_BATCH_MAX`.
    pub tasks: Vec<TaskSpec>,
}

/// What became of one task of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubmitOutcome {
    /// It is in the log.
    Submitted(Submitted),
    /// It is not.
    Problem(Problem),
}

/// The answer to [`SubmitMany`], in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmittedMany {
    /// One a task.
    pub tasks: Vec<SubmitOutcome>,
}

/// A task, and whether the read may be old.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAnswer {
    /// The task.
    #[serde(flatten)]
    pub task: TaskView,
    /// Read without asking the leader.
    pub stale: bool,
}

/// The answer to `GET /v1/tasks/{id}/why`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyAnswer {
    /// The routing history.
    #[serde(flatten)]
    pub why: Why,
    /// Read without asking the leader.
    #[serde(default)]
    pub stale: bool,
}

fn namespace_default() -> String {
    NAMESPACE_DEFAULT.to_owned()
}

/// An outside worker presents itself: `POST /v1/agents`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// Whose it is.
    #[serde(default = "namespace_default")]
    pub namespace: String,
    /// Unique in its namespace; the same name again is a new life that fences the old one.
    pub name: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// How many leases it can hold at once.
    pub slots: u32,
}

/// The answer to [`Register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The agent.
    pub id: AgentId,
    /// Its life, to be named in all that it says.
    pub incarnation: Incarnation,
}

/// A sign of life: `POST /v1/agents/{id}/heartbeat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beat {
    /// Its life.
    pub incarnation: Incarnation,
    /// How it fares, where it says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reading: Option<LoadReading>,
}

/// Ask for work: `POST /v1/agents/{id}/leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Take {
    /// Its life.
    pub incarnation: Incarnation,
    /// Leases wanted, at least 1.
    #[serde(default = "one")]
    pub max: u32,
    /// How long to wait for the first, milliseconds, at most `DEADLINE_MS_MAX`.
    #[serde(default)]
    pub wait_ms: u64,
    /// The tokens of all leases that the worker knows to hold. One that it holds of record and does
    /// not name, since the answer that told of it was lost, is told again. Absent: not said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holding: Option<Vec<Token>>,
}

const fn one() -> u32 {
    1
}

const fn yes() -> bool {
    true
}

/// The answer to [`Take`]; empty when the wait ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    /// The work.
    pub leases: Vec<LeaseGrant>,
}

/// Keep a lease: `POST /v1/tasks/{id}/renew`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// The lease's token.
    pub token: Token,
}

/// The answer to [`Renew`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The term that begins now, milliseconds.
    pub term_ms: u64,
}

/// Finish a task: `POST /v1/tasks/{id}/complete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Complete {
    /// The lease's token.
    pub token: Token,
    /// What came of it.
    #[serde(default)]
    pub result: Payload,
}

/// Report a failed attempt: `POST /v1/tasks/{id}/fail`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    /// The lease's token.
    pub token: Token,
    /// Why.
    pub reason: String,
    /// Whether another attempt may do better.
    #[serde(default = "yes")]
    pub retry: bool,
}

/// The answer to `GET /v1/agents`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agents {
    /// The agents.
    pub agents: Vec<AgentView>,
    /// Read without asking the leader.
    #[serde(default)]
    pub stale: bool,
}

/// The answer to `GET /v1/members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The members, as the answering node sees them.
    pub members: Vec<MemberView>,
}

/// The answer to `GET /v1/cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Every node that answered.
    pub nodes: Vec<NodeView>,
}

/// The answer to `GET /v1/policies`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// The slots.
    pub policies: Vec<PolicyView>,
    /// Read without asking the leader.
    #[serde(default)]
    pub stale: bool,
}

/// The answer to `PUT /v1/blobs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its name.
    pub sha256: Digest,
    /// Its length, bytes.
    pub size: u64,
}

/// Give a slot a policy that is already there: `POST /v1/policies/{slot}` with a JSON body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApplyPolicy {
    /// A policy that ships with the node, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builtin: Option<String>,
    /// A component that the cluster holds as a blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What to call it; a builtin has its own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Apply although a live member is not ready.
    pub force: bool,
}

/// The `traceparent` header of this trace (W3C trace-context, version 00, sampled).
pub fn traceparent(trace: TraceId, span: u64) -> String {
    format!("00-{trace}-{span:016x}-01")
}

/// The trace that a `traceparent` header names. None where the header is malformed or its ids are
/// zero, which the recommendation forbids.
pub fn trace_of(traceparent: &str) -> Option<TraceId> {
    let mut parts = traceparent.trim().split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let plausible = version.len() == 2
        && version != "ff"
        && span.len() == 16
        && u64::from_str_radix(span, 16).is_ok_and(|span| span != 0)
        && parts.next().is_some_and(|flags| flags.len() == 2);
    trace.parse().ok().filter(|trace: &TraceId| plausible && trace.0 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_survives_and_nonsense_is_not_a_trace() {
        let trace = TraceId(0xabcd);
        assert_eq!(trace_of(&traceparent(trace, 7)), Some(trace));
        let told = traceparent(trace, 7);
        let (future, wide) = (told.replacen("00", "ff", 1), told.replacen("00", "000", 1));
        let (short, long) = (told.replace("07-", "7-"), told.replace("-01", "-001"));
        let (unsaid, letters) = (told.replace("-01", ""), told.replace("07-", "0x-"));
        let zeros = [traceparent(TraceId(0), 7), traceparent(trace, 0)];
        for nonsense in ["", "00-abcd-1-01", &future, &wide, &short, &long, &unsaid, &letters]
            .into_iter()
            .chain(zeros.iter().map(String::as_str))
        {
            assert_eq!(trace_of(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_worker_that_names_no_namespace_is_of_the_default_one() {
        #[derive(Serialize)]
        struct Said {
            name: String,
            capabilities: Vec<String>,
            slots: u32,
        }
        let said = Said { name: "w".to_owned(), capabilities: Vec::new(), slots: 1 };
        let register: Register =
            crate::cbor::decode(&crate::cbor::encode(&said), 256).expect("the rest has defaults");
        assert_eq!((&*register.namespace, &*register.name), (NAMESPACE_DEFAULT, "w"));
    }
}

/// A key: `GET /v1/kv/{key}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvGot {
    /// The key.
    #[serde(flatten)]
    pub record: KvRecord,
    /// Watch after this revision to miss nothing.
    pub as_of: Revision,
    /// Read without asking the leader.
    pub stale: bool,
}

/// Keys: `GET /v1/kv?prefix=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvPage {
    /// The keys.
    #[serde(flatten)]
    pub page: RangePage,
    /// Read without asking the leader.
    pub stale: bool,
}

/// Acts on keys, each by itself: `POST /v1/kv:batch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvBatch {
    /// At most `KV_ACTS_MAX`.
    pub ops: Vec<Op>,
}

/// What came of one act of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvOutcome {
    /// It was done.
    Done(OpDone),
    /// It was not.
    Problem(Problem),
}

/// The answer to [`KvBatch`], in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvOutcomes {
    /// One an act.
    pub results: Vec<KvOutcome>,
}

/// The answer to `POST /v1/kv:txn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnDone {
    /// Whether all conditions held.
    pub held: bool,
    /// Of each act of the list that was done.
    pub results: Vec<OpDone>,
}

/// A lease, please: `POST /v1/leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The first segment of what shall hang on it.
    pub segment: String,
    /// It ends so long after its last sign of life, milliseconds.
    pub ttl_ms: u64,
}

/// Leases of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvLeases {
    /// The leases.
    pub leases: Vec<LeaseInfo>,
}

/// Take a lock, or campaign in an election: `POST /v1/locks/{name}`, `/v1/elections/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acquire {
    /// By this lease.
    pub lease: LeaseId,
    /// How long to wait for it, milliseconds; then the place in the queue is given up.
    #[serde(default)]
    pub wait_ms: u64,
    /// What to show while holding it.
    #[serde(default)]
    pub value: Value,
}

/// A leader shows another value: `PUT /v1/elections/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proclaim {
    /// By this lease.
    pub lease: LeaseId,
    /// What to show.
    pub value: Value,
}

/// A lock or an election, and since when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatGot {
    /// The lock or the election.
    #[serde(flatten)]
    pub seat: SeatInfo,
    /// Watch after this revision to miss nothing.
    pub as_of: Revision,
}
