//! Blobs between nodes: content by SHA-256, verified wherever it arrives.
//!
//! All content is pulled. A reader asks a peer for one chunk after the other, so
//! what is under way is one chunk a transfer and the connection's other lanes are
//! not held up. A writer stores here, then *offers* to a peer, which pulls (or
//! finds a small blob inside the offer), stores durably and says so: `put` answers
//! only when two nodes hold the content, one in a cluster of one.
//!
//! Copies that went with their keeper are made again: `copies`. What nobody needs any
//! more goes after a while: `collect`.

pub(crate) mod collect;
mod copies;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft_rt::{AsyncRuntime, Oneshot, OneshotSender};
use quorate_storage::Blobs;
use quorate_types::limits::{BLOB_BYTES_MAX, BLOB_CHUNK_BYTES, FRAME_BYTES_MAX};
use quorate_types::{Digest, Disk, Lane, NodeId, Refusal, Wire, cbor};
use serde::{Deserialize, Serialize};

use collect::Suspects;
use copies::Keepers;

/// A peer that has not answered one chunk or one offer within this span is passed over.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Chunks read for peers at once.
const SERVED_MAX: usize = 64;
/// Offers of peers taken in at once. Counted by themselves: two nodes that pull from one another
/// must not starve each other's reads.
const ACCEPTED_MAX: usize = 256;
/// Copies that an acknowledged blob has, where the cluster is large enough.
const COPIES: usize = 2;

#[derive(Debug, Serialize, Deserialize)]
enum Frame {
    /// One chunk, please.
    Get { id: u64, digest: Digest, offset: u64 },
    /// Here it is.
    Part { id: u64, total: u64, bytes: Bytes },
    /// It is not here.
    Absent { id: u64 },
    /// Keep this; `inline` where it fits a chunk, else pull it.
    Offer { id: u64, digest: Digest, total: u64, inline: Option<Bytes> },
    /// It is durable here.
    Stored { id: u64 },
    /// It could not be kept.
    Refused { id: u64, why: String },
}

const FRAME_VERSION: u16 = 1;

enum Answer {
    Part { total: u64, bytes: Bytes },
    Absent,
    Stored,
    Refused(String),
}

type AnswerSender<RT> = <<RT as AsyncRuntime>::Oneshot as Oneshot>::Sender<Answer>;

struct Shared<RT: AsyncRuntime, D: Disk, W: Wire> {
    node: NodeId,
    members: AtomicUsize,
    store: Blobs<D>,
    wire: W,
    state: Mutex<State<RT>>,
}

struct State<RT: AsyncRuntime> {
    up: BTreeSet<NodeId>,
    asked: BTreeMap<u64, (NodeId, AnswerSender<RT>)>,
    next: u64,
    serving: usize,
    accepting: usize,
    suspects: Suspects<RT::Instant>,
    keepers: Keepers,
}

/// The blobs of a cluster, as one node reaches them. Clones share it.
pub struct BlobExchange<RT: AsyncRuntime, D: Disk, W: Wire>(Arc<Shared<RT, D, W>>);

impl<RT: AsyncRuntime, D: Disk, W: Wire> Clone for BlobExchange<RT, D, W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> std::fmt::Debug for BlobExchange<RT, D, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobExchange").field("node", &self.0.node).finish_non_exhaustive()
    }
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> BlobExchange<RT, D, W> {
    /// The exchange of a node in a cluster of `members` nodes.
    pub fn new(node: NodeId, members: usize, store: Blobs<D>, wire: W) -> Self {
        let state = State {
            up: BTreeSet::new(),
            asked: BTreeMap::new(),
            next: 0,
            serving: 0,
            accepting: 0,
            suspects: Suspects::default(),
            keepers: Keepers::default(),
        };
        let members = AtomicUsize::new(members);
        Self(Arc::new(Shared { node, members, store, wire, state: Mutex::new(state) }))
    }

    /// The cluster has so many nodes now.
    pub fn set_members(&self, members: usize) {
        self.0.members.store(members, Ordering::Relaxed);
    }

    /// On how many nodes content must be before it is acknowledged.
    fn copies_wanted(&self) -> usize {
        match self.lock().keepers.nodes.len() {
            0 => COPIES.min(self.0.members.load(Ordering::Relaxed)),
            keepers => COPIES.min(keepers),
        }
    }

    /// Whether a copy there counts.
    fn keeps(&self, node: NodeId) -> bool {
        let keepers = &self.lock().keepers.nodes;
        keepers.is_empty() || keepers.contains(&node)
    }

    /// A peer can be reached.
    pub fn peer_up(&self, peer: NodeId) {
        self.lock().up.insert(peer);
    }

    /// A peer cannot be reached: whoever waits for it is told at once.
    pub fn peer_gone(&self, peer: NodeId) {
        let lost = {
            let mut state = self.lock();
            state.up.remove(&peer);
            let (lost, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
                std::mem::take(&mut state.asked).into_iter().partition(|(_, (to, _))| *to == peer);
            state.asked = kept;
            lost
        };
        for (_id, (_to, sender)) in lost {
            tell::<RT>(sender, Answer::Absent);
        }
    }

    /// Stores content on this node and, where the cluster has more, on another.
    pub async fn put(&self, content: Bytes) -> Result<Digest, Refusal> {
        let size = size_of(&content);
        if size > BLOB_BYTES_MAX {
            let what = "the blob".to_owned();
            return Err(Refusal::TooLarge { what, got: size, limit: BLOB_BYTES_MAX });
        }
        let digest = Digest::in_turns(&content).await;
        self.keep(digest, content.clone()).await?;
        let mut copies = usize::from(self.keeps(self.0.node));
        for peer in self.keepers_for(digest) {
            if copies >= self.copies_wanted() {
                break;
            }
            match self.offer(peer, digest, &content).await {
                Answer::Stored => copies += 1,
                Answer::Refused(why) => tracing::warn!(%peer, %digest, why, "a peer kept no copy"),
                Answer::Absent | Answer::Part { .. } => {
                    tracing::debug!(%peer, %digest, "a peer did not answer an offer");
                }
            }
        }
        if copies >= self.copies_wanted() {
            Ok(digest)
        } else {
            Err(Refusal::Unavailable(format!(
                "blob {} is on {copies} node and must be on {COPIES}",
                digest.short()
            )))
        }
    }

    /// Content by its digest, from here or from a peer; kept here from then on.
    pub async fn get(&self, digest: Digest) -> Result<Bytes, Refusal> {
        if let Some(content) = self.here(digest).await? {
            return Ok(content);
        }
        let content = self.elsewhere(digest).await?;
        self.keep(digest, content.clone()).await?;
        Ok(content)
    }

    /// The same, and not kept where it was not.
    pub async fn read(&self, digest: Digest) -> Result<Bytes, Refusal> {
        match self.here(digest).await? {
            Some(content) => Ok(content),
            None => self.elsewhere(digest).await,
        }
    }

    async fn elsewhere(&self, digest: Digest) -> Result<Bytes, Refusal> {
        for peer in self.peers_for(digest) {
            if let Some(content) = self.pull(peer, digest).await {
                return Ok(content);
            }
        }
        Err(Refusal::NotFound(format!("blob {digest}")))
    }

    /// Whether the content is on this node.
    pub async fn has(&self, digest: Digest) -> bool {
        self.0.store.has(digest).await.unwrap_or(false)
    }

    /// A frame of the blob lane. Answers are matched here; requests are served by a task each.
    pub fn deliver(&self, from: NodeId, frame: &[u8]) {
        let decoded = cbor::decode::<(u16, Frame)>(frame, FRAME_BYTES_MAX);
        let (FRAME_VERSION, frame) = (match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::warn!(%from, %error, "a blob frame could not be read");
                return;
            }
        }) else {
            tracing::warn!(%from, "a blob frame of an unknown version");
            return;
        };
        match frame {
            Frame::Part { id, total, bytes } => {
                self.answered(from, id, Answer::Part { total, bytes })
            }
            Frame::Absent { id } => self.answered(from, id, Answer::Absent),
            Frame::Stored { id } => self.answered(from, id, Answer::Stored),
            Frame::Refused { id, why } => self.answered(from, id, Answer::Refused(why)),
            Frame::Get { id, digest, offset } => self.serve(from, id, digest, offset),
            Frame::Offer { id, digest, total, inline } => {
                self.take_in(from, id, digest, total, inline);
            }
        }
    }

    fn serve(&self, from: NodeId, id: u64, digest: Digest, offset: u64) {
        if !begin(&mut self.lock().serving, SERVED_MAX) {
            tracing::warn!(%from, "too many blob reads; the peer is sent elsewhere");
            return self.send(from, &Frame::Absent { id });
        }
        let this = self.clone();
        drop(RT::spawn(async move {
            let reply = match this.0.store.part(digest, offset, BLOB_CHUNK_BYTES).await {
                Ok(Some((total, bytes))) => Frame::Part { id, total, bytes },
                Ok(None) => Frame::Absent { id },
                Err(error) => {
                    tracing::warn!(%digest, %error, "a blob cannot be read");
                    Frame::Absent { id }
                }
            };
            this.send(from, &reply);
            this.lock().serving -= 1;
        }));
    }

    fn take_in(&self, from: NodeId, id: u64, digest: Digest, total: u64, inline: Option<Bytes>) {
        if !begin(&mut self.lock().accepting, ACCEPTED_MAX) {
            let why = format!("{ACCEPTED_MAX} blobs are being taken in");
            return self.send(from, &Frame::Refused { id, why });
        }
        let this = self.clone();
        drop(RT::spawn(async move {
            let reply = this.accept(from, id, digest, total, inline).await;
            this.send(from, &reply);
            this.lock().accepting -= 1;
        }));
    }

    async fn accept(
        &self,
        from: NodeId,
        id: u64,
        digest: Digest,
        total: u64,
        inline: Option<Bytes>,
    ) -> Frame {
        if total > BLOB_BYTES_MAX {
            return Frame::Refused {
                id,
                why: format!("{total} bytes; the limit is {BLOB_BYTES_MAX}"),
            };
        }
        let content = match inline {
            Some(content) => Some(content),
            None => self.pull(from, digest).await,
        };
        let refused =
            || Frame::Refused { id, why: "its content does not have its digest".to_owned() };
        let Some(content) = content else { return refused() };
        if Digest::in_turns(&content).await != digest {
            return refused();
        }
        match self.keep(digest, content).await {
            // Whoever counts this copy does not know yet that it is about to go.
            Ok(()) if !self.keeps(self.0.node) => {
                Frame::Refused { id, why: "this node keeps nothing any more".to_owned() }
            }
            Ok(()) => Frame::Stored { id },
            Err(refusal) => Frame::Refused { id, why: refusal.to_string() },
        }
    }

    async fn offer(&self, peer: NodeId, digest: Digest, content: &Bytes) -> Answer {
        let total = size_of(content);
        let inline = (content.len() <= BLOB_CHUNK_BYTES).then(|| content.clone());
        // A pull takes as long as its chunks do; each of them is bounded by the puller.
        let within = ANSWER_WITHIN * (1 + u32::try_from(total >> 22).unwrap_or(u32::MAX));
        self.ask(peer, within, |id| Frame::Offer { id, digest, total, inline }).await
    }

    async fn pull(&self, peer: NodeId, digest: Digest) -> Option<Bytes> {
        let mut content = BytesMut::new();
        loop {
            let offset = u64::try_from(content.len()).unwrap_or(u64::MAX);
            let asked = self.ask(peer, ANSWER_WITHIN, |id| Frame::Get { id, digest, offset });
            let Answer::Part { total, bytes } = asked.await else { return None };
            if total > BLOB_BYTES_MAX || (bytes.is_empty() && offset < total) {
                return None;
            }
            content.extend_from_slice(&bytes);
            if size_of(&content) >= total {
                break;
            }
        }
        let content = content.freeze();
        if Digest::in_turns(&content).await == digest {
            return Some(content);
        }
        tracing::warn!(%peer, %digest, "a peer sent content of another digest");
        None
    }

    async fn ask(
        &self,
        peer: NodeId,
        within: Duration,
        frame: impl FnOnce(u64) -> Frame,
    ) -> Answer {
        let (sender, receiver) = <RT::Oneshot as Oneshot>::channel();
        let id = {
            let mut state = self.lock();
            state.next += 1;
            let id = state.next;
            state.asked.insert(id, (peer, sender));
            id
        };
        self.send(peer, &frame(id));
        let answer = RT::timeout(within, receiver).await;
        self.lock().asked.remove(&id);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Answer::Absent,
        }
    }

    fn answered(&self, from: NodeId, id: u64, answer: Answer) {
        let asked = {
            let mut state = self.lock();
            match state.asked.get(&id) {
                Some((to, _sender)) if *to == from => state.asked.remove(&id),
                Some(_) | None => None,
            }
        };
        if let Some((_to, sender)) = asked {
            tell::<RT>(sender, answer);
        }
    }

    fn send(&self, to: NodeId, frame: &Frame) {
        let bytes = cbor::encode(&(FRAME_VERSION, frame));
        if let Err(error) = self.0.wire.send(to, Lane::Blob, bytes.into()) {
            tracing::debug!(%to, %error, "a blob frame was not taken");
        }
    }

    async fn here(&self, digest: Digest) -> Result<Option<Bytes>, Refusal> {
        let found = self.0.store.get(digest).await;
        found.map_err(|error| Refusal::Unavailable(format!("blob {}: {error}", digest.short())))
    }

    async fn keep(&self, digest: Digest, content: Bytes) -> Result<(), Refusal> {
        self.clear(digest).await;
        let kept = self.0.store.put(digest, content).await;
        kept.map_err(|error| {
            if error.is_full() {
                let what = format!("the disk of {}", self.0.node);
                return Refusal::Busy { what, retry_after_ms: 1_000 };
            }
            Refusal::Unavailable(format!("blob {}: {error}", digest.short()))
        })
    }

    /// Reachable peers, in an order that spreads blobs over them.
    fn peers_for(&self, digest: Digest) -> Vec<NodeId> {
        let mut peers: Vec<NodeId> = self.lock().up.iter().copied().collect();
        if !peers.is_empty() {
            let first = usize::from(digest.0[0]) % peers.len();
            peers.rotate_left(first);
        }
        peers
    }

    /// Those of them where a copy counts.
    fn keepers_for(&self, digest: Digest) -> Vec<NodeId> {
        let mut peers = self.peers_for(digest);
        peers.retain(|peer| self.keeps(*peer));
        peers
    }

    fn lock(&self) -> MutexGuard<'_, State<RT>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one more, unless there are as many as may be.
fn begin(under_way: &mut usize, most: usize) -> bool {
    let room = *under_way < most;
    *under_way += usize::from(room);
    room
}

fn tell<RT: AsyncRuntime>(sender: AnswerSender<RT>, answer: Answer) {
    // The asker has gone when its deadline came first; then nobody needs the answer.
    drop(sender.send(answer));
}

fn size_of(content: &[u8]) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}
