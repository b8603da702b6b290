//! The requirement's score, as `plugins/load-aware/README.md` has it:
//! 0.5 · load / 10 + 0.3 · latency in ms / 1000 + 0.2 · (1 − success) · 10, lowest wins.
//! Ten million times that is a whole number for every reading, so it is kept so.

use crate::balancer::{Balancer, Descriptor, Fault, Feature, Observation, Slot, Snapshot};
use crate::seats::{Row, Seats, counted, descriptor, invalid};

/// The schema of its state, which is empty: "LA", version 1.
pub const STATE_SCHEMA: u32 = 0x4c41_0001;

/// One second's latency in the score weighs 3 · 10⁶; readings above 11 days are cut.
const LATENCY_US_MAX: i64 = 1_000_000_000_000;
const LOAD_MAX: i64 = 1_000_000;
const CAPACITY_MAX: i64 = 1_000_000;
const ONE_PPM: i64 = 1_000_000;

/// What is known of one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    load: i64,
    latency_us: i64,
    success_ppm: i64,
    capacity: i64,
    /// Own picks since `load` was read.
    since: i64,
}

impl Row for Reading {
    fn set(&mut self, feature: Feature, value: i64) {
        match feature {
            Feature::Load => {
                self.load = value.clamp(0, LOAD_MAX);
                self.since = 0;
            }
            Feature::LatencyUs => self.latency_us = value.clamp(0, LATENCY_US_MAX),
            Feature::SuccessPpm => self.success_ppm = value.clamp(0, ONE_PPM),
            Feature::Capacity => self.capacity = value.clamp(1, CAPACITY_MAX),
            Feature::InFlight | Feature::Weight => {}
        }
    }
}

impl Reading {
    /// Ten million times the requirement's score. The load is what was read, and what
    /// this policy has itself put there since.
    fn score(&self) -> i64 {
        let load = self.load + 10 * self.since / self.capacity;
        500_000 * load + 3 * self.latency_us + 20 * (ONE_PPM - self.success_ppm)
    }
}

/// The slot with the lowest score.
#[derive(Debug)]
pub struct LoadAware {
    descriptor: Descriptor,
    seats: Seats<Reading>,
    applied: u64,
}

impl LoadAware {
    /// An empty pool, in a predecessor's state where one is given.
    pub fn open(prior: Option<&Snapshot>) -> Result<Self, Fault> {
        if prior.is_some_and(|prior| !prior.body.is_empty()) {
            return Err(invalid("the saved state has another length"));
        }
        let features = [Feature::Load, Feature::LatencyUs, Feature::SuccessPpm, Feature::Capacity];
        Ok(Self {
            descriptor: descriptor("load-aware", STATE_SCHEMA, &features),
            seats: Seats::default(),
            applied: prior.map_or(0, |prior| prior.applied),
        })
    }
}

impl Balancer for LoadAware {
    fn describe(&self) -> &Descriptor {
        &self.descriptor
    }

    fn replace(&mut self, _revision: u64, slots: &[Slot], columns: &[i64]) -> Result<(), Fault> {
        self.seats.replace(&self.descriptor, slots, columns, |_| Reading::default())
    }

    fn patch(&mut self, feature: Feature, slots: &[Slot], values: &[i64]) -> Result<(), Fault> {
        self.seats.patch(&self.descriptor, feature, slots, values)
    }

    fn pick(&mut self, _key: u64, _cost: u32) -> Result<Option<Slot>, Fault> {
        let Some(place) = self.seats.cheapest(Reading::score) else { return Ok(None) };
        let Some((slot, reading)) = self.seats.row_mut(place) else { return Ok(None) };
        reading.since = (reading.since + 1).min(LOAD_MAX);
        Ok(Some(*slot))
    }

    fn observe(&mut self, ended: &[Observation]) -> Result<(), Fault> {
        self.applied = counted(self.applied, ended.len());
        for end in ended {
            if let Some(reading) = self.seats.get_mut(end.slot) {
                reading.since = (reading.since - 1).max(0);
            }
        }
        Ok(())
    }

    fn save(&mut self) -> Result<Snapshot, Fault> {
        Ok(Snapshot { schema: STATE_SCHEMA, applied: self.applied, body: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(load: i64, latency_us: i64, success_ppm: i64) -> i64 {
        Reading { load, latency_us, success_ppm, capacity: 1, since: 0 }.score()
    }

    #[test]
    fn the_score_is_the_requirements_at_ten_million() {
        assert_eq!(score(10, 0, ONE_PPM), 5_000_000, "0.5 at full load");
        assert_eq!(score(0, 1_000_000, ONE_PPM), 3_000_000, "0.3 for a second");
        assert_eq!(score(0, 0, 0), 20_000_000, "2.0 when nothing succeeds");
        assert_eq!(score(3, 120_000, 950_000), 1_500_000 + 360_000 + 1_000_000);
    }

    #[test]
    fn the_lowest_score_wins_and_one_millionth_decides() {
        let mut policy = LoadAware::open(None).unwrap();
        let columns = [
            2, 2, 2, /**/ 900, 901, 900, /**/ 999_999, 1_000_000, 999_999, /**/ 8,
            8, 8,
        ];
        policy.replace(1, &[1, 2, 3], &columns).unwrap();
        assert_eq!(policy.pick(0, 1), Ok(Some(2)), "3 for a microsecond, 20 for a millionth");
        policy.patch(Feature::LatencyUs, &[2], &[907]).unwrap();
        assert_eq!(policy.pick(0, 1), Ok(Some(1)), "a tie goes to the lowest slot");
    }

    #[test]
    fn own_picks_weigh_until_the_load_is_read_again() {
        let mut policy = LoadAware::open(None).unwrap();
        let columns = [0, 1, /**/ 0, 0, /**/ 1_000_000, 1_000_000, /**/ 10, 10];
        policy.replace(1, &[0, 1], &columns).unwrap();
        let mut picked = Vec::new();
        policy.pick_batch(0, 4, &mut picked).unwrap();
        assert_eq!(picked, [0, 0, 1, 0]);
        policy.patch(Feature::Load, &[0], &[0]).unwrap();
        assert_eq!(policy.pick(0, 1), Ok(Some(0)));
    }
}
