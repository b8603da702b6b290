//! A component as a [`Balancer`].
//!
//! Each call sets its fuel (and the epoch's net) and enters the guest once, through
//! functions that were looked up and checked when it was instantiated; nothing is
//! allocated for a pick. Every answer is checked against the slots that the host
//! gave. After a trap, an overrun or an illegal answer the instance is not asked
//! again: its state is unknown.

use std::sync::Arc;

use quorate_policy::{Balancer, Descriptor, Fault, Feature, Observation, Outcome, Slot, Snapshot};
use wasmtime::component::ResourceAny;

use crate::bindings::policy::exports::quorate::balancer::balancing::{self, GuestPool};
use crate::limits::PolicyLimits;
use crate::members::Members;
use crate::policy::Life;
use crate::trap::Cut;

/// How an instance came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It trapped.
    Trap,
    /// Fuel or wall time ran out.
    OverBudget,
    /// It chose a slot that is not in the pool, or none although there are some.
    Illegal,
    /// It refused a table that is well formed.
    Refused,
}

/// One instance of an admitted policy.
pub struct ComponentBalancer {
    life: Life,
    pool: ResourceAny,
    descriptor: Arc<Descriptor>,
    limits: PolicyLimits,
    members: Members,
    failure: Option<Failure>,
    /// Fuel given to the last call.
    given: u64,
    /// Columns of one `observe`, kept between calls.
    ended: Ended,
}

#[derive(Default)]
struct Ended {
    slots: Vec<Slot>,
    latencies_us: Vec<u64>,
    outcomes: Vec<balancing::Outcome>,
}

impl ComponentBalancer {
    pub(crate) fn new(
        life: Life,
        pool: ResourceAny,
        descriptor: Arc<Descriptor>,
        limits: PolicyLimits,
    ) -> Self {
        let given = limits.open_fuel;
        Self {
            life,
            pool,
            descriptor,
            limits,
            members: Members::default(),
            failure: None,
            given,
            ended: Ended::default(),
        }
    }

    /// Why this instance is not asked any more; `None` while it is well.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Fuel that the last call used: the same for the same call on every machine.
    pub fn fuel_used(&self) -> u64 {
        self.given.saturating_sub(self.life.store.get_fuel().unwrap_or(0))
    }

    /// Enters the guest with this much fuel.
    #[inline]
    fn enter<R>(
        &mut self,
        fuel: u64,
        call: impl FnOnce(&GuestPool<'_>, &mut wasmtime::Store<()>, ResourceAny) -> wasmtime::Result<R>,
    ) -> Result<R, Fault> {
        if self.failure.is_some() {
            return Err(Fault::Internal("the instance has failed before".to_owned()));
        }
        self.given = fuel;
        let store = &mut self.life.store;
        let ready = store.set_fuel(fuel);
        if let Some(ticks) = self.life.net_ticks {
            store.set_epoch_deadline(ticks);
        }
        let guest = self.life.policy.quorate_balancer_balancing().pool();
        match ready.and_then(|()| call(&guest, store, self.pool)) {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.cut(&error)),
        }
    }

    #[cold]
    fn cut(&mut self, error: &wasmtime::Error) -> Fault {
        let cut = Cut::of(error);
        self.failure = Some(match cut {
            Cut::OverBudget => Failure::OverBudget,
            Cut::Trap(_) => Failure::Trap,
        });
        cut_fault(&cut)
    }

    #[cold]
    fn illegal(&mut self, what: String) -> Fault {
        self.failure = Some(Failure::Illegal);
        Fault::Internal(what)
    }

    /// The guest refused a table that the host knows to be well formed.
    #[cold]
    fn refused(&mut self, refusal: balancing::Fault) -> Fault {
        self.failure = Some(Failure::Refused);
        fault(refusal)
    }

    fn pick_fuel(&self, picks: usize) -> u64 {
        let scan = self.limits.slot_fuel.saturating_mul(count(self.members.len()));
        self.limits.pick_fuel.saturating_add(scan).saturating_mul(count(picks.max(1)))
    }

    fn bulk_fuel(&self, items: usize) -> u64 {
        self.limits.bulk_fuel.saturating_add(self.limits.item_fuel.saturating_mul(count(items)))
    }

    #[inline]
    fn check(&mut self, picked: Option<Slot>) -> Result<Option<Slot>, Fault> {
        match picked {
            Some(slot) if self.members.contains(slot) => Ok(picked),
            None if self.members.is_empty() => Ok(None),
            Some(slot) => {
                Err(self.illegal(format!("it picked slot {slot}, which is not in the pool")))
            }
            None => Err(self.illegal(format!("it picked none of {} slots", self.members.len()))),
        }
    }
}

impl Balancer for ComponentBalancer {
    fn describe(&self) -> &Descriptor {
        &self.descriptor
    }

    fn replace(&mut self, revision: u64, slots: &[Slot], columns: &[i64]) -> Result<(), Fault> {
        check_table(&self.descriptor, slots, columns)?;
        let fuel = self.bulk_fuel(slots.len() + columns.len() + self.members.len());
        let taken = self.enter(fuel, |guest, store, pool| {
            guest.call_replace(store, pool, revision, slots, columns)
        })?;
        taken.map_err(|refusal| self.refused(refusal))?;
        self.members.replace(slots);
        Ok(())
    }

    fn patch(&mut self, feature: Feature, slots: &[Slot], values: &[i64]) -> Result<(), Fault> {
        let place = check_patch(&self.descriptor, &self.members, feature, slots, values)?;
        let fuel = self.bulk_fuel(slots.len());
        let taken = self.enter(fuel, |guest, store, pool| {
            guest.call_patch(store, pool, place, slots, values)
        })?;
        taken.map_err(|refusal| self.refused(refusal))
    }

    #[inline]
    fn pick(&mut self, key: u64, cost: u32) -> Result<Option<Slot>, Fault> {
        let fuel = self.pick_fuel(1);
        let picked =
            self.enter(fuel, |guest, store, pool| guest.call_pick(store, pool, key, cost))?;
        self.check(picked)
    }

    fn pick_batch(&mut self, first_key: u64, count: u32, out: &mut Vec<Slot>) -> Result<(), Fault> {
        let before = out.len();
        let mut done = 0;
        while done < count {
            let wanted = (count - done).min(self.descriptor.batch_max);
            let key = first_key.wrapping_add(u64::from(done));
            let fuel = self.pick_fuel(length(wanted));
            let picked = self.enter(fuel, |guest, store, pool| {
                guest.call_pick_batch(store, pool, key, wanted)
            })?;
            if self.members.is_empty() && picked.is_empty() {
                return Ok(());
            }
            let legal = picked.len() == length(wanted)
                && picked.iter().all(|slot| self.members.contains(*slot));
            if !legal {
                out.truncate(before);
                return Err(self.illegal(format!(
                    "a batch of {wanted} from {} slots gave {} picks, or one not in the pool",
                    self.members.len(),
                    picked.len()
                )));
            }
            out.extend_from_slice(&picked);
            done += wanted;
        }
        Ok(())
    }

    fn observe(&mut self, ended: &[Observation]) -> Result<(), Fault> {
        let mut columns = std::mem::take(&mut self.ended);
        columns.fill(ended);
        let fuel = self.bulk_fuel(ended.len());
        let told = self.enter(fuel, |guest, store, pool| {
            let Ended { slots, latencies_us, outcomes } = &columns;
            guest.call_observe(store, pool, slots, latencies_us, outcomes)
        });
        self.ended = columns;
        told
    }

    fn save(&mut self) -> Result<Snapshot, Fault> {
        let fuel = self.limits.open_fuel;
        let saved = self.enter(fuel, |guest, store, pool| guest.call_save(store, pool))?;
        let saved = saved.map_err(fault)?;
        let (got, limit) = (saved.body.len(), self.limits.snapshot_bytes_max);
        if got > limit {
            return Err(Fault::Internal(format!(
                "it saved a snapshot of {got} bytes and the limit is {limit}"
            )));
        }
        Ok(Snapshot { schema: saved.schema, applied: saved.applied, body: saved.body })
    }
}

impl Ended {
    fn fill(&mut self, ended: &[Observation]) {
        self.slots.clear();
        self.latencies_us.clear();
        self.outcomes.clear();
        self.slots.extend(ended.iter().map(|one| one.slot));
        self.latencies_us.extend(ended.iter().map(|one| one.latency_us));
        self.outcomes.extend(ended.iter().map(|one| match one.outcome {
            Outcome::Ok => balancing::Outcome::Ok,
            Outcome::Error => balancing::Outcome::Error,
            Outcome::Timeout => balancing::Outcome::Timeout,
            Outcome::Refused => balancing::Outcome::Refused,
            Outcome::Unused => balancing::Outcome::Unused,
        }));
    }
}

/// Refuses a table whose slots do not ascend or whose columns do not fit.
pub(crate) fn check_table(
    descriptor: &Descriptor,
    slots: &[Slot],
    columns: &[i64],
) -> Result<(), Fault> {
    if !slots.is_sorted_by(|left, right| left < right) {
        return Err(Fault::Invalid("slots must ascend without repeats".to_owned()));
    }
    let (features, wanted) = (descriptor.features.len(), descriptor.features.len() * slots.len());
    if columns.len() == wanted {
        return Ok(());
    }
    let (got, slots) = (columns.len(), slots.len());
    Err(Fault::Invalid(format!(
        "{slots} slots of {features} features are {wanted} values, not {got}"
    )))
}

/// The feature's place in `describe`, if the patch fits the pool.
pub(crate) fn check_patch(
    descriptor: &Descriptor,
    members: &Members,
    feature: Feature,
    slots: &[Slot],
    values: &[i64],
) -> Result<u32, Fault> {
    let place = (0..).zip(&descriptor.features).find(|(_place, one)| **one == feature);
    let Some((place, _feature)) = place else {
        return Err(Fault::Invalid(format!(
            "{} has no column `{}`",
            descriptor.name,
            feature.name()
        )));
    };
    if slots.len() != values.len() {
        return Err(Fault::Invalid(format!("{} values for {} slots", values.len(), slots.len())));
    }
    match slots.iter().find(|slot| !members.contains(**slot)) {
        Some(slot) => Err(Fault::Invalid(format!("slot {slot} is not in the pool"))),
        None => Ok(place),
    }
}

pub(crate) fn fault(said: balancing::Fault) -> Fault {
    match said {
        balancing::Fault::Invalid(reason) => Fault::Invalid(reason),
        balancing::Fault::UnsupportedSchema(schema) => Fault::UnsupportedSchema(schema),
        balancing::Fault::OverBudget => Fault::OverBudget,
        balancing::Fault::Unavailable(ms) => Fault::Unavailable(ms),
        balancing::Fault::Internal(reason) => Fault::Internal(reason),
    }
}

pub(crate) fn cut_fault(cut: &Cut) -> Fault {
    match cut {
        Cut::OverBudget => Fault::OverBudget,
        Cut::Trap(reason) => Fault::Internal(reason.clone()),
    }
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

fn length(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
