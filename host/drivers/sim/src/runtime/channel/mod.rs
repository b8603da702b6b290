//! The channels that the trait asks for. Each keeps its state behind a lock that is
//! held for moments; wakers are called outside it, in the order in which they came.

pub(super) mod mpsc;
pub(super) mod mutex;
pub(super) mod oneshot;
pub(super) mod watch;

pub(crate) use mpsc::SimMpsc;
pub(crate) use mutex::SimMutex;
pub(crate) use oneshot::SimOneshot;
pub(crate) use watch::SimWatch;

use std::task::Waker;

/// Those who wait for one thing, by a number that each is given.
#[derive(Debug, Default)]
struct Waiters {
    last: u64,
    waiting: Vec<(u64, Waker)>,
}

impl Waiters {
    /// `id` waits, under this waker; whoever has none yet is given one.
    fn wait(&mut self, id: &mut Option<u64>, waker: &Waker) {
        let number = *id.get_or_insert_with(|| {
            self.last += 1;
            self.last
        });
        match self.waiting.iter_mut().find(|(waiting, _)| *waiting == number) {
            Some((_, kept)) if kept.will_wake(waker) => {}
            Some((_, kept)) => *kept = waker.clone(),
            None => self.waiting.push((number, waker.clone())),
        }
    }

    /// `id` no longer waits.
    fn leave(&mut self, id: Option<u64>) -> Option<Waker> {
        let at = self.waiting.iter().position(|(waiting, _)| Some(*waiting) == id)?;
        Some(self.waiting.remove(at).1)
    }

    /// All of them, to be woken outside the lock.
    fn take(&mut self) -> Vec<(u64, Waker)> {
        std::mem::take(&mut self.waiting)
    }
}

fn wake_all(waiting: Vec<(u64, Waker)>) {
    waiting.into_iter().for_each(|(_, waker)| waker.wake());
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::Context;

    use openraft_rt::{Mpsc as _, MpscSender as _, Mutex as _, Watch as _, WatchReceiver as _};

    use super::*;

    #[test]
    fn who_gives_up_leaves_the_line() {
        let mut context = Context::from_waker(Waker::noop());
        let (sender, mut receiver) = SimWatch::channel(0);
        assert!(pin!(receiver.changed()).poll(&mut context).is_pending());
        assert_eq!(sender.waiting(), 0);
        let (sender, receiver) = SimMpsc::channel(1);
        assert_eq!(sender.try_send(1), Ok(()));
        assert!(pin!(sender.send(2)).poll(&mut context).is_pending());
        assert_eq!(sender.waiting(), 0);
        drop(receiver);
        let mutex = SimMutex::new(());
        let mut first = Box::pin(mutex.lock());
        let held = first.as_mut().poll(&mut context);
        assert!(held.is_ready());
        assert!(pin!(mutex.lock()).poll(&mut context).is_pending());
        assert_eq!(mutex.waiting(), 0);
        drop(held);
    }
}
