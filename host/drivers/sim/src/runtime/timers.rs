//! Who waits until when. A timer that is given up leaves its line in the heap and
//! takes its waker out: most are given up, and few lines are ever looked at twice.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::Waker;

/// A timer's slot and the how-manieth it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerId {
    number: u64,
    slot: usize,
}

/// Timers by virtual time, and among equals by age.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, TimerId)>>,
    slots: Vec<Option<(u64, Waker)>>,
    free: Vec<usize>,
    last: u64,
}

impl Timers {
    pub(super) fn set(&mut self, at: u64, waker: Waker) -> TimerId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.last += 1;
        let id = TimerId { number: self.last, slot };
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some((id.number, waker));
        }
        self.heap.push(Reverse((at, id)));
        id
    }

    /// Whoever waits is polled under another waker now.
    pub(super) fn change(&mut self, id: TimerId, waker: &Waker) {
        if let Some(Some((number, kept))) = self.slots.get_mut(id.slot)
            && *number == id.number
            && !kept.will_wake(waker)
        {
            *kept = waker.clone();
        }
    }

    /// Gives it up, if it has not fired.
    pub(super) fn cancel(&mut self, id: TimerId) -> Option<Waker> {
        let slot = self.slots.get_mut(id.slot)?;
        let (_, waker) = slot.take_if(|(number, _)| *number == id.number)?;
        self.free.push(id.slot);
        Some(waker)
    }

    fn is_set(&self, id: TimerId) -> bool {
        matches!(self.slots.get(id.slot), Some(Some((number, _))) if *number == id.number)
    }

    /// When the first one fires.
    pub(super) fn next(&mut self) -> Option<u64> {
        while let Some(Reverse((at, id))) = self.heap.peek() {
            if self.is_set(*id) {
                return Some(*at);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes out all that fire up to `now`.
    pub(super) fn due(&mut self, now: u64) -> Vec<Waker> {
        let mut due = Vec::new();
        while self.next().is_some_and(|at| at <= now) {
            let Some(Reverse((_, id))) = self.heap.pop() else { break };
            due.extend(self.cancel(id));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_is_given_up_holds_nothing_back() {
        let mut timers = Timers::default();
        let waker = || Waker::noop().clone();
        let first = timers.set(5, waker());
        let second = timers.set(9, waker());
        timers.set(9, waker());
        assert_eq!(timers.next(), Some(5));
        assert!(timers.cancel(first).is_some());
        assert!(timers.cancel(first).is_none(), "once");
        assert_eq!(timers.next(), Some(9));
        assert_eq!(timers.due(8).len(), 0);
        let third = timers.set(7, waker());
        assert!(timers.cancel(first).is_none(), "its slot is another's now");
        assert_eq!(timers.next(), Some(7));
        assert!(timers.cancel(third).is_some());
        assert_eq!(timers.due(9).len(), 2);
        assert!(timers.cancel(second).is_none(), "it has fired");
        assert_eq!(timers.next(), None);
    }
}
