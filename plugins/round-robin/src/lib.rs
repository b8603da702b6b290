//! Round robin. What it promises stands in `README.md` beside this file's folder.

use quorate_sdk::balancer::{Balancer, Columns};
use quorate_sdk::{Config, Fault, Outcome, Slot, Snapshot, invalid};

struct RoundRobin {
    slots: Vec<Slot>,
    /// The place of the next pick; `slots.len()` stands for the first.
    next: usize,
    last: Option<Slot>,
}

impl Balancer for RoundRobin {
    const NAME: &'static str = "round-robin";
    const STATE_SCHEMA: u32 = 0x5252_0001;
    const FEATURES: &'static [&'static str] = &[];

    fn open(_: &Config, _: u64, prior: Option<&Snapshot>) -> Result<Self, Fault> {
        let body = prior.map_or(&[][..], |prior| &prior.body);
        let last = match body.first_chunk() {
            None if body.is_empty() => None,
            Some(bytes) if body.len() == 4 => Some(Slot::from_le_bytes(*bytes)),
            _ => return Err(invalid("the saved state has another length")),
        };
        Ok(Self { slots: Vec::new(), next: 0, last })
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn replace(&mut self, slots: Vec<Slot>, _: Columns<'_>) {
        self.next = self.last.map_or(0, |last| slots.partition_point(|slot| *slot <= last));
        self.slots = slots;
    }

    fn patch(&mut self, _: usize, _: usize, _: i64) {}

    fn pick(&mut self, _: u64, _: u32) -> Option<Slot> {
        let place = if self.next < self.slots.len() { self.next } else { 0 };
        let slot = *self.slots.get(place)?;
        self.next = place + 1;
        self.last = Some(slot);
        Some(slot)
    }

    fn pick_batch(&mut self, _: u64, count: u32, picked: &mut Vec<Slot>) {
        if self.slots.is_empty() {
            return;
        }
        let mut wanted = count as usize;
        while wanted > 0 {
            let place = if self.next < self.slots.len() { self.next } else { 0 };
            let run = &self.slots[place..self.slots.len().min(place + wanted)];
            picked.extend_from_slice(run);
            wanted -= run.len();
            self.next = place + run.len();
            self.last = run.last().copied();
        }
    }

    fn ended(&mut self, _: usize, _: u64, _: Outcome) {}

    fn save(&self) -> Vec<u8> {
        self.last.map_or(Vec::new(), |last| last.to_le_bytes().to_vec())
    }
}

quorate_sdk::export_balancer!(RoundRobin);
