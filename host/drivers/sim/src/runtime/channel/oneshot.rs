//! One value from one to one.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use openraft_rt::{Oneshot, OneshotSender, OptionalSend};

use crate::world::locked;

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    has_sender: bool,
    has_receiver: bool,
    waker: Option<Waker>,
}

/// Its sender went without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sender is gone")]
pub(crate) struct Gone;

/// The kind of channel.
#[derive(Debug)]
pub(crate) struct SimOneshot;

#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Mutex<State<T>>>);

impl Oneshot for SimOneshot {
    type Sender<T: OptionalSend> = Sender<T>;
    type Receiver<T: OptionalSend> = Receiver<T>;
    type ReceiverError = Gone;

    fn channel<T: OptionalSend>() -> (Sender<T>, Receiver<T>) {
        let state = State { value: None, has_sender: true, has_receiver: true, waker: None };
        let state = Arc::new(Mutex::new(state));
        (Sender(Arc::clone(&state)), Receiver(state))
    }
}

impl<T: OptionalSend> OneshotSender<T> for Sender<T> {
    fn send(self, value: T) -> Result<(), T> {
        let mut state = locked(&self.0);
        if !state.has_receiver {
            return Err(value);
        }
        state.value = Some(value);
        Ok(())
        // Dropping the sender wakes whoever waits.
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = locked(&self.0);
            state.has_sender = false;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Gone>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = locked(&self.0);
        if let Some(value) = state.value.take() {
            return Poll::Ready(Ok(value));
        }
        if !state.has_sender {
            return Poll::Ready(Err(Gone));
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = {
            let mut state = locked(&self.0);
            state.has_receiver = false;
            (state.value.take(), state.waker.take())
        };
        drop(left); // Outside the lock: a value may hold anything.
    }
}
