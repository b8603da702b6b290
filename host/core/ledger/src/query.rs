//! What can be read from a ledger: for the leader that assigns, for whoever keeps
//! leases alive, for the doors.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use quorate_types::door::{AgentFilter, TaskFilter};
use quorate_types::limits::{FRAME_BYTES_MAX, INLINE_BYTES_MAX};
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::view::{AgentView, LeaseGrant, LeaseView, PolicyView, TaskPage, TaskView, Why};
use quorate_types::{
    AgentId, CapabilitySet, Digest, GroupId, Incarnation, NodeId, PolicyEpoch, Refusal, TaskId,
    TaskState, Time, Timeouts, TraceId, Wanted, cbor,
};

use crate::ledger::{Ledger, SLOT_BALANCER};
use crate::record::{Stage, Task};
use crate::roster::Roster;
use crate::shard::{Places, SHARD};
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
        id.shard() == SHARD && self.shard.numbered(id) && self.shard.task(id).is_none()
    }

    /// A task's routing history.
    pub fn why(&self, id: TaskId) -> Option<Why> {
        let task = self.shard.task(id)?;
        Some(Why {
            task: id,
            trace: task.spec.trace,
            waits: self.waits(task),
            decisions: task.decisions.clone(),
        })
    }

    fn waits(&self, task: &Task) -> Option<String> {
        let from = task.ready_from()?;
        if from > self.time {
            let until = from.since(self.time).as_millis();
            return Some(match task.stage {
                Stage::Retrying { .. } => format!("its next attempt is due in {until} ms"),
                Stage::Queued
                | Stage::Leased(_)
                | Stage::Completed { .. }
                | Stage::DeadLetter { .. }
                | Stage::Cancelled { .. } => format!("it may not start for another {until} ms"),
            });
        }
        Some(match self.agents_for(&task.wanted).count() {
            0 => self.nobody_serves(&task.wanted),
            able => format!("agents that could take it: {able}; it waits for one with a free slot"),
        })
    }

    fn nobody_serves(&self, wanted: &Wanted) -> String {
        let elsewhere =
            self.agents().filter(|agent| agent.spec.capabilities.covers(&wanted.capabilities));
        match elsewhere.count() {
            0 => format!("no agent that lives has {wanted}"),
            others => format!(
                "no agent that lives has {wanted}; agents of other namespaces that have them, and \
                 serve only their own: {others}"
            ),
        }
    }

    /// Some tasks, in order of their ids. A page may be short, even empty, and have a cursor.
    ///
    /// # Errors
    /// `Invalid` for a cursor that no page gave.
    pub fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, Refusal> {
        let namespace = match filter.namespace.as_str() {
            "" => NAMESPACE_DEFAULT,
            named => named,
        };
        let after = filter.cursor.as_deref().map(str::parse::<TaskId>).transpose();
        let after = after.map_err(|error| Refusal::Invalid(format!("the cursor: {error}")))?;
        let limit = usize::try_from(filter.limit).unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let mut page = TaskPage { counts: self.counts(namespace), ..TaskPage::default() };
        let mut ids = self.shard.places.ids(namespace, filter.state, after).peekable();
        let mut bytes = 0;
        for _scanned in 0..SCAN_MAX {
            let Some(id) = ids.next() else { break };
            let wanted = self
                .shard
                .task(id)
                .filter(|task| filter.queue.as_ref().is_none_or(|queue| *queue == task.spec.queue));
            if let Some(view) = wanted.map(|task| task.view()) {
                bytes += cbor::encode(&view).len();
                if bytes > PAGE_BYTES_MAX && !page.tasks.is_empty() {
                    // The cursor is that of the record before.
                    break;
                }
                page.tasks.push(view);
            }
            page.cursor = ids.peek().map(|_more| id.to_string());
            if page.tasks.len() == limit {
                break;
            }
        }
        Ok(page)
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

    /// Whether some record refers to this blob.
    pub fn refers_to(&self, blob: &Digest) -> bool {
        self.shard.places.blobs.contains_key(blob)
            || self.system.policies.values().any(|policy| policy.digest == *blob)
    }
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

    /// Agents that live, as the doors show them; `reading` is left empty.
    pub fn agent_views(&self, filter: &AgentFilter) -> Vec<AgentView> {
        let wanted = CapabilitySet::from(filter.capabilities.clone());
        let shown = self.agents().filter(|agent| {
            filter.namespace.as_ref().is_none_or(|named| *named == agent.spec.namespace)
                && agent.spec.capabilities.covers(&wanted)
        });
        let views = shown.map(|agent| AgentView {
            id: agent.id,
            incarnation: agent.incarnation,
            spec: agent.spec.clone(),
            leases: u32::try_from(self.leases_count(agent.id)).unwrap_or(u32::MAX),
            reading: None,
        });
        views.collect()
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

    /// The slots as the doors show them; `nodes` is left empty.
    pub fn policies(&self) -> Vec<PolicyView> {
        let slots = self.system.policies.values().map(|policy| {
            let adopted = self.shard.adopted_index(&policy.slot, policy.epoch);
            PolicyView {
                slot: policy.slot.clone(),
                name: policy.name.clone(),
                digest: policy.digest,
                epoch: policy.epoch,
                index: policy.index,
                adopted: adopted.map(|index| (GroupId::SYSTEM, index)).into_iter().collect(),
                nodes: BTreeMap::new(),
                decisions: self.decisions(&policy.slot),
            }
        });
        slots.collect()
    }

    /// Assignments made under each epoch of a slot.
    pub fn decisions(&self, slot: &str) -> BTreeMap<PolicyEpoch, u64> {
        let counted = (slot == SLOT_BALANCER).then(|| self.shard.decided.values());
        let counted = counted.into_iter().flatten();
        counted.map(|decided| (decided.epoch, decided.count)).collect()
    }
}
