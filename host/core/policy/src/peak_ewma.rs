//! Peak-EWMA over d choices, as `plugins/peak-ewma/README.md` has it: of d slots drawn
//! at random the one whose (in-flight + 1) · latency / success² is lowest. Latency and
//! success are learned from how picks ended; without news they grow better again.
//!
//! The document derives every rounding; this file follows it line by line and computes
//! each price anew, where the component keeps what it can.

use quorate_types::rng::Rng;

use crate::balancer::{Balancer, Descriptor, Fault, Feature, Observation, Outcome, Slot, Snapshot};
use crate::native::Config;
use crate::seats::{Row, Seats, counted, descriptor, invalid};

/// The schema of its state: "PE", version 1.
pub const STATE_SCHEMA: u32 = 0x5045_0001;

const CHOICES_DEFAULT: u64 = 5;
const CHOICES_MAX: u64 = 16;
const HALF_LIFE_DEFAULT: u64 = 64;
const HALF_LIFE_MAX: u64 = 1_000_000;
const IN_FLIGHT_MAX: u64 = 65_535;
const LATENCY_US_MAX: u64 = u32::MAX as u64;
const ONE_PPM: u64 = 1_000_000;
/// Success below a sixteenth counts as a sixteenth, so that a price has a bound.
const SUCCESS_PPM_MIN: u64 = 62_500;
/// An estimate is not halved more often than it has bits.
const HALVINGS_MAX: u64 = 31;
/// Bytes in a snapshot before the slots, and for each of them.
const HEAD_LEN: usize = 20;
const SEAT_LEN: usize = 20;
const SNAPSHOT_BYTES_MAX: usize = 1 << 20;

/// What has been learned of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Estimate {
    in_flight: u64,
    /// None until a pick has shown it.
    latency_us: Option<u64>,
    success_ppm: u64,
    /// The tick of the last observation.
    at: u64,
}

impl Estimate {
    /// Nothing known, so all is hoped for.
    fn unknown(at: u64) -> Self {
        Self { in_flight: 0, latency_us: None, success_ppm: ONE_PPM, at }
    }

    /// As it stands after `halvings` half-lives without news.
    fn aged(self, halvings: u64) -> Self {
        Self {
            latency_us: self.latency_us.map(|latency| (latency >> halvings).max(1)),
            success_ppm: ONE_PPM - ((ONE_PPM - self.success_ppm) >> halvings),
            ..self
        }
    }

    /// What one more pick would cost here, where `best_us` is the lowest latency known
    /// among the drawn: neither ignorance nor age makes a slot better than that.
    fn price(self, best_us: u64) -> u64 {
        let latency_us = self.latency_us.unwrap_or(best_us).max(best_us);
        let success_ppm = self.success_ppm.max(SUCCESS_PPM_MIN);
        let penalty = 256 * ONE_PPM * ONE_PPM / (success_ppm * success_ppm);
        (self.in_flight + 1) * latency_us * penalty
    }

    /// Takes in how a pick ended.
    fn learn(&mut self, latency_us: u64, outcome: Outcome) {
        let sample = latency_us.clamp(1, LATENCY_US_MAX);
        match outcome {
            Outcome::Ok => {
                self.latency_us = Some(match self.latency_us {
                    Some(latency) if sample < latency => latency - (latency - sample).div_ceil(8),
                    Some(_) | None => sample,
                });
                self.success_ppm += (ONE_PPM - self.success_ppm).div_ceil(8);
            }
            // A fast error says nothing of how long work takes; a slow one does.
            Outcome::Error => {
                self.latency_us = self.latency_us.map(|latency| latency.max(sample));
                self.success_ppm -= self.success_ppm.div_ceil(8);
            }
            Outcome::Timeout => {
                self.latency_us = Some(self.latency_us.unwrap_or(0).max(sample));
                self.success_ppm -= self.success_ppm.div_ceil(8);
            }
            Outcome::Refused => self.success_ppm -= self.success_ppm.div_ceil(8),
            Outcome::Unused => {}
        }
    }
}

/// The best of a few drawn slots.
#[derive(Debug)]
pub struct PeakEwma {
    descriptor: Descriptor,
    seats: Seats<Estimate>,
    choices: u64,
    half_life: u64,
    rng: Rng,
    /// Observations that taught something.
    tick: u64,
    applied: u64,
}

impl PeakEwma {
    /// An empty pool, in a predecessor's state where one is given.
    pub fn open(config: &Config, seed: u64, prior: Option<&Snapshot>) -> Result<Self, Fault> {
        let mut policy = Self {
            descriptor: descriptor("peak-ewma", STATE_SCHEMA, &[Feature::InFlight]),
            seats: Seats::default(),
            choices: config.number("choices", CHOICES_DEFAULT, CHOICES_MAX)?,
            half_life: config.number("half-life", HALF_LIFE_DEFAULT, HALF_LIFE_MAX)?,
            rng: Rng::new(seed),
            tick: 0,
            applied: 0,
        };
        if let Some(prior) = prior {
            policy.restore(prior)?;
        }
        Ok(policy)
    }

    fn restore(&mut self, prior: &Snapshot) -> Result<(), Fault> {
        let mut rest = prior.body.as_slice();
        let length = || invalid("the saved state has another length");
        self.rng = Rng::new(u64::from_le_bytes(*take(&mut rest).ok_or_else(length)?));
        self.tick = u64::from_le_bytes(*take(&mut rest).ok_or_else(length)?);
        let count = u32::from_le_bytes(*take(&mut rest).ok_or_else(length)?);
        let seats = usize::try_from(count).ok();
        if seats.and_then(|seats| seats.checked_mul(SEAT_LEN)) != Some(rest.len()) {
            return Err(length());
        }
        let mut rows = Vec::new();
        while !rest.is_empty() {
            let slot = u32::from_le_bytes(*take(&mut rest).ok_or_else(length)?);
            let latency = u32::from_le_bytes(*take(&mut rest).ok_or_else(length)?);
            let success = u32::from_le_bytes(*take(&mut rest).ok_or_else(length)?);
            let at = u64::from_le_bytes(*take(&mut rest).ok_or_else(length)?);
            if u64::from(success) > ONE_PPM || at > self.tick {
                return Err(invalid("the saved state is out of range"));
            }
            rows.push((
                slot,
                Estimate {
                    in_flight: 0,
                    latency_us: (latency > 0).then_some(latency.into()),
                    success_ppm: success.into(),
                    at,
                },
            ));
        }
        self.seats = Seats::restored(rows)?;
        self.applied = prior.applied;
        Ok(())
    }

    /// How many half-lives have passed since tick `at`. A half-life is as many ticks as
    /// give each slot `half_life` of them on average, rounded up to a power of two.
    fn halvings(&self, at: u64) -> u64 {
        let slots = u64::try_from(self.seats.rows().len()).unwrap_or(u64::MAX);
        let span = self.half_life.saturating_mul(slots).next_power_of_two();
        ((self.tick - at) / span).min(HALVINGS_MAX)
    }

    /// The places of the drawn slots: all of a small pool, else `choices` distinct ones
    /// by Floyd's algorithm (Bentley, CACM 30(9), 1987).
    fn draw(&mut self) -> Vec<usize> {
        let count = self.seats.rows().len();
        let choices = usize::try_from(self.choices).unwrap_or(usize::MAX);
        if count <= choices {
            return (0..count).collect();
        }
        let mut drawn = Vec::with_capacity(choices);
        for last in count - choices..count {
            let below = u64::try_from(last + 1).unwrap_or(u64::MAX);
            let place = usize::try_from(self.rng.below(below)).unwrap_or(last);
            drawn.push(if drawn.contains(&place) { last } else { place });
        }
        drawn
    }

    /// Of the drawn places the one with the lowest price, then the lowest slot.
    fn best(&self, drawn: &[usize]) -> Option<usize> {
        let rows = self.seats.rows();
        let known = drawn.iter().filter_map(|place| rows.get(*place)?.1.latency_us);
        let best_us = known.min().unwrap_or(1);
        let priced = drawn.iter().filter_map(|place| {
            let estimate = rows.get(*place)?.1;
            Some((estimate.aged(self.halvings(estimate.at)).price(best_us), *place))
        });
        priced.min().map(|(_, place)| place)
    }
}

/// The next `N` bytes, taken off the front.
fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(head)
}

impl Row for Estimate {
    fn set(&mut self, feature: Feature, value: i64) {
        match feature {
            Feature::InFlight => {
                self.in_flight = u64::try_from(value).unwrap_or(0).min(IN_FLIGHT_MAX);
            }
            Feature::Load
            | Feature::LatencyUs
            | Feature::SuccessPpm
            | Feature::Weight
            | Feature::Capacity => {}
        }
    }
}

impl Balancer for PeakEwma {
    fn describe(&self) -> &Descriptor {
        &self.descriptor
    }

    fn replace(&mut self, _revision: u64, slots: &[Slot], columns: &[i64]) -> Result<(), Fault> {
        let tick = self.tick;
        self.seats.replace(&self.descriptor, slots, columns, |kept| {
            kept.unwrap_or(Estimate::unknown(tick))
        })
    }

    fn patch(&mut self, feature: Feature, slots: &[Slot], values: &[i64]) -> Result<(), Fault> {
        self.seats.patch(&self.descriptor, feature, slots, values)
    }

    fn pick(&mut self, _key: u64, _cost: u32) -> Result<Option<Slot>, Fault> {
        let drawn = self.draw();
        let Some(place) = self.best(&drawn) else { return Ok(None) };
        let Some((slot, estimate)) = self.seats.row_mut(place) else { return Ok(None) };
        estimate.in_flight = (estimate.in_flight + 1).min(IN_FLIGHT_MAX);
        Ok(Some(*slot))
    }

    fn observe(&mut self, ended: &[Observation]) -> Result<(), Fault> {
        self.applied = counted(self.applied, ended.len());
        for end in ended {
            let Some(before) = self.seats.get_mut(end.slot).map(|estimate| *estimate) else {
                continue;
            };
            let mut estimate = before;
            if end.outcome != Outcome::Unused {
                estimate = before.aged(self.halvings(before.at));
                estimate.learn(end.latency_us, end.outcome);
                self.tick += 1;
                estimate.at = self.tick;
            }
            estimate.in_flight = before.in_flight.saturating_sub(1);
            if let Some(place) = self.seats.get_mut(end.slot) {
                *place = estimate;
            }
        }
        Ok(())
    }

    fn save(&mut self) -> Result<Snapshot, Fault> {
        let rows = self.seats.rows();
        let mut body = Vec::with_capacity(HEAD_LEN + SEAT_LEN * rows.len());
        body.extend(self.rng.state().to_le_bytes());
        body.extend(self.tick.to_le_bytes());
        body.extend(u32::try_from(rows.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (slot, estimate) in rows {
            let latency = u32::try_from(estimate.latency_us.unwrap_or(0)).unwrap_or(u32::MAX);
            let success = u32::try_from(estimate.success_ppm).unwrap_or(u32::MAX);
            body.extend(slot.to_le_bytes());
            body.extend(latency.to_le_bytes());
            body.extend(success.to_le_bytes());
            body.extend(estimate.at.to_le_bytes());
        }
        if body.len() > SNAPSHOT_BYTES_MAX {
            return Err(Fault::Internal("the state is larger than a snapshot may be".to_owned()));
        }
        Ok(Snapshot { schema: STATE_SCHEMA, applied: self.applied, body })
    }
}

#[cfg(test)]
mod tests;
