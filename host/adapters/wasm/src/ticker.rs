//! The clock of an engine's epochs: one thread an engine, started with the first
//! [`Hold`], asleep while there is none, ended when the ticker is dropped.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// Ticks an engine while something holds it.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Keeps the epoch of an engine advancing.
pub(crate) struct Hold(Arc<Shared>);

struct Shared {
    engine: EngineWeak,
    period: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    holds: usize,
    ended: bool,
}

impl Ticker {
    pub(crate) fn new(engine: &Engine, period: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                engine: engine.weak(),
                period,
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
            thread: Mutex::new(None),
        }
    }

    /// Ticks until the hold is dropped. Where no thread can be had the epoch stands
    /// still and fuel alone cuts; that is logged.
    pub(crate) fn hold(&self) -> Hold {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            match std::thread::Builder::new()
                .name("quorate-epoch".to_owned())
                .spawn(move || shared.run())
            {
                Ok(handle) => *thread = Some(handle),
                Err(error) => tracing::error!(%error, "no thread to tick a wasm engine's epoch"),
            }
        }
        self.shared.lock().holds += 1;
        self.shared.changed.notify_all();
        Hold(Arc::clone(&self.shared))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_panic)) = thread.map(JoinHandle::join) {
            tracing::error!("the thread that ticks a wasm engine's epoch panicked");
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.lock().holds -= 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.ended {
            if state.holds == 0 {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // A new hold or the end wakes the wait early; a tick too many harms nobody.
            let (guard, _timeout) = self
                .changed
                .wait_timeout(state, self.period)
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
            match self.engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    }
}
