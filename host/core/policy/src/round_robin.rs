//! Round robin, as `plugins/round-robin/README.md` has it: the next slot above the
//! one picked last, or the lowest where there is none above.

use crate::balancer::{Balancer, Descriptor, Fault, Feature, Observation, Slot, Snapshot};
use crate::seats::{Seats, counted, descriptor, invalid};

/// The schema of its state: "RR", version 1.
pub const STATE_SCHEMA: u32 = 0x5252_0001;

/// The slots in turn.
#[derive(Debug)]
pub struct RoundRobin {
    descriptor: Descriptor,
    seats: Seats<()>,
    last: Option<Slot>,
    applied: u64,
}

impl RoundRobin {
    /// An empty pool, in a predecessor's state where one is given.
    pub fn open(prior: Option<&Snapshot>) -> Result<Self, Fault> {
        let last = match prior.map_or(&[][..], |prior| &prior.body) {
            [] => None,
            body => match body.try_into() {
                Ok(bytes) => Some(Slot::from_le_bytes(bytes)),
                Err(_) => return Err(invalid("the saved state has another length")),
            },
        };
        Ok(Self {
            descriptor: descriptor("round-robin", STATE_SCHEMA, &[]),
            seats: Seats::default(),
            last,
            applied: prior.map_or(0, |prior| prior.applied),
        })
    }
}

impl Balancer for RoundRobin {
    fn describe(&self) -> &Descriptor {
        &self.descriptor
    }

    fn replace(&mut self, _revision: u64, slots: &[Slot], columns: &[i64]) -> Result<(), Fault> {
        self.seats.replace(&self.descriptor, slots, columns, |_| ())
    }

    fn patch(&mut self, feature: Feature, slots: &[Slot], values: &[i64]) -> Result<(), Fault> {
        self.seats.patch(&self.descriptor, feature, slots, values)
    }

    fn pick(&mut self, _key: u64, _cost: u32) -> Result<Option<Slot>, Fault> {
        let rows = self.seats.rows();
        let above = self.last.map_or(0, |last| rows.partition_point(|(slot, ())| *slot <= last));
        let Some((slot, ())) = rows.get(above).or(rows.first()) else { return Ok(None) };
        self.last = Some(*slot);
        Ok(self.last)
    }

    fn observe(&mut self, ended: &[Observation]) -> Result<(), Fault> {
        self.applied = counted(self.applied, ended.len());
        Ok(())
    }

    fn save(&mut self) -> Result<Snapshot, Fault> {
        let body = self.last.map_or(Vec::new(), |last| last.to_le_bytes().to_vec());
        Ok(Snapshot { schema: STATE_SCHEMA, applied: self.applied, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_take_turns_and_a_change_of_the_pool_does_not_start_over() {
        let mut policy = RoundRobin::open(None).unwrap();
        assert_eq!(policy.pick(0, 1), Ok(None));
        policy.replace(1, &[2, 5, 9], &[]).unwrap();
        let mut picked = Vec::new();
        policy.pick_batch(0, 4, &mut picked).unwrap();
        assert_eq!(picked, [2, 5, 9, 2]);
        policy.replace(2, &[1, 4, 9], &[]).unwrap();
        assert_eq!(policy.pick(0, 1), Ok(Some(4)), "the next above 2, which is gone");
    }

    #[test]
    fn a_successor_goes_on_where_it_ended() {
        let mut first = RoundRobin::open(None).unwrap();
        first.replace(1, &[0, 1, 2], &[]).unwrap();
        assert_eq!(first.pick(0, 1), Ok(Some(0)));
        let mut second = RoundRobin::open(Some(&first.save().unwrap())).unwrap();
        second.replace(1, &[0, 1, 2], &[]).unwrap();
        assert_eq!(second.pick(0, 1), Ok(Some(1)));
    }
}
