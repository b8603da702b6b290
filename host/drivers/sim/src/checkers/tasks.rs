//! Conservation of tasks: an acknowledged task exists in exactly one state,
//! comes to one end, and is completed at most once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_ledger::Ledger;
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::{EventKind, Index, Payload, TaskId, TaskState};

use crate::guests::work_of;

#[derive(Default)]
pub(crate) struct Tasks {
    acknowledged: BTreeMap<String, TaskId>,
    completed: BTreeMap<TaskId, Index>,
    heard: BTreeSet<Index>,
}

impl Tasks {
    /// The same key was acknowledged as the same task whenever it was.
    pub(crate) fn acknowledged(&mut self, key: &str, task: TaskId) -> Result<(), String> {
        let first = *self.acknowledged.entry(key.to_owned()).or_insert(task);
        if first == task {
            return Ok(());
        }
        Err(format!("idempotency: key {key} is {first} and {task}"))
    }

    /// What an entry brought; the same from every node, so heard once.
    pub(crate) fn see(&mut self, index: Index, events: &[EventKind]) -> Result<(), String> {
        if events.is_empty() || !self.heard.insert(index) {
            return Ok(());
        }
        for event in events {
            let EventKind::Task { task, state: TaskState::Completed, .. } = event else { continue };
            if let Some(first) = self.completed.insert(*task, index) {
                return Err(format!(
                    "conservation: {task} was completed at {first} and at {index}"
                ));
            }
        }
        Ok(())
    }

    /// An acknowledged task that has not come to its end in this state.
    pub(crate) fn unfinished(&self, view: &Ledger) -> Option<TaskId> {
        let is_final = |id: &TaskId| view.task(*id).is_some_and(|task| task.state.is_final());
        self.acknowledged.values().copied().find(|id| !is_final(id))
    }

    pub(crate) fn end(&self, view: &Ledger) -> Result<(), String> {
        for id in self.acknowledged.values() {
            let Some(task) = view.task(*id) else {
                return Err(format!("conservation: the acknowledged {id} is lost"));
            };
            if !task.state.is_final() {
                return Err(format!("liveness: the acknowledged {id} is still {}", task.state));
            }
            let right = match &task.spec.input {
                Payload::Inline(input) => work_of(input),
                Payload::Blob { .. } => Bytes::new(),
            };
            if task.state == TaskState::Completed && task.result != Some(Payload::Inline(right)) {
                return Err(format!("conservation: {id} has the result of another input"));
            }
        }
        let counted: u64 = view.counts(NAMESPACE_DEFAULT).values().sum();
        let acknowledged = u64::try_from(self.acknowledged.len()).unwrap_or(u64::MAX);
        if counted < acknowledged {
            return Err(format!(
                "conservation: {counted} tasks in all states, {acknowledged} acknowledged"
            ));
        }
        Ok(())
    }
}
