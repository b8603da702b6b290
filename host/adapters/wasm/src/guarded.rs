//! A policy that always answers.
//!
//! The component answers while it is well. When it traps, overruns its budget,
//! gives an illegal answer or refuses a table, the decision in hand is answered by
//! the native reference of the same name, and a fresh instance is made with the
//! table that the pool has now. What the dead instance had learnt is gone; what
//! the host measured is in the columns and is not.
//!
//! A policy has no clock, so patience is counted in decisions: the first failure is
//! answered by a fresh instance at once, and each further one waits four times as
//! long, until a long run of good answers forgives.

mod counters;
mod native;
mod patience;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quorate_policy::{Balancer, Descriptor, Fault, Feature, Observation, Slot, Snapshot};

use crate::admit::OpenError;
use crate::balancer::{ComponentBalancer, check_patch, check_table};
use crate::policy::PolicyComponent;
use native::{Native, Table};
use patience::Patience;

pub use counters::{GuardCounters, GuardCounts};

/// A component with its native stand-in.
pub struct GuardedBalancer {
    component: Arc<PolicyComponent>,
    config: Vec<u8>,
    seed: u64,
    live: Option<ComponentBalancer>,
    native: Native,
    table: Table,
    patience: Patience,
    counters: Arc<GuardCounters>,
    last_was_fallback: bool,
}

impl GuardedBalancer {
    /// As [`PolicyComponent::open`]; an instance that does not open at all is the caller's to judge.
    pub fn open(
        component: Arc<PolicyComponent>,
        config: &[u8],
        seed: u64,
    ) -> Result<Self, OpenError> {
        let live = component.open(config, seed)?;
        Ok(Self::new(component, config, seed, live))
    }

    /// As [`PolicyComponent::restore`].
    pub fn restore(
        component: Arc<PolicyComponent>,
        config: &[u8],
        seed: u64,
        prior: &Snapshot,
    ) -> Result<Self, OpenError> {
        let live = component.restore(config, seed, prior)?;
        Ok(Self::new(component, config, seed, live))
    }

    fn new(
        component: Arc<PolicyComponent>,
        config: &[u8],
        seed: u64,
        live: ComponentBalancer,
    ) -> Self {
        Self {
            component,
            config: config.to_vec(),
            seed,
            live: Some(live),
            native: Native::default(),
            table: Table::default(),
            patience: Patience::default(),
            counters: Arc::default(),
            last_was_fallback: false,
        }
    }

    /// Counts into these from now on, which other guards may share.
    pub fn counting(mut self, counters: Arc<GuardCounters>) -> Self {
        self.counters = counters;
        self
    }

    /// The counters, to be read from anywhere.
    pub fn counters(&self) -> Arc<GuardCounters> {
        Arc::clone(&self.counters)
    }

    /// Whether the native reference gave the last answer.
    pub fn last_was_fallback(&self) -> bool {
        self.last_was_fallback
    }

    /// The component instance, while there is one that is well.
    pub fn live(&self) -> Option<&ComponentBalancer> {
        self.live.as_ref()
    }

    /// Lets the component decide, else the native reference: one decision.
    #[inline]
    fn decide<R>(
        &mut self,
        decisions: u64,
        mut ask: impl FnMut(&mut dyn Balancer) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        if self.live.is_none() && self.patience.spend(decisions) {
            self.revive();
        }
        if let Some(live) = &mut self.live {
            match ask(live) {
                Ok(answer) => {
                    self.patience.praise(decisions);
                    self.last_was_fallback = false;
                    return Ok(answer);
                }
                Err(fault) => self.bury(&fault),
            }
        }
        self.stand_in(ask)
    }

    #[cold]
    fn stand_in<R>(
        &mut self,
        mut ask: impl FnMut(&mut dyn Balancer) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        self.last_was_fallback = true;
        self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
        let name = &self.component.descriptor().name;
        let native = self.native.ready(
            name,
            &self.config,
            self.seed,
            &self.table,
            self.component.descriptor(),
        )?;
        ask(native)
    }

    /// The live instance failed: counted, dropped, and, the first time, replaced.
    #[cold]
    fn bury(&mut self, fault: &Fault) {
        let failure = self.live.take().and_then(|live| live.failure());
        self.counters.failed(failure);
        self.native.current = false;
        self.patience.blame();
        tracing::warn!(
            policy = self.component.descriptor().name,
            component = %self.component.digest().short(),
            %fault,
            ?failure,
            failures = self.patience.failures,
            native_decisions = self.patience.wait,
            "a policy component failed; its native reference answers"
        );
        if self.patience.wait == 0 {
            self.revive();
        }
    }

    /// A fresh instance with the table of now; when it fails, the wait grows.
    #[cold]
    fn revive(&mut self) {
        // Another seed, or a random policy would walk the same path to the same trap.
        self.seed = self.seed.wrapping_add(1);
        self.counters.restarts.fetch_add(1, Ordering::Relaxed);
        let opened = self.component.open(&self.config, self.seed);
        let outcome = opened.map_err(|error| (None, error.to_string())).and_then(|mut fresh| {
            match fresh.replace(
                self.table.revision,
                self.table.members.slots(),
                &self.table.columns,
            ) {
                Ok(()) => Ok(fresh),
                Err(fault) => Err((fresh.failure(), fault.to_string())),
            }
        });
        match outcome {
            Ok(fresh) => self.live = Some(fresh),
            Err((failure, reason)) => {
                self.counters.failed(failure);
                self.patience.blame();
                tracing::warn!(
                    policy = self.component.descriptor().name,
                    reason,
                    native_decisions = self.patience.wait,
                    "a policy component did not come back"
                );
            }
        }
    }
}

impl Balancer for GuardedBalancer {
    fn describe(&self) -> &Descriptor {
        self.component.descriptor()
    }

    fn replace(&mut self, revision: u64, slots: &[Slot], columns: &[i64]) -> Result<(), Fault> {
        check_table(self.component.descriptor(), slots, columns)?;
        self.table.replace(revision, slots, columns);
        self.native.current = false;
        if let Some(Err(fault)) =
            self.live.as_mut().map(|live| live.replace(revision, slots, columns))
        {
            self.bury(&fault);
        }
        Ok(())
    }

    fn patch(&mut self, feature: Feature, slots: &[Slot], values: &[i64]) -> Result<(), Fault> {
        let descriptor = self.component.descriptor();
        let place = check_patch(descriptor, &self.table.members, feature, slots, values)?;
        self.table.patch(place, slots, values);
        self.native.patch(feature, slots, values);
        if let Some(Err(fault)) = self.live.as_mut().map(|live| live.patch(feature, slots, values))
        {
            self.bury(&fault);
        }
        Ok(())
    }

    #[inline]
    fn pick(&mut self, key: u64, cost: u32) -> Result<Option<Slot>, Fault> {
        self.decide(1, |policy| policy.pick(key, cost))
    }

    fn pick_batch(&mut self, first_key: u64, count: u32, out: &mut Vec<Slot>) -> Result<(), Fault> {
        self.decide(u64::from(count), |policy| policy.pick_batch(first_key, count, out))
    }

    fn observe(&mut self, ended: &[Observation]) -> Result<(), Fault> {
        match &mut self.live {
            Some(live) => {
                if let Err(fault) = live.observe(ended) {
                    self.bury(&fault);
                }
                Ok(())
            }
            None => self.native.observe(ended),
        }
    }

    fn save(&mut self) -> Result<Snapshot, Fault> {
        let Some(live) = &mut self.live else { return Err(Fault::Unavailable(0)) };
        let saved = live.save();
        if let (Err(fault), Some(_)) = (&saved, live.failure()) {
            self.bury(fault);
        }
        saved
    }
}
