//! Wakes whoever waits for the next change of keys, on any runtime. It carries no
//! news: who is woken looks at the state.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use quorate_types::kv::Revision;

#[derive(Default)]
struct State {
    newest: Option<Revision>,
    rung: u64,
    closed: bool,
    next: u64,
    waiting: BTreeMap<u64, Waker>,
}

/// Clones are the same bell.
#[derive(Clone, Default)]
pub(crate) struct Bell(Arc<Mutex<State>>);

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").field("rung", &self.lock().rung).finish_non_exhaustive()
    }
}

impl Bell {
    /// The newest change of a state that is published; rings where it is another one.
    pub(crate) fn ring(&self, newest: Option<Revision>) {
        let mut state = self.lock();
        if state.newest != newest {
            state.newest = newest;
            wake(state);
        }
    }

    /// Nobody waits any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        wake(state);
    }

    /// An ear that has heard nothing yet.
    pub(crate) fn listen(&self) -> Ear {
        let mut state = self.lock();
        state.next += 1;
        Ear { bell: self.clone(), id: state.next, heard: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    state.rung += 1;
    let waiting = std::mem::take(&mut state.waiting);
    drop(state);
    waiting.into_values().for_each(Waker::wake);
}

/// One that waits, again and again.
pub(crate) struct Ear {
    bell: Bell,
    id: u64,
    heard: u64,
}

impl Ear {
    /// How often the bell has rung. Taken before one looks, so that no ring is missed after.
    pub(crate) fn open(&mut self) {
        self.heard = self.bell.lock().rung;
    }

    /// Returns at the first ring after `open`; false once the bell is closed.
    pub(crate) async fn hear(&mut self) -> bool {
        poll_fn(|context| {
            let mut state = self.bell.lock();
            if state.closed {
                return Poll::Ready(false);
            }
            if state.rung != self.heard {
                return Poll::Ready(true);
            }
            state.waiting.insert(self.id, context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.bell.lock().waiting.remove(&self.id);
    }
}
