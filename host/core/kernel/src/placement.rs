//! Which agent gets which task. The leader asks the policy, here and now, and the
//! log carries the decision; a follower never asks.
//!
//! An agent can be chosen while it has a free slot: a hosted agent offers all its
//! slots all the time, an outside one as many as it waits with. Leases of record
//! and assignments on their way to the log both take a slot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_dispatch::router::Pick;
use quorate_dispatch::{Candidate, Choice, Pool};
use quorate_ledger::{Assignment, Unassigned};
use quorate_policy::Outcome;
use quorate_types::{AgentId, PolicyEpoch, TaskId, TaskState, Time, Token, Wanted};

use crate::io::Now;
use crate::kernel::Kernel;

/// Assignments in one entry. At about 100 B each an entry stays below 64 KiB.
const ASSIGN_BATCH: usize = 256;
/// Assignments on their way to the log; beyond it the log, not the policy, is what tasks wait for.
const UNDER_WAY_MAX: usize = 1024;

/// A decision on its way to the log.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) assignments: Vec<Assignment>,
    wanted: Arc<Wanted>,
    picks: Vec<Pick>,
}

#[derive(Debug)]
struct Open {
    wanted: Arc<Wanted>,
    pick: Pick,
    begun: Time,
    epoch: PolicyEpoch,
}

/// The leader's pools, and what it has decided that the log has not yet said.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    pools: BTreeMap<Arc<Wanted>, Pool>,
    epoch: PolicyEpoch,
    under_way: BTreeSet<TaskId>,
    promised: BTreeMap<AgentId, u32>,
    /// Picks whose leases run, to be observed when they end.
    open: BTreeMap<TaskId, (Token, Open)>,
    wake: Option<Time>,
}

impl Placement {
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.wake
    }

    /// Chooses by another policy from now on. What runs ends on the one that chose it.
    pub(crate) fn set_policy(&mut self, epoch: PolicyEpoch) {
        self.pools.clear();
        self.open.clear();
        self.epoch = epoch;
    }

    fn promise(&mut self, agent: AgentId) {
        *self.promised.entry(agent).or_insert(0) += 1;
    }

    fn release(&mut self, agent: AgentId) {
        if let Some(count) = self.promised.get_mut(&agent) {
            *count -= 1;
            if *count == 0 {
                self.promised.remove(&agent);
            }
        }
    }

    /// The log has said what became of a decision.
    pub(crate) fn placed(
        &mut self,
        now: Now,
        placed: Placed,
        tokens: &[Result<Token, Unassigned>],
    ) {
        for (at, (assignment, pick)) in placed.assignments.iter().zip(placed.picks).enumerate() {
            self.under_way.remove(&assignment.task);
            self.release(assignment.agent);
            match tokens.get(at) {
                Some(Ok(token)) if self.epoch == assignment.policy_epoch => {
                    let open = Open {
                        wanted: placed.wanted.clone(),
                        pick,
                        begun: now.mono,
                        epoch: assignment.policy_epoch,
                    };
                    self.open.insert(assignment.task, (*token, open));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    self.close(&placed.wanted, pick, assignment.policy_epoch, 0, Outcome::Unused);
                }
            }
        }
    }

    /// A task entered a state: if its lease was ours to observe, it has ended.
    pub(crate) fn observe(&mut self, now: Now, task: TaskId, state: TaskState) {
        let outcome = match state {
            TaskState::Leased => return,
            TaskState::Completed => Outcome::Ok,
            TaskState::Retrying | TaskState::DeadLetter => Outcome::Error,
            TaskState::Queued => Outcome::Timeout,
            TaskState::Cancelled => Outcome::Unused,
        };
        if let Some((_token, open)) = self.open.remove(&task) {
            let took = u64::try_from(now.mono.since(open.begun).as_micros()).unwrap_or(u64::MAX);
            self.close(&open.wanted, open.pick, open.epoch, took, outcome);
        }
    }

    fn close(
        &mut self,
        wanted: &Wanted,
        pick: Pick,
        epoch: PolicyEpoch,
        took_us: u64,
        outcome: Outcome,
    ) {
        if epoch == self.epoch
            && let Some(pool) = self.pools.get_mut(wanted)
        {
            pool.close(pick, took_us, outcome);
        }
    }
}

impl Kernel {
    /// Decides for every task that can be given away now.
    pub(crate) fn place_ready(&mut self, now: Now) -> Vec<Placed> {
        let adopted = self.view.adopted_epoch(quorate_ledger::SLOT_BALANCER);
        if adopted != self.policy.epoch {
            // The shard has not adopted what the system activated, or this node not yet followed.
            return Vec::new();
        }
        let Some(leading) = &mut self.leading else { return Vec::new() };
        if leading.placement.epoch != self.policy.epoch {
            leading.placement.set_policy(self.policy.epoch);
        }
        leading.placement.wake = self
            .view
            .next_ready()
            .map(|at| now.mono + at.since(now.wall).max(Duration::from_millis(1)));
        let waiting: Vec<Arc<Wanted>> = self.view.wanted(now.wall).cloned().collect();
        waiting.into_iter().filter_map(|wanted| self.place_set(now, wanted)).collect()
    }

    fn place_set(&mut self, now: Now, wanted: Arc<Wanted>) -> Option<Placed> {
        let mut free = self.free_slots(&wanted);
        let total: u64 = free.values().map(|(_candidate, free)| u64::from(*free)).sum();
        if total == 0 {
            return None;
        }
        let leading = self.leading.as_mut()?;
        let under_way = leading.placement.under_way.len();
        let room = ASSIGN_BATCH.min(UNDER_WAY_MAX.saturating_sub(under_way));
        let limit = room.min(usize::try_from(total).unwrap_or(usize::MAX));
        // Tasks under way still count as ready in the view, so look past them.
        let ready = self.view.ready_tasks(&wanted, now.wall, limit + under_way);
        let tasks: Vec<TaskId> = ready
            .into_iter()
            .map(|(task, _priority)| task)
            .filter(|task| !leading.placement.under_way.contains(task))
            .take(limit)
            .collect();
        let mut placed =
            Placed { assignments: Vec::new(), wanted: Arc::clone(&wanted), picks: Vec::new() };
        for task in tasks {
            let Some(choice) = self.choose(&wanted, &mut free) else { break };
            let term_ms = self.term_of(task);
            let policy = self.policy.name.clone();
            placed.assignments.push(Assignment {
                task,
                agent: choice.candidate.agent,
                incarnation: choice.candidate.incarnation,
                policy_epoch: self.policy.epoch,
                policy,
                fallback: choice.pick.fallback,
                candidates: choice.candidates,
                reading: choice.reading,
                term_ms,
            });
            placed.picks.push(choice.pick);
            if let Some(leading) = &mut self.leading {
                leading.placement.under_way.insert(task);
                leading.placement.promise(choice.candidate.agent);
            }
        }
        (!placed.assignments.is_empty()).then_some(placed)
    }

    /// Asks the policy over the agents that have a slot free.
    fn choose(
        &mut self,
        wanted: &Arc<Wanted>,
        free: &mut BTreeMap<AgentId, (Candidate, u32)>,
    ) -> Option<Choice> {
        free.retain(|_agent, (_candidate, slots)| *slots > 0);
        let leading = self.leading.as_mut()?;
        let (policy, source, seed) = (&self.policy, self.source.as_ref(), self.config.seed);
        let pool = leading
            .placement
            .pools
            .entry(Arc::clone(wanted))
            .or_insert_with(|| Pool::new(source.open(policy, seed), 1));
        pool.set(free.values().map(|(candidate, _free)| candidate.clone()).collect());
        for (agent, (candidate, slots)) in free.iter() {
            pool.set_in_flight(*agent, candidate.capacity.saturating_sub(*slots));
        }
        let choice = pool.choose()?;
        if let Some((_candidate, slots)) = free.get_mut(&choice.candidate.agent) {
            *slots -= 1;
        }
        Some(choice)
    }

    /// Agents that could be given such work, and how many slots each has free.
    fn free_slots(&self, wanted: &Wanted) -> BTreeMap<AgentId, (Candidate, u32)> {
        let Some(leading) = &self.leading else { return BTreeMap::new() };
        let mut free = BTreeMap::new();
        for agent in self.view.agents_for(wanted) {
            let lives = self.view.assignable(agent.id) == Some(agent.incarnation);
            if !lives || !self.is_reachable(agent.spec.node) {
                continue;
            }
            let promised = leading.placement.promised.get(&agent.id).copied().unwrap_or(0);
            let held = u32::try_from(self.view.leases_count(agent.id)).unwrap_or(u32::MAX);
            let open = if agent.spec.hosted {
                agent.spec.slots.saturating_sub(held)
            } else {
                leading
                    .offers
                    .get(&agent.id)
                    .filter(|offer| offer.incarnation == agent.incarnation)
                    .map_or(0, crate::leading::Offer::left)
            };
            let slots = open.saturating_sub(promised);
            if slots > 0 {
                free.insert(agent.id, (self.candidate(agent), slots));
            }
        }
        free
    }

    fn term_of(&self, task: TaskId) -> u64 {
        let asked = self.view.timeouts(task).and_then(|timeouts| timeouts.heartbeat_ms);
        let default = u64::try_from(self.config.lease_term.as_millis()).unwrap_or(u64::MAX);
        asked.unwrap_or(default).max(1)
    }
}
