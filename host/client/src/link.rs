//! The native stream: many requests under way at once over one connection, each
//! answered as soon as it is done. What waits to be sent goes out together.
//!
//! A [`Link`] outlives its connections. When one breaks, the next node is connected
//! and what was not answered is asked again; acts on keys carry numbers, so that they
//! are done once. Watches go on after the last revision that they saw. Leases bound
//! to the stream end with the connection, and whoever holds one learns it from its
//! next sign of life.

mod acts;
mod dial;
mod guard;
mod session;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_types::Refusal;
use quorate_types::kv::{Change, Changes, KvWatch, Revision};
use quorate_types::link::{Asked, Said};
use quorate_types::problem::Problem;
use tokio::sync::{mpsc, oneshot};

use crate::client::Client;
use crate::error::ClientError;

pub use guard::{Campaign, LinkLease, LockGuard, Observed};
use session::{Command, Session};

/// Requests that wait to be sent; who has one more waits.
const COMMANDS_MAX: usize = 4096;
/// Changes that a watch holds for a slow reader.
const CHANGES_MAX: usize = 1024;

/// A native stream to a cluster; clones share it. It ends with the last of them.
#[derive(Clone, Debug)]
pub struct Link(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    next: AtomicU64,
    timeout: Duration,
    client: Client,
    /// Whom errors name.
    url: String,
}

impl Client {
    /// A native stream to one of the nodes. It stands when this returns.
    ///
    /// # Errors
    /// When no node can be reached in time, or the one that answers refuses.
    pub async fn connect_stream(&self) -> Result<Link, ClientError> {
        let (socket, url) = self.dial_any(self.0.timeout).await?;
        let (commands, waiting) = mpsc::channel(COMMANDS_MAX);
        let session = Session::new(self.clone(), waiting);
        tokio::spawn(session.run(socket));
        let (next, timeout) = (AtomicU64::new(1), self.0.timeout);
        let client = self.clone();
        Ok(Link(Arc::new(Shared { commands, next, timeout, client, url })))
    }
}

impl Link {
    fn number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    fn within_ms(&self) -> u64 {
        u64::try_from(self.0.timeout.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Asks, and waits for the answer until the deadline.
    async fn ask(&self, make: impl FnOnce((u64, u64)) -> Asked) -> Result<Said, ClientError> {
        let id = self.number();
        let (sender, receiver) = oneshot::channel();
        let asked = make((id, self.within_ms()));
        let sent = self.0.commands.send(Command::Ask { id, asked, answer: sender });
        let answered = async {
            if sent.await.is_err() {
                return None;
            }
            receiver.await.ok()
        };
        match tokio::time::timeout(self.0.timeout, answered).await {
            Ok(Some(said)) => Ok(said),
            Ok(None) => Err(self.silent()),
            Err(_elapsed) => {
                // Where the queue is full the session will find out by itself.
                self.0.commands.try_send(Command::Forget(id)).ok();
                Err(self.silent())
            }
        }
    }

    /// Tells what has no answer.
    async fn tell(&self, asked: Asked) {
        // An error means that the session is gone, which the next question will say.
        self.0.commands.send(Command::Tell(asked)).await.ok();
    }

    /// The same, where nobody can wait; it is lost where the queue is full.
    fn tell_now(&self, asked: Asked) {
        self.0.commands.try_send(Command::Tell(asked)).ok();
    }

    fn silent(&self) -> ClientError {
        ClientError::Timeout { url: self.0.url.clone(), after: self.0.timeout }
    }

    /// Changes to keys or a seat, without a gap over all connections.
    pub async fn watch(&self, watch: KvWatch) -> KvStream {
        let id = self.number();
        let (sender, changes) = mpsc::channel(CHANGES_MAX);
        let after = watch.after;
        self.0.commands.send(Command::Watch { id, watch, changes: sender }).await.ok();
        KvStream { id, changes, ready: VecDeque::new(), after, link: self.clone() }
    }
}

/// Changes as they come.
#[derive(Debug)]
pub struct KvStream {
    id: u64,
    changes: mpsc::Receiver<Result<Changes, Refusal>>,
    ready: VecDeque<Change>,
    after: Option<Revision>,
    link: Link,
}

impl KvStream {
    /// The next change. None when the link has ended; an error is the last item.
    pub async fn next(&mut self) -> Option<Result<Change, ClientError>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                self.after = Some(change.revision);
                return Some(Ok(change));
            }
            match self.changes.recv().await? {
                Ok(changes) => {
                    self.ready.extend(changes.changes);
                    if self.ready.is_empty() {
                        self.after = Some(changes.seen);
                    }
                }
                Err(refusal) => return Some(Err(Problem::from(refusal).into())),
            }
        }
    }

    /// Where to go on from later.
    pub const fn revision(&self) -> Option<Revision> {
        self.after
    }
}

impl Drop for KvStream {
    fn drop(&mut self) {
        self.link.0.commands.try_send(Command::Unwatch(self.id)).ok();
    }
}
