//! A task and the handle on its result.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use openraft_rt::{Oneshot as _, OneshotSender as _};
use pin_project_lite::pin_project;

use super::channel::{SimOneshot, oneshot};

/// Why a task has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JoinError {
    /// It panicked, and said this.
    Panicked(String),
    /// It was dropped with its node or its runtime.
    Killed,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(what) => write!(f, "the task panicked: {what}"),
            Self::Killed => f.write_str("the task was killed"),
        }
    }
}

impl std::error::Error for JoinError {}

type Ended<T> = Result<T, JoinError>;

/// Ready with the result of a task. The task goes on where nobody waits.
#[derive(Debug)]
pub(crate) struct JoinHandle<T>(oneshot::Receiver<Ended<T>>);

impl<T: Send> Future for JoinHandle<T> {
    type Output = Ended<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended<T>> {
        let ended = Pin::new(&mut self.0).poll(context);
        ended.map(|ended| ended.unwrap_or(Err(JoinError::Killed)))
    }
}

pin_project! {
    /// What the executor polls.
    pub(super) struct Task<F: Future> {
        #[pin]
        future: F,
        result: Option<oneshot::Sender<Ended<F::Output>>>,
    }
}

impl<F: Future> Task<F>
where
    F::Output: Send,
{
    pub(super) fn new(future: F) -> (Self, JoinHandle<F::Output>) {
        let (sender, receiver) = SimOneshot::channel();
        (Self { future, result: Some(sender) }, JoinHandle(receiver))
    }
}

impl<F: Future> Future for Task<F>
where
    F::Output: Send,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let polled = catch_unwind(AssertUnwindSafe(|| this.future.poll(context)));
        let ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panic) => Err(JoinError::Panicked(said(panic.as_ref()))),
        };
        if let Some(result) = this.result.take() {
            // Refused where nobody waits.
            result.send(ended).ok();
        }
        Poll::Ready(())
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("something that is no text").to_owned()
}
