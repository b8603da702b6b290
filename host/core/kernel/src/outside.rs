//! Outside workers that wait at this node's door. A long poll is an offer of slots
//! to the leader; a lease that was committed for the worker answers it, and with
//! that the worker has started the task.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use quorate_types::{AgentId, Incarnation, Refusal, Reply, TaskId, Time, Token};

use crate::frame::{Control, Done, Setback};
use crate::home::key;
use crate::io::Now;
use crate::kernel::Kernel;

/// Offers are repeated this often; the leader drops one after three.
const OFFER_EVERY: Duration = Duration::from_millis(500);
/// Longest long poll.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Poll {
    pub(crate) ask: u64,
    pub(crate) max: usize,
    pub(crate) until: Time,
}

/// An outside worker that waits here, or did.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    pub(crate) incarnation: Incarnation,
    pub(crate) polls: VecDeque<Poll>,
    pub(crate) delivered: BTreeSet<(TaskId, Token)>,
}

impl Kernel {
    /// An outside worker waits for leases.
    pub(crate) fn open_poll(
        &mut self,
        now: Now,
        ask: u64,
        (agent, incarnation): (AgentId, Incarnation),
        max: u32,
        wait: Duration,
    ) {
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
        let poll = Poll {
            ask,
            max: usize::try_from(max.max(1)).unwrap_or(usize::MAX),
            until: now.mono + wait.min(WAIT_MAX),
        };
        let outside = self.home.outside.entry(agent).or_default();
        if outside.incarnation != incarnation {
            *outside = Outside { incarnation, ..Outside::default() };
        }
        outside.polls.push_back(poll);
        self.home.offers_at = Time::ZERO;
        self.answer_polls(now);
    }

    /// Nobody waits with this ask any more.
    pub(crate) fn forget_poll(&mut self, ask: u64) {
        for outside in self.home.outside.values_mut() {
            let before = outside.polls.len();
            outside.polls.retain(|poll| poll.ask != ask);
            if outside.polls.len() != before {
                self.home.offers_at = Time::ZERO;
            }
        }
    }

    pub(crate) fn answer_polls(&mut self, now: Now) {
        let mut answers = Vec::new();
        for (agent, outside) in &mut self.home.outside {
            if outside.polls.is_empty() {
                continue;
            }
            let held: BTreeSet<(TaskId, Token)> = self
                .view
                .leases_of(*agent)
                .filter(|lease| lease.incarnation == outside.incarnation)
                .map(|lease| key(&lease))
                .collect();
            outside.delivered.retain(|lease| held.contains(lease));
            let mut waiting: VecDeque<_> =
                held.into_iter().filter(|lease| !outside.delivered.contains(lease)).collect();
            while !waiting.is_empty() {
                let Some(poll) = outside.polls.pop_front() else { break };
                let given: Vec<_> = waiting.drain(..poll.max.min(waiting.len())).collect();
                outside.delivered.extend(given.iter().copied());
                answers.push((poll.ask, given));
            }
            while outside.polls.front().is_some_and(|poll| poll.until <= now.mono) {
                if let Some(poll) = outside.polls.pop_front() {
                    answers.push((poll.ask, Vec::new()));
                }
            }
        }
        if !answers.is_empty() {
            self.home.offers_at = Time::ZERO;
        }
        for (ask, given) in answers {
            self.note_starts(&given);
            let grants = given.iter().filter_map(|(task, _token)| self.view.grant(*task)).collect();
            self.finish(now, ask, Ok(Done::Door(Box::new(Reply::Leases(grants)))));
        }
    }

    pub(crate) fn tell_offers(&mut self, now: Now) {
        if self.home.offers_at > now.mono {
            return;
        }
        self.home.offers_at = now.mono + OFFER_EVERY;
        let as_of = self.applied;
        let offers: Vec<Control> = self
            .home
            .outside
            .iter()
            .map(|(agent, outside)| {
                let open = outside.polls.iter().map(|poll| poll.max).sum::<usize>();
                Control::Offer {
                    agent: *agent,
                    incarnation: outside.incarnation,
                    open: u32::try_from(open).unwrap_or(u32::MAX),
                    as_of,
                }
            })
            .collect();
        for offer in offers {
            self.tell_leader(now, offer);
        }
        // One that waits no more was told so once; it comes back with its next poll.
        let view = &self.view;
        self.home
            .outside
            .retain(|agent, outside| !outside.polls.is_empty() || view.leases_count(*agent) > 0);
    }
}
