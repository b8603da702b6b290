//! Log replication to one follower, with several appends under way at once.
//!
//! The stream owns its input: when openraft drops the one, the other goes too
//! (the input holds a lock while it waits for entries, so a task of its own
//! would block the next stream). It ends with the first error, and openraft
//! begins another.
//!
//! Lanes keep their order and a follower answers in order, so an answer to the
//! second append tells that the first is lost, long before its deadline.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use openraft::errors::{NetworkError, RPCError, Unreachable};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
};
use openraft_rt::{AsyncRuntime, Instant};
use quorate_types::{Lane, NodeId};

use crate::message::{Append, Appended, Message};
use crate::outbox::{Asked, Lost, Outbox};
use crate::types::{LogId, Tc};

/// Appends under way to one follower. Each carries up to 1,024 entries or 1 MiB, so that this many
/// fill a path of 100 ms at over 300 MB/s; a transport's lane must take as many frames.
const WINDOW: usize = 32;

type Answer<RT> = Result<StreamAppendResult<Tc<RT>>, RPCError<Tc<RT>>>;

struct Sent<RT: AsyncRuntime> {
    asked: Asked<RT>,
    deadline: RT::Instant,
    prev: Option<LogId>,
    last: Option<LogId>,
}

/// Requests in, answers out, in order.
pub(crate) struct Pipeline<RT: AsyncRuntime, S> {
    outbox: Arc<Outbox<RT>>,
    peer: NodeId,
    lane: Lane,
    timeout: Duration,
    /// None once it has ended.
    input: Option<S>,
    sent: VecDeque<Sent<RT>>,
    /// Set when a request could not be sent; it fails after the answers before it.
    unsent: Option<Lost>,
    /// One timer for the oldest request, made only when it must be waited for.
    timer: Option<Pin<Box<RT::Sleep>>>,
    ended: bool,
}

impl<RT, S> Pipeline<RT, S>
where
    RT: AsyncRuntime,
    S: Stream<Item = AppendEntriesRequest<Tc<RT>>> + Unpin,
{
    pub(crate) fn new(
        outbox: Arc<Outbox<RT>>,
        peer: NodeId,
        lane: Lane,
        timeout: Duration,
        input: S,
    ) -> Self {
        let (sent, input) = (VecDeque::with_capacity(WINDOW), Some(input));
        Self { outbox, peer, lane, timeout, input, sent, unsent: None, timer: None, ended: false }
    }

    /// Sends what there is to send, as far as the window goes.
    fn fill(&mut self, context: &mut Context<'_>) {
        while self.unsent.is_none() && self.sent.len() < WINDOW {
            let Some(input) = &mut self.input else { return };
            match Pin::new(input).poll_next(context) {
                Poll::Pending => return,
                Poll::Ready(None) => self.input = None,
                Poll::Ready(Some(request)) => self.send(request),
            }
        }
    }

    fn send(&mut self, request: AppendEntriesRequest<Tc<RT>>) {
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let append = Append {
            vote: request.vote,
            prev,
            commit: request.leader_commit,
            entries: request.entries,
        };
        match self.outbox.ask(self.peer, self.lane, Message::Append(append)) {
            Ok(asked) => {
                let deadline = RT::Instant::now() + self.timeout;
                self.sent.push_back(Sent { asked, deadline, prev, last });
            }
            Err(error) => self.unsent = Some(error.into()),
        }
    }

    /// The oldest request's answer, or what became of it.
    fn poll_oldest(&mut self, context: &mut Context<'_>) -> Poll<Answer<RT>> {
        let Some(oldest) = self.sent.front_mut() else { return Poll::Pending };
        if let Poll::Ready(reply) = Pin::new(&mut oldest.asked).poll(context) {
            let (prev, last) = (oldest.prev, oldest.last);
            self.sent.pop_front();
            return Poll::Ready(reply.map_or_else(unreachable, |reply| accept(reply, prev, last)));
        }
        let deadline = oldest.deadline;
        if let Some(second) = self.sent.get_mut(1)
            && let Poll::Ready(reply) = Pin::new(&mut second.asked).poll(context)
        {
            // The follower is there, so this is no reason to back off.
            let overtaken = NetworkError::from_string("an append was lost on its way");
            return Poll::Ready(
                reply.map_or_else(unreachable, |_later| Err(RPCError::Network(overtaken))),
            );
        }
        loop {
            let timer = self.timer.get_or_insert_with(|| Box::pin(RT::sleep_until(deadline)));
            ready!(timer.as_mut().poll(context));
            // Armed for an older request: arm it for this one, unless that has come too.
            self.timer = None;
            if RT::Instant::now() >= deadline {
                return Poll::Ready(unreachable(Lost::Late));
            }
        }
    }
}

impl<RT, S> Stream for Pipeline<RT, S>
where
    RT: AsyncRuntime,
    S: Stream<Item = AppendEntriesRequest<Tc<RT>>> + Unpin,
{
    type Item = Answer<RT>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer<RT>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        this.fill(context);
        let answer = if !this.sent.is_empty() {
            ready!(this.poll_oldest(context))
        } else if let Some(lost) = this.unsent.take() {
            unreachable(lost)
        } else if this.input.is_some() {
            return Poll::Pending;
        } else {
            this.ended = true;
            return Poll::Ready(None);
        };
        if !matches!(answer, Ok(Ok(_))) {
            this.ended = true;
            this.input = None;
            this.sent.clear();
        }
        Poll::Ready(Some(answer))
    }
}

impl<RT: AsyncRuntime, S> Unpin for Pipeline<RT, S> {}

/// A lost request is *unreachable*, never a mere network error: openraft then backs off, and a
/// leader that hears nobody falls silent long enough for the others to elect.
fn unreachable<RT: AsyncRuntime>(lost: Lost) -> Answer<RT> {
    Err(RPCError::Unreachable(Unreachable::from_string(lost)))
}

fn accept<RT: AsyncRuntime>(
    reply: Message,
    prev: Option<LogId>,
    last: Option<LogId>,
) -> Answer<RT> {
    let Message::Appended(appended) = reply else { return unreachable(Lost::Nonsense) };
    Ok(match (appended, prev) {
        (Appended::Whole, _) => Ok(last),
        (Appended::Upto(upto), _) => Ok(upto),
        (Appended::Conflict, Some(prev)) => Err(StreamAppendError::Conflict(prev)),
        // Nothing precedes the first entry, so nothing can conflict with it.
        (Appended::Conflict, None) => return unreachable(Lost::Nonsense),
        (Appended::Higher(vote), _) => Err(StreamAppendError::HigherVote(vote)),
    })
}

/// What the follower's openraft says, for the wire.
pub(crate) fn appended<RT: AsyncRuntime>(response: AppendEntriesResponse<Tc<RT>>) -> Appended {
    match response {
        AppendEntriesResponse::Success => Appended::Whole,
        AppendEntriesResponse::PartialSuccess(upto) => Appended::Upto(upto),
        AppendEntriesResponse::Conflict => Appended::Conflict,
        AppendEntriesResponse::HigherVote(vote) => Appended::Higher(vote),
    }
}
