//! Conservation of tasks: an acknowledged task exists in exactly one state, comes
//! to one end, is completed at most once and under the token of its lease, and has
//! the result of its input.
//!
//! The judge follows the events with a model of its own, the few transitions that
//! a task has; what doors acknowledge must be in the model already, since an ack
//! follows the apply.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::view::TaskView;
use quorate_types::{EventKind, Index, Payload, TaskId, TaskState, Token};

use crate::law::{Law, Verdict};
use crate::tally::Tally;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    state: TaskState,
    /// Of its newest lease; 0 before the first.
    token: Token,
}

#[derive(Default)]
pub(crate) struct Tasks {
    places: BTreeMap<TaskId, Place>,
    /// The newest token of each shard, by its number in the ids of its tasks.
    newest: BTreeMap<u16, Token>,
    acknowledged: BTreeMap<String, TaskId>,
    expected: BTreeMap<TaskId, Payload>,
}

/// Whether a task that stands there may go there, the lease's end included.
const fn follows(from: TaskState, to: TaskState) -> bool {
    use TaskState::{Cancelled, Completed, DeadLetter, Leased, Queued, Retrying};
    match (from, to) {
        (Queued | Retrying, Leased | DeadLetter | Cancelled)
        | (Leased, Queued | Retrying | Completed | DeadLetter | Cancelled) => true,
        (Queued | Retrying, Queued | Retrying | Completed)
        | (Leased, Leased)
        | (
            Completed | DeadLetter | Cancelled,
            Queued | Leased | Retrying | Completed | DeadLetter | Cancelled,
        ) => false,
    }
}

impl Tasks {
    /// One event, in the log's order, once.
    pub(crate) fn see(&mut self, at: Index, event: &EventKind, tally: &mut Tally) -> Verdict {
        let EventKind::Task { task, state, token, .. } = event else { return Ok(()) };
        let (task, state) = (*task, *state);
        let Some(before) = self.places.get(&task).copied() else {
            self.places.insert(task, Place { state, token: Token(0) });
            return match state {
                TaskState::Queued => Ok(()),
                TaskState::Leased
                | TaskState::Retrying
                | TaskState::Completed
                | TaskState::DeadLetter
                | TaskState::Cancelled => {
                    Law::Conservation.broken(format!("{task} begins at {at} as {state}"))
                }
            };
        };
        if !follows(before.state, state) {
            let was = before.state;
            return Law::Conservation.broken(format!("{task} was {was} and is {state} at {at}"));
        }
        let named = token.unwrap_or_default();
        if state == TaskState::Leased {
            let newest = self.newest.entry(task.shard()).or_default();
            if named <= *newest {
                let what = format!("{task} is leased at {at} under {named}, after token {newest}");
                return Law::Fencing.broken(what);
            }
            *newest = named;
        } else if before.state == TaskState::Leased && named != before.token {
            let held = before.token;
            let what =
                format!("{task} is {state} at {at} by token {named}; it was leased as {held}");
            return Law::Fencing.broken(what);
        }
        match state {
            TaskState::Completed => tally.completed += 1,
            TaskState::DeadLetter => tally.dead_letters += 1,
            TaskState::Queued | TaskState::Retrying => tally.requeued += 1,
            TaskState::Leased | TaskState::Cancelled => {}
        }
        let token = if state == TaskState::Leased { named } else { before.token };
        self.places.insert(task, Place { state, token });
        Ok(())
    }

    /// A door says that this key is this task; its result, should it complete, is this one. The
    /// same key is the same task whenever it was acknowledged.
    pub(crate) fn acknowledged(&mut self, key: &str, task: TaskId, result: Payload) -> Verdict {
        let first = *self.acknowledged.entry(key.to_owned()).or_insert(task);
        if first != task {
            return Law::Idempotency.broken(format!("key {key} is {first} and {task}"));
        }
        self.expected.insert(task, result);
        if self.places.contains_key(&task) {
            return Ok(());
        }
        Law::ReadYourWrites.broken(format!("{task} was acknowledged and is not in the log"))
    }

    /// A door says that this lease completed the task.
    pub(crate) fn completed(&self, task: TaskId, token: Token) -> Verdict {
        match self.places.get(&task) {
            Some(Place { state: TaskState::Completed, token: by }) if *by == token => Ok(()),
            Some(Place { state, token: by }) => Law::Fencing.broken(format!(
                "token {token} was told that it completed {task}, which is {state} by token {by}"
            )),
            None => Law::Conservation.broken(format!("{task} was completed and never submitted")),
        }
    }

    /// A door says that the task is cancelled.
    pub(crate) fn cancelled(&self, task: TaskId) -> Verdict {
        match self.places.get(&task).map(|place| place.state) {
            Some(TaskState::Cancelled) => Ok(()),
            other => Law::ReadYourWrites
                .broken(format!("{task} was acknowledged as cancelled and is {other:?}")),
        }
    }

    /// A linearizable read of an acknowledged task, begun when the task was known to be `since`.
    pub(crate) fn read(&self, task: TaskId, since: Option<TaskState>, got: TaskState) -> Verdict {
        let stale = since.is_some_and(|since| since.is_final() && since != got);
        if stale || !self.places.contains_key(&task) {
            let what = format!("{task} was {since:?} before it was read, and read as {got}");
            return Law::ReadYourWrites.broken(what);
        }
        Ok(())
    }

    /// Where the log has a task.
    pub(crate) fn state(&self, task: TaskId) -> Option<TaskState> {
        self.places.get(&task).map(|place| place.state)
    }

    /// Whether every acknowledged task has come to its end.
    pub(crate) fn is_settled(&self) -> bool {
        let is_final = |task: &TaskId| self.state(*task).is_some_and(TaskState::is_final);
        self.acknowledged.values().all(is_final)
    }

    /// The last word: what a node's state has of every task. `counted` are all in all states.
    pub(crate) fn end(&self, find: impl Fn(TaskId) -> Option<TaskView>, counted: u64) -> Verdict {
        let distinct: BTreeSet<TaskId> = self.acknowledged.values().copied().collect();
        for id in &distinct {
            let Some(task) = find(*id) else {
                return Law::Conservation.broken(format!("the acknowledged {id} is lost"));
            };
            if !task.state.is_final() {
                let what = format!("the acknowledged {id} is still {}", task.state);
                return Law::Liveness.broken(what);
            }
            if self.state(*id) != Some(task.state) {
                let what = format!("{id} is {}, and its events end otherwise", task.state);
                return Law::Conservation.broken(what);
            }
            if task.failures > task.spec.retry.attempts_max {
                let what = format!("{id} failed {} times", task.failures);
                return Law::Conservation.broken(what);
            }
            if task.state == TaskState::Completed && task.result.as_ref() != self.expected.get(id) {
                let what = format!("{id} has the result of another input");
                return Law::Conservation.broken(what);
            }
        }
        let known = u64::try_from(self.places.len()).unwrap_or(u64::MAX);
        if counted != known {
            let what = format!("{counted} tasks in all states, and the log has {known}");
            return Law::Conservation.broken(what);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tasks/tests.rs"]
mod tests;
