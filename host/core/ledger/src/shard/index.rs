//! Where to find a task by what it waits for. Each place is a function of the
//! task's record (and, for ready against waiting, of how far time was followed), so
//! that every change is one `relocate` and a restored ledger has the same places.

use std::cmp::Reverse;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use quorate_types::{AgentId, Digest, Payload, TaskId, TaskState, Time, Wanted};

use crate::record::{Nonce, Task};

/// The tasks that want the same of their agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    /// May be leased now, in this order.
    pub(crate) ready: OrdSet<(Reverse<u8>, TaskId)>,
    /// May be leased from some time on.
    pub(crate) waiting: OrdSet<(Time, Reverse<u8>, TaskId)>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.waiting.is_empty()
    }

    /// Whether some task may be leased at `now`.
    pub(crate) fn is_ready(&self, now: Time) -> bool {
        !self.ready.is_empty() || self.waiting.get_min().is_some_and(|(from, ..)| *from <= now)
    }

    /// The first `limit` tasks that may be leased at `now`. Those that wait and are due by then are
    /// only what woke since the last entry.
    pub(crate) fn ready(&self, now: Time, limit: usize) -> Vec<(TaskId, u8)> {
        let until = (now, Reverse(0), TaskId(u64::MAX));
        let due = self.waiting.range(..=until).map(|(_from, priority, id)| (*priority, *id));
        let mut first: Vec<_> = self.ready.iter().copied().take(limit).chain(due).collect();
        first.sort_unstable();
        first.truncate(limit);
        first.into_iter().map(|(Reverse(priority), id)| (id, priority)).collect()
    }
}

/// The tasks of one namespace, by state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census([OrdSet<TaskId>; TaskState::ALL.len()]);

impl Census {
    /// The tasks in a state.
    pub(crate) fn of(&self, state: TaskState) -> &OrdSet<TaskId> {
        let [queued, leased, retrying, completed, dead, cancelled] = &self.0;
        match state {
            TaskState::Queued => queued,
            TaskState::Leased => leased,
            TaskState::Retrying => retrying,
            TaskState::Completed => completed,
            TaskState::DeadLetter => dead,
            TaskState::Cancelled => cancelled,
        }
    }

    fn of_mut(&mut self, state: TaskState) -> &mut OrdSet<TaskId> {
        let [queued, leased, retrying, completed, dead, cancelled] = &mut self.0;
        match state {
            TaskState::Queued => queued,
            TaskState::Leased => leased,
            TaskState::Retrying => retrying,
            TaskState::Completed => completed,
            TaskState::DeadLetter => dead,
            TaskState::Cancelled => cancelled,
        }
    }
}

/// The places of every task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Tasks ready from this time or earlier stand in `ready`, others in `waiting`.
    followed: Time,
    /// By what their tasks want, namespace first: tasks that different agents must do never share a
    /// queue. What no task wants has none.
    pub(crate) queues: OrdMap<Arc<Wanted>, Queue>,
    /// Every waiting task, by when it will be ready.
    pub(crate) wakes: OrdSet<(Time, TaskId)>,
    /// Tasks that time alone will end.
    pub(super) due: OrdSet<(Time, TaskId)>,
    /// Finished tasks, by when they may be forgotten.
    pub(crate) expires: OrdSet<(Time, TaskId)>,
    /// Leased tasks, by agent.
    pub(crate) leases: OrdMap<AgentId, OrdSet<TaskId>>,
    /// By namespace and state.
    pub(crate) census: OrdMap<Arc<str>, Census>,
    /// By namespace and idempotency key.
    pub(super) keys: OrdMap<Arc<(String, String)>, TaskId>,
    /// By nonce.
    pub(super) nonces: OrdMap<Nonce, TaskId>,
    /// Records that refer to a blob.
    pub(crate) blobs: OrdMap<Digest, u64>,
    /// Inline content of unfinished tasks, bytes.
    pub(super) open_bytes: u64,
    /// Inline content of finished tasks, bytes.
    pub(super) finished_bytes: u64,
}

/// The places of one task that change during its life.
struct Place {
    ready_from: Option<Time>,
    due: Option<Time>,
    expires: Option<Time>,
    holder: Option<AgentId>,
    state: TaskState,
}

impl Place {
    fn of(task: &Task) -> Self {
        Self {
            ready_from: task.ready_from(),
            due: task.due(),
            expires: task.expires(),
            holder: task.lease().map(|lease| lease.agent),
            state: task.state(),
        }
    }
}

impl Places {
    /// A task is new.
    pub(super) fn enter(&mut self, task: &Task) {
        if let Some(key) = key(task) {
            self.keys.insert(Arc::new(key), task.id);
        }
        if let Some(nonce) = task.nonce {
            self.nonces.insert(nonce, task.id);
        }
        self.refer(&task.spec.input);
        self.put(task, &Place::of(task));
    }

    /// A planted fault: whose key was whose is forgotten.
    pub(super) fn forget_keys(&mut self) {
        self.keys.clear();
    }

    /// A task is forgotten.
    pub(super) fn leave(&mut self, task: &Task) {
        if let Some(key) = key(task) {
            self.keys.remove(&key);
        }
        if let Some(nonce) = task.nonce {
            self.nonces.remove(&nonce);
        }
        self.unrefer(&task.spec.input);
        self.take(task, &Place::of(task));
    }

    /// A task changed. What its owner asked for never does.
    pub(super) fn relocate(&mut self, before: &Task, after: &Task) {
        let (mut old, mut new) = (Place::of(before), Place::of(after));
        assert!(old.state != new.state, "a change of {} is a change of its state", after.id);
        if old.due == new.due {
            (old.due, new.due) = (None, None);
        }
        // No place is in both, so what one would empty and the other fill stays.
        self.put(after, &new);
        self.take(before, &old);
    }

    /// Follows time: what waits until `now` is ready.
    pub(super) fn follow(&mut self, now: Time, find: impl Fn(TaskId) -> Option<Arc<Task>>) {
        let until = (now, TaskId(u64::MAX));
        let woken: Vec<_> = self.wakes.range(..=until).copied().collect();
        self.followed = now;
        for (from, id) in woken {
            self.wakes.remove(&(from, id));
            let Some(task) = find(id) else { continue };
            let priority = Reverse(task.spec.priority);
            if let Some(queue) = self.queues.get_mut(&task.wanted) {
                queue.waiting.remove(&(from, priority, id));
                queue.ready.insert((priority, id));
            }
        }
    }

    /// The value equal to `wanted` that queues share, or `wanted` itself.
    pub(super) fn shared(&self, wanted: Wanted) -> Arc<Wanted> {
        let known = self.queues.get_key_value(&wanted).map(|(known, _queue)| Arc::clone(known));
        known.unwrap_or_else(|| Arc::new(wanted))
    }

    /// Ids of a namespace's tasks after `after`, ascending: those in `state`, or all.
    pub(crate) fn ids(
        &self,
        namespace: &str,
        state: Option<TaskState>,
        after: Option<TaskId>,
    ) -> impl Iterator<Item = TaskId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let states = TaskState::ALL.into_iter().filter(move |one| state.is_none_or(|s| s == *one));
        let sets = self.census.get(namespace).into_iter();
        let sets = sets.flat_map(move |census| states.clone().map(|one| census.of(one)));
        let mut heads: Vec<_> =
            sets.map(|set| set.range((from, Bound::Unbounded)).copied().peekable()).collect();
        std::iter::from_fn(move || {
            let heads = heads.iter_mut().filter_map(|ids| ids.peek().copied().map(|id| (id, ids)));
            heads.min_by_key(|(id, _ids)| *id).and_then(|(_id, ids)| ids.next())
        })
    }

    /// How many tasks are in a set.
    pub(crate) fn count(set: &OrdSet<TaskId>) -> u64 {
        u64::try_from(set.len()).unwrap_or(u64::MAX)
    }

    fn put(&mut self, task: &Task, place: &Place) {
        if let Some(from) = place.ready_from {
            let priority = Reverse(task.spec.priority);
            let queue = self.queues.entry(Arc::clone(&task.wanted)).or_default();
            if from <= self.followed {
                queue.ready.insert((priority, task.id));
            } else {
                queue.waiting.insert((from, priority, task.id));
                self.wakes.insert((from, task.id));
            }
        }
        if let Some(due) = place.due {
            self.due.insert((due, task.id));
        }
        if let Some(expires) = place.expires {
            self.expires.insert((expires, task.id));
        }
        if let Some(holder) = place.holder {
            self.leases.entry(holder).or_default().insert(task.id);
        }
        if let Some(result) = task.result() {
            self.refer(result);
        }
        *self.bytes_of(place.state) += task.inline_bytes();
        if !self.census.contains_key(task.spec.namespace.as_str()) {
            self.census.insert(task.spec.namespace.as_str().into(), Census::default());
        }
        if let Some(census) = self.census.get_mut(task.spec.namespace.as_str()) {
            census.of_mut(place.state).insert(task.id);
        }
    }

    fn take(&mut self, task: &Task, place: &Place) {
        if let Some(from) = place.ready_from {
            let priority = Reverse(task.spec.priority);
            let emptied = self.queues.get_mut(&task.wanted).is_some_and(|queue| {
                if from <= self.followed {
                    queue.ready.remove(&(priority, task.id));
                } else {
                    queue.waiting.remove(&(from, priority, task.id));
                    self.wakes.remove(&(from, task.id));
                }
                queue.is_empty()
            });
            if emptied {
                self.queues.remove(&task.wanted);
            }
        }
        if let Some(due) = place.due {
            self.due.remove(&(due, task.id));
        }
        if let Some(expires) = place.expires {
            self.expires.remove(&(expires, task.id));
        }
        if let Some(holder) = place.holder {
            let emptied = self.leases.get_mut(&holder).is_some_and(|held| {
                held.remove(&task.id);
                held.is_empty()
            });
            if emptied {
                self.leases.remove(&holder);
            }
        }
        if let Some(result) = task.result() {
            self.unrefer(result);
        }
        let bytes = self.bytes_of(place.state);
        *bytes = bytes.saturating_sub(task.inline_bytes());
        let emptied = self.census.get_mut(task.spec.namespace.as_str()).is_some_and(|census| {
            census.of_mut(place.state).remove(&task.id);
            TaskState::ALL.into_iter().all(|state| census.of(state).is_empty())
        });
        if emptied {
            self.census.remove(task.spec.namespace.as_str());
        }
    }

    const fn bytes_of(&mut self, state: TaskState) -> &mut u64 {
        if state.is_final() { &mut self.finished_bytes } else { &mut self.open_bytes }
    }

    fn refer(&mut self, payload: &Payload) {
        if let Payload::Blob { digest, .. } = payload {
            *self.blobs.entry(*digest).or_default() += 1;
        }
    }

    fn unrefer(&mut self, payload: &Payload) {
        let Payload::Blob { digest, .. } = payload else { return };
        let unused = self.blobs.get_mut(digest).is_some_and(|count| {
            *count = count.saturating_sub(1);
            *count == 0
        });
        if unused {
            self.blobs.remove(digest);
        }
    }
}

/// A task's idempotency key in the scope of its namespace.
pub(super) fn key(task: &Task) -> Option<(String, String)> {
    task.spec.idempotency_key.clone().map(|key| (task.spec.namespace.clone(), key))
}
