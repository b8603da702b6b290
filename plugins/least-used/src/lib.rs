//! Least used. What it promises stands in `README.md` beside this file's folder.

use quorate_sdk::balancer::{Balancer, Columns};
use quorate_sdk::{Config, Fault, Outcome, Slot, Snapshot, Tournament, invalid};

struct LeastUsed {
    slots: Vec<Slot>,
    in_flight: Tournament,
}

impl Balancer for LeastUsed {
    const NAME: &'static str = "least-used";
    const STATE_SCHEMA: u32 = 0x4c55_0001;
    const FEATURES: &'static [&'static str] = &["in-flight"];

    fn open(_: &Config, _: u64, prior: Option<&Snapshot>) -> Result<Self, Fault> {
        if prior.is_some_and(|prior| !prior.body.is_empty()) {
            return Err(invalid("the saved state has another length"));
        }
        Ok(Self { slots: Vec::new(), in_flight: Tournament::default() })
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn replace(&mut self, slots: Vec<Slot>, columns: Columns<'_>) {
        let counts = columns.column(0).iter().map(|count| (*count).max(0));
        self.in_flight = Tournament::new(counts.collect());
        self.slots = slots;
    }

    fn patch(&mut self, _: usize, place: usize, value: i64) {
        self.in_flight.set(place, value.max(0));
    }

    fn pick(&mut self, _: u64, _: u32) -> Option<Slot> {
        let place = self.in_flight.lowest();
        let slot = *self.slots.get(place)?;
        self.in_flight.set(place, self.in_flight.key(place).saturating_add(1));
        Some(slot)
    }

    fn ended(&mut self, place: usize, _: u64, _: Outcome) {
        self.in_flight.set(place, (self.in_flight.key(place) - 1).max(0));
    }

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
}

quorate_sdk::export_balancer!(LeastUsed);
