//! One connection's lanes while it lives: fourteen streams, a writer task for
//! each that is ours and a reader task for each that is the peer's.
//!
//! Reader and writer are separate tasks because the multiplexer returns credit
//! only when a stream is read again: a task that writes all before it reads hangs
//! for good once both ends have some 128 KiB in flight. No frame is read before
//! the peer counts as up, and none after the session stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libp2p::Stream;
use libp2p::swarm::ConnectionId;
use quorate_types::{Inbox, Lane, NodeId, WireEvent};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::counters::Counters;
use crate::frame::{Arrival, FrameError, FrameReader, FrameWriter};
use crate::queue::{Next, PeerQueues};

/// Streams of a living connection do not break by themselves; a peer that breaks them again and
/// again is cut off and comes back under the back-off.
const REOPENS_MAX: u32 = 16;

/// A leaving node gives each peer this long to take what waits.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(250);

const LANES: usize = Lane::ALL.len();

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It broke, or the peer closed it.
    Broken(String),
    /// Pings went unanswered and no frame came.
    Silent,
    /// The peer dialled again.
    Replaced,
    /// The peer left in order, and all that it sent was delivered.
    Left,
    /// The peer broke the framing or the opening.
    Malformed(String),
    /// Not all lanes could be opened or kept open.
    Unusable(String),
}

/// When a peer was last heard, shared with the pings' judge.
pub(crate) struct Heard {
    start: Instant,
    millis: AtomicU64,
}

impl Heard {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), millis: AtomicU64::new(0) })
    }

    fn now(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    /// How long the peer has been silent on all lanes.
    pub(crate) fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.millis.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(heard)
    }
}

/// A connection that the swarm established.
pub(crate) struct Connected {
    pub(crate) connection: ConnectionId,
    pub(crate) closed: oneshot::Receiver<Cause>,
    pub(crate) heard: Arc<Heard>,
}

/// How a lane's task ended by itself.
#[derive(Debug)]
pub(crate) enum End {
    /// Our stream broke: ask for another.
    Wrote(Lane),
    /// The peer's stream broke: it opens another if it wants.
    Read,
    /// The peer leaves in order.
    Farewell,
    /// The peer broke the framing.
    Malformed(String),
}

/// What every lane's task needs.
struct Shared<I> {
    node: NodeId,
    queues: Arc<PeerQueues>,
    counters: Arc<Counters>,
    inbox: Arc<I>,
    heard: Arc<Heard>,
}

pub(crate) struct Session<I> {
    pub(crate) connection: ConnectionId,
    pub(crate) closed: oneshot::Receiver<Cause>,
    pub(crate) since: Instant,
    /// Lanes on which the peer said that it leaves; each said so after its last frame.
    farewells: usize,
    shared: Arc<Shared<I>>,
    writers: [Option<JoinHandle<()>>; LANES],
    readers: [Option<JoinHandle<()>>; LANES],
    reopens: u32,
    up: watch::Sender<bool>,
    ends: mpsc::Sender<End>,
    /// Tasks that ended by themselves.
    pub(crate) ended: mpsc::Receiver<End>,
}

impl<I: Inbox> Session<I> {
    pub(crate) fn new(
        connected: Connected,
        node: NodeId,
        queues: Arc<PeerQueues>,
        counters: Arc<Counters>,
        inbox: Arc<I>,
    ) -> Self {
        let heard = connected.heard;
        heard.now();
        // Two tasks a lane, one word from each; a task that must wait for room has nothing else to do.
        let (ends, ended) = mpsc::channel(2 * LANES);
        Self {
            connection: connected.connection,
            closed: connected.closed,
            since: Instant::now(),
            farewells: 0,
            shared: Arc::new(Shared { node, queues, counters, inbox, heard }),
            writers: [const { None }; LANES],
            readers: [const { None }; LANES],
            reopens: 0,
            up: watch::Sender::new(false),
            ends,
            ended,
        }
    }

    /// All lanes of both directions are open.
    pub(crate) fn is_complete(&self) -> bool {
        self.writers.iter().chain(&self.readers).all(Option::is_some)
    }

    pub(crate) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// The peer leaves.
    pub(crate) fn is_leaving(&self) -> bool {
        self.farewells > 0
    }

    /// One more lane heard the farewell; true at the last.
    pub(crate) fn on_farewell(&mut self) -> bool {
        self.farewells += 1;
        self.farewells >= LANES
    }

    /// Lets the readers begin.
    pub(crate) fn set_up(&self) {
        self.up.send_replace(true);
    }

    /// Gives a lane its stream to write on; false if it has had too many.
    #[must_use]
    pub(crate) fn write(&mut self, lane: Lane, stream: Stream) -> bool {
        let slot = &mut self.writers[usize::from(lane.number())];
        let previous = slot.take();
        if previous.is_some() {
            self.reopens += 1;
            self.shared.counters.lanes_reopened.add();
        }
        let (shared, ends) = (self.shared.clone(), self.ends.clone());
        *slot = Some(tokio::spawn(async move {
            stop(previous).await;
            if write_lane(&shared, lane, stream).await.is_err() {
                // The session is gone if it does not listen.
                ends.send(End::Wrote(lane)).await.ok();
            }
        }));
        self.reopens <= REOPENS_MAX
    }

    /// Gives a lane its stream to read from. The newest wins: the peer has given up the older.
    pub(crate) fn read(&mut self, lane: Lane, stream: Stream) {
        let slot = &mut self.readers[usize::from(lane.number())];
        let previous = slot.take();
        let (shared, ends) = (self.shared.clone(), self.ends.clone());
        let mut up = self.up.subscribe();
        *slot = Some(tokio::spawn(async move {
            stop(previous).await;
            if up.wait_for(|up| *up).await.is_ok() {
                let end = read_lane(&shared, lane, stream).await;
                ends.send(end).await.ok();
            }
        }));
    }

    /// Ends every task: when this returns, no further frame is delivered.
    pub(crate) async fn stop(self) {
        let tasks = || self.writers.iter().chain(&self.readers).flatten();
        tasks().for_each(JoinHandle::abort);
        for task in self.writers.into_iter().chain(self.readers) {
            stop(task).await;
        }
    }

    /// The node leaves: the writers send what waits and say farewell. The peer closes when it has read
    /// all of them, or leaves as well; were we to close first, the system might throw away what is
    /// still on its way.
    pub(crate) async fn leave(mut self) {
        self.shared.queues.drain();
        let left = async {
            for writer in &mut self.writers {
                if let Some(task) = writer.as_mut() {
                    // A writer that was stopped has nothing more to send.
                    task.await.ok();
                }
                // Waited for once more, as `stop` does, it would panic.
                *writer = None;
            }
            loop {
                tokio::select! {
                    _cause = &mut self.closed => return,
                    Some(end) = self.ended.recv() => {
                        self.farewells += usize::from(matches!(end, End::Farewell));
                        if self.farewells >= LANES {
                            return;
                        }
                    }
                }
            }
        };
        if timeout(LEAVE_TIMEOUT, left).await.is_err() {
            tracing::debug!(node = %self.shared.node, "the peer did not take all that waited");
        }
        self.stop().await;
    }
}

async fn stop(task: Option<JoinHandle<()>>) {
    if let Some(task) = task {
        task.abort();
        // It ends as cancelled or had ended before; both are what we want.
        task.await.ok();
    }
}

/// Writes many frames, flushes once: a flush only when nothing waits.
async fn write_lane<I>(shared: &Shared<I>, lane: Lane, stream: Stream) -> std::io::Result<()> {
    let (queue, counters) = (shared.queues.lane(lane), shared.counters.lane(lane));
    let mut writer = FrameWriter::new(stream);
    let mut batch = Vec::new();
    loop {
        match queue.take(&mut batch) {
            Next::Write => {
                let written = writer.write(&batch).await;
                if written.is_err() {
                    counters.lost(batch.len());
                    return written;
                }
                counters.sent(batch.len(), batch.iter().map(bytes::Bytes::len).sum());
                batch.clear();
            }
            Next::Wait => {
                writer.flush().await?;
                queue.ready().await;
            }
            Next::Leave => return writer.farewell().await,
        }
    }
}

async fn read_lane<I: Inbox>(shared: &Shared<I>, lane: Lane, stream: Stream) -> End {
    let counters = shared.counters.lane(lane);
    let mut reader = FrameReader::new(stream);
    loop {
        match reader.next().await {
            Ok(Arrival::Frame(frame)) => {
                shared.heard.now();
                counters.received(frame.len());
                let event = WireEvent::Frame { from: shared.node, lane, frame };
                shared.inbox.deliver(event).await;
            }
            Ok(Arrival::Farewell) => return End::Farewell,
            Err(FrameError::Ended(_)) => return End::Read,
            Err(error @ FrameError::TooLarge { .. }) => {
                return End::Malformed(format!("lane {lane:?}: {error}"));
            }
        }
    }
}
