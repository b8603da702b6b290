//! Submission: checked, recognised when it comes again, bounded, then queued.

use std::sync::Arc;

use quorate_types::view::Submitted;
use quorate_types::{Digest, EventKind, Refusal, Submission, TaskId, TaskSpec, Time};

use super::{Moment, Shard};
use crate::bounds::{BUSY_RETRY_MS, check_task};
use crate::outcome::Outcome;
use crate::record::{Nonce, Stage, Task};
use crate::set_hash::digest_of;

/// The digest of a whole spec, kept in the record in its place.
pub(super) fn body_digest(spec: &TaskSpec) -> Digest {
    digest_of("task-spec", spec)
}

/// Whether two specs ask for the same. The trace is not asked for: every request has its own.
fn same_but_trace(one: &TaskSpec, other: &TaskSpec) -> bool {
    *one == TaskSpec { trace: one.trace, ..other.clone() }
}

/// The task is one that was asked for before.
struct Known {
    id: TaskId,
    /// Whether the owner said so by a key, or the node by proposing again.
    by_key: bool,
}

impl Shard {
    pub(super) fn submit(
        &mut self,
        at: Moment,
        submissions: Vec<Submission>,
        events: &mut Vec<EventKind>,
    ) -> Outcome {
        let answers = submissions.into_iter().map(|one| self.submit_one(at, one, events));
        Outcome::Submitted(answers.collect())
    }

    fn submit_one(
        &mut self,
        at: Moment,
        Submission { spec, nonce }: Submission,
        events: &mut Vec<EventKind>,
    ) -> Result<Submitted, Refusal> {
        check_task(&spec)?;
        let body = body_digest(&spec);
        if let Some(Known { id, by_key }) = self.known(&spec, nonce, body)? {
            return Ok(Submitted { id, existed: by_key });
        }
        self.admit(&spec, at.now)?;
        let task = Task {
            id: TaskId::new(self.number, self.counters.tasks),
            wanted: self.places.shared(spec.wanted()),
            nonce: spec.idempotency_key.is_none().then_some(nonce),
            spec: Arc::new(spec),
            body,
            created: at.now,
            stage: Stage::Queued,
            attempts: 0,
            failures: 0,
            lost: 0,
            failed: None,
            error: None,
            decisions: Vec::new(),
        };
        self.counters.tasks += 1;
        events.push(task.event(None, None));
        let id = task.id;
        self.store(task);
        Ok(Submitted { id, existed: false })
    }

    fn known(&self, spec: &TaskSpec, nonce: Nonce, body: Digest) -> Result<Option<Known>, Refusal> {
        let Some(key) = &spec.idempotency_key else {
            let known = self.places.nonces.get(&nonce);
            return Ok(known.map(|id| Known { id: *id, by_key: false }));
        };
        let scoped = (spec.namespace.clone(), key.clone());
        let Some(task) = self.places.keys.get(&scoped).and_then(|id| self.task(*id)) else {
            return Ok(None);
        };
        if task.body != body && !same_but_trace(&task.spec, spec) {
            return Err(Refusal::Conflict(format!(
                "idempotency key `{key}` already belongs to task {} with another body; \
                 use another key, or send what was sent before",
                task.id
            )));
        }
        Ok(Some(Known { id: task.id, by_key: true }))
    }

    /// Whether there is room for one more, and time.
    fn admit(&self, spec: &TaskSpec, now: Time) -> Result<(), Refusal> {
        if spec.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Refusal::Invalid(format!("the deadline has passed; it is {now} now")));
        }
        let full =
            |what: &str| Refusal::Busy { what: what.to_owned(), retry_after_ms: BUSY_RETRY_MS };
        if self.open_count() >= self.bounds.open_max {
            return Err(full("the queue"));
        }
        if self.places.open_bytes >= self.bounds.open_bytes_max {
            return Err(full("the queue's inline content"));
        }
        Ok(())
    }
}
