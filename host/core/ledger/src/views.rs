//! The state of all groups as one node has applied them: what needs more than one
//! group to be answered. The groups stand at their own indices; what one knows of
//! another may be a moment older.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_types::door::{AgentFilter, TaskFilter};
use quorate_types::kv::{KvFound, KvRead};
use quorate_types::view::{AgentView, LeaseGrant, LeaseView, PolicyView, TaskPage, TaskView, Why};
use quorate_types::{
    AgentId, CapabilitySet, Digest, Faults, GroupId, Layout, NodeId, PolicyEpoch, Refusal, TaskId,
    TaskState, Timeouts, TraceId, Wanted,
};

use crate::kv;
use crate::ledger::Ledger;
use crate::query::{Room, namespace_of};
use crate::record::{Stage, Task};
use crate::roster::Roster;
use crate::system::{Agent, Node, Policy};

/// One ledger a group. A clone costs a few reference counts.
#[derive(Clone, Debug)]
pub struct Views {
    layout: Layout,
    /// By the group's number.
    groups: Vec<Arc<Ledger>>,
}

impl Views {
    /// Before anything was applied.
    pub fn new(layout: Layout) -> Self {
        let empty = |group| Arc::new(Ledger::of(layout, group, &Faults::none()));
        Self { layout, groups: layout.groups().map(empty).collect() }
    }

    /// How the groups share the work.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// A group has come this far. One that is not of the layout is left out.
    pub fn set(&mut self, group: GroupId, view: Arc<Ledger>) {
        let at = usize::try_from(group.0).unwrap_or(usize::MAX);
        if let Some(slot) = self.groups.get_mut(at) {
            *slot = view;
        }
    }

    /// A group's state; none where it is not of the layout.
    pub fn group(&self, group: GroupId) -> Option<&Arc<Ledger>> {
        self.groups.get(usize::try_from(group.0).ok()?)
    }

    /// The group with the system machine.
    pub fn system(&self) -> &Arc<Ledger> {
        &self.groups[0]
    }

    /// The groups with a shard, by number.
    pub fn shards(&self) -> impl Iterator<Item = &Arc<Ledger>> {
        self.layout.shards().filter_map(|group| self.group(group))
    }

    fn shard_of(&self, task: TaskId) -> Option<&Arc<Ledger>> {
        self.group(self.layout.of_task(task)?)
    }
}

/// Tasks and leases.
impl Views {
    /// A task.
    pub fn task(&self, id: TaskId) -> Option<TaskView> {
        self.shard_of(id)?.task(id)
    }

    /// A task's timeouts.
    pub fn timeouts(&self, id: TaskId) -> Option<&Timeouts> {
        self.shard_of(id)?.timeouts(id)
    }

    /// The trace of the request that submitted a task.
    pub fn trace_of(&self, id: TaskId) -> Option<TraceId> {
        self.shard_of(id)?.trace_of(id)
    }

    /// Whether a task of this id once was, and its record is no longer kept.
    pub fn was_forgotten(&self, id: TaskId) -> bool {
        self.shard_of(id).is_some_and(|shard| shard.was_forgotten(id))
    }

    /// A task's routing history.
    pub fn why(&self, id: TaskId) -> Option<Why> {
        let shard = self.shard_of(id)?;
        let task = shard.shard.task(id)?;
        Some(Why {
            task: id,
            trace: task.spec.trace,
            waits: self.waits(shard, task),
            decisions: task.decisions.clone(),
        })
    }

    fn waits(&self, shard: &Ledger, task: &Task) -> Option<String> {
        let from = task.ready_from()?;
        if from > shard.time() {
            let until = from.since(shard.time()).as_millis();
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
        let after = filter.cursor.as_deref().map(str::parse::<TaskId>).transpose();
        let after = after.map_err(|error| Refusal::Invalid(format!("the cursor: {error}")))?;
        let counts = self.counts(namespace_of(filter));
        let mut page = TaskPage { counts, ..TaskPage::default() };
        let mut room = Room::of(filter);
        // A shard's ids lie before those of the next, so that the cursor passes over whole shards.
        if self.shards().all(|shard| shard.fill_page(filter, after, &mut room, &mut page)) {
            page.cursor = None;
        }
        Ok(page)
    }

    /// Tasks by state in a namespace; states that no task is in are left out.
    pub fn counts(&self, namespace: &str) -> BTreeMap<TaskState, u64> {
        let mut counts = BTreeMap::new();
        for (state, count) in self.shards().flat_map(|shard| shard.counts(namespace)) {
            *counts.entry(state).or_insert(0) += count;
        }
        counts
    }

    /// Whether some record refers to this blob.
    pub fn refers_to(&self, blob: &Digest) -> bool {
        self.groups.iter().any(|group| group.refers_to(blob))
    }

    /// A task's lease.
    pub fn lease(&self, task: TaskId) -> Option<LeaseView> {
        self.shard_of(task)?.lease(task)
    }

    /// A task's lease with the work.
    pub fn grant(&self, task: TaskId) -> Option<LeaseGrant> {
        self.shard_of(task)?.grant(task)
    }

    /// One agent's leases.
    pub fn leases_of(&self, agent: AgentId) -> impl Iterator<Item = LeaseView> {
        self.shards().flat_map(move |shard| shard.leases_of(agent))
    }

    /// How many leases an agent holds.
    pub fn leases_count(&self, agent: AgentId) -> usize {
        self.shards().map(|shard| shard.leases_count(agent)).sum()
    }

    /// Leases that were ever given to an agent.
    pub fn given(&self, agent: AgentId) -> u64 {
        self.shards().map(|shard| shard.shard.given(agent)).sum()
    }
}

/// Keys, leases and seats.
impl Views {
    /// An answer from what every group that is asked has applied.
    ///
    /// # Errors
    /// As the ledger of a group gives them.
    pub fn kv_read(&self, read: &KvRead) -> Result<KvFound, Refusal> {
        let groups = read.groups(self.layout);
        let mut found = groups.iter().filter_map(|group| self.group(*group));
        let first = found.next().unwrap_or_else(|| self.system()).kv_read(read)?;
        found.try_fold(first, |all, ledger| Ok(kv::joined(read, all, ledger.kv_read(read)?)))
    }
}

/// Nodes, agents and slots.
impl Views {
    /// Agents that live, by id.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.system().agents()
    }

    /// An agent, alive or retired.
    pub fn agent(&self, id: AgentId) -> Option<&Agent> {
        self.system().agent(id)
    }

    /// Agents that live and may be given such work.
    pub fn agents_for(&self, wanted: &Wanted) -> impl Iterator<Item = &Agent> {
        self.system().agents_for(wanted)
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
        self.system().nodes()
    }

    /// Who belongs to the cluster.
    pub fn roster(&self) -> &Arc<Roster> {
        self.system().roster()
    }

    /// A node of record.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.system().node(id)
    }

    /// What is in a slot.
    pub fn policy(&self, slot: &str) -> Option<&Policy> {
        self.system().policy(slot)
    }

    /// The epoch that every shard has adopted for a slot, or a newer one.
    pub fn adopted_epoch(&self, slot: &str) -> PolicyEpoch {
        self.shards().map(|shard| shard.adopted_epoch(slot)).min().unwrap_or_default()
    }

    /// The slots as the doors show them; `nodes` is left empty.
    pub fn policies(&self) -> Vec<PolicyView> {
        let slots = self.system().system.policies.values().map(|policy| {
            let adopted = self.shards().filter_map(|shard| {
                let index = shard.shard.adopted_index(&policy.slot, policy.epoch)?;
                Some((shard.group(), index))
            });
            PolicyView {
                slot: policy.slot.clone(),
                name: policy.name.clone(),
                digest: policy.digest,
                epoch: policy.epoch,
                index: policy.index,
                adopted: adopted.collect(),
                nodes: BTreeMap::new(),
                decisions: self.decisions(&policy.slot),
            }
        });
        slots.collect()
    }

    fn decisions(&self, slot: &str) -> BTreeMap<PolicyEpoch, u64> {
        let mut decisions = BTreeMap::new();
        for (epoch, count) in self.shards().flat_map(|shard| shard.decisions(slot)) {
            *decisions.entry(epoch).or_insert(0) += count;
        }
        decisions
    }
}
