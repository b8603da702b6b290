//! Policies as components: compiled once by digest, opened behind their native
//! fallback wherever the kernel asks for an instance.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_dispatch::{Guarded, NativeSource, PolicyRef, PolicySource};
use quorate_policy::{Balancer, Descriptor, Fault, Feature, Observation, Slot, Snapshot};
use quorate_types::Digest;
use quorate_wasm::{GuardedBalancer, PolicyComponent, PolicyHost};

type Components = BTreeMap<Digest, Arc<PolicyComponent>>;

/// The policies that are compiled on this node. Clones share them.
#[derive(Clone)]
pub(crate) struct Policies {
    host: Arc<PolicyHost>,
    compiled: Arc<Mutex<Components>>,
}

impl Policies {
    pub(crate) fn new(host: PolicyHost) -> Self {
        let host = Arc::new(host);
        Self { host, compiled: Arc::default() }
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
            Some(Ok(guarded)) => Box::new(Component(guarded)),
            Some(Err(error)) => {
                tracing::warn!(policy = policy.name, %error, "the native answer stands in");
                Box::new(StandIn(NativeSource.open(policy, seed)))
            }
            None => {
                tracing::warn!(policy = policy.name, digest = %policy.digest.short(), "not compiled here yet; the native answer stands in");
                Box::new(StandIn(NativeSource.open(policy, seed)))
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

macro_rules! pass_through {
    ($name:ident, $fell_back:expr) => {
        impl Guarded for $name {
            fn fell_back(&self) -> bool {
                let fell_back: fn(&Self) -> bool = $fell_back;
                fell_back(self)
            }
        }

        impl Balancer for $name {
            fn describe(&self) -> &Descriptor {
                self.0.describe()
            }
            fn replace(
                &mut self,
                revision: u64,
                slots: &[Slot],
                columns: &[i64],
            ) -> Result<(), Fault> {
                self.0.replace(revision, slots, columns)
            }
            fn patch(
                &mut self,
                feature: Feature,
                slots: &[Slot],
                values: &[i64],
            ) -> Result<(), Fault> {
                self.0.patch(feature, slots, values)
            }
            fn pick(&mut self, key: u64, cost: u32) -> Result<Option<Slot>, Fault> {
                self.0.pick(key, cost)
            }
            fn pick_batch(
                &mut self,
                first_key: u64,
                count: u32,
                out: &mut Vec<Slot>,
            ) -> Result<(), Fault> {
                self.0.pick_batch(first_key, count, out)
            }
            fn observe(&mut self, ended: &[Observation]) -> Result<(), Fault> {
                self.0.observe(ended)
            }
            fn save(&mut self) -> Result<Snapshot, Fault> {
                self.0.save()
            }
        }
    };
}

pass_through!(Component, |component| component.0.last_was_fallback());
pass_through!(StandIn, |_stand_in| true);
