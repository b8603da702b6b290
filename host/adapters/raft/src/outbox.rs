//! Requests on their way: each has an id, and its reply, its loss or its end is
//! brought to whoever waits for it.
//!
//! A frame may be lost without a word, so every wait has a deadline, which is
//! the waiter's. A peer that is gone fails its requests at once. Ids begin at a
//! random number in every life of a node, so that an answer to an earlier life
//! finds nobody.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::{AsyncRuntime, Oneshot, OneshotSender};
use quorate_types::{GroupId, Lane, NodeId, SendError, Wire};

use crate::message::{Message, encode};
use crate::types::{OneshotRx, OneshotTx, locked};

/// The wire, without its type: nothing in this room but `start` needs to know it.
type SendFrame = Box<dyn Fn(NodeId, Lane, Bytes) -> Result<(), SendError> + Send + Sync>;

/// Why no reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// The frame was not taken.
    #[error("not sent: {0}")]
    Unsent(#[from] SendError),
    /// The peer went away before it answered.
    #[error("the peer went away")]
    Gone,
    /// Nothing came in time.
    #[error("no answer in time")]
    Late,
    /// An answer came that is none.
    #[error("the answer is of another kind")]
    Nonsense,
}

struct Waiting<RT: AsyncRuntime> {
    peer: NodeId,
    reply: OneshotTx<RT, Message>,
}

/// The requests of one group on one node.
pub(crate) struct Outbox<RT: AsyncRuntime> {
    group: GroupId,
    send: SendFrame,
    next_id: AtomicU64,
    /// Bounded by the clients: two replication streams of a window each, a snapshot and a vote to
    /// every peer.
    waiting: Mutex<BTreeMap<u64, Waiting<RT>>>,
}

impl<RT: AsyncRuntime> Outbox<RT> {
    /// `first_id` is drawn by the caller, in a task.
    pub(crate) fn new<W: Wire>(group: GroupId, wire: W, first_id: u64) -> Arc<Self> {
        let send = Box::new(move |to, lane, frame| wire.send(to, lane, frame));
        let next_id = AtomicU64::new(first_id);
        Arc::new(Self { group, send, next_id, waiting: Mutex::default() })
    }

    /// Which group.
    pub(crate) const fn group(&self) -> GroupId {
        self.group
    }

    /// A number that this node gives once in its life.
    pub(crate) fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a request. Dropping what comes back forgets it.
    pub(crate) fn ask(
        self: &Arc<Self>,
        peer: NodeId,
        lane: Lane,
        message: &Message,
    ) -> Result<Asked<RT>, SendError> {
        let id = self.fresh_id();
        let (reply, receiver) = RT::Oneshot::channel();
        locked(&self.waiting).insert(id, Waiting { peer, reply });
        let asked = Asked { id, receiver, outbox: Arc::clone(self) };
        self.send(peer, lane, id, message)?;
        Ok(asked)
    }

    /// Sends a request and waits for its reply.
    pub(crate) async fn ask_within(
        self: &Arc<Self>,
        peer: NodeId,
        lane: Lane,
        message: &Message,
        timeout: Duration,
    ) -> Result<Message, Lost> {
        let asked = self.ask(peer, lane, message)?;
        RT::timeout(timeout, asked).await.unwrap_or(Err(Lost::Late))
    }

    /// Sends a reply, once; whoever asked has a deadline.
    pub(crate) fn answer(&self, peer: NodeId, lane: Lane, id: u64, message: &Message) {
        if let Err(error) = self.send(peer, lane, id, message) {
            tracing::debug!(group = %self.group, %peer, ?lane, %error, "reply not sent");
        }
    }

    fn send(&self, peer: NodeId, lane: Lane, id: u64, message: &Message) -> Result<(), SendError> {
        (self.send)(peer, lane, encode(self.group, id, message))
    }

    /// Brings a reply to whoever waits for it, if it is from the peer that was asked.
    pub(crate) fn complete(&self, from: NodeId, id: u64, message: Message) {
        let mut waiting = locked(&self.waiting);
        if waiting.get(&id).is_none_or(|one| one.peer != from) {
            return;
        }
        let reply = waiting.remove(&id).map(|one| one.reply);
        drop(waiting);
        if let Some(Err(_unread)) = reply.map(|reply| reply.send(message)) {
            tracing::trace!(group = %self.group, %from, id, "reply came too late");
        }
    }

    /// Fails every request to this peer.
    pub(crate) fn peer_gone(&self, peer: NodeId) {
        locked(&self.waiting).retain(|_id, one| one.peer != peer);
    }
}

/// A request under way.
pub(crate) struct Asked<RT: AsyncRuntime> {
    id: u64,
    receiver: OneshotRx<RT, Message>,
    outbox: Arc<Outbox<RT>>,
}

impl<RT: AsyncRuntime> Future for Asked<RT> {
    type Output = Result<Message, Lost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver)
            .poll(context)
            .map(|reply| reply.map_err(|_sender_dropped| Lost::Gone))
    }
}

impl<RT: AsyncRuntime> Drop for Asked<RT> {
    fn drop(&mut self) {
        locked(&self.outbox.waiting).remove(&self.id);
    }
}
