//! A seeded runtime: openraft's `AsyncRuntime` on one thread and virtual time.
//!
//! What it promises beside the trait:
//!
//! * **Chance decides who runs.** Of all tasks that can go on, the seed picks one;
//!   no code may lean on the order in which it woke others.
//! * **A clock a node.** A task belongs to the node of whoever spawned it, and reads
//!   that node's clock: it began anywhere and goes faster or slower than virtual
//!   time. Wall clocks also jump. Node 0 is the world, whose clock is virtual time.
//! * **Kill and freeze.** [`kill`] drops every task of a node where it stands, so that
//!   nothing of that life runs on; [`freeze`] holds them, while time and mail go on.
//! * **One number for all of it.** Each choice is folded into a running hash. The last
//!   steps can be kept as lines; nothing else grows with the run.
//! * **It ends.** A busy loop and a deadlock are panics that say so.
//!
//! `now`, `sleep` and `spawn` are for tasks: outside [`SimRuntime::block_on`] they panic.
//! Channels wake in the order in which waiters came, and may be used from anywhere.
//! Nothing here reads a real clock, and work that blocks is refused.

mod chance;
mod channel;
mod clock;
mod executor;
mod instant;
mod join;
mod ready;
mod sleep;
mod state;
mod tasks;
mod timers;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant as _, OptionalSend};
use quorate_types::{NodeId, Time};

pub(crate) use self::chance::SimRng;
pub(crate) use self::channel::mpsc::{Receiver as MpscReceiver, Sender as MpscSender};
pub(crate) use self::channel::{SimMpsc, SimMutex, SimOneshot, SimWatch};
pub(crate) use self::clock::Clock;
pub(crate) use self::executor::STANDS_STILL;
pub(crate) use self::instant::SimInstant;
pub(crate) use self::join::{JoinError, JoinHandle};
pub(crate) use self::sleep::{Elapsed, Sleep, Timeout};
use self::state::Core;

/// Whose tasks are no node's: the play, the wire, whoever asks.
pub(crate) const WORLD: NodeId = NodeId(0);

/// The runtime, between two runs. In a run its core is the thread's.
pub(crate) struct SimRuntime {
    core: Option<Box<Core>>,
}

impl SimRuntime {
    /// A runtime whose every choice comes from `seed`.
    pub(crate) fn with_seed(seed: u64) -> Self {
        Self { core: Some(Box::new(Core::new(seed))) }
    }

    /// Keeps the last steps as lines, for [`Self::take_steps`].
    pub(crate) fn keep_steps(&mut self) {
        if let Some(core) = &mut self.core {
            core.steps.keep();
        }
    }

    /// The last steps, oldest first.
    pub(crate) fn take_steps(&mut self) -> Vec<String> {
        self.core.as_mut().map(|core| core.steps.take()).unwrap_or_default()
    }

    /// The hash over every choice so far.
    pub(crate) fn hash(&self) -> u64 {
        self.core.as_ref().map_or(0, |core| core.steps.hash())
    }
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimRuntime").finish_non_exhaustive()
    }
}

impl Drop for SimRuntime {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            executor::end(core);
        }
    }
}

/// Spawns a task of `node`, whoever calls.
#[track_caller]
pub(crate) fn spawn_at<T>(node: NodeId, future: T) -> JoinHandle<T::Output>
where
    T: Future + OptionalSend + 'static,
    T::Output: OptionalSend + 'static,
{
    executor::spawn(Some(node), future)
}

/// Drops every task of `node`, now. Their destructors run as the node's.
pub(crate) fn kill(node: NodeId) {
    executor::kill(node);
}

/// Holds the tasks of `node` until [`thaw`]: they wake, and do not run.
pub(crate) fn freeze(node: NodeId) {
    executor::with_core(|core| core.freeze(node));
}

/// Lets the tasks of `node` run again.
pub(crate) fn thaw(node: NodeId) {
    executor::with_core(|core| core.thaw(node));
}

/// How often `node` was frozen so far, and whether it is now: what ran through that keeps no time.
pub(crate) fn freezes(node: NodeId) -> (u64, bool) {
    executor::with_core(|core| core.freezes(node))
}

/// Gives `node` a clock, at best before its first task reads it.
pub(crate) fn set_clock(node: NodeId, clock: Clock) {
    executor::with_core(|core| core.clocks.set(node, clock));
}

/// Moves the wall clock of `node` by so many microseconds; its monotonic clock does not jump.
pub(crate) fn jump(node: NodeId, by_us: i64) {
    executor::with_core(|core| core.clocks.jump(node, by_us));
}

/// Virtual time since the run began, whoever calls.
pub(crate) fn elapsed() -> Duration {
    executor::with_core(|core| Duration::from_nanos(core.elapsed()))
}

/// Ready so long after the run began, in virtual time, whoever calls.
pub(crate) fn sleep_until(at: Duration) -> Sleep {
    Sleep::at(at)
}

/// Wall time by the clock of `node`, which virtual time alone moves.
pub(crate) fn wall(node: NodeId) -> Time {
    executor::with_core(|core| core.clocks.wall(node, core.now()))
}

impl AsyncRuntime for SimRuntime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = SimInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = SimRng;

    #[track_caller]
    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        executor::spawn(None, future)
    }

    #[track_caller]
    fn sleep(duration: Duration) -> Self::Sleep {
        Self::sleep_until(SimInstant::now() + duration)
    }

    #[track_caller]
    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Sleep::until(deadline)
    }

    #[track_caller]
    fn timeout<R, F>(duration: Duration, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + OptionalSend,
    {
        Timeout::new(future, Self::sleep(duration))
    }

    #[track_caller]
    fn timeout_at<R, F>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F>
    where
        F: Future<Output = R> + OptionalSend,
    {
        Timeout::new(future, Self::sleep_until(deadline))
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        matches!(join_error, JoinError::Panicked(_))
    }

    #[track_caller]
    fn thread_rng() -> Self::ThreadLocalRng {
        SimRng::new(executor::with_core(|core| core.rng.next_u64()))
    }

    type Mpsc = SimMpsc;
    type Watch = SimWatch;
    type Oneshot = SimOneshot;
    type Mutex<T: OptionalSend + 'static> = SimMutex<T>;

    fn new(_threads: usize) -> Self {
        Self::with_seed(0)
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        executor::block_on(&mut self.core, future)
    }

    fn spawn_blocking<F, T>(_f: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let what = "a thread would not be seeded";
        std::future::ready(Err(io::Error::new(io::ErrorKind::Unsupported, what)))
    }
}
