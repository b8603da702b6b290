//! Calls in flight. A call is routed, never logged: each attempt is sent at most
//! once, and the caller always hears an end, an answer or a typed refusal, within
//! its deadline.
//!
//! Order of use: `start`, `deliver`, `lost_node` and `cancel` as things happen,
//! `tick` when the time of `poll_timeout` has come; then `poll_effect` until none.
//!
//! * A host that has no room answers `Busy` before the work begins: the router
//!   picks again, and when all are busy the call waits `BUSY_WAIT`.
//! * A node lost during an attempt leaves open whether the work ran: an idempotent
//!   call goes to another agent as long as no part of its reply was passed on, any
//!   other call ends with a refusal that says so.
//! * A frame may be lost while its lane goes on (a full queue drops it), so the end
//!   of a reply says how long the whole is, and one with a gap is no reply: it is
//!   dealt with as if its node had been lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_policy::Outcome;
use quorate_types::clocks::Clocks;
use quorate_types::view::{CallEvent, CallSpec};
use quorate_types::{AgentId, CallId, Incarnation, NodeId, PolicyEpoch, Refusal, Time, Wanted};

use crate::endpoints::Candidate;
use crate::pool::{Choice, Pool};
use crate::pools::{PoolId, Pools};
use crate::registry::Registry;
use crate::router::Pick;
use crate::source::{PolicyRef, PolicySource};

/// Calls in flight at one node. 10,000 bodies of 1 KiB are 10 MiB; a caller above
/// it is told to come back.
const CALLS_MAX: usize = 10_000;
/// How long a call waits when every agent is busy or none is there.
const BUSY_WAIT: Duration = Duration::from_millis(5);
/// Picks leased from a policy at a time; few, since a table changes with each reading.
const PICKS_LEASED: u32 = 8;

/// What the hosting node says of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A part of the reply.
    Chunk(Bytes),
    /// The end of the reply, which has so many bytes.
    Done(u64),
    /// No room; nothing was begun.
    Busy,
    /// No such agent here, or an earlier life of it; nothing was begun.
    Unknown,
    /// The agent failed.
    Failed(String),
}

/// What must be done about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum CallEffect {
    /// Send this attempt to the node that hosts the agent.
    Dispatch {
        /// The call.
        call: CallId,
        /// Which attempt, from 1.
        attempt: u32,
        /// To whom.
        agent: AgentId,
        /// Which life of it.
        incarnation: Incarnation,
        /// Where.
        node: NodeId,
        /// What remains of the deadline.
        within: Duration,
        /// The call itself.
        spec: Box<CallSpec>,
    },
    /// Tell the node that nobody waits for this attempt any more.
    Abandon {
        /// The call.
        call: CallId,
        /// Which attempt.
        attempt: u32,
        /// Where it was sent.
        node: NodeId,
    },
    /// Tell the caller.
    Tell {
        /// The call.
        call: CallId,
        /// What; a `Done` or a refusal is the last.
        event: Result<CallEvent, Refusal>,
    },
}

#[derive(Debug)]
struct Attempt {
    agent: AgentId,
    node: NodeId,
    pool: PoolId,
    pick: Pick,
    begun: Time,
    epoch: PolicyEpoch,
}

#[derive(Debug)]
struct Call {
    spec: CallSpec,
    wanted: Arc<Wanted>,
    /// The makeup of the registry in which no agent was able.
    barren: Option<u64>,
    deadline: Time,
    attempts: u32,
    now_at: Option<Attempt>,
    /// Agents that were busy in this round.
    refused_by: BTreeSet<AgentId>,
    /// Bytes of the reply that the caller has.
    passed_on: u64,
}

/// The calls of one node.
pub struct Calls {
    calls: BTreeMap<CallId, Call>,
    deadlines: Clocks<CallId>,
    /// Until when calls wait to be routed again.
    waiting: Clocks<CallId>,
    pools: Pools,
    policy: PolicyRef,
    seed: u64,
    effects: VecDeque<CallEffect>,
    /// Calls begun since the start.
    pub begun: u64,
    /// Attempts beyond the first since the start.
    pub retried: u64,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").field("in_flight", &self.calls.len()).finish_non_exhaustive()
    }
}

impl Calls {
    /// No calls yet, to be routed by this policy.
    pub fn new(policy: PolicyRef, seed: u64) -> Self {
        Self {
            calls: BTreeMap::new(),
            deadlines: Clocks::default(),
            waiting: Clocks::default(),
            pools: Pools::default(),
            policy,
            seed,
            effects: VecDeque::new(),
            begun: 0,
            retried: 0,
        }
    }

    /// Routes by this policy from now on; calls in flight end on the version that sent them.
    pub fn set_policy(&mut self, policy: PolicyRef) {
        self.policy = policy;
        self.pools.clear();
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// What must be done, until none.
    pub fn poll_effect(&mut self) -> Option<CallEffect> {
        self.effects.pop_front()
    }

    /// When `tick` has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        [self.deadlines.first(), self.waiting.first()].into_iter().flatten().min()
    }

    /// Begins a call.
    pub fn start(
        &mut self,
        now: Time,
        id: CallId,
        spec: CallSpec,
        registry: &Registry,
        source: &dyn PolicySource,
    ) {
        if self.calls.len() >= CALLS_MAX {
            let busy =
                Refusal::Busy { what: "the node's table of calls".into(), retry_after_ms: 50 };
            self.effects.push_back(CallEffect::Tell { call: id, event: Err(busy) });
            return;
        }
        self.begun += 1;
        let deadline = now + Duration::from_millis(spec.deadline_ms);
        let wanted = Arc::new(spec.wanted());
        let call = Call {
            spec,
            wanted,
            barren: None,
            deadline,
            attempts: 0,
            now_at: None,
            refused_by: BTreeSet::new(),
            passed_on: 0,
        };
        self.deadlines.set(id, deadline);
        self.calls.insert(id, call);
        self.route(now, id, registry, source);
    }

    /// The caller went away.
    pub fn cancel(&mut self, now: Time, id: CallId) {
        self.abandon(now, id, Outcome::Unused);
        self.remove(id);
    }

    /// Word from the node that has this attempt. Words of an older attempt are late, and those of
    /// any other node are not about it: both are ignored.
    pub fn deliver(
        &mut self,
        now: Time,
        from: NodeId,
        (id, attempt): (CallId, u32),
        said: Delivery,
        registry: &Registry,
        source: &dyn PolicySource,
    ) {
        let at_node = |call: &&mut Call| {
            call.attempts == attempt && call.now_at.as_ref().is_some_and(|at| at.node == from)
        };
        let Some(call) = self.calls.get_mut(&id).filter(at_node) else { return };
        match said {
            Delivery::Chunk(bytes) => {
                call.passed_on += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let event = Ok(CallEvent::Chunk(bytes));
                self.effects.push_back(CallEffect::Tell { call: id, event });
            }
            Delivery::Done(bytes) if bytes != call.passed_on => {
                if self.close(now, id, Outcome::Error).is_some() {
                    let why = "a part of its reply was lost on its way".to_owned();
                    self.lost_attempt(now, id, why, registry, source);
                }
            }
            Delivery::Done(_whole) => {
                if let Some((agent, epoch)) = self.close(now, id, Outcome::Ok) {
                    let event = CallEvent::Done { agent, policy_epoch: epoch, attempts: attempt };
                    self.finish(id, Ok(event));
                }
            }
            Delivery::Busy | Delivery::Unknown => {
                if let Some((agent, _epoch)) = self.close(now, id, Outcome::Refused) {
                    if let Some(call) = self.calls.get_mut(&id) {
                        call.refused_by.insert(agent);
                    }
                    self.route(now, id, registry, source);
                }
            }
            Delivery::Failed(why) => {
                if self.close(now, id, Outcome::Error).is_some() {
                    self.finish(id, Err(Refusal::Agent(why)));
                }
            }
        }
    }

    /// A node is gone: its attempts are over, and nobody knows whether they ran.
    pub fn lost_node(
        &mut self,
        now: Time,
        node: NodeId,
        registry: &Registry,
        source: &dyn PolicySource,
    ) {
        let there = |call: &Call| call.now_at.as_ref().is_some_and(|attempt| attempt.node == node);
        let lost: Vec<CallId> =
            self.calls.iter().filter(|(_id, call)| there(call)).map(|(id, _call)| *id).collect();
        for id in lost {
            if self.close(now, id, Outcome::Error).is_none() {
                continue;
            }
            let why = format!("node {node} was lost while it had the call; it may have run");
            self.lost_attempt(now, id, why, registry, source);
        }
    }

    /// An attempt is over and its reply, if there was one, is not whole: an idempotent call of
    /// which the caller has nothing yet is made again.
    fn lost_attempt(
        &mut self,
        now: Time,
        id: CallId,
        why: String,
        registry: &Registry,
        source: &dyn PolicySource,
    ) {
        let Some(call) = self.calls.get(&id) else { return };
        if call.passed_on > 0 || !call.spec.idempotent {
            self.finish(id, Err(Refusal::Unavailable(why)));
        } else {
            self.retried += 1;
            self.route(now, id, registry, source);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time, registry: &Registry, source: &dyn PolicySource) {
        while let Some(id) = self.deadlines.take(now) {
            self.abandon(now, id, Outcome::Timeout);
            let why = self.calls.get(&id).map_or_else(String::new, Call::waited_for);
            self.finish(id, Err(Refusal::Timeout(why)));
        }
        while let Some(id) = self.waiting.take(now) {
            if let Some(call) = self.calls.get_mut(&id) {
                call.refused_by.clear();
                self.route(now, id, registry, source);
            }
        }
    }

    fn route(&mut self, now: Time, id: CallId, registry: &Registry, source: &dyn PolicySource) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let open = || Pool::new(source.open(&self.policy, self.seed), PICKS_LEASED);
        let pool = pool_for(&mut self.pools, call, registry, open);
        let chosen = pool.and_then(|(id, pool)| Some((id, choose_but(pool, &call.refused_by)?)));
        let Some((pool, choice)) = chosen else {
            self.waiting.set(id, now + BUSY_WAIT);
            return;
        };
        call.attempts += 1;
        let Candidate { agent, incarnation, node, .. } = choice.candidate;
        tracing::debug!(
            trace = %call.spec.trace,
            call = %id,
            attempt = call.attempts,
            %agent,
            %node,
            candidates = choice.candidates,
            policy = self.policy.name,
            policy_epoch = self.policy.epoch.0,
            fallback = choice.pick.fallback,
            "call routed"
        );
        let (pick, epoch) = (choice.pick, self.policy.epoch);
        call.now_at = Some(Attempt { agent, node, pool, pick, begun: now, epoch });
        self.effects.push_back(CallEffect::Dispatch {
            call: id,
            attempt: call.attempts,
            agent,
            incarnation,
            node,
            within: call.deadline.since(now),
            spec: Box::new(call.spec.clone()),
        });
    }

    fn close(&mut self, now: Time, id: CallId, outcome: Outcome) -> Option<(AgentId, PolicyEpoch)> {
        let call = self.calls.get_mut(&id)?;
        let attempt = call.now_at.take()?;
        // A pick of an older policy, or of a pool that was closed, has none to learn from it.
        if let Some(pool) = self.pools.of(&call.wanted, attempt.pool) {
            let took = match outcome {
                Outcome::Refused | Outcome::Unused => Duration::ZERO,
                Outcome::Ok | Outcome::Error | Outcome::Timeout => now.since(attempt.begun),
            };
            pool.close(attempt.pick, u64::try_from(took.as_micros()).unwrap_or(u64::MAX), outcome);
        }
        Some((attempt.agent, attempt.epoch))
    }

    fn abandon(&mut self, now: Time, id: CallId, outcome: Outcome) {
        let sent = self
            .calls
            .get(&id)
            .and_then(|call| call.now_at.as_ref().map(|attempt| (call.attempts, attempt.node)));
        if let Some((attempt, node)) = sent {
            self.close(now, id, outcome);
            self.effects.push_back(CallEffect::Abandon { call: id, attempt, node });
        }
    }

    fn finish(&mut self, id: CallId, event: Result<CallEvent, Refusal>) {
        self.effects.push_back(CallEffect::Tell { call: id, event });
        self.remove(id);
    }

    fn remove(&mut self, id: CallId) {
        self.calls.remove(&id);
        self.deadlines.stop(id);
        self.waiting.stop(id);
    }
}

impl Call {
    fn waited_for(&self) -> String {
        let wanted = &self.wanted;
        match self.attempts {
            0 => format!("no agent with capabilities {wanted} could be reached"),
            attempts => format!("{attempts} attempts at an agent with capabilities {wanted}"),
        }
    }
}

/// The pool to route a call by, which knows the registry as it is. One is opened only where there
/// is an able agent: a caller may want anything.
fn pool_for<'a>(
    pools: &'a mut Pools,
    call: &mut Call,
    registry: &Registry,
    open: impl FnOnce() -> Pool,
) -> Option<(PoolId, &'a mut Pool)> {
    if call.barren == Some(registry.makeup()) {
        return None;
    }
    let (wanted, revision) = (&call.wanted, registry.revision());
    // Asked twice, since a borrow that may be returned lasts as long as the function.
    if pools.current(wanted, revision).is_some() {
        return pools.current(wanted, revision);
    }
    let able: Vec<Candidate> = registry.able(wanted).cloned().collect();
    if able.is_empty() {
        call.barren = Some(registry.makeup());
        return None;
    }
    let (id, pool) = pools.open(wanted, revision, open);
    pool.set(able);
    pool.forget_but(|agent| registry.contains(agent));
    Some((id, pool))
}

/// A choice that is none of `refused`; what had to be skipped is closed as unused.
fn choose_but(pool: &mut Pool, refused: &BTreeSet<AgentId>) -> Option<Choice> {
    let mut skipped = Vec::new();
    let mut found = None;
    while let Some(choice) = pool.choose() {
        if !refused.contains(&choice.candidate.agent) {
            found = Some(choice);
            break;
        }
        let enough = skipped.len() >= 4 * usize::try_from(choice.candidates).unwrap_or(1);
        skipped.push(choice.pick);
        if enough {
            break;
        }
    }
    for pick in skipped {
        pool.close(pick, 0, Outcome::Unused);
    }
    found
}

#[cfg(test)]
mod tests;
