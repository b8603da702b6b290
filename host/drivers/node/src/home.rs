//! The one thread of a node's log, kernel and network. What comes off a socket goes
//! through Raft and back onto a socket without waking another thread but the
//! disk's: with several threads each put of a small cluster cost forty wake-ups,
//! which took longer than the work. Whatever computes for long runs elsewhere:
//! guests on their own threads, large digests and snapshots aside, HTTP on the
//! threads of whoever opens the doors.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread. All that runs there ends when this is dropped.
pub(crate) struct Home {
    runtime: Handle,
    /// Ends the thread when it is dropped.
    end: Option<oneshot::Sender<()>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Home {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread =
            std::thread::Builder::new().name("quorate-home".to_owned()).spawn(move || {
                // Dropped or used, it is the end.
                runtime.block_on(ended).ok();
                // Work set aside belongs to nobody now; a stuck disk must not hold the thread.
                runtime.shutdown_background();
            })?;
        Ok(Self { runtime: handle, end: Some(end), thread: Mutex::new(Some(thread)) })
    }

    /// Runs `work` there.
    ///
    /// # Errors
    /// It panicked, or the thread ended first.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<T> {
        self.runtime.spawn(work).await.map_err(io::Error::other)
    }

    /// Ends it, and waits until nothing of the node runs there any more.
    pub(crate) async fn leave(mut self) {
        drop(self.end.take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        if !matches!(tokio::task::spawn_blocking(|| thread.join()).await, Ok(Ok(()))) {
            tracing::error!("the node's thread panicked");
        }
    }
}
