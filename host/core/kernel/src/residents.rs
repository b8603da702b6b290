//! The agents that this node hosts: their lives in the log, what they have in hand,
//! and what is told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::{AgentId, Incarnation, LoadReading};

#[derive(Debug)]
struct Resident {
    slots: u32,
    life: Option<(AgentId, Incarnation)>,
    calls: u32,
    tasks: u32,
    latency_us: u64,
    success_ppm: u32,
    told: Option<LoadReading>,
}

impl Resident {
    /// Folds one finished piece of work in: an eighth of the new, seven of the old.
    fn learn(&mut self, took: Duration, ok: bool) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latency_us = if self.latency_us == 0 {
            took
        } else {
            self.latency_us - self.latency_us / 8 + took / 8
        };
        self.success_ppm = self.success_ppm - self.success_ppm / 8 + if ok { 125_000 } else { 0 };
    }

    fn reading(&self) -> LoadReading {
        let in_flight = self.tasks + self.calls;
        LoadReading {
            in_flight,
            load: 10 * in_flight / self.slots.max(1),
            latency_us: self.latency_us,
            success_ppm: self.success_ppm.min(1_000_000),
        }
    }
}

/// The agents by their place in the configuration.
#[derive(Debug)]
pub(crate) struct Residents {
    table: Vec<Resident>,
    by_agent: BTreeMap<AgentId, usize>,
    /// Those whose reading may be another than was told.
    changed: BTreeSet<usize>,
}

impl Residents {
    pub(crate) fn new(slots: impl Iterator<Item = u32>) -> Self {
        let table = slots.map(|slots| Resident {
            slots,
            life: None,
            calls: 0,
            tasks: 0,
            latency_us: 0,
            success_ppm: 1_000_000,
            told: None,
        });
        Self { table: table.collect(), by_agent: BTreeMap::new(), changed: BTreeSet::new() }
    }

    /// The log has numbered a life of the agent at this place.
    pub(crate) fn begin_life(&mut self, at: usize, agent: AgentId, incarnation: Incarnation) {
        let Some(resident) = self.table.get_mut(at) else { return };
        resident.life = Some((agent, incarnation));
        resident.told = None;
        self.by_agent.insert(agent, at);
        self.changed.insert(at);
    }

    /// The node's life has ended, and theirs with it.
    pub(crate) fn end_lives(&mut self) {
        self.by_agent.clear();
        for resident in &mut self.table {
            resident.life = None;
        }
    }

    /// Who lives here, by place.
    pub(crate) fn lives(&self) -> impl Iterator<Item = (usize, AgentId, Incarnation)> {
        let lives = self.table.iter().enumerate();
        lives.filter_map(|(at, resident)| {
            resident.life.map(|(agent, incarnation)| (at, agent, incarnation))
        })
    }

    /// Where this life of an agent of record is.
    pub(crate) fn place_of(&self, agent: AgentId, incarnation: Incarnation) -> Option<usize> {
        let at = self.by_agent.get(&agent).copied()?;
        (self.table.get(at)?.life == Some((agent, incarnation))).then_some(at)
    }

    /// Those that hold a lease.
    pub(crate) fn busy(&self) -> Vec<(AgentId, Incarnation)> {
        let busy = self.table.iter().filter(|resident| resident.tasks > 0);
        busy.filter_map(|resident| resident.life).collect()
    }

    /// Takes one more call, up to `queued` for each slot beyond the one it works on.
    pub(crate) fn admit_call(&mut self, at: usize, queued: u32) -> bool {
        self.table.get_mut(at).is_some_and(|resident| {
            let room = resident.calls < resident.slots.max(1) * (1 + queued);
            resident.calls += u32::from(room);
            self.changed.insert(at);
            room
        })
    }

    pub(crate) fn call_ended(&mut self, at: usize) {
        self.change(at, |resident| resident.calls -= 1);
    }

    pub(crate) fn task_begun(&mut self, at: usize) {
        self.change(at, |resident| resident.tasks += 1);
    }

    pub(crate) fn task_ended(&mut self, at: usize) {
        self.change(at, |resident| resident.tasks -= 1);
    }

    /// A piece of work took so long, and went well or not.
    pub(crate) fn learn(&mut self, at: usize, took: Duration, ok: bool) {
        self.change(at, |resident| resident.learn(took, ok));
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Resident)) {
        if let Some(resident) = self.table.get_mut(at) {
            change(resident);
            self.changed.insert(at);
        }
    }

    /// Readings that were not told yet.
    pub(crate) fn news(&mut self) -> Vec<(AgentId, LoadReading)> {
        let mut news = Vec::new();
        for at in std::mem::take(&mut self.changed) {
            let Some(resident) = self.table.get_mut(at) else { continue };
            let Some((agent, _incarnation)) = resident.life else { continue };
            let reading = resident.reading();
            if resident.told.replace(reading) != Some(reading) {
                news.push((agent, reading));
            }
        }
        news
    }
}
