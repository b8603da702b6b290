//! Outside workers that wait at this node's door. A long poll is an offer of slots
//! to the leader; a lease that was committed for the worker answers it, and with
//! that the worker has started the task.
//!
//! An answer may be lost on its way, and then the worker's heartbeats keep a lease
//! alive of which it does not know. So a poll may name the leases that the worker
//! holds; one that it does not name for a while is told again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quorate_types::clocks::Clocks;
use quorate_types::{AgentId, Incarnation, Refusal, Reply, Time, Token};

use crate::frame::{Control, Done, Setback};
use crate::io::Now;
use crate::kernel::Kernel;
use crate::works::LeaseKey;

/// Offers are repeated this often; the leader drops one after three.
const OFFER_EVERY: Duration = Duration::from_millis(500);
/// Longest long poll.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A lease that a poll does not name is told again after this span. Until then its end, which the
/// worker may have been told of by another node, has been applied here, and an answer that was on
/// its way beside the poll has arrived.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// A worker's wish for leases.
#[derive(Debug)]
pub(crate) struct Poll {
    /// The ask to be answered.
    pub(crate) ask: u64,
    /// Leases wanted.
    pub(crate) max: u32,
    /// Leases that the worker knows to hold, where it says.
    pub(crate) holding: Option<Vec<Token>>,
}

/// An outside worker that waits here, or did.
#[derive(Debug, Default)]
struct Outside {
    incarnation: Incarnation,
    polls: VecDeque<Poll>,
    /// Leases of which it has not been told, and those of which it has.
    waiting: BTreeSet<LeaseKey>,
    delivered: BTreeSet<LeaseKey>,
    /// Those of the delivered that its last poll did not name, and when they are told again.
    missed: BTreeMap<LeaseKey, Time>,
}

impl Outside {
    fn is_idle(&self) -> bool {
        self.polls.is_empty() && self.waiting.is_empty() && self.delivered.is_empty()
    }

    fn open(&self) -> u32 {
        self.polls.iter().fold(0, |open, poll| open.saturating_add(poll.max))
    }

    /// The worker says which leases it holds.
    fn compare(&mut self, now: Time, holding: &[Token]) {
        let holds = |lease: &LeaseKey| holding.contains(&lease.1);
        self.missed.retain(|lease, _again| !holds(lease));
        for lease in self.delivered.iter().filter(|lease| !holds(lease)) {
            self.missed.entry(*lease).or_insert(now + TELL_AGAIN);
        }
    }

    /// Leases that were missed for long enough wait to be told again.
    fn miss(&mut self, now: Time) {
        for lease in self.missed.extract_if(.., |_lease, again| *again <= now) {
            self.delivered.remove(&lease.0);
            self.waiting.insert(lease.0);
        }
    }

    fn lease_ended(&mut self, lease: LeaseKey) {
        self.waiting.remove(&lease);
        self.delivered.remove(&lease);
        self.missed.remove(&lease);
    }
}

/// The outside workers at this door. Each step looks at those alone that something happened to.
#[derive(Debug, Default)]
pub(crate) struct Outsiders {
    workers: BTreeMap<AgentId, Outside>,
    /// Whose poll an ask is, and until when it waits.
    polls: BTreeMap<u64, AgentId>,
    ends: Clocks<u64>,
    /// Workers that offer otherwise than the leader was told.
    changed: BTreeSet<AgentId>,
    /// When every offer is repeated.
    pub(crate) repeat_at: Time,
}

impl Outsiders {
    /// When a poll ends, or offers must be repeated.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        Some(self.repeat_at.min(self.ends.first()?))
    }

    /// Leases of which their workers know.
    pub(crate) fn delivered(&self) -> impl Iterator<Item = &LeaseKey> {
        self.workers.values().flat_map(|worker| &worker.delivered)
    }

    fn knows(&self, agent: AgentId, incarnation: Incarnation) -> bool {
        self.workers.get(&agent).is_some_and(|worker| worker.incarnation == incarnation)
    }

    /// A life of a worker that was not here before, with the leases that it holds. Where it does not
    /// say which of them it knows, it is told of all.
    fn enter(
        &mut self,
        agent: AgentId,
        incarnation: Incarnation,
        held: BTreeSet<LeaseKey>,
        says: bool,
    ) {
        let (waiting, delivered) =
            if says { (BTreeSet::new(), held) } else { (held, BTreeSet::new()) };
        let worker = Outside { incarnation, waiting, delivered, ..Outside::default() };
        self.workers.insert(agent, worker);
    }

    fn open(&mut self, now: Time, agent: AgentId, poll: Poll, until: Time) {
        if let Some(worker) = self.workers.get_mut(&agent) {
            if let Some(holding) = &poll.holding {
                worker.compare(now, holding);
            }
            self.polls.insert(poll.ask, agent);
            self.ends.set(poll.ask, until);
            self.changed.insert(agent);
            worker.polls.push_back(poll);
        }
    }

    /// Workers that wait and are to be told of leases again.
    fn missing(&mut self, now: Time) -> BTreeSet<AgentId> {
        let polling: BTreeSet<AgentId> = self.polls.values().copied().collect();
        for agent in &polling {
            if let Some(worker) = self.workers.get_mut(agent) {
                worker.miss(now);
            }
        }
        polling
    }

    /// Ends a poll, whoever's it is; false where the ask is none.
    fn close(&mut self, ask: u64) -> bool {
        let Some(agent) = self.polls.remove(&ask) else { return false };
        self.ends.stop(ask);
        self.changed.insert(agent);
        if let Some(worker) = self.workers.get_mut(&agent) {
            worker.polls.retain(|poll| poll.ask != ask);
        }
        true
    }

    /// Whether this life of a worker is here and may be waiting for the lease.
    pub(crate) fn lease_given(
        &mut self,
        agent: AgentId,
        incarnation: Incarnation,
        lease: LeaseKey,
    ) -> bool {
        let worker = self.workers.get_mut(&agent);
        worker.filter(|worker| worker.incarnation == incarnation).is_some_and(|worker| {
            !worker.delivered.contains(&lease) && worker.waiting.insert(lease)
        })
    }

    pub(crate) fn lease_ended(&mut self, agent: AgentId, lease: LeaseKey) {
        if let Some(worker) = self.workers.get_mut(&agent) {
            worker.lease_ended(lease);
            if !worker.polls.is_empty() {
                // Its slot is free again, and offered with the others.
                self.changed.insert(agent);
            }
            if worker.is_idle() && !self.changed.contains(&agent) {
                self.workers.remove(&agent);
            }
        }
    }

    /// Answers for a worker's polls, oldest first, as far as there are leases for them.
    fn give(&mut self, agent: AgentId) -> Vec<(u64, Vec<LeaseKey>)> {
        let mut answers = Vec::new();
        while let Some(worker) = self.workers.get_mut(&agent)
            && !worker.waiting.is_empty()
            && let Some(Poll { ask, max, .. }) = worker.polls.pop_front()
        {
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            let given: Vec<_> = worker.waiting.iter().copied().take(max).collect();
            given.iter().for_each(|lease| _ = worker.waiting.remove(lease));
            worker.delivered.extend(given.iter().copied());
            self.close(ask);
            answers.push((ask, given));
        }
        answers
    }

    /// Polls whose wait has ended.
    fn ended(&mut self, now: Time) -> Vec<u64> {
        let mut asks = Vec::new();
        while let Some(ask) = self.ends.take(now) {
            self.close(ask);
            asks.push(ask);
        }
        asks
    }

    /// Offers to be told: those that changed, or all of them. A worker that neither waits nor
    /// works is forgotten once that was told; it comes back with its next poll.
    fn offers(&mut self, all: bool) -> Vec<(AgentId, Incarnation, u32)> {
        let mut told = std::mem::take(&mut self.changed);
        if all {
            told.extend(self.polls.values().copied());
        }
        let mut offers = Vec::new();
        for agent in told {
            let Some(worker) = self.workers.get(&agent) else { continue };
            offers.push((agent, worker.incarnation, worker.open()));
            if worker.is_idle() {
                self.workers.remove(&agent);
            }
        }
        offers
    }
}

impl Kernel {
    /// An outside worker waits for leases.
    pub(crate) fn open_poll(
        &mut self,
        now: Now,
        (agent, incarnation): (AgentId, Incarnation),
        poll: Poll,
        wait: Duration,
    ) {
        let ask = poll.ask;
        let record = self.view.agent(agent);
        // A registration may be applied here a moment after the worker has its answer.
        if record.is_some_and(|record| record.incarnation > incarnation || record.retired.is_some())
        {
            let why = format!("agent {agent} in life {incarnation} is over; register it again");
            self.finish(now, ask, Err(Setback::Refused(Refusal::Conflict(why))));
            return;
        }
        if record.is_some_and(|record| record.spec.hosted) {
            let why = format!("agent {agent} is hosted by a node and takes no leases by request");
            self.finish(now, ask, Err(Setback::Refused(Refusal::Invalid(why))));
            return;
        }
        if !self.home.outside.knows(agent, incarnation) {
            let held = self.leases_held(agent, incarnation);
            self.home.outside.enter(agent, incarnation, held, poll.holding.is_some());
        }
        let poll = Poll { max: poll.max.clamp(1, self.slots_of(agent)), ..poll };
        self.home.outside.open(now.mono, agent, poll, now.mono + wait.min(WAIT_MAX));
        self.answer_worker(now, agent);
    }

    /// Slots of an agent. Where its registration is not applied here yet: what every agent has.
    fn slots_of(&self, agent: AgentId) -> u32 {
        self.view.agent(agent).map_or(1, |record| record.spec.slots.max(1))
    }

    /// Nobody waits with this ask any more.
    pub(crate) fn forget_poll(&mut self, ask: u64) {
        self.home.outside.close(ask);
    }

    fn leases_held(&self, agent: AgentId, incarnation: Incarnation) -> BTreeSet<LeaseKey> {
        let leases = self.view.leases_of(agent);
        let held = leases.filter(|lease| lease.incarnation == incarnation);
        held.map(|lease| (lease.task, lease.token)).collect()
    }

    /// A worker has leases that it does not know of, or waits anew.
    pub(crate) fn answer_worker(&mut self, now: Now, agent: AgentId) {
        for (ask, given) in self.home.outside.give(agent) {
            self.note_starts(&given);
            let grants = given.iter().filter_map(|(task, token)| {
                self.view.grant(*task).filter(|grant| grant.lease.token == *token)
            });
            let leases = Reply::Leases(grants.collect());
            self.finish(now, ask, Ok(Done::Door(Box::new(leases))));
        }
    }

    /// Brings what workers know in line with the leases of record, all at once.
    pub(crate) fn reconcile_outside(&mut self, now: Now) {
        let workers = &self.home.outside.workers;
        let known: Vec<_> =
            workers.iter().map(|(agent, worker)| (*agent, worker.incarnation)).collect();
        for (agent, incarnation) in known {
            let held = self.leases_held(agent, incarnation);
            if let Some(worker) = self.home.outside.workers.get_mut(&agent) {
                worker.delivered.retain(|lease| held.contains(lease));
                worker.missed.retain(|lease, _again| held.contains(lease));
                worker.waiting = &held - &worker.delivered;
                if worker.is_idle() {
                    self.home.outside.changed.insert(agent);
                }
            }
            self.answer_worker(now, agent);
        }
    }

    pub(crate) fn end_polls(&mut self, now: Now) {
        for ask in self.home.outside.ended(now.mono) {
            self.finish(now, ask, Ok(Done::Door(Box::new(Reply::Leases(Vec::new())))));
        }
    }

    pub(crate) fn tell_offers(&mut self, now: Now) {
        let all = self.home.outside.repeat_at <= now.mono;
        if all {
            self.home.outside.repeat_at = now.mono + OFFER_EVERY;
            for agent in self.home.outside.missing(now.mono) {
                self.answer_worker(now, agent);
            }
        }
        for (agent, incarnation, wanted) in self.home.outside.offers(all) {
            // Several polls together do not stretch the slots either.
            let held = u32::try_from(self.view.leases_count(agent)).unwrap_or(u32::MAX);
            let open = wanted.min(self.slots_of(agent).saturating_sub(held));
            let as_of = self.applied.iter().map(|(group, index)| (*group, *index)).collect();
            self.tell_leaders(now, &Control::Offer { agent, incarnation, open, as_of });
        }
    }
}
