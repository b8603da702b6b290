//! Admission of agents, and the small host functions: log, clock, random.

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use quorate_types::rng::Rng;
use quorate_types::text::clipped;
use quorate_types::{CapabilitySet, Digest};
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, Store};

use super::env::{AgentEnv, Level, NoEnv};
use super::grants::{Grants, WORLD};
use super::instance::AgentInstance;
use crate::admit::{AdmitError, HostError};
use crate::bindings::agent::exports::quorate::agent::working;
use crate::bindings::agent::quorate::host::{clock, log, random};
use crate::bindings::agent::{Agent, AgentPre};
use crate::cache::CompileCache;
use crate::compiler::{CompileCounts, Compiler};
use crate::engine;
use crate::limits::{AgentLimits, SLEEP_MS_MAX, Slice};
use crate::outline::Outline;
use crate::ticker::{Hold, Ticker};
use crate::trap::{Cut, reason};

const EXPORT: &str = "quorate:agent/working@0.1.0-dev";

/// Longest name of an agent or a capability, bytes.
const NAME_BYTES_MAX: usize = 128;

/// Most capabilities of one agent.
const CAPABILITIES_MAX: usize = 64;

/// Slices that a first life may take: a second, and as much fuel as a second burns.
const FIRST_LIFE_SLICES: u64 = 1_000;

/// Runs agents of one class of limits.
pub struct AgentHost {
    shared: Arc<Shared>,
    compiler: Compiler,
}

pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) limits: AgentLimits,
    ticker: Option<Ticker>,
}

/// An admitted agent.
pub struct AgentComponent {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pre: AgentPre<AgentState>,
    digest: Digest,
    descriptor: AgentDescriptor,
}

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentDescriptor {
    /// Its name.
    pub name: String,
    /// What it can do.
    pub capabilities: CapabilitySet,
}

/// What a store holds beside the guest.
pub(crate) struct AgentState {
    pub(crate) env: Arc<dyn AgentEnv>,
    pub(crate) limits: AgentLimits,
    pub(crate) table: ResourceTable,
    /// Bytes in open readers and writers.
    pub(crate) held_bytes: u64,
    rng: Rng,
    lines: Arc<Mutex<Lines>>,
}

/// Counts an agent's lines by the second, across its lives.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    second: u64,
    written: u32,
    dropped: u64,
}

impl AgentHost {
    /// A host with a pool of its own; `cache` keeps compiled code across restarts.
    pub fn new(limits: AgentLimits, cache: Option<Arc<CompileCache>>) -> Result<Self, HostError> {
        let engine = engine::agent(&limits)?;
        let period = match limits.slice {
            Slice::Time(slice) => Some(slice),
            Slice::Fuel(_) => None,
        };
        let ticker = engine::ticker(&engine, period);
        Ok(Self {
            compiler: Compiler::new(&engine, limits.shape.compile_time_max, cache),
            shared: Arc::new(Shared { engine, limits, ticker }),
        })
    }

    /// Where the code of components came from so far.
    pub fn compiles(&self) -> CompileCounts {
        self.compiler.counts()
    }

    /// Checks, compiles and tries the component. Blocks for as long as that takes, at
    /// most the class's compile time and a moment; the compiler has a thread of its own.
    pub fn admit(&self, bytes: &[u8], grants: Grants) -> Result<Arc<AgentComponent>, AdmitError> {
        let shape = &self.shared.limits.shape;
        Outline::read_within(bytes, shape)?
            .check_world(WORLD, EXPORT, |import| grants.check(import))?;
        let digest = Digest::of(bytes);
        let component = self.compiler.compile(digest, bytes)?;
        engine::check_needs(&component, shape)?;
        let mut linker = Linker::new(&self.shared.engine);
        let pre = grants
            .link(&mut linker)
            .and_then(|()| linker.instantiate_pre(&component))
            .and_then(AgentPre::new)
            .map_err(|error| AdmitError::WorldDiffers { world: WORLD, reason: reason(&error) })?;
        let descriptor = descriptor(self.shared.first_life(&pre)?)?;
        let shared = Arc::clone(&self.shared);
        Ok(Arc::new(AgentComponent { shared, pre, digest, descriptor }))
    }
}

impl AgentComponent {
    /// What it says of itself.
    pub fn descriptor(&self) -> &AgentDescriptor {
        &self.descriptor
    }

    /// The SHA-256 of the component.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// An agent of this kind. Its instance is made with its first work.
    pub fn start(self: &Arc<Self>, env: Arc<dyn AgentEnv>, seed: u64) -> AgentInstance {
        AgentInstance::new(Arc::clone(self), env, seed)
    }
}

impl Shared {
    /// Keeps the clock of slices going while an agent runs.
    pub(crate) fn hold(&self) -> Option<Hold> {
        self.ticker.as_ref().map(Ticker::hold)
    }

    pub(crate) fn store(&self, state: AgentState) -> Store<AgentState> {
        let mut store = Store::new(&self.engine, state);
        store.set_hostcall_fuel(self.limits.call_bytes_max);
        store.set_max_component_handles(self.limits.resources_max);
        store
    }

    /// Asks a fresh instance who it is. Nothing that it is given waits, so that the
    /// fiber ends within one poll or is cut.
    fn first_life(&self, pre: &AgentPre<AgentState>) -> Result<working::Descriptor, AdmitError> {
        let failed = |step| {
            move |error: wasmtime::Error| AdmitError::FirstLife {
                step,
                reason: Cut::of(&error).to_string(),
            }
        };
        let _hold = self.hold();
        let state = AgentState::new(Arc::new(NoEnv), self.limits.clone(), 0, Arc::default());
        let mut store = self.store(state);
        match self.limits.slice {
            Slice::Time(_) => store.set_epoch_deadline(FIRST_LIFE_SLICES),
            Slice::Fuel(units) => store
                .set_fuel(units.saturating_mul(FIRST_LIFE_SLICES))
                .map_err(failed("instantiate"))?,
        }
        let life = async {
            let agent: Agent =
                pre.instantiate_async(&mut store).await.map_err(failed("instantiate"))?;
            let working = agent.quorate_agent_working();
            working.call_describe(&mut store).await.map_err(failed("describe"))
        };
        life.now_or_never().unwrap_or_else(|| {
            let reason = "it waited for something".to_owned();
            Err(AdmitError::FirstLife { step: "describe", reason })
        })
    }
}

impl AgentState {
    pub(crate) fn new(
        env: Arc<dyn AgentEnv>,
        limits: AgentLimits,
        seed: u64,
        lines: Arc<Mutex<Lines>>,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.resources_max);
        Self { env, limits, table, held_bytes: 0, rng: Rng::new(seed), lines }
    }
}

impl Lines {
    /// Whether one more line may be written now, and how many were dropped in an
    /// earlier second that nobody was told of.
    fn admit(&mut self, now_ms: u64, lines_max: u32) -> (bool, u64) {
        let second = now_ms / 1000;
        let untold = if second == self.second {
            0
        } else {
            self.second = second;
            self.written = 0;
            std::mem::take(&mut self.dropped)
        };
        let may = self.written < lines_max;
        if may {
            self.written += 1;
        } else {
            self.dropped += 1;
        }
        (may, untold)
    }
}

impl log::Host for AgentState {
    fn write(&mut self, level: log::Level, text: String) -> wasmtime::Result<()> {
        let (may, untold) = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.admit(self.env.now_ms(), self.limits.log_lines_max)
        };
        if untold > 0 {
            self.env.log(Level::Warn, &format!("{untold} lines were dropped: over the rate"));
        }
        if may {
            let text = clipped(text, self.limits.log_line_bytes_max);
            let level = match level {
                log::Level::Debug => Level::Debug,
                log::Level::Info => Level::Info,
                log::Level::Warn => Level::Warn,
                log::Level::Error => Level::Error,
            };
            self.env.log(level, &text);
        }
        Ok(())
    }
}

impl clock::Host for AgentState {
    fn now_ms(&mut self) -> wasmtime::Result<u64> {
        Ok(self.env.now_ms())
    }

    async fn sleep_ms(&mut self, ms: u64) -> wasmtime::Result<()> {
        self.env.sleep(ms.min(SLEEP_MS_MAX)).await;
        Ok(())
    }
}

impl random::Host for AgentState {
    fn draw(&mut self) -> wasmtime::Result<u64> {
        Ok(self.rng.next_u64())
    }
}

fn descriptor(said: working::Descriptor) -> Result<AgentDescriptor, AdmitError> {
    let too_many = said.capabilities.len() > CAPABILITIES_MAX;
    let fits = |name: &String| !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    if too_many || !fits(&said.name) || !said.capabilities.iter().all(fits) {
        return Err(AdmitError::BadDescription {
            what: format!(
                "{} capabilities, or a name that is empty or too long",
                said.capabilities.len()
            ),
            expected: format!(
                "give at most {CAPABILITIES_MAX}, and names of 1 to {NAME_BYTES_MAX} bytes"
            ),
        });
    }
    Ok(AgentDescriptor { name: said.name, capabilities: said.capabilities.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_above_the_rate_are_dropped_and_told_once() {
        let mut lines = Lines::default();
        let admitted = (0..5).filter(|ms| lines.admit(7_000 + ms, 3).0).count();
        assert_eq!(admitted, 3);
        assert_eq!(lines.admit(8_000, 3), (true, 2), "a new second, and the two that were dropped");
        assert_eq!(lines.admit(9_000, 3), (true, 0));
    }
}
