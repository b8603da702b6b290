//! A bounded queue with one reader that works on any runtime: the reader leaves
//! its waker, a writer wakes it. Writers never wait; a full queue hands the item
//! back, and the writer decides what that means.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
    reader: Option<Waker>,
}

/// Both ends of a queue; clones share it.
pub struct Queue<T> {
    state: Arc<Mutex<State<T>>>,
    limit: usize,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), limit: self.limit }
    }
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("len", &self.len()).field("limit", &self.limit).finish()
    }
}

impl<T> Queue<T> {
    /// An empty queue of at most `limit` items.
    pub fn new(limit: usize) -> Self {
        let state = State { items: VecDeque::new(), closed: false, reader: None };
        Self { state: Arc::new(Mutex::new(state)), limit }
    }

    /// Appends, or gives the item back when the queue is full or closed.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed || state.items.len() >= self.limit {
            return Err(item);
        }
        state.items.push_back(item);
        wake(state);
        Ok(())
    }

    /// Appends beyond the limit: for what must not be lost and is bounded by its source.
    pub fn push_always(&self, item: T) {
        let mut state = self.lock();
        if !state.closed {
            state.items.push_back(item);
            wake(state);
        }
    }

    /// Nothing more is taken; what is inside can still be read.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        wake(state);
    }

    /// Whether `close` was called.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Items inside.
    pub fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first item, if one is there.
    pub fn try_pop(&self) -> Option<T> {
        self.lock().items.pop_front()
    }

    /// The first item once there is one; none when the queue is closed and empty.
    pub async fn pop(&self) -> Option<T> {
        poll_fn(|context| {
            let mut state = self.lock();
            match state.items.pop_front() {
                Some(item) => Poll::Ready(Some(item)),
                None if state.closed => Poll::Ready(None),
                None => {
                    state.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code runs under this lock that could leave the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake<T>(mut state: MutexGuard<'_, State<T>>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}
