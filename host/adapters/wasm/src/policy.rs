//! Policies: admitted once, opened once for each worker.

use std::sync::Arc;
use std::time::Duration;

use quorate_policy::{Descriptor, Feature, Snapshot};
use quorate_types::Digest;
use wasmtime::component::Linker;
use wasmtime::{Engine, Store};

use crate::admit::{AdmitError, HostError, OpenError};
use crate::balancer::ComponentBalancer;
use crate::bindings::policy::exports::quorate::balancer::balancing;
use crate::bindings::policy::{Policy, PolicyPre};
use crate::cache::CompileCache;
use crate::compiler::{CompileCounts, Compiler};
use crate::engine;
use crate::limits::PolicyLimits;
use crate::outline::Outline;
use crate::ticker::{Hold, Ticker};
use crate::trap::{Cut, reason};

const WORLD: &str = "quorate:balancer/policy@0.1.0-dev";
const EXPORT: &str = "quorate:balancer/balancing@0.1.0-dev";
const TYPES: &str = "quorate:common/types@0.1.0-dev";

/// Longest name a policy may have, bytes.
const NAME_BYTES_MAX: usize = 64;

/// Most picks in one batch that a host asks for.
const BATCH_MAX: u32 = 4096;

/// Runs policies of one class of limits.
pub struct PolicyHost {
    shared: Arc<Shared>,
    compiler: Compiler,
    linker: Linker<()>,
}

struct Shared {
    engine: Engine,
    limits: PolicyLimits,
    ticker: Option<Ticker>,
}

/// An admitted policy.
pub struct PolicyComponent {
    shared: Arc<Shared>,
    digest: Digest,
    descriptor: Arc<Descriptor>,
    pre: PolicyPre<()>,
}

impl PolicyHost {
    /// A host with a pool of its own; `cache` keeps compiled code across restarts.
    pub fn new(limits: PolicyLimits, cache: Option<Arc<CompileCache>>) -> Result<Self, HostError> {
        let engine = engine::policy(&limits)?;
        let ticker = engine::ticker(&engine, limits.net.map(|_net| engine::POLICY_TICK));
        Ok(Self {
            compiler: Compiler::new(&engine, limits.shape.compile_time_max, cache),
            // Nothing is ever put in: a policy imports types, and types need no definition.
            linker: Linker::new(&engine),
            shared: Arc::new(Shared { engine, limits, ticker }),
        })
    }

    /// Where the code of components came from so far.
    pub fn compiles(&self) -> CompileCounts {
        self.compiler.counts()
    }

    /// Checks, compiles and tries the component. Blocks for as long as that takes, at
    /// most the class's compile time and a moment; the compiler has a thread of its own.
    pub fn admit(&self, bytes: &[u8]) -> Result<Arc<PolicyComponent>, AdmitError> {
        let shape = &self.shared.limits.shape;
        Outline::read_within(bytes, shape)?.check_world(WORLD, EXPORT, |import| {
            if import == TYPES {
                return Ok(());
            }
            let allowed = format!("`{TYPES}` alone");
            Err(AdmitError::UnknownImport { import: import.to_owned(), world: WORLD, allowed })
        })?;
        let digest = Digest::of(bytes);
        let component = self.compiler.compile(digest, bytes)?;
        engine::check_needs(&component, shape)?;
        let pre =
            self.linker.instantiate_pre(&component).and_then(PolicyPre::new).map_err(|error| {
                AdmitError::WorldDiffers { world: WORLD, reason: reason(&error) }
            })?;
        let (_life, said) = self
            .shared
            .begin(&pre)
            .map_err(|(step, cut)| AdmitError::FirstLife { step, reason: cut.to_string() })?;
        let descriptor = Arc::new(descriptor(said)?);
        let shared = Arc::clone(&self.shared);
        Ok(Arc::new(PolicyComponent { shared, digest, descriptor, pre }))
    }
}

impl PolicyComponent {
    /// What it says of itself.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The SHA-256 of the component.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// An instance with an empty pool. `config` is UTF-8 JSON, empty for none.
    pub fn open(&self, config: &[u8], seed: u64) -> Result<ComponentBalancer, OpenError> {
        let mut life = self.begin()?;
        let opened = life.policy.quorate_balancer_balancing().pool().call_open(
            &mut life.store,
            config,
            seed,
        );
        self.opened(life, opened)
    }

    /// As `open`, going on from the state of a predecessor.
    pub fn restore(
        &self,
        config: &[u8],
        seed: u64,
        prior: &Snapshot,
    ) -> Result<ComponentBalancer, OpenError> {
        let (got, limit) = (prior.body.len(), self.shared.limits.snapshot_bytes_max);
        if got > limit {
            return Err(OpenError::SnapshotTooLarge { got, limit });
        }
        let mut life = self.begin()?;
        let prior = balancing::Snapshot {
            schema: prior.schema,
            applied: prior.applied,
            body: prior.body.clone(),
        };
        let opened = life.policy.quorate_balancer_balancing().pool().call_restore(
            &mut life.store,
            config,
            seed,
            &prior,
        );
        self.opened(life, opened)
    }

    fn begin(&self) -> Result<Life, OpenError> {
        let (life, _said) = self.shared.begin(&self.pre).map_err(|(step, cut)| {
            OpenError::Instantiate(format!("it failed in `{step}`: {cut}"))
        })?;
        Ok(life)
    }

    fn opened(
        &self,
        life: Life,
        opened: wasmtime::Result<Result<balancing::Pool, balancing::Fault>>,
    ) -> Result<ComponentBalancer, OpenError> {
        match opened {
            Ok(Ok(pool)) => Ok(ComponentBalancer::new(
                life,
                pool,
                Arc::clone(&self.descriptor),
                self.shared.limits.clone(),
            )),
            Ok(Err(fault)) => Err(OpenError::Open(crate::balancer::fault(fault))),
            Err(error) => Err(OpenError::Open(crate::balancer::cut_fault(&Cut::of(&error)))),
        }
    }
}

/// A store with one instance in it, described and not yet opened.
pub(crate) struct Life {
    pub(crate) store: Store<()>,
    pub(crate) policy: Policy,
    pub(crate) net_ticks: Option<u64>,
    /// Keeps the safety net's clock going for as long as the instance lives.
    _hold: Option<Hold>,
}

impl Shared {
    /// A fresh instance, and what it said of itself: `describe` is its first call.
    fn begin(
        &self,
        pre: &PolicyPre<()>,
    ) -> Result<(Life, balancing::Descriptor), (&'static str, Cut)> {
        let failed = |step| move |error: wasmtime::Error| (step, Cut::of(&error));
        let hold = self.ticker.as_ref().map(Ticker::hold);
        let net_ticks = self.limits.net.map(ticks);
        let mut store = Store::new(&self.engine, ());
        store.set_hostcall_fuel(self.limits.snapshot_bytes_max.saturating_mul(2));
        store.set_fuel(self.limits.open_fuel).map_err(failed("instantiate"))?;
        if let Some(ticks) = net_ticks {
            store.set_epoch_deadline(ticks);
        }
        let policy = pre.instantiate(&mut store).map_err(failed("instantiate"))?;
        let said = policy
            .quorate_balancer_balancing()
            .call_describe(&mut store)
            .map_err(failed("describe"))?;
        Ok((Life { store, policy, net_ticks, _hold: hold }, said))
    }
}

/// The net in ticks of the epoch, one more than fit, since the first may come at once.
fn ticks(net: Duration) -> u64 {
    u64::try_from(net.as_millis() / engine::POLICY_TICK.as_millis()).unwrap_or(u64::MAX - 1) + 1
}

fn descriptor(said: balancing::Descriptor) -> Result<Descriptor, AdmitError> {
    let bad = |what: String, expected: String| Err(AdmitError::BadDescription { what, expected });
    if said.name.is_empty() || said.name.len() > NAME_BYTES_MAX {
        return bad(
            format!("a name of {} bytes", said.name.len()),
            format!("give it one of 1 to {NAME_BYTES_MAX}"),
        );
    }
    let mut features = Vec::new();
    for name in &said.features {
        let known = Feature::from_name(name).filter(|feature| !features.contains(feature));
        let Some(feature) = known else {
            let names: Vec<&str> = Feature::ALL.iter().map(|feature| feature.name()).collect();
            return bad(
                format!("the feature `{name}`, which is unknown or named twice"),
                format!("this node knows `{}`, each at most once", names.join("`, `")),
            );
        };
        features.push(feature);
    }
    if said.max_batch == 0 {
        return bad("batches of at most 0 picks".to_owned(), "a batch has at least 1".to_owned());
    }
    Ok(Descriptor {
        name: said.name,
        state_schema: said.state_schema,
        reads_schemas: said.reads_schemas,
        features,
        batch_max: said.max_batch.min(BATCH_MAX),
    })
}
