//! Waiting for a time, alone or beside something else.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::clock::EPOCH;
use super::executor::{try_with_core, with_core};
use super::instant::SimInstant;
use super::timers::TimerId;

/// Ready when the clock of the node that made it shows its deadline.
#[derive(Debug)]
#[must_use = "a sleep sleeps when it is awaited"]
pub(crate) struct Sleep {
    /// In virtual time, since a clock's rate never changes.
    at: u64,
    timer: Option<TimerId>,
}

impl Sleep {
    #[track_caller]
    pub(super) fn until(deadline: SimInstant) -> Self {
        let at = with_core(|core| core.clocks.reached(core.current, deadline.0));
        Self { at, timer: None }
    }

    pub(super) fn at(since_start: Duration) -> Self {
        let at = EPOCH.saturating_add(u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX));
        Self { at, timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { at, timer } = *self;
        let (timer, polled) = with_core(|core| {
            if core.now() >= at {
                return (timer, Poll::Ready(()));
            }
            let timer = match timer {
                Some(id) => {
                    core.timers.change(id, context.waker());
                    id
                }
                None => core.timers.set(at, context.waker().clone()),
            };
            (Some(timer), Poll::Pending)
        });
        self.timer = timer;
        polled
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            // A waker may own what ends with it: it goes while the core is free.
            drop(try_with_core(|core| core.timers.cancel(timer)));
        }
    }
}

/// The time was up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time was up")
    }
}

impl std::error::Error for Elapsed {}

pin_project! {
    /// Something that is given so much time.
    #[derive(Debug)]
    #[must_use = "nothing runs that is not awaited"]
    pub(crate) struct Timeout<F> {
        #[pin]
        future: F,
        #[pin]
        sleep: Sleep,
    }
}

impl<F> Timeout<F> {
    pub(super) fn new(future: F, sleep: Sleep) -> Self {
        Self { future, sleep }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        this.sleep.poll(context).map(|()| Err(Elapsed))
    }
}
