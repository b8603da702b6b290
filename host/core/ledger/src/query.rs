//! What can be read from a ledger: for the leader that assigns, for whoever keeps
//! leases alive, for the doors.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use quorate_types::door::TaskFilter;
use quorate_types::limits::{FRAME_BYTES_MAX, INLINE_BYTES_MAX};
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::view::{LeaseGrant, LeaseView, TaskPage, TaskView};
use quorate_types::{
    AgentId, Digest, Incarnation, NodeId, PolicyEpoch, TaskId, TaskState, Time, Timeouts, TraceId,
    Wanted, cbor,
};

use crate::ledger::{Ledger, SLOT_BALANCER};
use crate::roster::Roster;
use crate::shard::Places;
use crate::system::{Agent, Node, Policy};

/// Tasks on a page, at most.
const PAGE_MAX: usize = 1000;
/// A page as a node sends it to another, bytes: a frame is four times as large, and a page ends
/// before a task that it has no room for.
const PAGE_BYTES_MAX: usize = FRAME_BYTES_MAX / 4;
const _: () = assert!(2 * INLINE_BYTES_MAX < PAGE_BYTES_MAX);
/// Records looked at for a page, at most: a filter that few pass gives short pages, not slow ones.
const SCAN_MAX: usize = 10_000;

/// Tasks.
impl Ledger {
    /// Whether another state surely has the same agents of record.
    pub fn has_agents_of(&self, other: &Self) -> bool {
        self.system.agents.ptr_eq(&other.system.agents)
    }

    /// A task.
    pub fn task(&self, id: TaskId) -> Option<TaskView> {
        self.shard.task(id).map(|task| task.view())
    }

    /// A task's timeouts.
    pub fn timeouts(&self, id: TaskId) -> Option<&Timeouts> {
        self.shard.task(id).map(|task| &task.spec.timeouts)
    }

    /// The trace of the request that submitted a task.
    pub fn trace_of(&self, id: TaskId) -> Option<TraceId> {
        self.shard.task(id).map(|task| task.spec.trace)
    }

    /// Whether a task of this id once was, and its record is no longer kept.
    pub fn was_forgotten(&self, id: TaskId) -> bool {
        self.shard.numbered(id) && self.shard.task(id).is_none()
    }

    /// Adds tasks of this shard to a page, in order of their ids; false once the page is full.
    pub(crate) fn fill_page(
        &self,
        filter: &TaskFilter,
        after: Option<TaskId>,
        room: &mut Room,
        page: &mut TaskPage,
    ) -> bool {
        let namespace = namespace_of(filter);
        for id in self.shard.places.ids(namespace, filter.state, after) {
            if room.tasks == 0 || room.scans == 0 {
                return false;
            }
            room.scans -= 1;
            let wanted = self
                .shard
                .task(id)
                .filter(|task| filter.queue.as_ref().is_none_or(|queue| *queue == task.spec.queue));
            if let Some(view) = wanted.map(|task| task.view()) {
                let bytes = cbor::encode(&view).len();
                if bytes > room.bytes && !page.tasks.is_empty() {
                    // The cursor is that of the record before.
                    return false;
                }
                room.bytes = room.bytes.saturating_sub(bytes);
                room.tasks -= 1;
                page.tasks.push(view);
            }
            page.cursor = Some(id.to_string());
        }
        true
    }

    /// Tasks by state in a namespace; states that no task is in are left out.
    pub fn counts(&self, namespace: &str) -> BTreeMap<TaskState, u64> {
        let census = self.shard.places.census.get(namespace);
        let counts = census.into_iter().flat_map(|census| {
            TaskState::ALL.into_iter().map(|state| (state, Places::count(census.of(state))))
        });
        counts.filter(|(_state, count)| *count > 0).collect()
    }

    /// Namespaces that have a task.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.shard.places.census.keys().map(Arc::as_ref)
    }

    /// Every blob that some record of this group refers to.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> {
        let policies = self.system.policies.values().map(|policy| policy.digest);
        self.shard.places.blobs.keys().copied().chain(policies)
    }

    /// Whether some record of this group refers to this blob.
    pub fn refers_to(&self, blob: &Digest) -> bool {
        self.shard.places.blobs.contains_key(blob)
            || self.system.policies.values().any(|policy| policy.digest == *blob)
    }
}

/// What a page has room for yet.
pub(crate) struct Room {
    pub(crate) tasks: usize,
    pub(crate) bytes: usize,
    pub(crate) scans: usize,
}

impl Room {
    pub(crate) fn of(filter: &TaskFilter) -> Self {
        let tasks = usize::try_from(filter.limit).unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        Self { tasks, bytes: PAGE_BYTES_MAX, scans: SCAN_MAX }
    }
}

/// The namespace that is listed.
pub(crate) fn namespace_of(filter: &TaskFilter) -> &str {
    if filter.namespace.is_empty() { NAMESPACE_DEFAULT } else { &filter.namespace }
}

/// What the leader must do next.
impl Ledger {
    /// What is wanted by tasks that are ready at `now`.
    pub fn wanted(&self, now: Time) -> impl Iterator<Item = &Arc<Wanted>> {
        let queues = self.shard.places.queues.iter();
        queues.filter(move |(_wanted, queue)| queue.is_ready(now)).map(|(wanted, _queue)| wanted)
    }

    /// Up to `limit` tasks that want exactly this and may be leased at `now`, first come first:
    /// (task, priority).
    pub fn ready_tasks(&self, wanted: &Wanted, now: Time, limit: usize) -> Vec<(TaskId, u8)> {
        let queue = self.shard.places.queues.get(wanted);
        queue.map_or_else(Vec::new, |queue| queue.ready(now, limit))
    }

    /// The earliest time after `now` at which a task that may not be leased yet will be ready.
    pub fn next_ready(&self, now: Time) -> Option<Time> {
        let after = (Bound::Excluded((now, TaskId(u64::MAX))), Bound::Unbounded);
        self.shard.places.wakes.range(after).next().map(|(from, _id)| *from)
    }

    /// The earliest time at which `Sweep` will have something to do.
    pub fn next_due(&self) -> Option<Time> {
        self.shard.next_due(self.time)
    }
}

/// Leases.
impl Ledger {
    /// A task's lease.
    pub fn lease(&self, task: TaskId) -> Option<LeaseView> {
        self.shard.task(task)?.lease_view()
    }

    /// A task's lease with the work.
    pub fn grant(&self, task: TaskId) -> Option<LeaseGrant> {
        let task = self.shard.task(task)?;
        let lease = task.lease_view()?;
        Some(LeaseGrant { lease, spec: task.spec.as_ref().clone() })
    }

    /// Every lease, by agent.
    pub fn leases(&self) -> impl Iterator<Item = LeaseView> {
        self.shard.places.leases.values().flatten().filter_map(|id| self.lease(*id))
    }

    /// One agent's leases.
    pub fn leases_of(&self, agent: AgentId) -> impl Iterator<Item = LeaseView> {
        let held = self.shard.places.leases.get(&agent).into_iter().flatten();
        held.filter_map(|id| self.lease(*id))
    }

    /// How many leases an agent holds.
    pub fn leases_count(&self, agent: AgentId) -> usize {
        self.shard.places.leases.get(&agent).map_or(0, imbl::OrdSet::len)
    }

    /// The life of an agent that assignments must carry now; none where the shard has adopted none.
    pub fn assignable(&self, agent: AgentId) -> Option<Incarnation> {
        self.shard.assignable(agent)
    }
}

/// Nodes, agents and slots.
impl Ledger {
    /// Agents that live, by id.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.system.live.iter().filter_map(|id| self.agent(*id))
    }

    /// An agent, alive or retired.
    pub fn agent(&self, id: AgentId) -> Option<&Agent> {
        self.system.agents.get(&id).map(Arc::as_ref)
    }

    /// The agent of this name.
    pub fn agent_named(&self, namespace: &str, name: &str) -> Option<&Agent> {
        let named = (namespace.to_owned(), name.to_owned());
        self.system.names.get(&named).and_then(|id| self.agent(*id))
    }

    /// Agents that live and may be given such work: those of its namespace that have all of its
    /// capabilities.
    pub fn agents_for(&self, wanted: &Wanted) -> impl Iterator<Item = &Agent> {
        self.agents().filter(|agent| agent.spec.serves(wanted))
    }

    /// Nodes of record, up or down, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.system.nodes.values().map(Arc::as_ref)
    }

    /// A node of record.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.system.nodes.get(&id).map(Arc::as_ref)
    }

    /// The cluster's members; two equal pointers are one list.
    pub const fn roster(&self) -> &Arc<Roster> {
        &self.system.roster
    }

    /// What is in a slot.
    pub fn policy(&self, slot: &str) -> Option<&Policy> {
        self.system.policies.get(slot).map(Arc::as_ref)
    }

    /// The epoch that the shard has adopted for a slot: what assignments must carry.
    pub fn adopted_epoch(&self, slot: &str) -> PolicyEpoch {
        self.shard.adopted_epoch(slot)
    }

    /// Assignments made under each epoch of a slot.
    pub fn decisions(&self, slot: &str) -> BTreeMap<PolicyEpoch, u64> {
        let counted = (slot == SLOT_BALANCER).then(|| self.shard.decided.values());
        let counted = counted.into_iter().flatten();
        counted.map(|decided| (decided.epoch, decided.count)).collect()
    }
}
