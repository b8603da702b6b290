//! The hot path: one router a worker, one policy instance a router.
//!
//! A router takes picks from its policy in batches and hands them out one by one;
//! a batch is void when the table changes. Before each batch the in-flight column
//! is patched from the shared counts, so that other workers' picks and voided
//! batches are seen (design, section 7). Every pick is closed once, by `close` or,
//! for what was leased and never handed out, as `Unused`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::endpoints::Endpoints;
use crate::source::Guarded;
use quorate_policy::{Descriptor, Feature, Observation, Outcome, Slot};

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The slot, to close the pick with.
    pub slot: Slot,
    /// Whether the policy's native fallback gave it.
    pub fallback: bool,
}

/// Observations wait until this many are there, or until the next batch.
const OBSERVE_BATCH: usize = 64;

/// A policy instance over a table.
pub struct Router {
    policy: Box<dyn Guarded>,
    /// What the policy says of itself, asked once.
    descriptor: Descriptor,
    table: Arc<Endpoints>,
    batch: u32,
    /// Picks in hand, the next one last.
    leased: Vec<Slot>,
    leased_by_fallback: bool,
    key: u64,
    ended: Vec<Observation>,
    slots: Vec<Slot>,
    columns: Vec<i64>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("policy", &self.descriptor.name).finish_non_exhaustive()
    }
}

impl Router {
    /// A router that leases `batch` picks at a time (at least 1).
    pub fn new(mut policy: Box<dyn Guarded>, batch: u32) -> Self {
        let descriptor = policy.balancer().describe().clone();
        let mut router = Self {
            policy,
            descriptor,
            table: Arc::new(Endpoints::default()),
            batch,
            leased: Vec::new(),
            leased_by_fallback: false,
            key: 0,
            ended: Vec::new(),
            slots: Vec::new(),
            columns: Vec::new(),
        };
        router.set_batch(batch);
        router
    }

    /// Leases `batch` picks at a time from now on, within what the policy gives.
    pub fn set_batch(&mut self, batch: u32) {
        self.batch = batch.clamp(1, self.descriptor.batch_max.max(1));
    }

    /// The name of the policy.
    pub fn policy(&self) -> &str {
        &self.descriptor.name
    }

    /// The table that picks are from.
    pub fn table(&self) -> &Arc<Endpoints> {
        &self.table
    }

    /// Takes a newer table, if it is one. What was leased from the old one is void.
    #[inline]
    pub fn refresh(&mut self, table: &Arc<Endpoints>) {
        if !Arc::ptr_eq(&self.table, table) {
            self.reload(Arc::clone(table));
        }
    }

    fn reload(&mut self, table: Arc<Endpoints>) {
        self.void();
        self.flush();
        self.table = table;
        self.slots.clear();
        self.slots.extend(self.table.rows().iter().map(|row| row.slot));
        self.columns.clear();
        for feature in &self.descriptor.features {
            self.table.column(*feature, &mut self.columns);
        }
        let revision = self.table.revision();
        let replaced = self.policy.balancer().replace(revision, &self.slots, &self.columns);
        if let Err(fault) = replaced {
            // A guarded policy has already fallen back; the pick that follows is the fallback's.
            tracing::warn!(policy = self.policy(), %fault, "the policy did not take its endpoints");
        }
    }

    /// The next endpoint, or none in an empty table.
    #[inline]
    pub fn pick(&mut self) -> Option<Pick> {
        if self.leased.is_empty() {
            self.lease();
        }
        let slot = self.leased.pop()?;
        if let Some(count) = self.table.count(slot) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Some(Pick { slot, fallback: self.leased_by_fallback })
    }

    fn lease(&mut self) {
        self.flush();
        if self.table.rows().is_empty() {
            return;
        }
        if self.batch > 1 || self.key > 0 {
            self.patch_in_flight();
        }
        let answered = self.policy.balancer().pick_batch(self.key, self.batch, &mut self.leased);
        self.key = self.key.wrapping_add(u64::from(self.batch));
        self.leased_by_fallback = self.policy.fell_back();
        if let Err(fault) = answered {
            tracing::warn!(policy = self.policy(), %fault, "the policy did not pick");
        }
        self.leased.reverse();
    }

    fn patch_in_flight(&mut self) {
        if !self.descriptor.features.contains(&Feature::InFlight) {
            return;
        }
        self.columns.clear();
        self.table.column(Feature::InFlight, &mut self.columns);
        if let Err(fault) =
            self.policy.balancer().patch(Feature::InFlight, &self.slots, &self.columns)
        {
            tracing::warn!(policy = self.policy(), %fault, "the policy did not take a column");
        }
    }

    /// Ends one pick of this router.
    pub fn close(&mut self, slot: Slot, latency_us: u64, outcome: Outcome) {
        if let Some(count) = self.table.count(slot) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        self.ended.push(Observation { slot, latency_us, outcome });
        if self.ended.len() >= OBSERVE_BATCH {
            self.flush();
        }
    }

    fn void(&mut self) {
        let unused = self.leased.drain(..).map(|slot| Observation {
            slot,
            latency_us: 0,
            outcome: Outcome::Unused,
        });
        self.ended.extend(unused);
    }

    fn flush(&mut self) {
        if self.ended.is_empty() {
            return;
        }
        if let Err(fault) = self.policy.balancer().observe(&self.ended) {
            tracing::warn!(policy = self.policy(), %fault, "the policy did not take observations");
        }
        self.ended.clear();
    }
}
