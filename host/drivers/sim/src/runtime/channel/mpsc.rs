//! A bounded queue from many to one.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Poll, Waker};

use openraft_rt::mpsc::{SendError, TryRecvError};
use openraft_rt::{Mpsc, MpscReceiver, MpscSender, MpscWeakSender, OptionalSend};

use super::{Waiters, wake_all};
use crate::world::locked;

struct State<T> {
    queue: VecDeque<T>,
    capacity: usize,
    senders: usize,
    has_receiver: bool,
    reader: Option<Waker>,
    writers: Waiters,
}

type Shared<T> = Arc<Mutex<State<T>>>;

/// The kind of channel.
#[derive(Debug)]
pub(crate) struct SimMpsc;

pub(crate) struct Sender<T>(Shared<T>);

pub(crate) struct WeakSender<T>(Weak<Mutex<State<T>>>);

pub(crate) struct Receiver<T>(Shared<T>);

impl Mpsc for SimMpsc {
    type Sender<T: OptionalSend> = Sender<T>;
    type Receiver<T: OptionalSend> = Receiver<T>;
    type WeakSender<T: OptionalSend> = WeakSender<T>;

    fn channel<T: OptionalSend>(buffer: usize) -> (Sender<T>, Receiver<T>) {
        assert!(buffer > 0, "a queue of nothing takes nothing");
        let shared = Arc::new(Mutex::new(State {
            queue: VecDeque::new(),
            capacity: buffer,
            senders: 1,
            has_receiver: true,
            reader: None,
            writers: Waiters::default(),
        }));
        (Sender(Arc::clone(&shared)), Receiver(shared))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        locked(&self.0).senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let reader = {
            let mut state = locked(&self.0);
            state.senders -= 1;
            if state.senders == 0 { state.reader.take() } else { None }
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T> Sender<T> {
    /// Sends where there is room and somebody who reads, or gives it back.
    pub(crate) fn try_send(&self, msg: T) -> Result<(), T> {
        let mut state = locked(&self.0);
        if !state.has_receiver || state.queue.len() >= state.capacity {
            return Err(msg);
        }
        state.queue.push_back(msg);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }
}

/// A place in the line of those who wait for room; left when it is dropped.
struct Turn<'a, T>(&'a Shared<T>, Option<u64>);

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        if self.1.is_some() {
            let waker = locked(self.0).writers.leave(self.1);
            drop(waker);
        }
    }
}

impl<T: OptionalSend> MpscSender<SimMpsc, T> for Sender<T> {
    async fn send(&self, msg: T) -> Result<(), SendError<T>> {
        let mut msg = Some(msg);
        // Lent to the closure: what it would copy of the turn could not leave the line.
        let mut turn = Turn(&self.0, None);
        poll_fn(|context| {
            let mut state = locked(turn.0);
            let room = state.queue.len() < state.capacity;
            let Some(taken) = msg.take_if(|_| room || !state.has_receiver) else {
                state.writers.wait(&mut turn.1, context.waker());
                return Poll::Pending;
            };
            if !state.has_receiver {
                return Poll::Ready(Err(SendError(taken)));
            }
            state.queue.push_back(taken);
            let reader = state.reader.take();
            drop(state);
            if let Some(reader) = reader {
                reader.wake();
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn downgrade(&self) -> WeakSender<T> {
        WeakSender(Arc::downgrade(&self.0))
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self(Weak::clone(&self.0))
    }
}

impl<T: OptionalSend> MpscWeakSender<SimMpsc, T> for WeakSender<T> {
    fn upgrade(&self) -> Option<Sender<T>> {
        let shared = self.0.upgrade()?;
        {
            let mut state = locked(&shared);
            if state.senders == 0 {
                return None;
            }
            state.senders += 1;
        }
        Some(Sender(shared))
    }
}

impl<T> Receiver<T> {
    /// The next one; whoever waits for room is woken, all of them, so that one who has given up
    /// meanwhile holds up nobody.
    fn next(&self, reader: Option<&Waker>) -> Result<T, TryRecvError> {
        let mut state = locked(&self.0);
        let Some(value) = state.queue.pop_front() else {
            if state.senders == 0 {
                return Err(TryRecvError::Disconnected);
            }
            if let Some(reader) = reader
                && !state.reader.as_ref().is_some_and(|kept| kept.will_wake(reader))
            {
                state.reader = Some(reader.clone());
            }
            return Err(TryRecvError::Empty);
        };
        let writers = state.writers.take();
        drop(state);
        wake_all(writers);
        Ok(value)
    }
}

impl<T: OptionalSend> MpscReceiver<T> for Receiver<T> {
    fn recv(&mut self) -> impl Future<Output = Option<T>> + OptionalSend {
        poll_fn(move |context| match self.next(Some(context.waker())) {
            Ok(value) => Poll::Ready(Some(value)),
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
            Err(TryRecvError::Empty) => Poll::Pending,
        })
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.next(None)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (left, writers) = {
            let mut state = locked(&self.0);
            state.has_receiver = false;
            (std::mem::take(&mut state.queue), state.writers.take())
        };
        wake_all(writers);
        drop(left); // Outside the lock: what was sent may hold anything.
    }
}

#[cfg(test)]
impl<T> Sender<T> {
    pub(super) fn waiting(&self) -> usize {
        locked(&self.0).writers.waiting.len()
    }
}
