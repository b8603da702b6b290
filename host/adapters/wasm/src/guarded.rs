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

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_policy::{Balancer, Descriptor, Fault, Feature, Observation, Slot, Snapshot};

use crate::admit::OpenError;
use crate::balancer::{ComponentBalancer, Failure, check_patch, check_table};
use crate::members::Members;
use crate::policy::PolicyComponent;

/// Decisions answered natively after the second failure in a row; a fresh instance costs about
/// as much as 150 picks, so that a policy that always fails costs a tenth at most from here on.
const WAIT_FIRST: u64 = 1 << 10;

/// The longest wait, decisions.
const WAIT_MAX: u64 = 1 << 20;

/// Good answers in a row that forgive earlier failures.
const FORGIVEN_AFTER: u64 = 1 << 14;

/// The native policy that stands in for a component of a name that is not built in.
const LAST_RESORT: &str = "round-robin";

/// What happened so far; shared, so that metrics read it while a worker picks.
#[derive(Debug, Default)]
pub struct GuardCounters {
    traps: AtomicU64,
    over_budget: AtomicU64,
    illegal: AtomicU64,
    refused: AtomicU64,
    fallbacks: AtomicU64,
    restarts: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardCounts {
    /// Calls that trapped.
    pub traps: u64,
    /// Calls that ran out of fuel or wall time.
    pub over_budget: u64,
    /// Answers that were no slot of the pool.
    pub illegal: u64,
    /// Tables that the component refused.
    pub refused: u64,
    /// Calls answered by the native reference.
    pub fallbacks: u64,
    /// Fresh instances made after a failure.
    pub restarts: u64,
}

impl GuardCounters {
    /// Reads them; each is exact, together they may be a moment apart.
    pub fn read(&self) -> GuardCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GuardCounts {
            traps: read(&self.traps),
            over_budget: read(&self.over_budget),
            illegal: read(&self.illegal),
            refused: read(&self.refused),
            fallbacks: read(&self.fallbacks),
            restarts: read(&self.restarts),
        }
    }

    fn failed(&self, failure: Option<Failure>) {
        let counter = match failure {
            Some(Failure::Trap) | None => &self.traps,
            Some(Failure::OverBudget) => &self.over_budget,
            Some(Failure::Illegal) => &self.illegal,
            Some(Failure::Refused) => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

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

/// The stand-in; made when it is first needed.
struct Native {
    balancer: Option<Box<dyn Balancer>>,
    /// Whether it has the table of now.
    current: bool,
}

/// The pool as the host last gave it.
#[derive(Default)]
struct Table {
    revision: u64,
    members: Members,
    columns: Vec<i64>,
}

/// When to try the component again.
#[derive(Default)]
struct Patience {
    failures: u32,
    good: u64,
    wait: u64,
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
            native: Native { balancer: None, current: false },
            table: Table::default(),
            patience: Patience::default(),
            counters: Arc::default(),
            last_was_fallback: false,
        }
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

impl Native {
    /// The stand-in with the table of now.
    fn ready(
        &mut self,
        name: &str,
        config: &[u8],
        seed: u64,
        table: &Table,
        descriptor: &Descriptor,
    ) -> Result<&mut dyn Balancer, Fault> {
        let balancer = match &mut self.balancer {
            Some(balancer) => balancer,
            none => none.insert(native(name, config, seed)?),
        };
        if !self.current {
            let columns = table.columns_for(&balancer.describe().features, &descriptor.features);
            balancer.replace(table.revision, table.members.slots(), &columns)?;
            self.current = true;
        }
        Ok(balancer.as_mut())
    }

    fn patch(&mut self, feature: Feature, slots: &[Slot], values: &[i64]) {
        let Some(balancer) = self.balancer.as_mut().filter(|_| self.current) else { return };
        let wants = balancer.describe().features.contains(&feature);
        if wants && balancer.patch(feature, slots, values).is_err() {
            self.current = false;
        }
    }

    fn observe(&mut self, ended: &[Observation]) -> Result<(), Fault> {
        match self.balancer.as_mut().filter(|_| self.current) {
            Some(balancer) => balancer.observe(ended),
            None => Ok(()),
        }
    }
}

/// The native reference of this name; round-robin where there is none or it refuses
/// the configuration that the component took.
fn native(name: &str, config: &[u8], seed: u64) -> Result<Box<dyn Balancer>, Fault> {
    quorate_policy::by_name(name, config, seed)
        .or_else(|| quorate_policy::by_name(LAST_RESORT, &[], seed))
        .ok_or_else(|| Fault::Internal(format!("there is no native policy `{LAST_RESORT}`")))
}

impl Table {
    fn replace(&mut self, revision: u64, slots: &[Slot], columns: &[i64]) {
        self.revision = revision;
        self.members.replace(slots);
        self.columns.clear();
        self.columns.extend_from_slice(columns);
    }

    fn patch(&mut self, place: u32, slots: &[Slot], values: &[i64]) {
        let members = self.members.slots();
        let column = usize::try_from(place).unwrap_or(usize::MAX).saturating_mul(members.len());
        if slots == members {
            self.columns[column..column + members.len()].copy_from_slice(values);
            return;
        }
        for (slot, value) in slots.iter().zip(values) {
            if let Ok(seat) = members.binary_search(slot) {
                self.columns[column + seat] = *value;
            }
        }
    }

    /// The columns in another order; a feature that the table lacks has its neutral value.
    fn columns_for(&self, wanted: &[Feature], had: &[Feature]) -> Vec<i64> {
        let length = self.members.len();
        let mut columns = Vec::with_capacity(wanted.len() * length);
        for feature in wanted {
            match had.iter().position(|one| one == feature) {
                Some(place) => {
                    columns.extend_from_slice(&self.columns[place * length..(place + 1) * length]);
                }
                None => columns.extend(std::iter::repeat_n(neutral(*feature), length)),
            }
        }
        columns
    }
}

const fn neutral(feature: Feature) -> i64 {
    match feature {
        Feature::InFlight | Feature::Load | Feature::LatencyUs => 0,
        Feature::SuccessPpm => 1_000_000,
        Feature::Weight | Feature::Capacity => 1,
    }
}

impl Patience {
    /// Counts native decisions; true when the component has its turn again.
    fn spend(&mut self, decisions: u64) -> bool {
        let over = self.wait <= decisions;
        self.wait = self.wait.saturating_sub(decisions);
        over
    }

    fn praise(&mut self, decisions: u64) {
        self.good = self.good.saturating_add(decisions);
        if self.good >= FORGIVEN_AFTER {
            self.failures = 0;
        }
    }

    fn blame(&mut self) {
        self.good = 0;
        self.failures = self.failures.saturating_add(1);
        self.wait = match self.failures {
            0 | 1 => 0,
            more => WAIT_FIRST.saturating_mul(1 << (2 * (more - 2)).min(20)).min(WAIT_MAX),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_shortens_to_nothing_and_grows_to_its_bound() {
        let mut patience = Patience::default();
        let mut waits = Vec::new();
        for _failure in 0..9 {
            patience.blame();
            waits.push(patience.wait);
        }
        assert_eq!(waits[..4], [0, WAIT_FIRST, 4 * WAIT_FIRST, 16 * WAIT_FIRST]);
        assert_eq!(waits[8], WAIT_MAX);
        assert!(!patience.spend(WAIT_MAX - 1), "one decision too early");
        assert!(patience.spend(1));
        patience.praise(FORGIVEN_AFTER);
        patience.blame();
        assert_eq!(patience.wait, 0, "a long run of good answers forgives");
    }

    #[test]
    fn columns_are_found_by_feature_and_neutral_where_missing() {
        let mut table = Table::default();
        table.replace(1, &[3, 9], &[10, 11, 20, 21]);
        table.patch(1, &[9], &[99]);
        table.patch(0, &[3, 9], &[12, 13]);
        let had = [Feature::InFlight, Feature::LatencyUs];
        let wanted = [Feature::LatencyUs, Feature::SuccessPpm, Feature::InFlight];
        assert_eq!(table.columns_for(&wanted, &had), [20, 99, 1_000_000, 1_000_000, 12, 13]);
    }
}
