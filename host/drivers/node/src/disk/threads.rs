//! A fixed number of threads that take blocking work in order.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// Work that waits or runs at once, for each thread. A caller awaits its work, so as many wait as
/// there are tasks that use the disk; beyond this they wait before their work is queued.
const QUEUED_MAX: usize = 64;

/// The threads. They end when this is dropped and the queue is empty.
pub(super) struct Threads {
    jobs: Sender<Job>,
    room: Arc<Semaphore>,
}

impl Threads {
    /// Starts `count` threads; each holds the directory's lock while it lives, since work that is
    /// still queued belongs to this process.
    pub(super) fn start(name: &str, count: usize, lock: &Arc<File>) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..count {
            let (queue, lock) = (Arc::clone(&queue), Arc::clone(lock));
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || {
                while let Some(job) = next(&queue) {
                    job();
                }
                drop(lock);
            })?;
        }
        Ok(Self { jobs, room: Arc::new(Semaphore::new(QUEUED_MAX * count)) })
    }

    /// Runs `work` on one of the threads. Once queued it is done, even if nobody waits any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let gone = || io::Error::other("the disk's threads are gone");
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_closed| gone())?;
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let result = work();
            drop(room);
            // Whoever asked may have stopped waiting; the work is done all the same.
            drop(answer.send(result));
        };
        self.jobs.send(Box::new(job)).map_err(|_refused| gone())?;
        answered.await.map_err(|_dropped| gone())?
    }
}

/// The next job, or none when nobody can send one any more.
fn next(queue: &Mutex<Receiver<Job>>) -> Option<Job> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}
