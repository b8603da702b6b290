//! Peak-EWMA over d choices. What it promises, and every rounding, stands in
//! `README.md` beside this file's folder. Here is what makes it fast: the penalty is
//! kept with the estimate it follows from, ages are told by a shift, and five choices
//! need no memory but the stack.

use quorate_sdk::balancer::{Balancer, Columns};
use quorate_sdk::{Config, Fault, Outcome, Slot, Snapshot, SplitMix64, invalid};

const CHOICES_MAX: usize = 16;
/// The drawing where there are no more slots than choices.
const EVERY_PLACE: [usize; CHOICES_MAX] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const IN_FLIGHT_MAX: u64 = 65_535;
const ONE_PPM: u32 = 1_000_000;
const SUCCESS_PPM_MIN: u32 = 62_500;
const HALVINGS_MAX: u64 = 31;
const SEAT_LEN: usize = 20;

#[derive(Clone, Copy)]
struct Seat {
    in_flight: u64,
    at: u64,
    /// Zero while unknown.
    latency_us: u32,
    success_ppm: u32,
    /// 256 / success², for `success_ppm` as it stands.
    penalty: u64,
}

impl Seat {
    fn new(latency_us: u32, success_ppm: u32, at: u64) -> Self {
        let penalty = penalty(success_ppm);
        Self { in_flight: 0, at, latency_us, success_ppm, penalty }
    }

    #[inline]
    fn price(&self, halvings: u64, best_us: u32) -> u64 {
        let latency_us = (self.latency_us >> halvings).max(best_us);
        let penalty =
            if halvings == 0 { self.penalty } else { penalty(aged(self.success_ppm, halvings)) };
        (self.in_flight + 1) * u64::from(latency_us) * penalty
    }

    fn learn(&mut self, halvings: u64, latency_us: u64, outcome: Outcome) {
        let mut latency = self.latency_us >> halvings;
        if self.latency_us > 0 {
            latency = latency.max(1);
        }
        let mut success = aged(self.success_ppm, halvings);
        let sample = u32::try_from(latency_us).unwrap_or(u32::MAX).max(1);
        match outcome {
            Outcome::Ok if sample < latency => latency -= (latency - sample).div_ceil(8),
            Outcome::Ok | Outcome::Timeout => latency = latency.max(sample),
            Outcome::Error if latency > 0 => latency = latency.max(sample),
            Outcome::Error | Outcome::Refused | Outcome::Unused => {}
        }
        if outcome == Outcome::Ok {
            success += (ONE_PPM - success).div_ceil(8);
        } else {
            success -= success.div_ceil(8);
        }
        self.latency_us = latency;
        self.success_ppm = success;
        self.penalty = penalty(success);
    }
}

fn penalty(success_ppm: u32) -> u64 {
    let success = u64::from(success_ppm.max(SUCCESS_PPM_MIN));
    256 * u64::from(ONE_PPM) * u64::from(ONE_PPM) / (success * success)
}

fn aged(success_ppm: u32, halvings: u64) -> u32 {
    ONE_PPM - ((ONE_PPM - success_ppm) >> halvings)
}

/// A length as a number of the contract; on the guest's target they are the same.
fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn in_flight(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0).min(IN_FLIGHT_MAX)
}

struct PeakEwma {
    slots: Vec<Slot>,
    seats: Vec<Seat>,
    choices: usize,
    half_life: u64,
    /// A half-life in ticks is 2 to the power of this.
    span_bits: u32,
    random: SplitMix64,
    tick: u64,
}

impl PeakEwma {
    #[inline]
    fn halvings(&self, at: u64) -> u64 {
        ((self.tick - at) >> self.span_bits).min(HALVINGS_MAX)
    }

    /// Draws distinct places by Floyd's algorithm.
    #[inline]
    fn draw<'a>(&mut self, drawn: &'a mut [usize; CHOICES_MAX]) -> &'a [usize] {
        let first = self.slots.len() - self.choices;
        for nth in 0..self.choices {
            let last = first + nth;
            let place = self.random.below(number(last + 1)) as usize;
            // Without a branch on what was drawn: no processor foresees it.
            let seen = drawn[..nth].iter().fold(false, |seen, earlier| seen | (*earlier == place));
            drawn[nth] = if seen { last } else { place };
        }
        &drawn[..self.choices]
    }

    /// The place with the lowest price; of equal ones the lowest. Written without a branch on
    /// prices, which are as good as random.
    #[inline]
    fn best(&self, places: &[usize]) -> usize {
        // One less than each, so that zero, which is unknown, becomes the highest.
        let latencies = places.iter().map(|place| self.seats[*place].latency_us.wrapping_sub(1));
        let best_us = latencies.fold(u32::MAX, u32::min).wrapping_add(1).max(1);
        let (mut best, mut lowest) = (usize::MAX, u64::MAX);
        for &place in places {
            let seat = &self.seats[place];
            let price = seat.price(self.halvings(seat.at), best_us);
            // No price reaches u64::MAX, so the first one always wins.
            let wins = (price < lowest) | ((price == lowest) & (place < best));
            best = if wins { place } else { best };
            lowest = if wins { price } else { lowest };
        }
        best
    }

    fn restore(&mut self, body: &[u8]) -> Option<()> {
        let mut body = Body(body);
        self.random = SplitMix64::new(body.u64()?);
        self.tick = body.u64()?;
        let count = body.u32()? as usize;
        if body.0.len() != count.checked_mul(SEAT_LEN)? {
            return None;
        }
        for _ in 0..count {
            let slot = body.u32()?;
            let (latency_us, success_ppm, at) = (body.u32()?, body.u32()?, body.u64()?);
            let ascends = self.slots.last().is_none_or(|last| *last < slot);
            if !ascends || success_ppm > ONE_PPM || at > self.tick {
                return None;
            }
            self.slots.push(slot);
            self.seats.push(Seat::new(latency_us, success_ppm, at));
        }
        Some(())
    }

    fn measure(&mut self) {
        let ticks = self.half_life.saturating_mul(self.slots.len() as u64);
        self.span_bits = ticks.next_power_of_two().trailing_zeros();
    }
}

impl Balancer for PeakEwma {
    const NAME: &'static str = "peak-ewma";
    const STATE_SCHEMA: u32 = 0x5045_0001;
    const FEATURES: &'static [&'static str] = &["in-flight"];
    const CONFIG_KEYS: &'static [&'static str] = &["choices", "half-life"];

    fn open(config: &Config, seed: u64, prior: Option<&Snapshot>) -> Result<Self, Fault> {
        let mut policy = Self {
            slots: Vec::new(),
            seats: Vec::new(),
            choices: usize::try_from(config.number("choices", 5, CHOICES_MAX as u64)?)
                .unwrap_or(CHOICES_MAX),
            half_life: config.number("half-life", 64, 1_000_000)?,
            span_bits: 0,
            random: SplitMix64::new(seed),
            tick: 0,
        };
        if let Some(prior) = prior {
            policy.restore(&prior.body).ok_or_else(|| invalid("the saved state is broken"))?;
        }
        policy.measure();
        Ok(policy)
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn replace(&mut self, slots: Vec<Slot>, columns: Columns<'_>) {
        let mut seats = Vec::with_capacity(slots.len());
        let mut old = 0;
        for (slot, count) in slots.iter().zip(columns.column(0)) {
            while self.slots.get(old).is_some_and(|known| known < slot) {
                old += 1;
            }
            let mut seat = match self.slots.get(old) {
                Some(known) if known == slot => self.seats[old],
                _ => Seat::new(0, ONE_PPM, self.tick),
            };
            seat.in_flight = in_flight(*count);
            seats.push(seat);
        }
        (self.slots, self.seats) = (slots, seats);
        self.measure();
    }

    fn patch(&mut self, _: usize, place: usize, value: i64) {
        self.seats[place].in_flight = in_flight(value);
    }

    fn pick(&mut self, _: u64, _: u32) -> Option<Slot> {
        let count = self.slots.len();
        if count == 0 {
            return None;
        }
        let mut drawn = EVERY_PLACE;
        let drawn = if count <= self.choices { &drawn[..count] } else { self.draw(&mut drawn) };
        let place = self.best(drawn);
        let seat = &mut self.seats[place];
        seat.in_flight = (seat.in_flight + 1).min(IN_FLIGHT_MAX);
        self.slots.get(place).copied()
    }

    fn ended(&mut self, place: usize, latency_us: u64, outcome: Outcome) {
        let halvings = self.halvings(self.seats[place].at);
        let seat = &mut self.seats[place];
        seat.in_flight = seat.in_flight.saturating_sub(1);
        if outcome != Outcome::Unused {
            seat.learn(halvings, latency_us, outcome);
            self.tick += 1;
            seat.at = self.tick;
        }
    }

    fn save(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(SEAT_LEN * (self.slots.len() + 1));
        body.extend_from_slice(&self.random.state.to_le_bytes());
        body.extend_from_slice(&self.tick.to_le_bytes());
        body.extend_from_slice(&number(self.slots.len()).to_le_bytes());
        for (slot, seat) in self.slots.iter().zip(&self.seats) {
            for word in [*slot, seat.latency_us, seat.success_ppm] {
                body.extend_from_slice(&word.to_le_bytes());
            }
            body.extend_from_slice(&seat.at.to_le_bytes());
        }
        body
    }
}

struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*head))
    }

    fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*head))
    }
}

quorate_sdk::export_balancer!(PeakEwma);
