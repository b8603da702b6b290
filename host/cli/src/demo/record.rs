//! The demo's own record, kept outside the cluster: what was acknowledged, what the
//! log said became of it, and the index that the results make. What is lost or
//! applied twice is found here, never by the cluster's own counters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_types::{AgentId, EventKind, NodeId, Payload, PolicyEpoch, TaskId, TaskState};

use super::stages::{Stages, Submission};

/// What is known so far.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Acknowledged tasks and the file each indexes.
    acked: BTreeMap<TaskId, u32>,
    /// Completions as the log ordered them; results that came as blobs wait for their bytes.
    completions: Vec<(TaskId, Payload)>,
    completed: BTreeSet<TaskId>,
    dead: BTreeSet<TaskId>,
    /// Who holds a lease now, and where agents live.
    leased: BTreeMap<TaskId, AgentId>,
    homes: BTreeMap<AgentId, NodeId>,
    /// Leases taken back and given anew.
    pub(crate) requeued: u64,
    /// Assignments by policy epoch.
    pub(crate) decisions: BTreeMap<PolicyEpoch, u64>,
    /// The epoch that was adopted last, and its policy's name.
    adopted: PolicyEpoch,
    pub(crate) policies: BTreeMap<PolicyEpoch, String>,
    /// Assignments that carried an older epoch than the one adopted before them.
    pub(crate) stale_decisions: u64,
    /// From the kill to the acknowledgement of a submission that began right after it.
    pub(crate) failover: Option<Duration>,
    pub(crate) stages: Stages,
}

impl Record {
    /// The cluster acknowledged the task of this file.
    pub(crate) fn ack(&mut self, task: TaskId, file: u32, submission: Submission) {
        self.acked.insert(task, file);
        self.stages.submitted(task, submission);
    }

    /// An agent lives on this node.
    pub(crate) fn lives(&mut self, agent: AgentId, node: NodeId) {
        self.homes.insert(agent, node);
    }

    /// Leases that agents of this node hold, by the last event heard.
    pub(crate) fn leases_on(&self, node: NodeId) -> usize {
        self.leased.values().filter(|agent| self.homes.get(agent) == Some(&node)).count()
    }

    /// The log says something.
    pub(crate) fn hear(&mut self, event: &EventKind) {
        match event {
            EventKind::Task { task, state, agent, attempt, policy_epoch, result, .. } => {
                self.leased.remove(task);
                match state {
                    TaskState::Leased => {
                        self.leased.extend(agent.map(|agent| (*task, agent)));
                        self.stages.leased(*task, Instant::now());
                        self.decided(policy_epoch.unwrap_or_default());
                    }
                    TaskState::Completed => {
                        self.completed.insert(*task);
                        self.stages.ended(*task, Instant::now());
                        self.completions.push((*task, result.clone().unwrap_or_default()));
                    }
                    TaskState::Queued if *attempt > 0 => self.requeued += 1,
                    TaskState::DeadLetter | TaskState::Cancelled => {
                        self.dead.insert(*task);
                    }
                    TaskState::Queued | TaskState::Retrying => {}
                }
            }
            EventKind::Policy { name, epoch, step, .. } => {
                self.policies.insert(*epoch, name.clone());
                if step == "adopted" {
                    self.adopted = self.adopted.max(*epoch);
                }
            }
            EventKind::AgentUp { agent, node, .. } => self.lives(*agent, *node),
            EventKind::AgentDown { .. } => {}
        }
    }

    fn decided(&mut self, epoch: PolicyEpoch) {
        *self.decisions.entry(epoch).or_default() += 1;
        if epoch < self.adopted {
            self.stale_decisions += 1;
        }
    }

    /// Acknowledged so far.
    pub(crate) fn submitted(&self) -> usize {
        self.acked.len()
    }

    /// Acknowledged and completed so far.
    pub(crate) fn completed(&self) -> usize {
        self.acked.keys().filter(|task| self.completed.contains(task)).count()
    }

    /// Completions heard of, acknowledged or not.
    pub(crate) fn heard(&self) -> usize {
        self.completed.len()
    }

    /// Acknowledged tasks whose end was not heard of.
    pub(crate) fn open(&self) -> Vec<TaskId> {
        let open = |task: &&TaskId| !self.completed.contains(task) && !self.dead.contains(task);
        self.acked.keys().filter(open).copied().collect()
    }

    /// Files whose task was acknowledged and which are not among these, the files of the index.
    pub(crate) fn lost(&self, indexed: &BTreeSet<u32>) -> u64 {
        let acked: BTreeSet<u32> = self.acked.values().copied().collect();
        u64::try_from(acked.difference(indexed).count()).unwrap_or(u64::MAX)
    }

    /// The completions' results, as the log ordered them.
    pub(crate) fn results(&self) -> Vec<Payload> {
        self.completions.iter().map(|(_task, result)| result.clone()).collect()
    }

    /// Decisions by policy version, for people.
    pub(crate) fn decisions_by_name(&self) -> BTreeMap<String, u64> {
        let name = |epoch: &PolicyEpoch| {
            let name = self.policies.get(epoch).map_or("peak-ewma", String::as_str);
            format!("{name}@{epoch}")
        };
        self.decisions.iter().map(|(epoch, count)| (name(epoch), *count)).collect()
    }
}

/// The files that these postings are of, and how often one came again beyond its first time.
pub(crate) fn indexed(postings: &[Bytes]) -> anyhow::Result<(BTreeSet<u32>, u64)> {
    let mut seen = BTreeSet::new();
    let mut twice = 0;
    for bytes in postings {
        for file in code_index_format::PostingsReader::new(bytes)?.files() {
            if !seen.insert(file.id) {
                twice += 1;
            }
        }
    }
    Ok((seen, twice))
}
