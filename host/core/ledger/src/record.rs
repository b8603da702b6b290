//! A task's record: what was asked, where it stands, how it got there. Everything
//! that an index needs to know is computed from it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use quorate_types::view::{Decision, LeaseView, TaskView};
use quorate_types::{
    AgentId, Digest, EventKind, Incarnation, Payload, PolicyEpoch, TaskId, TaskSpec, TaskState,
    Time, Token, Wanted,
};

use crate::bounds::DECISIONS_MAX;
use crate::set_hash::{Canon, Canonical, Mark, canonical};

/// Where a task stands, with what only that stand has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// Waits for an agent.
    Queued,
    /// Waits for `at`, then for an agent.
    Retrying {
        /// Ledger time of the next attempt.
        at: Time,
    },
    /// An agent has it.
    Leased(Lease),
    /// Done.
    Completed {
        /// When.
        at: Time,
        /// Under which lease.
        token: Token,
        /// With what.
        result: Payload,
    },
    /// Given up.
    DeadLetter {
        /// When.
        at: Time,
    },
    /// No longer wanted.
    Cancelled {
        /// When.
        at: Time,
    },
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lease {
    /// Who holds it.
    pub(crate) agent: AgentId,
    /// Which life of the holder.
    pub(crate) incarnation: Incarnation,
    /// Its fencing token.
    pub(crate) token: Token,
    /// The policy that chose the holder.
    pub(crate) policy_epoch: PolicyEpoch,
    /// Its term, milliseconds.
    pub(crate) term_ms: u64,
}

/// A task's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    /// Its id.
    pub(crate) id: TaskId,
    /// As submitted.
    pub(crate) spec: Arc<TaskSpec>,
    /// The digest of `spec`: hashed once, compared when its key comes again.
    #[serde(skip)]
    pub(crate) body: Digest,
    /// What it asks of its agent, shared with the queue that it waits in.
    #[serde(skip)]
    pub(crate) wanted: Arc<Wanted>,
    /// The submitting node's nonce, where there is no idempotency key.
    pub(crate) nonce: Option<Nonce>,
    /// Ledger time of submission.
    pub(crate) created: Time,
    /// Where it stands.
    pub(crate) stage: Stage,
    /// Leases given so far.
    pub(crate) attempts: u32,
    /// Failures reported so far.
    pub(crate) failures: u32,
    /// Attempts lost with their agents so far.
    pub(crate) lost: u32,
    /// The lease under which a failure was reported last, so that a repeat of that report is known.
    pub(crate) failed: Option<Token>,
    /// Why it failed last.
    pub(crate) error: Option<String>,
    /// The last few decisions, oldest first.
    pub(crate) decisions: Vec<Decision>,
}

/// (node, incarnation, count) of a submission.
pub(crate) type Nonce = (u64, u64, u64);

canonical!(Lease { agent, incarnation, token, policy_epoch, term_ms });

impl Canonical for Stage {
    fn write(&self, canon: &mut Canon) {
        match self {
            Self::Queued => 0_u8.write(canon),
            Self::Retrying { at } => (1_u8, *at).write(canon),
            Self::Leased(lease) => {
                2_u8.write(canon);
                lease.write(canon);
            }
            Self::Completed { at, token, result } => {
                (3_u8, *at, *token).write(canon);
                result.write(canon);
            }
            Self::DeadLetter { at } => (4_u8, *at).write(canon),
            Self::Cancelled { at } => (5_u8, *at).write(canon),
        }
    }
}

impl Canonical for Task {
    fn write(&self, canon: &mut Canon) {
        let Self {
            id,
            spec: _,   // `body` stands for it,
            wanted: _, // and this follows from it.
            body,
            nonce,
            created,
            stage,
            attempts,
            failures,
            lost,
            failed,
            error,
            decisions,
        } = self;
        (*id, *body, *nonce).write(canon);
        created.write(canon);
        stage.write(canon);
        (*attempts, *failures, *lost).write(canon);
        failed.write(canon);
        error.write(canon);
        decisions.write(canon);
    }
}

impl Task {
    /// Its hash in the set of all records.
    pub(crate) fn mark(&self) -> Mark {
        Mark::of("task", self)
    }

    /// The public word for its stage.
    pub(crate) const fn state(&self) -> TaskState {
        match self.stage {
            Stage::Queued => TaskState::Queued,
            Stage::Retrying { .. } => TaskState::Retrying,
            Stage::Leased(_) => TaskState::Leased,
            Stage::Completed { .. } => TaskState::Completed,
            Stage::DeadLetter { .. } => TaskState::DeadLetter,
            Stage::Cancelled { .. } => TaskState::Cancelled,
        }
    }

    /// Its lease, while it has one.
    pub(crate) const fn lease(&self) -> Option<&Lease> {
        match &self.stage {
            Stage::Leased(lease) => Some(lease),
            Stage::Queued
            | Stage::Retrying { .. }
            | Stage::Completed { .. }
            | Stage::DeadLetter { .. }
            | Stage::Cancelled { .. } => None,
        }
    }

    /// When it ended, once it has.
    pub(crate) const fn finished(&self) -> Option<Time> {
        match self.stage {
            Stage::Completed { at, .. } | Stage::DeadLetter { at } | Stage::Cancelled { at } => {
                Some(at)
            }
            Stage::Queued | Stage::Retrying { .. } | Stage::Leased(_) => None,
        }
    }

    /// From when on it may be leased, if it waits for that.
    pub(crate) fn ready_from(&self) -> Option<Time> {
        match self.stage {
            Stage::Queued => Some(self.spec.not_before.unwrap_or(Time::ZERO)),
            Stage::Retrying { at } => Some(at),
            Stage::Leased(_)
            | Stage::Completed { .. }
            | Stage::DeadLetter { .. }
            | Stage::Cancelled { .. } => None,
        }
    }

    /// When it becomes a dead letter by time alone: its deadline, or its queue timeout while it
    /// was never leased.
    pub(crate) fn due(&self) -> Option<Time> {
        if self.finished().is_some() {
            return None;
        }
        let queue = self.spec.timeouts.queue_ms.filter(|_ms| self.attempts == 0);
        let queue = queue.map(|ms| self.created + std::time::Duration::from_millis(ms));
        [self.spec.deadline, queue].into_iter().flatten().min()
    }

    /// When its record may be forgotten, once it has ended.
    pub(crate) fn expires(&self) -> Option<Time> {
        let retention = std::time::Duration::from_millis(self.spec.retention_ms);
        self.finished().map(|at| at + retention)
    }

    /// What it produced.
    pub(crate) const fn result(&self) -> Option<&Payload> {
        match &self.stage {
            Stage::Completed { result, .. } => Some(result),
            Stage::Queued
            | Stage::Retrying { .. }
            | Stage::Leased(_)
            | Stage::DeadLetter { .. }
            | Stage::Cancelled { .. } => None,
        }
    }

    /// Content that the record itself holds, bytes.
    pub(crate) fn inline_bytes(&self) -> u64 {
        let inline = |payload: &Payload| match payload {
            Payload::Inline(bytes) => bytes.len(),
            Payload::Blob { .. } => 0,
        };
        let bytes = inline(&self.spec.input) + self.result().map_or(0, inline);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Notes a decision, and forgets the oldest beyond the bound.
    pub(crate) fn decided(&mut self, decision: Decision) {
        if self.decisions.len() == DECISIONS_MAX {
            self.decisions.remove(0);
        }
        self.decisions.push(decision);
    }

    /// Notes how the attempt under `token` ended.
    pub(crate) fn attempt_ended(&mut self, token: Token, how: String) {
        if let Some(last) = self.decisions.last_mut().filter(|last| last.token == token) {
            last.ended = Some(how);
        }
    }

    /// The record as the doors show it.
    pub(crate) fn view(&self) -> TaskView {
        TaskView {
            id: self.id,
            spec: self.spec.as_ref().clone(),
            state: self.state(),
            attempts: self.attempts,
            failures: self.failures,
            lease: self.lease_view(),
            result: self.result().cloned(),
            error: self.error.clone(),
            created: self.created,
            finished: self.finished(),
        }
    }

    /// The lease as the doors show it.
    pub(crate) fn lease_view(&self) -> Option<LeaseView> {
        self.lease().map(|lease| LeaseView {
            task: self.id,
            agent: lease.agent,
            incarnation: lease.incarnation,
            token: lease.token,
            policy_epoch: lease.policy_epoch,
            term_ms: lease.term_ms,
            attempt: self.attempts,
        })
    }

    /// What watchers are told now that it stands where it stands. `lease` is the one that began or
    /// ended with this step.
    pub(crate) fn event(&self, lease: Option<&Lease>, reason: Option<String>) -> EventKind {
        EventKind::Task {
            task: self.id,
            namespace: self.spec.namespace.clone(),
            state: self.state(),
            agent: lease.map(|lease| lease.agent),
            token: lease.map(|lease| lease.token),
            attempt: self.attempts,
            policy_epoch: lease.map(|lease| lease.policy_epoch),
            reason,
            result: self.result().cloned(),
            labels: self.spec.labels.clone(),
        }
    }
}
