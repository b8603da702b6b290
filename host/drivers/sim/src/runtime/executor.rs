//! The loop: draw a task, poll it; when none can go on, let time go to the next timer.
//!
//! The trait has only static functions, so a run's core is found through its
//! thread. It is borrowed for moments only, never while a task is polled or
//! dropped: both may spawn, sleep and wake.

use std::cell::RefCell;
use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use openraft_rt::OptionalSend;
use quorate_types::NodeId;

use super::WORLD;
use super::join::{JoinHandle, Task};
use super::ready::Place;
use super::state::Core;

/// What a panic says that ends a run in which no time passes.
pub(crate) const STANDS_STILL: &str = "virtual time stands still";

thread_local! {
    static CORE: RefCell<Option<Box<Core>>> = const { RefCell::new(None) };
}

/// Looks at the core of the run on this thread.
#[track_caller]
pub(super) fn with_core<T>(look: impl FnOnce(&mut Core) -> T) -> T {
    match try_with_core(look) {
        Some(seen) => seen,
        None => panic!("this is for tasks of a simulated run"),
    }
}

/// The same, where there may be no run: in a destructor.
pub(super) fn try_with_core<T>(look: impl FnOnce(&mut Core) -> T) -> Option<T> {
    CORE.try_with(|core| core.borrow_mut().as_deref_mut().map(look)).ok().flatten()
}

/// The core is this thread's for as long as this lives, and goes home then.
struct Stay<'a>(&'a mut Option<Box<Core>>);

impl<'a> Stay<'a> {
    fn new(home: &'a mut Option<Box<Core>>) -> Self {
        let core = home.take();
        CORE.with_borrow_mut(|place| {
            assert!(place.is_none(), "one simulated run a thread at a time");
            *place = core;
        });
        Self(home)
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        *self.0 = CORE.take();
    }
}

#[track_caller]
pub(super) fn spawn<T>(node: Option<NodeId>, future: T) -> JoinHandle<T::Output>
where
    T: Future + OptionalSend + 'static,
    T::Output: OptionalSend + 'static,
{
    let origin = Location::caller();
    let (task, handle) = Task::new(future);
    with_core(|core| {
        let node = node.unwrap_or(core.current);
        core.tasks.add(&core.ready, node, origin, Box::pin(task));
    });
    handle
}

pub(super) fn block_on<F: Future>(home: &mut Option<Box<Core>>, future: F) -> F::Output {
    let _stay = Stay::new(home);
    let mut future = pin!(future);
    let flag = with_core(|core| core.ready.waker(Place::MAIN));
    let waker = Waker::from(std::sync::Arc::clone(&flag));
    loop {
        match with_core(Core::choose) {
            Some(place) if place.is_main() => {
                flag.begin();
                begin(place, WORLD);
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    flag.end();
                    return output;
                }
            }
            Some(place) => poll(place),
            None => advance(),
        }
    }
}

fn begin(place: Place, node: NodeId) {
    let goes_on = with_core(|core| core.begin(place, node));
    assert!(goes_on, "{STANDS_STILL}: a task wakes itself or others at one instant for ever");
}

fn poll(place: Place) {
    let taken = with_core(|core| {
        let node = core.tasks.node(place)?;
        core.tasks.take(place).map(|(work, waker)| (node, work, waker))
    });
    let Some((node, mut work, waker)) = taken else { return };
    begin(place, node);
    let polled = poll_once(work.as_mut(), &waker);
    let rest = with_core(|core| match polled {
        Poll::Ready(()) => {
            core.tasks.end(place);
            Some(work)
        }
        Poll::Pending => core.tasks.put(place, work),
    });
    drop(rest); // As the node's, and while the core is free.
}

fn poll_once(work: Pin<&mut (dyn Future<Output = ()> + Send)>, waker: &Waker) -> Poll<()> {
    work.poll(&mut Context::from_waker(waker))
}

fn advance() {
    match with_core(Core::advance) {
        Some(due) => due.into_iter().for_each(Waker::wake),
        None => {
            let (at, left) = with_core(|core| (core.elapsed(), core.tasks.len()));
            panic!(
                "{STANDS_STILL}: at {:?} nothing can go on and nobody waits for a time; {left} \
                 tasks wait for each other",
                Duration::from_nanos(at)
            );
        }
    }
}

/// Drops the tasks of `node`, and those that they spawn in dropping.
pub(super) fn kill(node: NodeId) {
    let before = with_core(|core| std::mem::replace(&mut core.current, node));
    drop_all(Some(node));
    with_core(|core| core.current = before);
}

fn drop_all(node: Option<NodeId>) {
    loop {
        let works = with_core(|core| core.tasks.clear_of(node));
        if works.is_empty() {
            return;
        }
    }
}

/// The end of a runtime: its tasks are dropped while they can still reach it.
pub(super) fn end(core: Box<Core>) {
    let mut home = Some(core);
    let stay = Stay::new(&mut home);
    drop_all(None);
    drop(stay);
}
