//! openraft's network over our frames: one client a peer and purpose.
//!
//! Replication goes over the append lane, heartbeats with votes and hand-offs
//! over the vote lane, so that bulk never delays what keeps a leader alive.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use openraft_rt::{AsyncRuntime, Instant, Select2};
use quorate_types::{Lane, NodeId};

use crate::assembly::name_of;
use crate::message::{
    Ballot, Chunk, Message, Received, SnapshotHead, Transfer, Transferred, Voted,
};
use crate::outbox::{Lost, Outbox};
use crate::pipeline::Pipeline;
use crate::settings::{BACKOFF, PIECE_RETRY, Timing};
use crate::types::{Snapshot, Tc, Vote};

/// One piece of a snapshot. A piece waits for the answer to the one before it, so that a snapshot takes
/// one frame of its lane and this much of the peer's memory at a time.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Makes clients.
pub(crate) struct Factory<RT: AsyncRuntime> {
    pub(crate) outbox: Arc<Outbox<RT>>,
    pub(crate) timing: Timing,
    pub(crate) snapshot_bytes_per_s: u64,
}

impl<RT: AsyncRuntime> Factory<RT> {
    fn client(&self, peer: u64, append_lane: Lane, append_timeout: Duration) -> Client<RT> {
        let (outbox, snapshot_bytes_per_s) = (Arc::clone(&self.outbox), self.snapshot_bytes_per_s);
        Client { outbox, peer: NodeId(peer), append_lane, append_timeout, snapshot_bytes_per_s }
    }
}

impl<RT: AsyncRuntime> RaftNetworkFactory<Tc<RT>> for Factory<RT> {
    type Network = Client<RT>;

    async fn new_client(&mut self, target: u64, _node: &()) -> Client<RT> {
        self.client(target, Lane::Append, self.timing.append_timeout())
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &()) -> Client<RT> {
        self.client(target, Lane::Vote, self.timing.append_timeout())
    }
}

/// A client of one peer.
pub(crate) struct Client<RT: AsyncRuntime> {
    outbox: Arc<Outbox<RT>>,
    peer: NodeId,
    append_lane: Lane,
    append_timeout: Duration,
    snapshot_bytes_per_s: u64,
}

impl<RT: AsyncRuntime> Client<RT> {
    async fn ask(
        &self,
        lane: Lane,
        message: Message,
        timeout: Duration,
    ) -> Result<Message, RPCError<Tc<RT>>> {
        self.outbox.ask_within(self.peer, lane, &message, timeout).await.map_err(unreachable)
    }

    async fn ask_for_vote(
        &self,
        message: Message,
        option: RPCOption,
    ) -> Result<VoteResponse<Tc<RT>>, RPCError<Tc<RT>>> {
        let reply = self.ask(Lane::Vote, message, option.hard_ttl()).await?;
        let Message::Voted(Voted { vote, granted, last }) = reply else {
            return Err(unreachable(Lost::Nonsense));
        };
        Ok(VoteResponse::new(vote, last, granted))
    }

    /// Sends a piece until it is answered; the peer minds none that comes twice.
    async fn send_piece(
        &self,
        piece: Chunk,
        timeout: Duration,
    ) -> Result<Message, RPCError<Tc<RT>>> {
        let deadline = RT::Instant::now() + timeout;
        let message = Message::Chunk(piece);
        loop {
            let asked = self.outbox.ask_within(self.peer, Lane::Snapshot, &message, PIECE_RETRY);
            match asked.await {
                Err(Lost::Late) if RT::Instant::now() < deadline => {}
                other => return other.map_err(unreachable),
            }
        }
    }

    /// Sends what the peer does not have yet, no faster than the pace allows; the last piece is
    /// answered when the snapshot is installed.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
        timeout: Duration,
    ) -> Result<SnapshotResponse<Tc<RT>>, RPCError<Tc<RT>>> {
        let Snapshot { meta, snapshot: body } = snapshot;
        let (last, membership) = (meta.last_log_id, meta.last_membership);
        let transfer = name_of(last.as_ref(), &body);
        let head = Some(Box::new(SnapshotHead { vote, last, membership }));
        let (total, data) = (wide(body.len()), Bytes::new());
        let mut piece = Chunk { transfer, offset: 0, total, head, data, sum: 0 };
        let mut may_send = RT::Instant::now();
        loop {
            let sent = piece.offset + wide(piece.data.len());
            let is_head = piece.head.is_some();
            let reply = self.send_piece(piece, timeout).await?;
            let Message::Received(received) = reply else { break };
            let offset = match received {
                Received::Upto(offset) if offset < total => offset,
                Received::Installed(vote) => return Ok(SnapshotResponse::new(vote)),
                Received::Upto(_) | Received::Refused => break,
            };
            if is_head && offset > 0 {
                tracing::info!(peer = %self.peer, offset, total, "goes on with a snapshot");
            } else if !is_head && offset < sent {
                // What was sent did not arrive as it was; the next sending goes on from here.
                break;
            }
            let (data, sum) = piece_at(&body, offset);
            RT::sleep_until(may_send).await;
            may_send = RT::Instant::now() + pace(data.len(), self.snapshot_bytes_per_s);
            piece = Chunk { transfer, offset, total, head: None, data, sum };
        }
        Err(unreachable(Lost::Nonsense))
    }
}

/// The piece of a body that begins here, and its checksum.
fn piece_at(body: &Bytes, offset: u64) -> (Bytes, u32) {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(body.len());
    let data = body.slice(from..body.len().min(from + CHUNK_BYTES));
    let sum = crc32fast::hash(&data);
    (data, sum)
}

/// How long so many bytes take at this pace.
fn pace(bytes: usize, bytes_per_s: u64) -> Duration {
    Duration::from_micros(wide(bytes).saturating_mul(1_000_000) / bytes_per_s)
}

/// A length as it is sent.
pub(crate) fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn unreachable<RT: AsyncRuntime>(lost: Lost) -> RPCError<Tc<RT>> {
    RPCError::Unreachable(Unreachable::from_string(lost))
}

impl<RT: AsyncRuntime> RaftNetworkV2<Tc<RT>> for Client<RT> {
    type SnapshotData = Bytes;

    /// Never used by openraft where `stream_append` is our own.
    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<Tc<RT>>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Tc<RT>>, RPCError<Tc<RT>>> {
        Err(unreachable(Lost::Nonsense))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<Tc<RT>>, RPCError<Tc<RT>>>>,
            RPCError<Tc<RT>>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Tc<RT>>> + OptionalSend + Unpin + 'static,
    {
        let outbox = Arc::clone(&self.outbox);
        let stream = Pipeline::new(outbox, self.peer, self.append_lane, self.append_timeout, input);
        Box::pin(std::future::ready(Ok(Box::pin(stream) as BoxStream<'s, _>)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Tc<RT>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Tc<RT>>, RPCError<Tc<RT>>> {
        self.ask_for_vote(Message::Vote(ballot(request)), option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Tc<RT>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Tc<RT>>, RPCError<Tc<RT>>> {
        self.ask_for_vote(Message::PreVote(ballot(request)), option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Tc<RT>>, StreamingError<Tc<RT>>> {
        let sending = self.send_snapshot(vote, snapshot, option.hard_ttl());
        match RT::select2(cancel, sending).await {
            Select2::First(closed) => Err(closed.into()),
            Select2::Second(sent) => sent.map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Tc<RT>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Tc<RT>>, RPCError<Tc<RT>>> {
        let transfer = Transfer {
            from: *request.from_leader(),
            to: *request.to_node_id(),
            last: request.last_log_id().copied(),
        };
        let message = Message::Transfer(transfer);
        let reply = self.ask(Lane::Vote, message, option.hard_ttl()).await?;
        let Message::Transferred(transferred) = reply else {
            return Err(unreachable(Lost::Nonsense));
        };
        Ok(outcome(transferred))
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

fn ballot<RT: AsyncRuntime>(request: VoteRequest<Tc<RT>>) -> Ballot {
    let VoteRequest { vote, last_log_id, leadership_transfer } = request;
    Ballot { vote, last: last_log_id, transfer: leadership_transfer }
}

fn outcome<RT: AsyncRuntime>(transferred: Transferred) -> TransferLeaderResponse<Tc<RT>> {
    match transferred {
        Transferred::Accepted => Ok(()),
        Transferred::VoteChanged { expected, actual } => {
            Err(TransferLeaderError::VoteChanged { expected, actual })
        }
        Transferred::NotFlushed { expected, actual } => {
            Err(TransferLeaderError::LogNotFlushed { expected, actual })
        }
    }
}
