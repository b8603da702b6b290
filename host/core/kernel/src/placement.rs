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
use quorate_dispatch::{Candidate, Choice, Pool, PoolId, Pools};
use quorate_ledger::{Agent, Assignment, Ledger, Unassigned};
use quorate_policy::Outcome;
use quorate_types::{AgentId, GroupId, PolicyEpoch, TaskId, TaskState, Time, Token, Wanted};

use crate::io::Now;
use crate::kernel::Kernel;

/// Assignments in one entry. At about 100 B each an entry stays below 64 KiB.
const ASSIGN_BATCH: usize = 256;
/// Assignments on their way to the log; beyond it the log, not the policy, is what tasks wait for.
const UNDER_WAY_MAX: usize = 1024;

/// Free slots are left to another shard's turn for so long, while work waits here.
const YIELD_FOR: Duration = Duration::from_millis(50);

/// A decision on its way to the log.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) assignments: Vec<Assignment>,
    wanted: Arc<Wanted>,
    pool: PoolId,
    picks: Vec<Pick>,
}

#[derive(Debug)]
struct Open {
    wanted: Arc<Wanted>,
    pool: PoolId,
    pick: Pick,
    begun: Time,
}

/// The leader's pools, and what it has decided that the log has not yet said.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    pools: Pools,
    epoch: PolicyEpoch,
    under_way: BTreeSet<TaskId>,
    promised: BTreeMap<AgentId, u32>,
    /// Picks whose leases run, to be observed when they end.
    open: BTreeMap<TaskId, (Token, Open)>,
    wake: Option<Time>,
    /// Since when tasks wait although slots are free that are another shard's turn.
    yielding: Option<Time>,
    /// Something was applied, offered or reached since the last round: what it left may go now.
    pub(crate) stale: bool,
}

/// Agents that could be given work of one kind, and how many slots each has free.
#[derive(Debug, Default)]
struct Free {
    agents: BTreeMap<AgentId, (Candidate, u32)>,
    /// Agents with a slot free.
    open: u32,
    slots: usize,
}

impl Free {
    fn add(&mut self, candidate: Candidate, slots: u32) {
        self.open += 1;
        self.slots = self.slots.saturating_add(usize::try_from(slots).unwrap_or(usize::MAX));
        self.agents.insert(candidate.agent, (candidate, slots));
    }

    /// Takes one of an agent's slots; false where it has none.
    fn take(&mut self, agent: AgentId) -> bool {
        let Some((_candidate, slots)) = self.agents.get_mut(&agent) else { return false };
        if *slots == 0 {
            return false;
        }
        *slots -= 1;
        self.open -= u32::from(*slots == 0);
        true
    }

    fn candidates(&self) -> Vec<Candidate> {
        let open = self.agents.values().filter(|(_candidate, slots)| *slots > 0);
        open.map(|(candidate, _slots)| candidate.clone()).collect()
    }
}

/// Begins a round of `tasks` choices: one table and one count of each agent for all of them.
fn begin_round(pool: &mut Pool, free: &Free, tasks: usize) {
    for (candidate, slots) in free.agents.values() {
        pool.set_in_flight(candidate.agent, candidate.capacity.saturating_sub(*slots));
    }
    pool.set(free.candidates());
    pool.expect(tasks);
}

/// Asks the policy over the agents that have a slot free, for the first of `left` tasks.
fn choose(pool: &mut Pool, free: &mut Free, left: usize) -> Option<Choice> {
    loop {
        let choice = pool.choose()?;
        let candidates = free.open;
        if free.take(choice.candidate.agent) {
            return Some(Choice { candidates, ..choice });
        }
        // It has become full since the table was made: the next one leaves out all that have.
        pool.close(choice.pick, 0, Outcome::Unused);
        pool.set(free.candidates());
        pool.expect(left);
    }
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
        self.stale = true;
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
        self.stale = true;
        for (at, (assignment, pick)) in placed.assignments.iter().zip(placed.picks).enumerate() {
            self.under_way.remove(&assignment.task);
            self.release(assignment.agent);
            match tokens.get(at) {
                Some(Ok(token)) if self.epoch == assignment.policy_epoch => {
                    let open = Open {
                        wanted: placed.wanted.clone(),
                        pool: placed.pool,
                        pick,
                        begun: now.mono,
                    };
                    self.open.insert(assignment.task, (*token, open));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    self.close(&placed.wanted, placed.pool, pick, 0, Outcome::Unused);
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
            self.close(&open.wanted, open.pool, open.pick, took, outcome);
        }
    }

    fn close(&mut self, wanted: &Wanted, pool: PoolId, pick: Pick, took_us: u64, outcome: Outcome) {
        // A pick of an older policy, or of a pool that was closed, has none to learn from it.
        if let Some(pool) = self.pools.of(wanted, pool) {
            pool.close(pick, took_us, outcome);
        }
    }
}

impl Kernel {
    /// Decides for every task of a shard that can be given away now.
    pub(crate) fn place_ready(&mut self, now: Now, group: GroupId) -> Vec<Placed> {
        let Some(shard) = self.view.group(group).cloned() else { return Vec::new() };
        let Some(leading) = self.leading.get_mut(&group) else { return Vec::new() };
        let placement = &mut leading.placement;
        if placement.epoch != self.policy.epoch {
            placement.set_policy(self.policy.epoch);
        }
        placement.stale |= placement.wake.is_some_and(|wake| wake <= now.mono);
        if !placement.stale {
            return Vec::new();
        }
        // Before any return: a time that has come and stays would have the node asked for ever.
        placement.wake = shard
            .next_ready(now.wall)
            .map(|at| now.mono + at.since(now.wall).max(Duration::from_millis(1)));
        if shard.adopted_epoch(quorate_ledger::SLOT_BALANCER) != self.policy.epoch {
            // The shard has not adopted what the system activated, or this node not yet followed.
            // What is ready stays so until then.
            return Vec::new();
        }
        placement.stale = false;
        let impatient = placement.yielding.is_some_and(|since| since + YIELD_FOR <= now.mono);
        let turns = if impatient { Turns::default() } else { self.turns(now, group) };
        let waiting: Vec<Arc<Wanted>> = shard.wanted(now.wall).cloned().collect();
        let mut round = Round { now, group, shard, turns, yielded: false };
        let placed: Vec<Placed> =
            waiting.into_iter().filter_map(|wanted| self.place_set(&mut round, wanted)).collect();
        self.note_yield(&round, placed.is_empty());
        placed
    }

    /// Work waits although another shard's turn leaves slots free: looked at again before long, for
    /// that shard may not know of them, or have nobody who leads it.
    fn note_yield(&mut self, round: &Round, idle: bool) {
        let Some(leading) = self.leading.get_mut(&round.group) else { return };
        let placement = &mut leading.placement;
        if !(round.yielded && idle) {
            placement.yielding = None;
            return;
        }
        let since = *placement.yielding.get_or_insert(round.now.mono);
        let again = (since + YIELD_FOR).max(round.now.mono + Duration::from_millis(1));
        placement.wake = Some(placement.wake.map_or(again, |wake| wake.min(again)));
    }

    /// What the other shards have ready.
    fn turns(&self, now: Now, group: GroupId) -> Turns {
        let others = self.view.shards().filter(|shard| shard.group() != group);
        let ready = others.map(|shard| {
            let wanted: Vec<Arc<Wanted>> = shard.wanted(now.wall).cloned().collect();
            (shard.group(), wanted)
        });
        Turns { group, others: ready.filter(|(_group, wanted)| !wanted.is_empty()).collect() }
    }

    fn place_set(&mut self, round: &mut Round, wanted: Arc<Wanted>) -> Option<Placed> {
        let now = round.now;
        let mut free = self.free_slots(round, &wanted);
        if free.slots == 0 {
            return None;
        }
        let leading = self.leading.get_mut(&round.group)?;
        let under_way = leading.placement.under_way.len();
        let room = ASSIGN_BATCH.min(UNDER_WAY_MAX.saturating_sub(under_way));
        let limit = room.min(free.slots);
        // Tasks under way still count as ready in the view, so look past them.
        let ready = round.shard.ready_tasks(&wanted, now.wall, limit + under_way);
        let tasks: Vec<TaskId> = ready
            .into_iter()
            .map(|(task, _priority)| task)
            .filter(|task| !leading.placement.under_way.contains(task))
            .take(limit)
            .collect();
        if tasks.is_empty() {
            return None;
        }
        let open = || Pool::new(self.source.open(&self.policy, self.config.seed), 1);
        // The table is made anew for each round, whatever revision it was of.
        let (id, pool) = leading.placement.pools.open(&wanted, 0, open);
        let mut placed = Placed { assignments: Vec::new(), wanted, pool: id, picks: Vec::new() };
        begin_round(pool, &free, tasks.len());
        for (at, task) in tasks.iter().copied().enumerate() {
            let Some(choice) = choose(pool, &mut free, tasks.len() - at) else { break };
            placed.assignments.push(Assignment {
                task,
                agent: choice.candidate.agent,
                incarnation: choice.candidate.incarnation,
                policy_epoch: self.policy.epoch,
                policy: self.policy.name.clone(),
                fallback: choice.pick.fallback,
                candidates: choice.candidates,
                reading: choice.reading,
                term_ms: term_of(&round.shard, task, self.config.lease_term),
            });
            placed.picks.push(choice.pick);
        }
        for assignment in &placed.assignments {
            leading.placement.under_way.insert(assignment.task);
            leading.placement.promise(assignment.agent);
        }
        self.tell_placed(&placed);
        (!placed.assignments.is_empty()).then_some(placed)
    }

    /// For the log: which task of which trace goes where, and why there.
    fn tell_placed(&self, placed: &Placed) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        for assignment in &placed.assignments {
            tracing::debug!(
                node = %self.config.node,
                trace = %self.view.trace_of(assignment.task).unwrap_or_default(),
                task = %assignment.task,
                agent = %assignment.agent,
                candidates = assignment.candidates,
                policy = assignment.policy,
                policy_epoch = assignment.policy_epoch.0,
                fallback = assignment.fallback,
                "task placed"
            );
        }
    }

    /// Agents that could be given such work, and how many slots each has free for this shard.
    fn free_slots(&self, round: &mut Round, wanted: &Wanted) -> Free {
        let mut free = Free::default();
        for agent in self.view.agents_for(wanted) {
            let lives = round.shard.assignable(agent.id) == Some(agent.incarnation);
            if !lives || !self.is_reachable(agent.spec.node) {
                continue;
            }
            let held = u32::try_from(self.view.leases_count(agent.id)).unwrap_or(u32::MAX);
            let open = if agent.spec.hosted {
                agent.spec.slots.saturating_sub(held)
            } else {
                self.offers.left(agent.id, agent.incarnation)
            };
            let slots = open.saturating_sub(self.promised(agent.id));
            let share = round.turns.share(agent, slots, || self.view.given(agent.id));
            round.yielded |= share < slots;
            if share > 0 {
                free.add(self.candidate(agent), share);
            }
        }
        free
    }

    /// Slots that decisions on their way to a log will take, over the shards that this node leads.
    fn promised(&self, agent: AgentId) -> u32 {
        let promised = self.leading.values();
        promised.map(|leading| leading.placement.promised.get(&agent).copied().unwrap_or(0)).sum()
    }
}

/// One look at what a shard has ready.
struct Round {
    now: Now,
    group: GroupId,
    shard: Arc<Ledger>,
    turns: Turns,
    /// Slots were left to other shards.
    yielded: bool,
}

/// Whose turn it is to give an agent work, where several shards have some for it.
///
/// The leaders of the shards do not speak with one another before they take a slot. Each sees the
/// leases of all shards, if a moment late; so they take turns by the number of leases that the
/// agent was ever given, and agree but for that moment. Where they do not, an agent is given one
/// lease more than it has slots, or a slot stays free until the next look.
#[derive(Debug, Default)]
struct Turns {
    group: GroupId,
    /// What other shards have ready.
    others: Vec<(GroupId, Vec<Arc<Wanted>>)>,
}

impl Turns {
    /// How many of an agent's free slots are for this shard.
    fn share(&self, agent: &Agent, slots: u32, given: impl FnOnce() -> u64) -> u32 {
        let ready = |wanted: &[Arc<Wanted>]| wanted.iter().any(|wanted| agent.spec.serves(wanted));
        let others = self.others.iter().filter(|(_group, wanted)| ready(wanted));
        let others: Vec<GroupId> = others.map(|(group, _wanted)| *group).collect();
        if others.is_empty() || slots == 0 {
            return slots;
        }
        let before = others.iter().filter(|other| **other < self.group).count();
        let shards = u64::try_from(others.len() + 1).unwrap_or(u64::MAX);
        let own = u64::try_from(before).unwrap_or(0);
        turns_of(agent.id.0.wrapping_add(given()), u64::from(slots), own, shards)
    }
}

/// How many of the slots 0..`slots` are the turn of shard `own` of `shards`, where slot j is the turn
/// of shard (first + j) mod `shards`.
fn turns_of(first: u64, slots: u64, own: u64, shards: u64) -> u32 {
    let until_own = (own + shards - first % shards) % shards;
    let count = (slots + shards - 1).saturating_sub(until_own) / shards;
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn term_of(view: &Ledger, task: TaskId, default: Duration) -> u64 {
    let asked = view.timeouts(task).and_then(|timeouts| timeouts.heartbeat_ms);
    asked.unwrap_or(u64::try_from(default.as_millis()).unwrap_or(u64::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_slot_is_one_shards_turn() {
        for (shards, slots, first) in [(2, 1, 0), (2, 1, 1), (3, 7, 5), (4, 3, 9), (2, 6, 3)] {
            let each: Vec<u32> =
                (0..shards).map(|own| super::turns_of(first, slots, own, shards)).collect();
            let counted = (0..shards).map(|own| {
                u32::try_from((0..slots).filter(|j| (first + j) % shards == own).count())
            });
            assert_eq!(Ok(each), counted.collect(), "{shards} shards, {slots} slots, {first}");
        }
    }

    use quorate_dispatch::{NativeSource, PolicyRef, PolicySource};
    use quorate_types::{Incarnation, LoadReading, NodeId};

    use super::*;

    /// One agent for each number of slots free.
    fn free(slots: &[u32]) -> Free {
        let mut free = Free::default();
        for (agent, slots) in (1..).zip(slots) {
            let candidate = Candidate {
                agent: AgentId(agent),
                incarnation: Incarnation(1),
                node: NodeId(1),
                capacity: 10,
                weight: 1,
                reading: LoadReading::default(),
            };
            free.add(candidate, *slots);
        }
        free
    }

    fn pool(policy: &str) -> Pool {
        let policy = PolicyRef { name: policy.to_owned(), ..PolicyRef::default() };
        Pool::new(NativeSource.open(&policy, 7), 1)
    }

    fn round(pool: &mut Pool, mut free: Free) -> Vec<AgentId> {
        let tasks = free.slots;
        begin_round(pool, &free, tasks);
        let chosen = (0..tasks).map(|at| choose(pool, &mut free, tasks - at));
        chosen.map(|choice| choice.expect("a slot is free").candidate.agent).collect()
    }

    #[test]
    fn a_round_gives_every_slot_once_and_makes_few_tables() {
        for (policy, tables) in [("round-robin", 1), ("least-used", 1), ("peak-ewma", 8)] {
            let mut pool = pool(policy);
            let mut chosen = round(&mut pool, free(&[5; 8]));
            chosen.sort_unstable();
            let expected: Vec<_> = (1..=8).flat_map(|agent| [AgentId(agent); 5]).collect();
            assert_eq!(chosen, expected, "{policy}");
            assert!(pool.revision() <= tables, "{policy} was shown {} tables", pool.revision());
        }
    }

    #[test]
    fn an_agent_that_fills_up_is_left_out_and_counted_out() {
        let mut pool = pool("round-robin");
        let mut free = free(&[1, 3]);
        begin_round(&mut pool, &free, 4);
        let mut next = |left| {
            let choice = choose(&mut pool, &mut free, left)?;
            Some((choice.candidate.agent.0, choice.candidates))
        };
        let chosen: Vec<_> = [4, 3, 2, 1, 1].into_iter().filter_map(&mut next).collect();
        assert_eq!(chosen, [(1, 2), (2, 1), (2, 1), (2, 1)], "then nobody is left");
    }

    #[test]
    fn the_counts_of_a_round_are_those_of_record() {
        let mut pool = pool("least-used");
        let chosen = round(&mut pool, free(&[2, 4]));
        let agents: Vec<_> = chosen.iter().map(|agent| agent.0).collect();
        assert_eq!(agents, [2, 2, 1, 2, 1, 2], "8 and 6 in hand, the emptier first");
        let again: Vec<_> = round(&mut pool, free(&[3, 2])).iter().map(|agent| agent.0).collect();
        assert_eq!(again, [1, 1, 2, 1, 2], "7 and 8 at the next look");
    }
}
