//! Least used, as `plugins/least-used/README.md` has it: the slot with the fewest
//! picks in flight, own picks counted at once.

use crate::balancer::{Balancer, Descriptor, Fault, Feature, Observation, Slot, Snapshot};
use crate::seats::{Row, Seats, counted, descriptor, invalid};

/// The schema of its state, which is empty: "LU", version 1.
pub const STATE_SCHEMA: u32 = 0x4c55_0001;

/// A row is the number in flight, never below zero.
impl Row for i64 {
    fn set(&mut self, feature: Feature, value: i64) {
        match feature {
            Feature::InFlight => *self = value.max(0),
            Feature::Load
            | Feature::LatencyUs
            | Feature::SuccessPpm
            | Feature::Weight
            | Feature::Capacity => {}
        }
    }
}

/// The slot with the least in flight.
#[derive(Debug)]
pub struct LeastUsed {
    descriptor: Descriptor,
    seats: Seats<i64>,
    applied: u64,
}

impl LeastUsed {
    /// An empty pool, in a predecessor's state where one is given.
    pub fn open(prior: Option<&Snapshot>) -> Result<Self, Fault> {
        if prior.is_some_and(|prior| !prior.body.is_empty()) {
            return Err(invalid("the saved state has another length"));
        }
        Ok(Self {
            descriptor: descriptor("least-used", STATE_SCHEMA, &[Feature::InFlight]),
            seats: Seats::default(),
            applied: prior.map_or(0, |prior| prior.applied),
        })
    }
}

impl Balancer for LeastUsed {
    fn describe(&self) -> &Descriptor {
        &self.descriptor
    }

    fn replace(&mut self, _revision: u64, slots: &[Slot], columns: &[i64]) -> Result<(), Fault> {
        self.seats.replace(&self.descriptor, slots, columns, |_| 0)
    }

    fn patch(&mut self, feature: Feature, slots: &[Slot], values: &[i64]) -> Result<(), Fault> {
        self.seats.patch(&self.descriptor, feature, slots, values)
    }

    fn pick(&mut self, _key: u64, _cost: u32) -> Result<Option<Slot>, Fault> {
        let Some(place) = self.seats.cheapest(|in_flight| *in_flight) else { return Ok(None) };
        let Some((slot, in_flight)) = self.seats.row_mut(place) else { return Ok(None) };
        *in_flight = in_flight.saturating_add(1);
        Ok(Some(*slot))
    }

    fn observe(&mut self, ended: &[Observation]) -> Result<(), Fault> {
        self.applied = counted(self.applied, ended.len());
        for end in ended {
            if let Some(in_flight) = self.seats.get_mut(end.slot) {
                *in_flight = (*in_flight - 1).max(0);
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
    use crate::balancer::Outcome;

    #[test]
    fn own_picks_count_at_once_and_ties_go_to_the_lowest_slot() {
        let mut policy = LeastUsed::open(None).unwrap();
        policy.replace(1, &[3, 4, 7], &[2, 0, 0]).unwrap();
        let mut picked = Vec::new();
        policy.pick_batch(0, 6, &mut picked).unwrap();
        assert_eq!(picked, [4, 7, 4, 7, 3, 4]);
    }

    #[test]
    fn an_ended_pick_makes_room() {
        let mut policy = LeastUsed::open(None).unwrap();
        policy.replace(1, &[0, 1], &[0, 0]).unwrap();
        assert_eq!(policy.pick(0, 1), Ok(Some(0)));
        let ended = Observation { slot: 0, latency_us: 0, outcome: Outcome::Unused };
        policy.observe(&[ended]).unwrap();
        assert_eq!(policy.pick(0, 1), Ok(Some(0)));
        policy.patch(Feature::InFlight, &[0, 1], &[1, 0]).unwrap();
        assert_eq!(policy.pick(0, 1), Ok(Some(1)));
    }

    #[test]
    fn what_is_not_of_the_pool_is_refused_whole() {
        let mut policy = LeastUsed::open(None).unwrap();
        policy.replace(1, &[0, 1], &[0, 5]).unwrap();
        for refused in [
            policy.patch(Feature::InFlight, &[0, 2], &[9, 9]),
            policy.patch(Feature::InFlight, &[0, 1], &[9]),
            policy.patch(Feature::Load, &[0], &[9]),
            policy.replace(2, &[1, 0], &[9, 9]),
            policy.replace(2, &[0, 1], &[9]),
        ] {
            assert!(matches!(refused, Err(Fault::Invalid(_))), "{refused:?}");
        }
        assert_eq!(policy.pick(0, 1), Ok(Some(0)), "nothing had changed");
    }
}
