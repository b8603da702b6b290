//! What other replicas send: requests go to this node's openraft, replies to
//! whoever waits for them.
//!
//! Appends keep their order and are taken several at a time, so that the log
//! writes them together; votes, hand-offs and heartbeats each go their own way,
//! so that none waits for a disk that another keeps busy; snapshot pieces are
//! put together ([`crate::assembly`]) and installed when they are whole.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use openraft::EntryPayload;
use openraft::base::BoxFuture;
use openraft::raft::{
    AppendEntriesRequest, TransferLeaderError, TransferLeaderRequest, VoteRequest,
};
use openraft_rt::{AsyncRuntime, Mpsc, MpscReceiver, MpscSender, Select2};
use quorate_ledger::Command;
use quorate_types::{Disk, Lane, NodeId};

use crate::allow_list::AllowList;
use crate::assembly::{Assembly, Step};
use crate::instance::{Instance, Slot};
use crate::log::LogStore;
use crate::message::{
    Append, Appended, Ballot, Chunk, Frame, FrameError, Message, Transfer, Transferred, Voted,
};
use crate::outbox::Outbox;
use crate::pipeline::appended;
use crate::types::{Entry, LogId, MpscRx, MpscTx, Snapshot, SnapshotMeta, Tc, locked};

/// Appends that wait to be taken. A leader has at most a window of 32 under way and only one peer
/// leads, so the queue fills only while leadership changes; a full one holds back the peer's lane.
const APPENDS_QUEUED_MAX: usize = 64;

/// Appends handed to openraft and not yet answered.
const APPENDS_TAKEN_MAX: usize = 64;

/// Votes, heartbeats and hand-offs being answered. Each peer has a handful under way at most; what
/// is beyond is dropped like any lost frame.
const URGENT_MAX: usize = 256;

/// What of an append is taken.
#[derive(Clone, Copy)]
enum Cut {
    /// All.
    Nothing,
    /// The entries up to here.
    After(LogId),
    /// No entry. What it says beside them counts, above all what is committed.
    All,
}

/// An append and whoever wants its answer.
struct Queued<RT: AsyncRuntime> {
    from: NodeId,
    lane: Lane,
    id: u64,
    request: AppendEntriesRequest<Tc<RT>>,
    /// Whether all of it is taken.
    cut: Cut,
}

/// The receiving side of one group on one node.
pub(crate) struct Inbound<RT: AsyncRuntime, D: Disk> {
    slot: Arc<Slot<RT, D>>,
    outbox: Arc<Outbox<RT>>,
    allow_list: AllowList,
    log: LogStore<RT, D>,
    appends: MpscTx<RT, Queued<RT>>,
    /// Tasks that answer something urgent now.
    urgent: Arc<AtomicUsize>,
    arriving: Arc<Mutex<Assembly>>,
}

impl<RT: AsyncRuntime, D: Disk> Inbound<RT, D> {
    /// Also begins the task that takes appends; it ends when this is dropped.
    pub(crate) fn new(
        slot: Arc<Slot<RT, D>>,
        outbox: Arc<Outbox<RT>>,
        allow_list: AllowList,
        log: LogStore<RT, D>,
    ) -> Self {
        let (appends, queue) = RT::Mpsc::channel(APPENDS_QUEUED_MAX);
        drop(RT::spawn(take_appends(Arc::clone(&slot), Arc::clone(&outbox), queue)));
        let (urgent, arriving) = (Arc::default(), Arc::default());
        Self { slot, outbox, allow_list, log, appends, urgent, arriving }
    }

    /// Takes one frame. Waits only while appends are queued up.
    pub(crate) async fn deliver(
        &self,
        from: NodeId,
        lane: Lane,
        frame: &Bytes,
    ) -> Result<(), FrameError> {
        let Frame { id, message, group } = Frame::decode(frame)?;
        if group != self.outbox.group() {
            return Err(FrameError::Group { got: group, own: self.outbox.group() });
        }
        match message {
            // Not taken, so never acknowledged: the leader sends it again. Taken, it would hold up
            // openraft, and with it votes and heartbeats, until there is space.
            Message::Append(append) if lane == Lane::Append && self.log.is_full() => {
                tracing::debug!(%from, entries = append.entries.len(), "the disk is full");
            }
            Message::Append(mut append) if lane == Lane::Append => {
                let cut = self.cut_unadmitted(from, &mut append);
                let queued = Queued { from, lane, id, request: request(append), cut };
                if self.appends.send(queued).await.is_err() {
                    tracing::debug!(%from, "an append came after the end");
                }
            }
            Message::Append(_) | Message::Vote(_) | Message::PreVote(_) | Message::Transfer(_) => {
                self.answer_urgent(from, lane, id, message)
            }
            Message::Chunk(chunk) => self.take_chunk(from, lane, id, chunk),
            Message::Appended(_)
            | Message::Voted(_)
            | Message::Transferred(_)
            | Message::Received(_) => self.outbox.complete(from, id, message),
        }
        Ok(())
    }

    /// Takes no voter that the list of members never named: entries from the first such on are
    /// cut off, and the last before them is given. The list may merely be behind what another group
    /// has been told meanwhile; so the sender comes again.
    ///
    /// The group that has the list counts a member from its entry's append on, as it does a voter.
    /// To wait until that is applied would wait for ever where a new leader needs this very replica
    /// to commit anything of its term, and cannot say before that what is committed.
    fn cut_unadmitted(&self, from: NodeId, append: &mut Append) -> Cut {
        let is_strange = |at: usize, voter: &NodeId| {
            let before = append.entries.get(..at).unwrap_or_default();
            let admits = |entry: &Entry| match &entry.payload {
                EntryPayload::Normal(command) => Command::admits(command.entry(), *voter),
                EntryPayload::Blank | EntryPayload::Membership(_) => false,
            };
            !self.allow_list.has_admitted(*voter)
                && !before.iter().any(admits)
                && !self.log.admits(*voter)
        };
        let names_unadmitted = |(at, entry): (usize, &Entry)| match &entry.payload {
            EntryPayload::Membership(membership) => {
                let mut voters = membership.voter_ids().map(NodeId);
                Some((at, voters.find(|voter| is_strange(at, voter))?))
            }
            EntryPayload::Blank | EntryPayload::Normal(_) => None,
        };
        let first = append.entries.iter().enumerate().find_map(names_unadmitted);
        let Some((at, voter)) = first else { return Cut::Nothing };
        let group = self.outbox.group();
        tracing::warn!(%group, %from, %voter, "never a member of the cluster; its voters are not taken");
        append.entries.truncate(at);
        append.entries.last().map_or(Cut::All, |entry| Cut::After(entry.log_id))
    }

    fn answer_urgent(&self, from: NodeId, lane: Lane, id: u64, message: Message) {
        let Some(raft) = self.slot.current() else { return };
        let Some(permit) = Permit::take(&self.urgent) else {
            tracing::warn!(%from, "too many votes and heartbeats at once; one is dropped");
            return;
        };
        let outbox = Arc::clone(&self.outbox);
        drop(RT::spawn(async move {
            if let Some(reply) = answer(&raft, message).await {
                outbox.answer(from, lane, id, &reply);
            }
            drop(permit);
        }));
    }

    fn take_chunk(&self, from: NodeId, lane: Lane, id: u64, chunk: Chunk) {
        let Some(raft) = self.slot.current() else { return };
        let transfer = chunk.transfer;
        let (head, body) = match locked(&self.arriving).take(from, id, chunk) {
            Step::Install(head, body) => (head, body),
            Step::Wait => return,
            Step::Answer(received) => {
                return self.outbox.answer(from, lane, id, &Message::Received(received));
            }
        };
        let (arriving, outbox) = (Arc::clone(&self.arriving), Arc::clone(&self.outbox));
        drop(RT::spawn(async move {
            let meta = SnapshotMeta { last_log_id: head.last, last_membership: head.membership };
            let snapshot = Snapshot { meta, snapshot: body };
            let installed = raft.install_full_snapshot(head.vote, snapshot).await;
            if let Err(error) = &installed {
                tracing::warn!(%from, %error, "a snapshot was not installed");
            }
            let vote = installed.ok().map(|response| response.vote);
            let answer = locked(&arriving).finished(transfer, vote);
            if let Some((asker, id, received)) = answer {
                outbox.answer(asker, lane, id, &Message::Received(received));
            }
        }));
    }
}

/// One place among the urgent, given back when dropped.
struct Permit(Arc<AtomicUsize>);

impl Permit {
    fn take(count: &Arc<AtomicUsize>) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let permit = Self(Arc::clone(count));
        (before < URGENT_MAX).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A reply and where it goes; none where openraft has stopped.
type Answer = Option<(NodeId, Lane, u64, Message)>;

/// Hands appends to openraft in the order they came and answers in that order.
async fn take_appends<RT: AsyncRuntime, D: Disk>(
    slot: Arc<Slot<RT, D>>,
    outbox: Arc<Outbox<RT>>,
    mut queue: MpscRx<RT, Queued<RT>>,
) {
    let mut taken: FuturesOrdered<BoxFuture<'static, Answer>> = FuturesOrdered::new();
    loop {
        let next = if taken.is_empty() {
            Select2::First(queue.recv().await)
        } else if taken.len() < APPENDS_TAKEN_MAX {
            RT::select2(queue.recv(), taken.next()).await
        } else {
            Select2::Second(taken.next().await)
        };
        match next {
            Select2::First(None) => return,
            Select2::First(Some(queued)) => {
                if let Some(raft) = slot.current() {
                    taken.push_back(Box::pin(async move {
                        let Queued { from, lane, id, request, cut } = queued;
                        let response = raft.append_entries(request).await.ok()?;
                        let appended = match (appended::<RT>(response), cut) {
                            (Appended::Whole, Cut::After(last)) => Appended::Upto(Some(last)),
                            // No answer is the answer that makes the sender wait.
                            (Appended::Whole, Cut::All) => return None,
                            (as_it_is, Cut::Nothing | Cut::After(_) | Cut::All) => as_it_is,
                        };
                        Some((from, lane, id, Message::Appended(appended)))
                    }));
                }
            }
            Select2::Second(Some(Some((from, lane, id, reply)))) => {
                outbox.answer(from, lane, id, &reply);
            }
            Select2::Second(Some(None) | None) => {}
        }
    }
}

/// openraft's answer; none where it has stopped, which the asker sees as a lost frame.
async fn answer<RT: AsyncRuntime, D: Disk>(
    raft: &Instance<RT, D>,
    message: Message,
) -> Option<Message> {
    match message {
        Message::Append(append) => {
            let response = raft.append_entries(request(append)).await.ok()?;
            Some(Message::Appended(appended::<RT>(response)))
        }
        Message::Vote(ballot) => {
            raft.vote(vote_request(ballot)).await.ok().map(|response| voted::<RT>(response))
        }
        Message::PreVote(ballot) => {
            raft.pre_vote(vote_request(ballot)).await.ok().map(|response| voted::<RT>(response))
        }
        Message::Transfer(Transfer { from, to, last }) => {
            let request = TransferLeaderRequest::new(from, to, last);
            let response = raft.handle_transfer_leader(request).await.ok()?;
            Some(Message::Transferred(response.map_or_else(
                |error| match error {
                    TransferLeaderError::VoteChanged { expected, actual } => {
                        Transferred::VoteChanged { expected, actual }
                    }
                    TransferLeaderError::LogNotFlushed { expected, actual } => {
                        Transferred::NotFlushed { expected, actual }
                    }
                },
                |()| Transferred::Accepted,
            )))
        }
        Message::Appended(_)
        | Message::Voted(_)
        | Message::Transferred(_)
        | Message::Chunk(_)
        | Message::Received(_) => None,
    }
}

fn request<RT: AsyncRuntime>(append: Append) -> AppendEntriesRequest<Tc<RT>> {
    let Append { vote, prev, commit, entries } = append;
    AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit: commit }
}

fn vote_request<RT: AsyncRuntime>(ballot: Ballot) -> VoteRequest<Tc<RT>> {
    let Ballot { vote, last, transfer } = ballot;
    VoteRequest { vote, last_log_id: last, leadership_transfer: transfer }
}

fn voted<RT: AsyncRuntime>(response: openraft::raft::VoteResponse<Tc<RT>>) -> Message {
    let openraft::raft::VoteResponse { vote, vote_granted, last_log_id } = response;
    Message::Voted(Voted { vote, granted: vote_granted, last: last_log_id })
}
