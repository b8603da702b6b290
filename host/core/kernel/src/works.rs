//! Leased tasks in the hands of hosted agents: by number, by lease, and by when
//! time moves each of them on.

use std::collections::BTreeMap;

use quorate_types::clocks::Clocks;
use quorate_types::{Request, TaskId, Time, Token};

use crate::io::WorkId;

/// A lease, as its holder names it.
pub(crate) type LeaseKey = (TaskId, Token);

/// One task.
#[derive(Debug)]
pub(crate) struct TaskWork {
    /// Which hosted agent has it, by its place in the configuration.
    pub(crate) agent: usize,
    pub(crate) lease: LeaseKey,
    pub(crate) begun: Time,
    /// Its end, on its way to the log.
    pub(crate) ended: Option<Request>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Works {
    table: BTreeMap<WorkId, TaskWork>,
    by_lease: BTreeMap<LeaseKey, WorkId>,
    /// While it runs, the end of its run timeout; then, when its end is sent again.
    due: Clocks<WorkId>,
}

impl Works {
    /// An agent has begun. It must end by `due`, if given.
    pub(crate) fn begin(
        &mut self,
        work: WorkId,
        agent: usize,
        lease: LeaseKey,
        begun: Time,
        due: Option<Time>,
    ) {
        self.by_lease.insert(lease, work);
        self.table.insert(work, TaskWork { agent, lease, begun, ended: None });
        if let Some(due) = due {
            self.due.set(work, due);
        }
    }

    /// It is over, one way or another.
    pub(crate) fn remove(&mut self, work: WorkId) -> Option<TaskWork> {
        self.due.stop(work);
        let gone = self.table.remove(&work)?;
        self.by_lease.remove(&gone.lease);
        Some(gone)
    }

    pub(crate) fn get(&self, work: WorkId) -> Option<&TaskWork> {
        self.table.get(&work)
    }

    pub(crate) fn of_lease(&self, lease: LeaseKey) -> Option<WorkId> {
        self.by_lease.get(&lease).copied()
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = (LeaseKey, WorkId)> {
        self.by_lease.iter().map(|(lease, work)| (*lease, *work))
    }

    /// The work itself is done; its end still has to be recorded.
    pub(crate) fn set_ended(&mut self, work: WorkId, end: Request) {
        if let Some(running) = self.table.get_mut(&work) {
            running.ended = Some(end);
        }
        self.due.stop(work);
    }

    /// When time moves it on.
    pub(crate) fn set_due(&mut self, work: WorkId, due: Time) {
        if self.table.contains_key(&work) {
            self.due.set(work, due);
        }
    }

    pub(crate) fn next_due(&self) -> Option<Time> {
        self.due.first()
    }

    /// One that is due, which it is not any more.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<WorkId> {
        self.due.take(now)
    }
}
