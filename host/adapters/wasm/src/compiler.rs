//! Compiling, off the caller's thread and under a deadline.
//!
//! One thread an engine compiles one component after the other. A component that
//! takes too long is given up by its caller; the thread finishes it (a compile
//! cannot be cut off inside a process), and whoever comes meanwhile waits at most its
//! own deadline. What was compiled is kept in memory by digest, and sealed on disk.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_types::Digest;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::admit::AdmitError;
use crate::cache::{CompileCache, EngineKey};
use crate::trap::reason;

/// Components waiting for the thread. A node prepares one swap at a time and starts a handful of
/// agents; more than this is a flood, and refused.
const WAITING_MAX: usize = 16;

/// Compiled components kept in memory, the longest unused leaves first: every slot's
/// active, soaking and shadowed version and every agent kind of a node, several times over.
const KEPT_MAX: usize = 64;

/// The compiling thread's stack, bytes; deeply nested blocks recurse in the compiler.
const STACK_BYTES: usize = 16 << 20;

type Answer = Result<Component, String>;

struct Job {
    wasm: Vec<u8>,
    answer: SyncSender<Answer>,
}

/// Where the code of components that were asked for came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileCounts {
    /// Kept in memory.
    pub from_memory: u64,
    /// Sealed on disk by an earlier compile.
    pub from_disk: u64,
    /// Compiled.
    pub compiled: u64,
    /// Not to be compiled, or not in time.
    pub refused: u64,
}

/// Compiles for one engine.
pub(crate) struct Compiler {
    engine: Engine,
    key: EngineKey,
    time_max: Duration,
    disk: Option<Arc<CompileCache>>,
    kept: Mutex<VecDeque<(Digest, Component)>>,
    counts: Mutex<CompileCounts>,
    jobs: Mutex<Option<SyncSender<Job>>>,
}

impl Compiler {
    pub(crate) fn new(
        engine: &Engine,
        time_max: Duration,
        disk: Option<Arc<CompileCache>>,
    ) -> Self {
        Self {
            engine: engine.clone(),
            key: EngineKey::of(engine),
            time_max,
            disk,
            kept: Mutex::default(),
            counts: Mutex::default(),
            jobs: Mutex::default(),
        }
    }

    /// The compiled component of this digest, from memory, from disk, or made now.
    pub(crate) fn compile(&self, digest: Digest, wasm: &[u8]) -> Result<Component, AdmitError> {
        if let Some(component) = self.recall(digest) {
            self.count(|counts| &mut counts.from_memory);
            return Ok(component);
        }
        let stored = self.disk.as_ref().and_then(|disk| disk.load(&self.engine, &self.key, digest));
        let component = match stored {
            Some(component) => {
                self.count(|counts| &mut counts.from_disk);
                component
            }
            None => {
                let made = self.make(digest, wasm);
                self.count(|counts| match &made {
                    Ok(_component) => &mut counts.compiled,
                    Err(_refused) => &mut counts.refused,
                });
                made?
            }
        };
        self.keep(digest, &component);
        Ok(component)
    }

    /// What was asked for so far.
    pub(crate) fn counts(&self) -> CompileCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, which: impl FnOnce(&mut CompileCounts) -> &mut u64) {
        *which(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner)) += 1;
    }

    fn make(&self, digest: Digest, wasm: &[u8]) -> Result<Component, AdmitError> {
        let (answer, answered) = sync_channel(1);
        self.submit(Job { wasm: wasm.to_vec(), answer })?;
        let component = match answered.recv_timeout(self.time_max) {
            Ok(Ok(component)) => component,
            Ok(Err(reason)) => return Err(AdmitError::DoesNotCompile { reason }),
            Err(RecvTimeoutError::Timeout) => {
                return Err(AdmitError::CompileTooSlow { limit_ms: self.time_max.as_millis() });
            }
            Err(RecvTimeoutError::Disconnected) => {
                let reason = "the compiler panicked on it".to_owned();
                return Err(AdmitError::DoesNotCompile { reason });
            }
        };
        if let Some(disk) = &self.disk {
            disk.store(&self.key, digest, &component);
        }
        Ok(component)
    }

    /// Hands over to the thread, which is started with the first job and again after a panic.
    fn submit(&self, job: Job) -> Result<(), AdmitError> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = match jobs.as_ref() {
            Some(jobs) => jobs.try_send(job),
            None => Err(TrySendError::Disconnected(job)),
        };
        let job = match sent {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(_job)) => {
                return Err(AdmitError::CompilerBusy { waiting: WAITING_MAX });
            }
            Err(TrySendError::Disconnected(job)) => job,
        };
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let engine = self.engine.clone();
        std::thread::Builder::new()
            .name("quorate-compile".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || run(&engine, &receiver))
            .map_err(|error| AdmitError::DoesNotCompile {
                reason: format!("no thread could be had for the compiler ({error})"),
            })?;
        // The queue is new and empty, so this neither blocks nor fails while the thread lives.
        if sender.try_send(job).is_err() {
            return Err(AdmitError::CompilerBusy { waiting: WAITING_MAX });
        }
        *jobs = Some(sender);
        Ok(())
    }

    fn recall(&self, digest: Digest) -> Option<Component> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(other, _component)| *other == digest)?;
        let entry = kept.remove(place)?;
        let component = entry.1.clone();
        kept.push_back(entry);
        Some(component)
    }

    fn keep(&self, digest: Digest, component: &Component) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, _component)| *other != digest);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((digest, component.clone()));
    }
}

/// Compiles until the compiler is dropped.
fn run(engine: &Engine, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        let made = Component::new(engine, &job.wasm).map_err(|error| reason(&error));
        if job.answer.try_send(made).is_err() {
            tracing::warn!(
                bytes = job.wasm.len(),
                "a component was compiled after its caller gave up"
            );
        }
    }
}
