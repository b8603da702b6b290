//! Leased tasks in the hands of hosted agents: by number, by lease, and by when
//! time moves each of them on.

use std::collections::{BTreeMap, BTreeSet};

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
    /// While it runs, the end of its run timeout; then, when its end is sent again.
    due: Option<Time>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Works {
    table: BTreeMap<WorkId, TaskWork>,
    by_lease: BTreeMap<LeaseKey, WorkId>,
    by_due: BTreeSet<(Time, WorkId)>,
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
        self.table.insert(work, TaskWork { agent, lease, begun, ended: None, due: None });
        self.set_due(work, due);
    }

    /// It is over, one way or another.
    pub(crate) fn remove(&mut self, work: WorkId) -> Option<TaskWork> {
        self.set_due(work, None);
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
        self.set_due(work, None);
    }

    /// When time moves it on, or that time does not.
    pub(crate) fn set_due(&mut self, work: WorkId, due: Option<Time>) {
        let Some(running) = self.table.get_mut(&work) else { return };
        if let Some(before) = std::mem::replace(&mut running.due, due) {
            self.by_due.remove(&(before, work));
        }
        self.by_due.extend(due.map(|due| (due, work)));
    }

    pub(crate) fn next_due(&self) -> Option<Time> {
        self.by_due.first().map(|(due, _work)| *due)
    }

    /// One that is due, which it is not any more.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<WorkId> {
        let (due, work) = self.by_due.first().copied()?;
        (due <= now).then(|| {
            self.set_due(work, None);
            work
        })
    }
}
