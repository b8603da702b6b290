//! A balancer as its author sees it, and what stands between it and the contract.
//!
//! The author works with *places*: the pool's slots are ascending, and place i is
//! the i-th of them. [`Pool`] checks what the host pushes, turns slots into places
//! and refuses what does not fit before the author's code has seen any of it.

use core::cell::RefCell;

use crate::config::Config;
use crate::{Fault, Outcome, Slot, Snapshot, invalid};

pub use crate::bindings::policy::exports::quorate::balancer::balancing as contract;

/// Most picks in one batch.
pub const BATCH_MAX: u32 = 1024;

/// A snapshot's body is at most this long, bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 1 << 20;

/// Which endpoint should do this piece of work?
pub trait Balancer: Sized + 'static {
    /// Its name.
    const NAME: &'static str;
    /// The schema of what [`Balancer::save`] writes.
    const STATE_SCHEMA: u32;
    /// The schemas that it opens from.
    const READS_SCHEMAS: &'static [u32] = &[Self::STATE_SCHEMA];
    /// The columns it wants, by their names in the contract.
    const FEATURES: &'static [&'static str];
    /// The keys that its configuration may have.
    const CONFIG_KEYS: &'static [&'static str] = &[];

    /// An empty pool, in a predecessor's state where one is given; its schema is then one
    /// of `READS_SCHEMAS`.
    fn open(config: &Config, seed: u64, prior: Option<&Snapshot>) -> Result<Self, Fault>;

    /// The slots as of the last `replace`.
    fn slots(&self) -> &[Slot];

    /// New slots, ascending, with their values.
    fn replace(&mut self, slots: Vec<Slot>, columns: Columns<'_>);

    /// A new value of one feature at one place.
    fn patch(&mut self, feature: usize, place: usize, value: i64);

    /// The slot to use, or none in an empty pool. Equal choices go to the lowest.
    fn pick(&mut self, key: u64, cost: u32) -> Option<Slot>;

    /// As many picks one after the other, appended to `picked`.
    fn pick_batch(&mut self, first_key: u64, count: u32, picked: &mut Vec<Slot>) {
        picked.extend((0..count).map_while(|nth| self.pick(first_key.wrapping_add(nth.into()), 1)));
    }

    /// How a pick of the slot at this place ended.
    fn ended(&mut self, place: usize, latency_us: u64, outcome: Outcome);

    /// The body of its snapshot.
    fn save(&self) -> Vec<u8>;
}

/// The values that came with a `replace`.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    values: &'a [i64],
    slots: usize,
}

impl<'a> Columns<'a> {
    /// The column of one feature, one value a slot; empty where there is no such feature.
    pub fn column(self, feature: usize) -> &'a [i64] {
        let start = feature.saturating_mul(self.slots);
        self.values.get(start..start.saturating_add(self.slots)).unwrap_or(&[])
    }
}

/// The place of a slot among ascending slots.
#[inline]
pub fn place_of(slots: &[Slot], slot: Slot) -> Option<usize> {
    // Most pools are 0, 1, 2, … without gaps, and then the slot is its own place.
    if slots.get(slot as usize) == Some(&slot) {
        return Some(slot as usize);
    }
    slots.binary_search(&slot).ok()
}

/// One open pool behind the contract.
#[doc(hidden)]
pub struct Pool<B> {
    inner: RefCell<Inner<B>>,
}

struct Inner<B> {
    balancer: B,
    /// Observations so far, the predecessors' included.
    applied: u64,
}

impl<B: Balancer> Pool<B> {
    fn make(config: &[u8], seed: u64, prior: Option<&Snapshot>) -> Result<Self, Fault> {
        let config = Config::parse(config, B::CONFIG_KEYS)?;
        if let Some(prior) = prior
            && !B::READS_SCHEMAS.contains(&prior.schema)
        {
            return Err(Fault::UnsupportedSchema(prior.schema));
        }
        let balancer = B::open(&config, seed, prior)?;
        let applied = prior.map_or(0, |prior| prior.applied);
        Ok(Self { inner: RefCell::new(Inner { balancer, applied }) })
    }
}

impl<B: Balancer> contract::GuestPool for Pool<B> {
    fn open(config: Vec<u8>, seed: u64) -> Result<contract::Pool, Fault> {
        Self::make(&config, seed, None).map(contract::Pool::new)
    }

    fn restore(config: Vec<u8>, seed: u64, prior: Snapshot) -> Result<contract::Pool, Fault> {
        Self::make(&config, seed, Some(&prior)).map(contract::Pool::new)
    }

    fn replace(&self, _revision: u64, slots: Vec<Slot>, columns: Vec<i64>) -> Result<(), Fault> {
        if slots.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(invalid("the slots do not ascend"));
        }
        if Some(columns.len()) != slots.len().checked_mul(B::FEATURES.len()) {
            return Err(invalid("the columns do not have one value a slot"));
        }
        let columns = Columns { values: &columns, slots: slots.len() };
        self.inner.borrow_mut().balancer.replace(slots, columns);
        Ok(())
    }

    fn patch(&self, feature: u32, slots: Vec<Slot>, values: Vec<i64>) -> Result<(), Fault> {
        let feature = feature as usize;
        if feature >= B::FEATURES.len() {
            return Err(invalid("the policy has no such feature"));
        }
        if slots.len() != values.len() {
            return Err(invalid("there is not one value a slot"));
        }
        let balancer = &mut self.inner.borrow_mut().balancer;
        if slots.iter().any(|slot| place_of(balancer.slots(), *slot).is_none()) {
            return Err(invalid("a slot is not in the pool"));
        }
        for (slot, value) in slots.iter().zip(values) {
            if let Some(place) = place_of(balancer.slots(), *slot) {
                balancer.patch(feature, place, value);
            }
        }
        Ok(())
    }

    #[inline]
    fn pick(&self, key: u64, cost: u32) -> Option<Slot> {
        self.inner.borrow_mut().balancer.pick(key, cost)
    }

    fn pick_batch(&self, first_key: u64, count: u32) -> Vec<Slot> {
        let count = count.min(BATCH_MAX);
        let mut picked = Vec::with_capacity(count as usize);
        self.inner.borrow_mut().balancer.pick_batch(first_key, count, &mut picked);
        picked
    }

    fn observe(&self, slots: Vec<Slot>, latency_us: Vec<u64>, outcomes: Vec<Outcome>) {
        let inner = &mut *self.inner.borrow_mut();
        inner.applied = inner.applied.saturating_add(slots.len() as u64);
        for ((slot, latency_us), outcome) in slots.iter().zip(latency_us).zip(outcomes) {
            // A slot that has left the pool has nothing to learn.
            if let Some(place) = place_of(inner.balancer.slots(), *slot) {
                inner.balancer.ended(place, latency_us, outcome);
            }
        }
    }

    fn save(&self) -> Result<Snapshot, Fault> {
        let inner = self.inner.borrow();
        let body = inner.balancer.save();
        if body.len() > SNAPSHOT_BYTES_MAX {
            return Err(Fault::Internal("the state is larger than a snapshot may be".into()));
        }
        Ok(Snapshot { schema: B::STATE_SCHEMA, applied: inner.applied, body })
    }
}

/// The contract's functions around a balancer.
#[doc(hidden)]
pub struct Component<B>(core::marker::PhantomData<B>);

impl<B: Balancer> contract::Guest for Component<B> {
    type Pool = Pool<B>;

    fn describe() -> contract::Descriptor {
        contract::Descriptor {
            name: B::NAME.into(),
            state_schema: B::STATE_SCHEMA,
            reads_schemas: B::READS_SCHEMAS.to_vec(),
            features: B::FEATURES.iter().map(|name| (*name).into()).collect(),
            max_batch: BATCH_MAX,
        }
    }
}

/// Makes a component of a type that implements [`balancer::Balancer`](crate::balancer::Balancer).
#[macro_export]
macro_rules! export_balancer {
    ($balancer:ty) => {
        #[doc(hidden)]
        type QuorateComponent = $crate::balancer::Component<$balancer>;
        $crate::exported::policy::export_policy!(
            QuorateComponent with_types_in $crate::exported::policy
        );
    };
}
