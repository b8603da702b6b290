//! One set of interchangeable agents with the router that chooses among them.

use std::sync::Arc;

use quorate_policy::Outcome;
use quorate_types::{AgentId, LoadReading};

use crate::endpoints::{Candidate, Endpoints, SlotTable};
use crate::router::{Pick, Router};
use crate::source::Guarded;

/// Who was chosen, and what was known when it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The one.
    pub candidate: Candidate,
    /// To close the pick with.
    pub pick: Pick,
    /// Among how many.
    pub candidates: u32,
    /// What the policy knew of it, its own count included.
    pub reading: LoadReading,
}

/// A set of agents under one policy instance.
#[derive(Debug)]
pub struct Pool {
    slots: SlotTable,
    router: Router,
    shown: Vec<Candidate>,
}

impl Pool {
    /// An empty pool; `batch` picks are leased at a time.
    pub fn new(policy: Box<dyn Guarded>, batch: u32) -> Self {
        Self { slots: SlotTable::default(), router: Router::new(policy, batch), shown: Vec::new() }
    }

    /// The name of the policy.
    pub fn policy(&self) -> &str {
        self.router.policy()
    }

    /// The agents from now on, in order of their ids. Nothing happens where nothing changed.
    pub fn set(&mut self, candidates: Vec<Candidate>) {
        if candidates == self.shown {
            return;
        }
        self.shown.clone_from(&candidates);
        let table: Arc<Endpoints> = Arc::new(self.slots.table(candidates));
        self.router.refresh(&table);
    }

    /// Grows with each table that was made.
    pub fn revision(&self) -> u64 {
        self.router.table().revision()
    }

    /// As many choices will be asked for one after the other: the policy is asked once for all.
    pub fn expect(&mut self, choices: usize) {
        self.router.set_batch(u32::try_from(choices).unwrap_or(u32::MAX));
    }

    /// Forgets agents that are not of `known`.
    pub fn forget_but(&mut self, known: impl Fn(AgentId) -> bool) {
        let gone: Vec<AgentId> = self.slots.agents().filter(|agent| !known(*agent)).collect();
        for agent in gone {
            self.slots.forget(agent);
        }
    }

    /// States an agent's count of work in hand, where the ledger knows it; the choices that follow
    /// count themselves. Before `set`, so that the table is made of it.
    pub fn set_in_flight(&mut self, agent: AgentId, count: u32) {
        self.slots.set_in_flight(agent, count);
    }

    /// Picks of this agent that are not closed.
    pub fn in_flight(&self, agent: AgentId) -> i64 {
        self.slots.in_flight(agent)
    }

    /// Chooses one, or none where the pool is empty.
    pub fn choose(&mut self) -> Option<Choice> {
        let pick = self.router.pick()?;
        let table = self.router.table();
        let row = table.at(pick.slot)?;
        let own = row.in_flight.load(std::sync::atomic::Ordering::Relaxed);
        let mut reading = row.candidate.reading;
        reading.in_flight = u32::try_from(own - 1).unwrap_or(0);
        Some(Choice {
            candidate: row.candidate.clone(),
            pick,
            candidates: u32::try_from(table.rows().len()).unwrap_or(u32::MAX),
            reading,
        })
    }

    /// Ends a choice.
    pub fn close(&mut self, pick: Pick, latency_us: u64, outcome: Outcome) {
        self.router.close(pick.slot, latency_us, outcome);
    }
}
