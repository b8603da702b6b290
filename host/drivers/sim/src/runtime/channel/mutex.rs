//! A lock that is awaited. Whoever holds it holds the value itself, which comes
//! back when the guard goes: a standard guard could not go with a task.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex as StdMutex;
use std::task::Poll;

use openraft_rt::{Mutex, OptionalSend};

use super::{Waiters, wake_all};
use crate::world::locked;

struct State<T> {
    /// Absent while somebody holds it.
    value: Option<Box<T>>,
    waiters: Waiters,
}

pub(crate) struct SimMutex<T>(StdMutex<State<T>>);

pub(crate) struct Guard<'a, T> {
    lock: &'a SimMutex<T>,
    value: Option<Box<T>>,
}

/// Only `drop` takes it.
const HELD: &str = "a guard holds its value until it goes";

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        match &self.value {
            Some(value) => value,
            None => unreachable!("{HELD}"),
        }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.value {
            Some(value) => value,
            None => unreachable!("{HELD}"),
        }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = locked(&self.lock.0);
            state.value = self.value.take();
            state.waiters.take()
        };
        wake_all(waiting);
    }
}

/// A place among those who wait; left when it is dropped.
struct Turn<'a, T>(&'a SimMutex<T>, Option<u64>);

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        if self.1.is_some() {
            let waker = locked(&self.0.0).waiters.leave(self.1);
            drop(waker);
        }
    }
}

impl<T: OptionalSend + 'static> Mutex<T> for SimMutex<T> {
    type Guard<'a> = Guard<'a, T>;

    fn new(value: T) -> Self {
        let value = Some(Box::new(value));
        Self(StdMutex::new(State { value, waiters: Waiters::default() }))
    }

    async fn lock(&self) -> Guard<'_, T> {
        // Lent to the closure: what it would copy of the turn could not leave the line.
        let mut turn = Turn(self, None);
        poll_fn(|context| {
            let lock = turn.0;
            let mut state = locked(&lock.0);
            match state.value.take() {
                Some(value) => Poll::Ready(Guard { lock, value: Some(value) }),
                None => {
                    state.waiters.wait(&mut turn.1, context.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

#[cfg(test)]
impl<T> SimMutex<T> {
    pub(super) fn waiting(&self) -> usize {
        locked(&self.0).waiters.waiting.len()
    }
}
