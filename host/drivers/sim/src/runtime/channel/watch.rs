//! The newest value, for all who look.

use std::future::poll_fn;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::task::Poll;

use openraft_rt::watch::{RecvError, SendError};
use openraft_rt::{OptionalSend, OptionalSync, Watch, WatchReceiver, WatchSender};

use super::{Waiters, wake_all};
use crate::world::locked;

/// The kind of channel.
#[derive(Debug)]
pub(crate) struct SimWatch;

struct Versioned<T> {
    value: T,
    version: u64,
}

struct Gate {
    /// That of the value, so that whoever looks need not take both locks.
    version: u64,
    senders: usize,
    receivers: usize,
    waiters: Waiters,
}

struct Channel<T> {
    newest: RwLock<Versioned<T>>,
    gate: Mutex<Gate>,
}

impl<T> Channel<T> {
    fn read(&self) -> RwLockReadGuard<'_, Versioned<T>> {
        self.newest.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the value where `change` says that it did, and wakes.
    fn change(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let version = {
            let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
            if !change(&mut newest.value) {
                return false;
            }
            newest.version += 1;
            newest.version
        };
        let waiting = {
            let mut gate = locked(&self.gate);
            gate.version = version;
            gate.waiters.take()
        };
        wake_all(waiting);
        true
    }
}

pub(crate) struct Sender<T>(Arc<Channel<T>>);

pub(crate) struct Receiver<T> {
    channel: Arc<Channel<T>>,
    seen: u64,
}

/// The value, held still while somebody looks at it.
pub(crate) struct Ref<'a, T>(RwLockReadGuard<'a, Versioned<T>>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl Watch for SimWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let gate = Gate { version: 0, senders: 1, receivers: 1, waiters: Waiters::default() };
        let channel = Arc::new(Channel {
            newest: RwLock::new(Versioned { value: init, version: 0 }),
            gate: Mutex::new(gate),
        });
        (Sender(Arc::clone(&channel)), Receiver { channel, seen: 0 })
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        locked(&self.0.gate).senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waiting = {
            let mut gate = locked(&self.0.gate);
            gate.senders -= 1;
            if gate.senders > 0 {
                return;
            }
            gate.waiters.take()
        };
        wake_all(waiting);
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<SimWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if locked(&self.0.gate).receivers == 0 {
            return Err(SendError(value));
        }
        let mut before = None;
        self.0.change(|newest| {
            before = Some(std::mem::replace(newest, value));
            true
        });
        drop(before); // Outside the lock.
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.0.change(modify)
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        Ref(self.0.read())
    }

    fn subscribe(&self) -> Receiver<T> {
        let seen = self.0.read().version;
        locked(&self.0.gate).receivers += 1;
        Receiver { channel: Arc::clone(&self.0), seen }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        locked(&self.channel.gate).receivers += 1;
        Self { channel: Arc::clone(&self.channel), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        locked(&self.channel.gate).receivers -= 1;
    }
}

/// A place among those who wait; left when it is dropped.
struct Turn<'a, T>(&'a Channel<T>, Option<u64>);

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        if self.1.is_some() {
            let waker = locked(&self.0.gate).waiters.leave(self.1);
            drop(waker);
        }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<SimWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        let seen = &mut self.seen;
        let mut turn = Turn(&self.channel, None);
        poll_fn(|context| {
            let mut gate = locked(&turn.0.gate);
            if gate.version != *seen {
                *seen = gate.version;
                return Poll::Ready(Ok(()));
            }
            if gate.senders == 0 {
                return Poll::Ready(Err(RecvError(())));
            }
            gate.waiters.wait(&mut turn.1, context.waker());
            Poll::Pending
        })
        .await
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        Ref(self.channel.read())
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let newest = self.channel.read();
        self.seen = newest.version;
        Ref(newest)
    }
}

#[cfg(test)]
impl<T> Sender<T> {
    pub(super) fn waiting(&self) -> usize {
        locked(&self.0.gate).waiters.waiting.len()
    }
}
