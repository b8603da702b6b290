//! The requirement's score. What it promises stands in `README.md` beside this file's
//! folder. The part of a score that readings give is kept, and so is who is lowest.

use quorate_sdk::balancer::{Balancer, Columns};
use quorate_sdk::{Config, Fault, Outcome, Slot, Snapshot, Tournament, invalid};

const LOAD: usize = 0;
const LATENCY_US: usize = 1;
const SUCCESS_PPM: usize = 2;
const CAPACITY: usize = 3;

const LOAD_MAX: i64 = 1_000_000;
const LATENCY_US_MAX: i64 = 1_000_000_000_000;
const ONE_PPM: i64 = 1_000_000;
const CAPACITY_MAX: i64 = 1_000_000;
const SINCE_MAX: i64 = 1_000_000;

#[derive(Clone, Copy, Default)]
struct Seat {
    load: i64,
    /// 3 · latency + 20 · failure.
    rest: i64,
    latency_us: i64,
    success_ppm: i64,
    capacity: i64,
    since: i64,
}

impl Seat {
    fn set(&mut self, feature: usize, value: i64) {
        match feature {
            LOAD => {
                self.load = value.clamp(0, LOAD_MAX);
                self.since = 0;
            }
            LATENCY_US => self.latency_us = value.clamp(0, LATENCY_US_MAX),
            SUCCESS_PPM => self.success_ppm = value.clamp(0, ONE_PPM),
            CAPACITY => self.capacity = value.clamp(1, CAPACITY_MAX),
            _ => {}
        }
        self.rest = 3 * self.latency_us + 20 * (ONE_PPM - self.success_ppm);
    }

    fn score(&self) -> i64 {
        500_000 * (self.load + 10 * self.since / self.capacity) + self.rest
    }
}

struct LoadAware {
    slots: Vec<Slot>,
    seats: Vec<Seat>,
    scores: Tournament,
}

impl Balancer for LoadAware {
    const NAME: &'static str = "load-aware";
    const STATE_SCHEMA: u32 = 0x4c41_0001;
    const FEATURES: &'static [&'static str] = &["load", "latency-us", "success-ppm", "capacity"];

    fn open(_: &Config, _: u64, prior: Option<&Snapshot>) -> Result<Self, Fault> {
        if prior.is_some_and(|prior| !prior.body.is_empty()) {
            return Err(invalid("the saved state has another length"));
        }
        Ok(Self { slots: Vec::new(), seats: Vec::new(), scores: Tournament::default() })
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn replace(&mut self, slots: Vec<Slot>, columns: Columns<'_>) {
        self.seats = vec![Seat::default(); slots.len()];
        for feature in [LOAD, LATENCY_US, SUCCESS_PPM, CAPACITY] {
            for (seat, value) in self.seats.iter_mut().zip(columns.column(feature)) {
                seat.set(feature, *value);
            }
        }
        self.scores = Tournament::new(self.seats.iter().map(Seat::score).collect());
        self.slots = slots;
    }

    fn patch(&mut self, feature: usize, place: usize, value: i64) {
        let seat = &mut self.seats[place];
        seat.set(feature, value);
        self.scores.set(place, seat.score());
    }

    fn pick(&mut self, _: u64, _: u32) -> Option<Slot> {
        let place = self.scores.lowest();
        let slot = *self.slots.get(place)?;
        let seat = &mut self.seats[place];
        seat.since = (seat.since + 1).min(SINCE_MAX);
        self.scores.set(place, seat.score());
        Some(slot)
    }

    fn ended(&mut self, place: usize, _: u64, _: Outcome) {
        let seat = &mut self.seats[place];
        seat.since = (seat.since - 1).max(0);
        self.scores.set(place, seat.score());
    }

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
}

quorate_sdk::export_balancer!(LoadAware);
