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
use openraft::EntryPayload;
use openraft::errors::{NetworkError, RPCError, Unreachable};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
};
use openraft_rt::{AsyncRuntime, Instant};
use quorate_types::limits::{COMMAND_BYTES_MAX, FRAME_BYTES_MAX, LANE_BYTES_MAX};
use quorate_types::{Lane, NodeId, SendError};

use crate::message::{Append, Appended, Message};
use crate::outbox::{Asked, Lost, Outbox};
use crate::types::{LogId, Tc};

/// Appends under way to one follower, and their entries in bytes. Small ones are bounded by their
/// number; of large ones a lane's queue must have room for all, since a frame that it refuses is
/// lost: one more than this is sent, and together they stay below what a lane takes. 4 MiB fill a
/// path of 20 ms at 200 MB/s.
const WINDOW: usize = 32;
const WINDOW_BYTES: usize = FRAME_BYTES_MAX;

const _: () = assert!(WINDOW_BYTES + COMMAND_BYTES_MAX + (1 << 20) < LANE_BYTES_MAX);

/// Another group of this node may have filled the lane: an append that found it full is sent after
/// this span. The lane moves at hundreds of megabytes a second.
const FULL_RETRY: Duration = Duration::from_millis(2);

/// What an entry has beside its command, in a frame.
const ENTRY_HEAD_BYTES: usize = 24;

type Answer<RT> = Result<StreamAppendResult<Tc<RT>>, RPCError<Tc<RT>>>;

struct Sent<RT: AsyncRuntime> {
    asked: Asked<RT>,
    deadline: RT::Instant,
    prev: Option<LogId>,
    last: Option<LogId>,
    bytes: usize,
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
    sent_bytes: usize,
    /// One that found the lane full, and when it tries again.
    held: Option<(Message, Pin<Box<RT::Sleep>>)>,
    /// Set when a request could not be sent; it fails after the answers before it.
    unsent: Option<Lost>,
    /// Set when a follower took only the first part of a request. What was sent behind it is void,
    /// and openraft would take the rest for sent: it has to begin anew from there.
    cut: bool,
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
        Self {
            outbox,
            peer,
            lane,
            timeout,
            input: Some(input),
            sent: VecDeque::with_capacity(WINDOW),
            sent_bytes: 0,
            held: None,
            unsent: None,
            cut: false,
            timer: None,
            ended: false,
        }
    }

    /// Sends what there is to send, as far as the window goes.
    fn fill(&mut self, context: &mut Context<'_>) {
        if let Some((_append, again)) = &mut self.held {
            if again.as_mut().poll(context).is_pending() {
                return;
            }
            if let Some((append, _again)) = self.held.take() {
                self.send(append, context);
            }
        }
        while self.has_room() {
            let Some(input) = &mut self.input else { return };
            match Pin::new(input).poll_next(context) {
                Poll::Pending => return,
                Poll::Ready(None) => self.input = None,
                Poll::Ready(Some(request)) => {
                    let append = Append {
                        vote: request.vote,
                        prev: request.prev_log_id,
                        commit: request.leader_commit,
                        entries: request.entries,
                    };
                    self.send(Message::Append(append), context);
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        let free = self.unsent.is_none() && self.held.is_none() && !self.cut;
        free && self.sent.len() < WINDOW && self.sent_bytes < WINDOW_BYTES
    }

    fn send(&mut self, message: Message, context: &mut Context<'_>) {
        let Message::Append(append) = &message else { return };
        let (prev, bytes) = (append.prev, size(append));
        let last = append.entries.last().map(|entry| entry.log_id).or(prev);
        match self.outbox.ask(self.peer, self.lane, &message) {
            Ok(asked) => {
                let deadline = RT::Instant::now() + self.timeout;
                self.sent.push_back(Sent { asked, deadline, prev, last, bytes });
                self.sent_bytes += bytes;
            }
            Err(SendError::Full) => {
                let mut again = Box::pin(RT::sleep(FULL_RETRY));
                // A timer that nobody has polled wakes nobody.
                if again.as_mut().poll(context).is_ready() {
                    context.waker().wake_by_ref();
                }
                self.held = Some((message, again));
            }
            Err(error @ (SendError::Unconnected | SendError::TooLarge)) => {
                self.unsent = Some(error.into());
            }
        }
    }

    /// The oldest request's answer, or what became of it.
    fn poll_oldest(&mut self, context: &mut Context<'_>) -> Poll<Answer<RT>> {
        let Some(oldest) = self.sent.front_mut() else { return Poll::Pending };
        if let Poll::Ready(reply) = Pin::new(&mut oldest.asked).poll(context) {
            let (prev, last) = (oldest.prev, oldest.last);
            self.sent_bytes -= oldest.bytes;
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
        let answer = if this.cut {
            Err(RPCError::Network(NetworkError::from_string("an append was taken in part")))
        } else if let Some(oldest) = this.sent.front() {
            let last = oldest.last;
            let answer = ready!(this.poll_oldest(context));
            this.cut = matches!(&answer, Ok(Ok(upto)) if *upto < last);
            answer
        } else if let Some(lost) = this.unsent.take() {
            unreachable(lost)
        } else if this.input.is_some() || this.held.is_some() {
            return Poll::Pending;
        } else {
            this.ended = true;
            return Poll::Ready(None);
        };
        if !matches!(answer, Ok(Ok(_))) {
            this.ended = true;
            this.input = None;
            this.sent.clear();
            this.held = None;
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

/// An append's entries in bytes; a membership is no larger than its head.
fn size(append: &Append) -> usize {
    let bytes = append.entries.iter().map(|entry| match &entry.payload {
        EntryPayload::Normal(framed) => framed.0.len() + ENTRY_HEAD_BYTES,
        EntryPayload::Blank | EntryPayload::Membership(_) => ENTRY_HEAD_BYTES,
    });
    bytes.sum()
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use futures::StreamExt;
    use openraft_rt_tokio::TokioRuntime;
    use quorate_types::{GroupId, Wire};

    use super::*;
    use crate::message::Frame;
    use crate::types::{CommittedLeaderId, Entry, Vote};

    /// Takes every frame.
    #[derive(Clone)]
    struct Sink(Arc<Mutex<Vec<Bytes>>>);

    impl Wire for Sink {
        fn send(&self, _to: NodeId, _lane: Lane, frame: Bytes) -> Result<(), SendError> {
            crate::types::locked(&self.0).push(frame);
            Ok(())
        }
    }

    #[test]
    fn what_a_follower_took_in_part_begins_anew_from_there() {
        TokioRuntime::run(part_taken());
    }

    async fn part_taken() {
        let frames = Arc::default();
        let outbox = Outbox::<TokioRuntime>::new(GroupId(0), Sink(Arc::clone(&frames)), 1);
        let id = |index| LogId::new(CommittedLeaderId::new(1), index);
        let entry = |index| Entry { log_id: id(index), payload: EntryPayload::Blank };
        let request = |prev, entries| AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: prev,
            entries,
            leader_commit: None,
        };
        let requests =
            [request(None, vec![entry(0), entry(1)]), request(Some(id(1)), vec![entry(2)])];
        // Nothing new comes, as in a group at rest.
        let input = futures::stream::iter(requests).chain(futures::stream::pending());
        let within = Duration::from_secs(60);
        let (peer, lane) = (NodeId(2), Lane::Append);
        let mut pipeline = Pipeline::new(Arc::clone(&outbox), peer, lane, within, Box::pin(input));

        let first = {
            let mut answered = std::pin::pin!(pipeline.next());
            assert!(futures::poll!(answered.as_mut()).is_pending());
            let asked = Frame::decode(&crate::types::locked(&frames)[0]).expect("whole").id;
            let taken = Appended::Upto(Some(id(0)));
            outbox.complete(peer, asked, Message::Appended(taken));
            answered.await
        };
        assert!(matches!(first, Some(Ok(Ok(Some(upto)))) if upto == id(0)), "{first:?}");
        let second = pipeline.next().await;
        assert!(matches!(second, Some(Err(RPCError::Network(_)))), "{second:?}");
        assert!(pipeline.next().await.is_none(), "openraft begins another stream");
    }
}
