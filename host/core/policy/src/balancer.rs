//! A balancer: endpoints live in it as slots with columns of numbers; it is asked
//! with scalars which slot to use, and told once for each answer how that went.
//!
//! The same contract stands in `wit/balancer.wit`; a component and a native
//! answer are both this trait, so that whoever routes cannot tell them apart.

use serde::{Deserialize, Serialize};

/// An endpoint's place in a pool. The host gives slots and may reuse one after `replace` left it out.
pub type Slot = u32;

/// What a policy may ask to be told about each slot; each is one column of `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Picks not yet observed, by this node's own count, plus leases of record.
    InFlight,
    /// The requirement's load: 10 · in-flight / slots, rounded down.
    Load,
    /// Exponentially weighted latency, microseconds.
    LatencyUs,
    /// Exponentially weighted success, parts in a million.
    SuccessPpm,
    /// Configured weight, 1 when unset.
    Weight,
    /// How many at once the endpoint takes.
    Capacity,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 6] = [
        Self::InFlight,
        Self::Load,
        Self::LatencyUs,
        Self::SuccessPpm,
        Self::Weight,
        Self::Capacity,
    ];

    /// The name in `describe`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::Load => "load",
            Self::LatencyUs => "latency-us",
            Self::SuccessPpm => "success-ppm",
            Self::Weight => "weight",
            Self::Capacity => "capacity",
        }
    }

    /// The feature of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }
}

/// What a policy says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its name.
    pub name: String,
    /// The schema number of what `save` writes.
    pub state_schema: u32,
    /// The schema numbers that it can restore.
    pub reads_schemas: Vec<u32>,
    /// The columns it wants, in this order.
    pub features: Vec<Feature>,
    /// Most picks in one batch.
    pub batch_max: u32,
}

/// How one pick ended. Each pick is closed by exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Ok,
    /// It answered with an error.
    Error,
    /// It did not answer in time.
    Timeout,
    /// It had no room.
    Refused,
    /// The pick was never used (a leased batch became void).
    Unused,
}

/// The end of one pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The slot that was picked.
    pub slot: Slot,
    /// How long it took, microseconds; 0 for `Refused` and `Unused`.
    pub latency_us: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// A policy's state, to be carried into its successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its schema.
    pub schema: u32,
    /// Observations that are in it.
    pub applied: u64,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// Why a policy did not answer. The caller falls back; nothing is lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The input was refused.
    #[error("the policy refused its input: {0}")]
    Invalid(String),
    /// A snapshot of a schema that it does not read.
    #[error("the policy does not read state of schema {0}")]
    UnsupportedSchema(u32),
    /// Fuel or time ran out.
    #[error("the policy ran over its budget")]
    OverBudget,
    /// It cannot answer now.
    #[error("the policy is unavailable for {0} ms")]
    Unavailable(u64),
    /// It trapped, or answered with something that is not a slot of the pool.
    #[error("the policy failed: {0}")]
    Internal(String),
}

/// One pool of endpoints under one policy. Single-threaded; the order of calls is
/// `replace` once, then any of the others.
///
/// Equal calls in equal order give equal answers: a policy has no clock and no
/// entropy beyond the seed it was opened with.
pub trait Balancer: Send {
    /// What it says of itself.
    fn describe(&self) -> &Descriptor;

    /// The endpoints from now on. `columns` holds one value a slot for each feature
    /// of `describe`, feature by feature: `columns[f * slots.len() + i]` is feature
    /// `f` of `slots[i]`. `slots` is ascending. State about slots that remain stays.
    fn replace(&mut self, revision: u64, slots: &[Slot], columns: &[i64]) -> Result<(), Fault>;

    /// New values of one feature for some slots of the pool.
    fn patch(&mut self, feature: Feature, slots: &[Slot], values: &[i64]) -> Result<(), Fault>;

    /// The slot to use for this key, or none in an empty pool. `cost` is a hint of the
    /// work's size, 1 for a unit.
    fn pick(&mut self, key: u64, cost: u32) -> Result<Option<Slot>, Fault>;

    /// `count` picks at once, as if `pick` had been called for `first_key`, `first_key + 1`, …;
    /// appended to `out`. Fewer only when the pool is empty.
    fn pick_batch(&mut self, first_key: u64, count: u32, out: &mut Vec<Slot>) -> Result<(), Fault> {
        for nth in 0..count {
            out.extend(self.pick(first_key.wrapping_add(nth.into()), 1)?);
        }
        Ok(())
    }

    /// How earlier picks ended.
    fn observe(&mut self, ended: &[Observation]) -> Result<(), Fault>;

    /// Its state.
    fn save(&mut self) -> Result<Snapshot, Fault>;
}
