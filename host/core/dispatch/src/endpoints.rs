//! The table a router chooses from: immutable, replaced whole when an agent comes,
//! goes or has new readings. In-flight counts are shared atomics that survive the
//! replacement, so that every worker of a node counts into the same numbers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use quorate_policy::{Feature, Slot};
use quorate_types::{AgentId, Incarnation, LoadReading, NodeId};

/// An agent that may be chosen, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub agent: AgentId,
    /// Which life.
    pub incarnation: Incarnation,
    /// Where.
    pub node: NodeId,
    /// How many at once it takes.
    pub capacity: u32,
    /// Configured weight, 1 when unset.
    pub weight: u32,
    /// Its newest load reading, late as gossip is.
    pub reading: LoadReading,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its place in the policy's pool.
    pub slot: Slot,
    /// What it is.
    pub candidate: Candidate,
    /// Picks that are not closed, by this node's own count.
    pub in_flight: Arc<AtomicI64>,
}

/// Gives each agent a slot for as long as it is known, and carries its count from
/// table to table.
#[derive(Debug, Default)]
pub struct SlotTable {
    slots: BTreeMap<AgentId, (Slot, Arc<AtomicI64>)>,
    vacant: Vec<Slot>,
    next: Slot,
    revision: u64,
}

impl SlotTable {
    /// A new table of these candidates, which must be in order of their agents.
    pub fn table(&mut self, candidates: Vec<Candidate>) -> Endpoints {
        self.revision += 1;
        let mut rows: Vec<Endpoint> =
            candidates.into_iter().map(|candidate| self.row(candidate)).collect();
        rows.sort_unstable_by_key(|row| row.slot);
        let places = rows.last().map_or(0, |row| index(row.slot) + 1);
        let mut position = vec![None; places];
        for (at, row) in rows.iter().enumerate() {
            position[index(row.slot)] = Some(at);
        }
        let counts = self.counts();
        Endpoints { revision: self.revision, rows, position, counts }
    }

    /// States this agent's count, where the ledger knows it better than this node.
    pub fn set_in_flight(&mut self, agent: AgentId, count: u32) {
        let (_slot, own) = self.seat(agent);
        own.store(i64::from(count), Ordering::Relaxed);
    }

    fn counts(&self) -> Vec<Option<Arc<AtomicI64>>> {
        let mut counts = vec![None; index(self.next)];
        for (slot, count) in self.slots.values() {
            counts[index(*slot)] = Some(Arc::clone(count));
        }
        counts
    }

    /// Forgets an agent that will not return; its slot may go to another.
    pub fn forget(&mut self, agent: AgentId) {
        if let Some((slot, _count)) = self.slots.remove(&agent) {
            self.vacant.push(slot);
        }
    }

    /// The agents that have a slot.
    pub fn agents(&self) -> impl Iterator<Item = AgentId> + '_ {
        self.slots.keys().copied()
    }

    /// Picks of this agent that are not closed.
    pub fn in_flight(&self, agent: AgentId) -> i64 {
        self.slots.get(&agent).map_or(0, |(_slot, count)| count.load(Ordering::Relaxed))
    }

    fn row(&mut self, candidate: Candidate) -> Endpoint {
        let (slot, in_flight) = self.seat(candidate.agent);
        Endpoint { slot, candidate, in_flight }
    }

    fn seat(&mut self, agent: AgentId) -> (Slot, Arc<AtomicI64>) {
        let (vacant, next) = (&mut self.vacant, &mut self.next);
        let (slot, count) = self.slots.entry(agent).or_insert_with(|| {
            let slot = vacant.pop().unwrap_or_else(|| {
                *next += 1;
                *next - 1
            });
            (slot, Arc::new(AtomicI64::new(0)))
        });
        (*slot, Arc::clone(count))
    }
}

/// The immutable table.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    revision: u64,
    rows: Vec<Endpoint>,
    /// Where each slot's row is.
    position: Vec<Option<usize>>,
    /// The counts of every known slot, also of those that this table leaves out:
    /// a pick may end after its endpoint has left.
    counts: Vec<Option<Arc<AtomicI64>>>,
}

impl Endpoints {
    /// The count of picks of this slot that are not closed.
    pub fn count(&self, slot: Slot) -> Option<&AtomicI64> {
        self.counts.get(index(slot))?.as_deref()
    }

    /// Grows with each table of one `SlotTable`.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The rows, by ascending slot.
    pub fn rows(&self) -> &[Endpoint] {
        &self.rows
    }

    /// The row of this slot, if it is in the table.
    pub fn at(&self, slot: Slot) -> Option<&Endpoint> {
        self.position.get(index(slot)).copied().flatten().map(|at| &self.rows[at])
    }

    /// The row of this agent, if it is in the table.
    pub fn of(&self, agent: AgentId) -> Option<&Endpoint> {
        self.rows.iter().find(|row| row.candidate.agent == agent)
    }

    /// Appends one column: this feature of every row.
    pub fn column(&self, feature: Feature, out: &mut Vec<i64>) {
        out.extend(self.rows.iter().map(|row| row.value(feature)));
    }
}

impl Endpoint {
    /// One number of this endpoint, in the unit that `Feature` states.
    pub fn value(&self, feature: Feature) -> i64 {
        let own = self.in_flight.load(Ordering::Relaxed);
        let reading = &self.candidate.reading;
        match feature {
            Feature::InFlight => own,
            // A gossiped load is late; the node's own count is not. The larger is nearer the truth.
            Feature::Load => {
                i64::from(reading.load).max(10 * own / i64::from(self.candidate.capacity.max(1)))
            }
            Feature::LatencyUs => i64::try_from(reading.latency_us).unwrap_or(i64::MAX),
            Feature::SuccessPpm => i64::from(reading.success_ppm),
            Feature::Weight => i64::from(self.candidate.weight),
            Feature::Capacity => i64::from(self.candidate.capacity),
        }
    }
}

fn index(slot: Slot) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}
