//! The shard machine: tasks from submission to oblivion.
//!
//! A task is in one stage at a time, and each step between stages is one method of
//! this folder, called for one arm of [`Shard::apply`]. Every step goes through
//! [`Shard::store`], the one place where a record, its digest and its places change.
//!
//! Leases are fenced. A token is given once and grows with each lease; whatever
//! comes under a token that is not the task's own now is refused, and says so. An
//! assignment must carry the agent's life and the balancer's epoch that this shard
//! has recorded: an older one was decided in ignorance, a newer one would run ahead
//! of the adoption entry, which is the border that the log shows to readers.

mod adopt;
mod index;
mod lease;
mod submit;
mod sweep;

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use quorate_types::{
    AgentId, EventKind, Faults, GroupId, Incarnation, Index, PolicyEpoch, Refusal, TaskId, Time,
    Token,
};

use crate::bounds::Bounds;
use crate::command::ShardCommand;
use crate::kv::Kv;
use crate::outcome::Outcome;
use crate::record::Task;
use crate::set_hash::{Mark, SetHash, canonical};

pub(crate) use index::Places;

/// What apply knows beside the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Ledger time.
    pub(crate) now: Time,
    /// The entry's index.
    pub(crate) index: Index,
}

/// What the shard has recorded of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adopted {
    /// The agent.
    pub(crate) agent: AgentId,
    /// Its newest life.
    pub(crate) incarnation: Incarnation,
    /// Whether that life may hold leases.
    pub(crate) live: bool,
    /// Leases that this shard has given the agent, over all its lives.
    pub(crate) given: u64,
}

/// What the shard has recorded of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdoptedPolicy {
    /// The slot.
    pub(crate) slot: String,
    /// Its newest activation.
    pub(crate) epoch: PolicyEpoch,
    /// Where in the log that was recorded.
    pub(crate) index: Index,
}

/// Assignments made under an epoch of the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decided {
    /// The epoch.
    pub(crate) epoch: PolicyEpoch,
    /// How many.
    pub(crate) count: u64,
}

/// The counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counters {
    /// Tasks numbered so far; the next has this number.
    pub(crate) tasks: u64,
    /// The newest token; 0 before the first.
    pub(crate) token: Token,
    /// Completions accepted so far.
    pub(crate) completions: u64,
    /// The system group's index that agents' lives were last adopted from.
    pub(crate) adopted_from: Index,
}

canonical!(Adopted { agent, incarnation, live, given });
canonical!(AdoptedPolicy { slot, epoch, index });
canonical!(Decided { epoch, count });
canonical!(Counters { tasks, token, completions, adopted_from });

/// A task's record with its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The record.
    pub(crate) task: Arc<Task>,
    /// Its hash, as it stands in the sum.
    mark: Mark,
}

/// The state of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    pub(crate) group: GroupId,
    /// Its number in its tasks' ids.
    pub(crate) number: u16,
    pub(crate) counters: Counters,
    pub(crate) tasks: OrdMap<TaskId, Kept>,
    pub(crate) agents: OrdMap<AgentId, Adopted>,
    pub(crate) policies: OrdMap<String, AdoptedPolicy>,
    pub(crate) decided: OrdMap<PolicyEpoch, Decided>,
    pub(crate) kv: Kv,
    /// Derived from `tasks`.
    pub(crate) places: Places,
    /// Derived from all records.
    sum: SetHash,
    bounds: Bounds,
    faults: Faults,
}

/// The answer of a step: a refusal changes nothing.
type Step = Result<Outcome, Refusal>;

impl Shard {
    pub(crate) fn new(group: GroupId, faults: &Faults, bounds: Bounds) -> Self {
        let number = u16::try_from(group.0).unwrap_or(u16::MAX);
        Self {
            group,
            number,
            counters: Counters::default(),
            tasks: OrdMap::new(),
            agents: OrdMap::new(),
            policies: OrdMap::new(),
            decided: OrdMap::new(),
            kv: Kv::of(number),
            places: Places::default(),
            sum: SetHash::default(),
            bounds,
            faults: faults.clone(),
        }
    }

    /// Ledger time has come to `now`.
    pub(crate) fn follow(&mut self, now: Time) {
        let tasks = &self.tasks;
        self.places.follow(now, |id| tasks.get(&id).map(|kept| Arc::clone(&kept.task)));
    }

    /// The transition table.
    pub(crate) fn apply(
        &mut self,
        at: Moment,
        command: ShardCommand,
        events: &mut Vec<EventKind>,
    ) -> Outcome {
        let step = match command {
            ShardCommand::Submit(submissions) => Ok(self.submit(at, submissions, events)),
            ShardCommand::Assign(assignments) => Ok(self.assign(at, assignments, events)),
            ShardCommand::Complete { task, token, result } => {
                self.complete(at, task, token, result, events)
            }
            ShardCommand::Fail { task, token, error, retry } => {
                self.fail(at, task, token, error, retry, events)
            }
            ShardCommand::Expire { leases, reason } => Ok(self.expire(at, leases, reason, events)),
            ShardCommand::Cancel(task) => self.cancel(at, task, events),
            ShardCommand::AdoptAgents { from, agents } => {
                Ok(self.adopt_agents(at, from, agents, events))
            }
            ShardCommand::AdoptPolicy(adoption) => Ok(self.adopt_policy(at, adoption, events)),
            ShardCommand::Sweep => Ok(self.sweep(at, events)),
            ShardCommand::Kv(requests) => Ok(self.kv.apply(at, requests)),
            ShardCommand::KvExpire(leases) => Ok(self.kv.expire(at, &leases)),
        };
        step.unwrap_or_else(Outcome::Refused)
    }

    /// A task's record.
    pub(crate) fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id).map(|kept| &kept.task)
    }

    /// Whether a task of this id was once numbered here.
    pub(crate) fn numbered(&self, id: TaskId) -> bool {
        id.shard() == self.number && id.sequence() < self.counters.tasks
    }

    /// The finished records are more than are kept.
    pub(crate) fn is_crowded(&self) -> bool {
        self.places.expires.len() > self.bounds.finished_max
            || self.places.finished_bytes > self.bounds.finished_bytes_max
    }

    fn open_count(&self) -> usize {
        self.tasks.len() - self.places.expires.len()
    }

    fn find(&self, id: TaskId) -> Result<Arc<Task>, Refusal> {
        self.task(id).cloned().ok_or_else(|| {
            let kept =
                if self.numbered(id) { " (ended, and its record no longer kept)" } else { "" };
            Refusal::NotFound(format!("task {id}{kept}"))
        })
    }

    /// Replaces or adds a record.
    fn store(&mut self, task: Task) {
        let kept = Kept { mark: task.mark(), task: Arc::new(task) };
        self.sum.add(kept.mark);
        let (id, after) = (kept.task.id, Arc::clone(&kept.task));
        if let Some(before) = self.tasks.insert(id, kept) {
            if !self.faults.digest_stale {
                self.sum.remove(before.mark);
            }
            self.places.relocate(&before.task, &after);
        } else {
            self.places.enter(&after);
        }
    }

    fn forget(&mut self, id: TaskId) {
        if let Some(kept) = self.tasks.remove(&id) {
            self.sum.remove(kept.mark);
            self.places.leave(&kept.task);
        }
    }

    fn store_agent(&mut self, adopted: Adopted) {
        self.sum.add(Mark::of("adopted-agent", &adopted));
        if let Some(before) = self.agents.insert(adopted.agent, adopted) {
            self.sum.remove(Mark::of("adopted-agent", &before));
        }
    }

    fn store_policy(&mut self, adopted: AdoptedPolicy) {
        self.sum.add(Mark::of("adopted-policy", &adopted));
        if let Some(before) = self.policies.insert(adopted.slot.clone(), adopted) {
            self.sum.remove(Mark::of("adopted-policy", &before));
        }
    }

    fn store_decided(&mut self, decided: Decided) {
        self.sum.add(Mark::of("decided", &decided));
        if let Some(before) = self.decided.insert(decided.epoch, decided) {
            self.sum.remove(Mark::of("decided", &before));
        }
    }

    /// The set hash of all that this machine holds.
    pub(crate) fn sum(&self) -> SetHash {
        let mut sum = self.sum;
        sum.add(Mark::of("shard", &self.counters));
        sum.join(self.kv.sum());
        sum
    }

    /// The same, from scratch.
    pub(crate) fn recompute_sum(&self) -> SetHash {
        let mut sum = SetHash::default();
        sum.add(Mark::of("shard", &self.counters));
        sum.join(self.kv.recompute_sum());
        self.tasks.values().for_each(|kept| sum.add(kept.task.mark()));
        self.agents.values().for_each(|adopted| sum.add(Mark::of("adopted-agent", adopted)));
        self.policies.values().for_each(|adopted| sum.add(Mark::of("adopted-policy", adopted)));
        self.decided.values().for_each(|decided| sum.add(Mark::of("decided", decided)));
        sum
    }
}

/// A shard as a snapshot holds it, one record after the other.
impl Shard {
    /// Puts back the counters.
    pub(crate) fn restore_counters(&mut self, counters: Counters) {
        self.counters = counters;
    }

    /// Puts back a task; false where there is one of its id.
    pub(crate) fn restore_task(&mut self, mut task: Task) -> bool {
        if self.tasks.contains_key(&task.id) {
            return false;
        }
        task.wanted = self.places.shared(task.spec.wanted());
        task.body = submit::body_digest(&task.spec);
        self.store(task);
        if self.faults.keys_not_restored {
            self.places.forget_keys();
        }
        true
    }

    /// Puts back what was recorded of an agent.
    pub(crate) fn restore_agent(&mut self, adopted: Adopted) {
        self.store_agent(adopted);
    }

    /// Puts back what was recorded of a slot.
    pub(crate) fn restore_policy(&mut self, adopted: AdoptedPolicy) {
        self.store_policy(adopted);
    }

    /// Puts back a count of assignments.
    pub(crate) fn restore_decided(&mut self, decided: Decided) {
        self.store_decided(decided);
    }
}
