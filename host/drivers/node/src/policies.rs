//! Policies as components: compiled once by digest, opened behind their native
//! fallback wherever the kernel asks for an instance.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_dispatch::{Guarded, NativeSource, PolicyRef, PolicySource};
use quorate_policy::Balancer;
use quorate_types::Digest;
use quorate_wasm::{
    CompileCounts, GuardCounters, GuardCounts, GuardedBalancer, PolicyComponent, PolicyHost,
};

type Components = BTreeMap<Digest, Arc<PolicyComponent>>;

/// The policies that are compiled on this node. Clones share them.
#[derive(Clone)]
pub(crate) struct Policies {
    host: Arc<PolicyHost>,
    compiled: Arc<Mutex<Components>>,
    /// Shared by all guards of one policy name: a guard is gone with its pool, its counts are not.
    counters: Arc<Mutex<BTreeMap<String, Arc<GuardCounters>>>>,
    stand_ins: Arc<AtomicU64>,
}

impl Policies {
    pub(crate) fn new(host: PolicyHost) -> Self {
        let host = Arc::new(host);
        Self { host, compiled: Arc::default(), counters: Arc::default(), stand_ins: Arc::default() }
    }

    /// Compiles a component under the digest that the log will know it by. Blocks.
    pub(crate) fn admit(&self, digest: Digest, bytes: &Bytes) -> Result<(), String> {
        if self.lock().contains_key(&digest) {
            return Ok(());
        }
        let component = self.host.admit(bytes).map_err(|error| error.to_string())?;
        self.lock().insert(digest, component);
        Ok(())
    }

    /// What happened to each policy's guards so far, by name.
    pub(crate) fn guards(&self) -> Vec<(String, GuardCounts)> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|(policy, counters)| (policy.clone(), counters.read())).collect()
    }

    /// Pools that began on the native reference so far.
    pub(crate) fn stand_ins(&self) -> u64 {
        self.stand_ins.load(Ordering::Relaxed)
    }

    /// Where the code of components came from.
    pub(crate) fn compiles(&self) -> CompileCounts {
        self.host.compiles()
    }

    fn counters_of(&self, policy: &str) -> Arc<GuardCounters> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(counters.entry(policy.to_owned()).or_default())
    }

    fn stand_in(&self, policy: &PolicyRef, seed: u64) -> Box<dyn Guarded> {
        self.stand_ins.fetch_add(1, Ordering::Relaxed);
        Box::new(StandIn(NativeSource.open(policy, seed)))
    }

    fn lock(&self) -> MutexGuard<'_, Components> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PolicySource for Policies {
    fn open(&self, policy: &PolicyRef, seed: u64) -> Box<dyn Guarded> {
        let component = self.lock().get(&policy.digest).cloned();
        let opened =
            component.map(|component| GuardedBalancer::open(component, &policy.config, seed));
        match opened {
            Some(Ok(guarded)) => {
                Box::new(Component(guarded.counting(self.counters_of(&policy.name))))
            }
            Some(Err(error)) => {
                tracing::warn!(policy = policy.name, %error, "the native answer stands in");
                self.stand_in(policy, seed)
            }
            None => {
                tracing::warn!(policy = policy.name, digest = %policy.digest.short(), "not compiled here yet; the native answer stands in");
                self.stand_in(policy, seed)
            }
        }
    }

    fn ready(&self, digest: &Digest) -> bool {
        self.lock().contains_key(digest)
    }
}

/// A component behind its native fallback.
struct Component(GuardedBalancer);

/// The native answer in a component's place.
struct StandIn(Box<dyn Guarded>);

impl Guarded for Component {
    fn balancer(&mut self) -> &mut dyn Balancer {
        &mut self.0
    }
    fn fell_back(&self) -> bool {
        self.0.last_was_fallback()
    }
}

impl Guarded for StandIn {
    fn balancer(&mut self) -> &mut dyn Balancer {
        self.0.balancer()
    }
    fn fell_back(&self) -> bool {
        true
    }
}
