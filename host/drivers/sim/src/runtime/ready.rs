//! Who can go on: wakers put tasks in, the executor draws one by lot.
//!
//! A task is in here at most once: its waker says so by a flag, so that a wake
//! looks at nothing but that flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Wake;

use quorate_types::rng::Rng;

use crate::world::locked;

/// Where a task lies, and the how-manieth task it is: a number is never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: usize,
    number: u64,
}

impl Place {
    /// That of the future that `block_on` was given.
    pub(super) const MAIN: Self = Self { slot: usize::MAX, number: 0 };

    pub(super) const fn new(slot: usize, number: u64) -> Self {
        Self { slot, number }
    }

    pub(super) const fn number(self) -> u64 {
        self.number
    }

    pub(super) const fn is_main(self) -> bool {
        self.number == 0
    }
}

type Heap = Arc<Mutex<Vec<Place>>>;

/// The tasks that can go on, in no order that means anything.
#[derive(Debug, Default)]
pub(super) struct Ready(Heap);

impl Ready {
    pub(super) fn put(&self, place: Place) {
        locked(&self.0).push(place);
    }

    pub(super) fn draw(&self, rng: &mut Rng) -> Option<Place> {
        let mut heap = locked(&self.0);
        let at = match heap.len() {
            0 => return None,
            1 => 0,
            many => usize::try_from(rng.below(u64::try_from(many).unwrap_or(1))).unwrap_or(0),
        };
        Some(heap.swap_remove(at))
    }

    /// What wakes the task at this place, which is in here from the start.
    pub(super) fn waker(&self, place: Place) -> Arc<TaskWaker> {
        self.put(place);
        Arc::new(TaskWaker { place, queued: AtomicBool::new(true), heap: Arc::clone(&self.0) })
    }
}

/// Puts one task back among the ready.
#[derive(Debug)]
pub(super) struct TaskWaker {
    place: Place,
    queued: AtomicBool,
    heap: Heap,
}

impl TaskWaker {
    /// It is being polled: from here on it may be woken again.
    pub(super) fn begin(&self) {
        self.queued.store(false, Ordering::Relaxed);
    }

    /// It has ended: whoever still wakes it wakes nobody.
    pub(super) fn end(&self) {
        self.queued.store(true, Ordering::Relaxed);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            locked(&self.heap).push(self.place);
        }
    }
}
