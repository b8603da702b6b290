//! What time does to tasks: those past their deadline or queue timeout end, and
//! finished records are forgotten after their retention, or sooner when there are
//! too many. The leader proposes, ledger time decides.

use quorate_types::{EventKind, TaskId, Time};

use super::{Moment, Shard};
use crate::bounds::SWEEP_MAX;
use crate::outcome::Outcome;
use crate::record::Stage;

impl Shard {
    pub(super) fn sweep(&mut self, at: Moment, events: &mut Vec<EventKind>) -> Outcome {
        let (mut dead, mut forgotten) = (0, 0);
        for _bounded in 0..SWEEP_MAX {
            if let Some(id) = self.overdue(at.now) {
                self.give_up(at, id, events);
                dead += 1;
            } else if let Some(id) = self.forgettable(at.now) {
                self.forget(id);
                forgotten += 1;
            } else {
                break;
            }
        }
        let more = self.overdue(at.now).or_else(|| self.forgettable(at.now)).is_some();
        Outcome::Swept { dead, forgotten, more }
    }

    /// The earliest time at which a sweep has something to do.
    pub(crate) fn next_due(&self, now: Time) -> Option<Time> {
        let due = self.places.due.get_min().map(|(due, _id)| *due);
        let expires = self.places.expires.get_min().map(|(expires, _id)| *expires);
        let crowded = self.is_crowded().then_some(now);
        [due, expires, crowded].into_iter().flatten().min()
    }

    fn overdue(&self, now: Time) -> Option<TaskId> {
        self.places.due.get_min().filter(|(due, _id)| *due <= now).map(|(_due, id)| *id)
    }

    /// Of too many, those go first whose retention ends first.
    fn forgettable(&self, now: Time) -> Option<TaskId> {
        let (expires, id) = self.places.expires.get_min()?;
        (*expires <= now || self.is_crowded()).then_some(*id)
    }

    fn give_up(&mut self, at: Moment, id: TaskId, events: &mut Vec<EventKind>) {
        let task = self.task(id).cloned();
        let Some(task) = task else { unreachable!("{id} has a place and no record") };
        let passed = task.spec.deadline.is_some_and(|deadline| deadline <= at.now);
        let reason = if passed {
            "its deadline passed"
        } else {
            "no agent took it within its queue timeout"
        };
        self.end(at, &task, Stage::DeadLetter { at: at.now }, reason, events);
    }
}
