//! Leases: given under recorded epochs, ended once, by completion, failure, loss or
//! cancellation.

use std::time::Duration;

use quorate_types::rng::Rng;
use quorate_types::view::Decision;
use quorate_types::{EventKind, Payload, PolicyEpoch, Refusal, Retry, TaskId, TaskState, Token};

use super::{Decided, Moment, Shard, Step};
use crate::SLOT_BALANCER;
use crate::bounds::{EPOCHS_MAX, LOST_MAX, check_payload, clip};
use crate::command::Assignment;
use crate::outcome::{Outcome, Unassigned};
use crate::record::{Lease, Stage, Task};

impl Shard {
    pub(super) fn assign(
        &mut self,
        at: Moment,
        assignments: Vec<Assignment>,
        events: &mut Vec<EventKind>,
    ) -> Outcome {
        let answers = assignments.into_iter().map(|one| self.assign_one(at, one, events));
        Outcome::Assigned(answers.collect())
    }

    fn assign_one(
        &mut self,
        at: Moment,
        chosen: Assignment,
        events: &mut Vec<EventKind>,
    ) -> Result<Token, Unassigned> {
        let task = self.task(chosen.task).ok_or(Unassigned::NoTask)?;
        let from = task.ready_from().ok_or_else(|| Unassigned::NotWaiting(task.state()))?;
        if from > at.now {
            return Err(Unassigned::TooEarly(from));
        }
        let recorded = self.assignable(chosen.agent);
        if recorded != Some(chosen.incarnation) {
            return Err(Unassigned::Agent { recorded });
        }
        let recorded = self.adopted_epoch(SLOT_BALANCER);
        if recorded != chosen.policy_epoch {
            return Err(Unassigned::Policy { recorded });
        }
        if chosen.term_ms == 0 {
            return Err(Unassigned::Term);
        }
        let mut task = Task::clone(task);
        let step = u64::from(!self.faults.token_reused || self.counters.token == Token(0));
        let token = Token(self.counters.token.0 + step);
        self.counters.token = token;
        self.count_decision(chosen.policy_epoch);
        self.count_given(chosen.agent);
        let lease = Lease {
            agent: chosen.agent,
            incarnation: chosen.incarnation,
            token,
            policy_epoch: chosen.policy_epoch,
            term_ms: chosen.term_ms,
        };
        task.attempts = task.attempts.saturating_add(1);
        task.stage = Stage::Leased(lease.clone());
        task.decided(Decision {
            agent: chosen.agent,
            policy_epoch: chosen.policy_epoch,
            policy: chosen.policy,
            fallback: chosen.fallback,
            candidates: chosen.candidates,
            reading: chosen.reading,
            token,
            at: at.now,
            ended: None,
        });
        events.push(task.event(Some(&lease), None));
        self.store(task);
        Ok(token)
    }

    fn count_decision(&mut self, epoch: PolicyEpoch) {
        let count = self.decided.get(&epoch).map_or(0, |decided| decided.count);
        self.store_decided(Decided { epoch, count: count + 1 });
        if self.decided.len() > EPOCHS_MAX {
            self.drop_oldest_decided();
        }
    }

    pub(super) fn complete(
        &mut self,
        at: Moment,
        id: TaskId,
        token: Token,
        result: Payload,
        events: &mut Vec<EventKind>,
    ) -> Step {
        let task = self.find(id)?;
        if matches!(task.stage, Stage::Completed { token: ended, .. } if ended == token) {
            return Ok(Outcome::Done);
        }
        check_payload("the result", &result)?;
        let lease = self.held(&task, token)?.clone();
        let mut task = Task::clone(&task);
        self.counters.completions += 1;
        let nth = Some(self.counters.completions);
        let forgotten = nth == self.faults.completion_dropped;
        let result = if forgotten { Payload::default() } else { result };
        task.stage = Stage::Completed { at: at.now, token, result };
        task.attempt_ended(token, "completed".to_owned());
        let event = task.event(Some(&lease), None);
        self.store(task);
        if nth == self.faults.completion_doubled {
            events.push(event.clone());
        }
        events.push(event);
        Ok(Outcome::Done)
    }

    pub(super) fn fail(
        &mut self,
        at: Moment,
        id: TaskId,
        token: Token,
        error: String,
        retry: bool,
        events: &mut Vec<EventKind>,
    ) -> Step {
        let task = self.find(id)?;
        if task.failed == Some(token) {
            return Ok(Outcome::Done);
        }
        let lease = self.held(&task, token)?.clone();
        let mut task = Task::clone(&task);
        let error = clip(error);
        task.failures = task.failures.saturating_add(1);
        task.failed = Some(token);
        task.attempt_ended(token, format!("failed: {error}"));
        let again = retry && task.failures < task.spec.retry.attempts_max;
        task.stage = if again {
            Stage::Retrying { at: at.now + backoff(&task.spec.retry, id, task.failures) }
        } else {
            Stage::DeadLetter { at: at.now }
        };
        task.error = Some(error.clone());
        events.push(task.event(Some(&lease), Some(error)));
        self.store(task);
        Ok(Outcome::Done)
    }

    pub(super) fn expire(
        &mut self,
        at: Moment,
        leases: Vec<(TaskId, Token)>,
        reason: String,
        events: &mut Vec<EventKind>,
    ) -> Outcome {
        let reason = clip(reason);
        let (mut requeued, mut dead) = (0, 0);
        for (id, token) in leases {
            match self.lose(at, id, token, &reason, events) {
                Some(true) => requeued += 1,
                Some(false) => dead += 1,
                None => {}
            }
        }
        Outcome::Requeued { requeued, dead }
    }

    /// Takes back a lease whose attempt is lost. Whether the task waits again, or none where the
    /// lease had ended already.
    pub(crate) fn lose(
        &mut self,
        at: Moment,
        id: TaskId,
        token: Token,
        reason: &str,
        events: &mut Vec<EventKind>,
    ) -> Option<bool> {
        let task = self.task(id)?;
        if self.faults.requeue_lost {
            return Some(true);
        }
        let lease = task.lease().filter(|lease| lease.token == token)?.clone();
        let mut task = Task::clone(task);
        task.lost = task.lost.saturating_add(1);
        task.attempt_ended(token, format!("lost: {reason}"));
        let again = task.lost < LOST_MAX;
        let reason = if again {
            task.stage = Stage::Queued;
            reason.to_owned()
        } else {
            task.stage = Stage::DeadLetter { at: at.now };
            let reason = format!("{LOST_MAX} attempts were lost with their agents; last: {reason}");
            task.error = Some(reason.clone());
            reason
        };
        events.push(task.event(Some(&lease), Some(reason)));
        self.store(task);
        Some(again)
    }

    /// The lease that `token` may end.
    fn held<'a>(&self, task: &'a Task, token: Token) -> Result<&'a Lease, Refusal> {
        match &task.stage {
            Stage::Leased(lease) if self.faults.fence_ignored => Ok(lease),
            Stage::Leased(_)
            | Stage::Queued
            | Stage::Retrying { .. }
            | Stage::Completed { .. }
            | Stage::DeadLetter { .. }
            | Stage::Cancelled { .. } => held(task, token, self.counters.token),
        }
    }

    pub(super) fn cancel(&mut self, at: Moment, id: TaskId, events: &mut Vec<EventKind>) -> Step {
        let task = self.find(id)?;
        match task.state() {
            TaskState::Queued | TaskState::Leased | TaskState::Retrying
                if self.faults.cancel_forgotten =>
            {
                return Ok(Outcome::Done);
            }
            TaskState::Queued | TaskState::Leased | TaskState::Retrying => {}
            TaskState::Cancelled => return Ok(Outcome::Done),
            TaskState::Completed | TaskState::DeadLetter => {
                return Err(Refusal::Conflict(format!("task {id} has ended: {}", task.state())));
            }
        }
        self.end(at, &task, Stage::Cancelled { at: at.now }, "cancelled by its owner", events);
        Ok(Outcome::Done)
    }

    /// Ends an unfinished task from outside of its lease, if it has one.
    pub(super) fn end(
        &mut self,
        at: Moment,
        task: &Task,
        stage: Stage,
        reason: &str,
        events: &mut Vec<EventKind>,
    ) {
        assert!(task.finished().is_none(), "{} ends once, at {}", task.id, at.index);
        let lease = task.lease().cloned();
        let mut task = task.clone();
        task.stage = stage;
        if let Some(lease) = &lease {
            task.attempt_ended(lease.token, format!("ended: {reason}"));
        }
        if task.state() == TaskState::DeadLetter {
            task.error = Some(reason.to_owned());
        }
        events.push(task.event(lease.as_ref(), Some(reason.to_owned())));
        self.store(task);
    }
}

/// The lease of `task` if `token` is its token; else why it is not.
fn held(task: &Task, token: Token, newest: Token) -> Result<&Lease, Refusal> {
    let now = match &task.stage {
        Stage::Leased(lease) if lease.token == token => return Ok(lease),
        Stage::Leased(lease) => format!("the task is leased under token {}", lease.token),
        Stage::Completed { token, .. } => format!("the task was completed under token {token}"),
        Stage::Queued
        | Stage::Retrying { .. }
        | Stage::DeadLetter { .. }
        | Stage::Cancelled { .. } => {
            format!("its lease has ended and the task is {}", task.state())
        }
    };
    if token > newest {
        return Err(Refusal::Conflict(format!("token {token} was never given; {now}")));
    }
    Err(Refusal::Conflict(format!("token {token} is stale for task {}: {now}", task.id)))
}

/// The wait after this many failures: doubled with each, bounded, less a random share that is
/// drawn from the task's id, alike on every replica.
fn backoff(retry: &Retry, id: TaskId, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(63);
    let wait_ms = retry.backoff_ms.saturating_mul(1 << doublings).min(retry.backoff_max_ms);
    let wait_us = wait_ms.saturating_mul(1000);
    let share = u128::from(wait_us) * u128::from(retry.jitter_ppm) / 1_000_000;
    let share = u64::try_from(share).unwrap_or(u64::MAX).min(wait_us);
    let mut rng = Rng::new(id.0);
    let mut rng = Rng::new(rng.next_u64() ^ u64::from(failures));
    let drawn = rng.below(share.saturating_add(1));
    Duration::from_micros(wait_us - drawn)
}
