//! `/v1/stream`: the native stream. Whatever has arrived of it goes to the door
//! together: acts on keys as one request, which the leader puts into one entry with
//! whatever else waits there.
//!
//! What is under way is bounded by [`UNDER_WAY_MAX`]; beyond it the stream is not
//! read, and its client waits. When it ends, however it ends, the leases that were
//! bound to it are revoked, and its watches stop.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use quorate_types::door::Consistency;
use quorate_types::http::DEADLINE_MS_MAX;
use quorate_types::kv::{Act, KvAnswer, KvRead, KvRequest, KvWatch, LeaseId};
use quorate_types::link::{Asked, LinkError, PROTOCOL, Said, put_frame, read_frame, take_frame};
use quorate_types::{GroupId, Refusal, Reply, Request, Submission, TaskSpec, TraceId};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::failure::{Answer, Failure};
use crate::state::{Asked as Head, Shared};

/// Frames that are being answered, over all of a stream: four full entries.
const UNDER_WAY_MAX: usize = 4096;
/// Answers that wait to be written; who has one more waits with it.
const ANSWERS_MAX: usize = 256;
/// Read at once, bytes.
const READ_BYTES: usize = 256 << 10;
/// Written at once, bytes, beyond the last answer.
const WRITE_BYTES: usize = 256 << 10;
/// Acts that go to the door together, bytes, where they came in more than one frame: half of what
/// a command may have, so that none is refused for what others brought.
const TOGETHER_BYTES: usize = 1 << 20;
/// Watches of one stream.
const WATCHES_MAX: usize = 1024;
/// Leases bound to one stream.
const BOUND_MAX: usize = 1024;
/// Within which the leases of a stream that ended are revoked; else their terms end.
const REVOKE_WITHIN_MS: u64 = 10_000;

/// `GET /v1/stream`
pub(crate) async fn stream(State(api): State<Shared>, head: Head, request: HttpRequest) -> Answer {
    if !wants_stream(request.headers()) {
        return Err(Failure::invalid(
            "this route speaks only after an upgrade",
            format!("send `Connection: upgrade` and `Upgrade: {PROTOCOL}`"),
        ));
    }
    let permit = api.link_permit()?;
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => converse(api, head.trace, upgraded).await,
            Err(error) => tracing::debug!(%error, "a stream did not begin"),
        }
        drop(permit);
    });
    Ok(switching())
}

fn switching() -> Response {
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, PROTOCOL)];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let says = |name, wanted: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(',').any(|one| one.trim().eq_ignore_ascii_case(wanted))
    };
    says(CONNECTION, "upgrade") && says(UPGRADE, PROTOCOL)
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error(transparent)]
    Wrong(#[from] LinkError),
}

async fn converse(api: Shared, trace: TraceId, upgraded: Upgraded) {
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        return tracing::error!("a stream is no TCP connection");
    };
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    buffer.extend_from_slice(&parts.read_buf);
    let (mut reader, mut writer) = parts.io.into_inner().into_split();
    let (answers, mut to_write) = mpsc::channel(ANSWERS_MAX);
    let mut closing = api.closing();
    let link = Arc::new(Link {
        api,
        answers,
        under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
        bound: Mutex::default(),
        trace,
    });
    let writing = async {
        while let Some(first) = to_write.recv().await {
            let mut out = BytesMut::from(first);
            while out.len() < WRITE_BYTES
                && let Ok(next) = to_write.try_recv()
            {
                out.extend_from_slice(&next);
            }
            writer.write_all(&out).await?;
        }
        Ok(())
    };
    let mut tasks = JoinSet::new();
    let reading = async {
        let mut watches = BTreeMap::new();
        loop {
            link.take(&mut buffer, &mut tasks, &mut watches).await?;
            buffer.reserve(READ_BYTES);
            if reader.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            while tasks.try_join_next().is_some() {}
        }
    };
    let ended: Result<(), Ended> = tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
        () = closing.wait() => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a stream ended");
    }
    tasks.abort_all();
    link.revoke_bound().await;
}

struct Link {
    api: Shared,
    answers: mpsc::Sender<Bytes>,
    under_way: Arc<Semaphore>,
    bound: Mutex<BTreeSet<(LeaseId, String)>>,
    trace: TraceId,
}

/// Acts on keys that go to the door together.
#[derive(Default)]
struct Together {
    ids: Vec<u64>,
    requests: Vec<KvRequest>,
    within_ms: u64,
    bytes: usize,
    permits: Option<OwnedSemaphorePermit>,
}

type Watches = BTreeMap<u64, tokio::task::AbortHandle>;

impl Link {
    /// Takes every frame that is there.
    async fn take(
        self: &Arc<Self>,
        buffer: &mut BytesMut,
        tasks: &mut JoinSet<()>,
        watches: &mut Watches,
    ) -> Result<(), Ended> {
        let mut groups: BTreeMap<Option<GroupId>, Together> = BTreeMap::new();
        while let Some(frame) = take_frame(buffer)? {
            let asked: Asked = read_frame(&frame)?;
            if let Asked::Kv { ask: (id, within_ms), request } = asked {
                let Some(permit) = self.permit(&mut groups, tasks).await else { return Ok(()) };
                match request.check() {
                    Ok(()) => {
                        let group = request.group(self.api.door.layout());
                        let held = groups.get(&group).map_or(0, |together| together.bytes);
                        if held > 0 && held + frame.len() > TOGETHER_BYTES {
                            self.send_together(&mut groups, tasks);
                        }
                        let together = groups.entry(group).or_default();
                        together.bytes += frame.len();
                        together.ids.push(id);
                        together.requests.push(request);
                        together.within_ms = together.within_ms.max(bounded(within_ms));
                        match &mut together.permits {
                            Some(permits) => permits.merge(permit),
                            none @ None => *none = Some(permit),
                        }
                    }
                    Err(refusal) => self.say(&Said::Kv(id, Err(refusal))).await,
                }
                continue;
            }
            self.take_other(asked, tasks, watches).await;
        }
        self.send_together(&mut groups, tasks);
        Ok(())
    }

    /// The right to have one more frame under way. Who waits for it sends first what it holds, or
    /// nobody would ever give it back.
    async fn permit(
        self: &Arc<Self>,
        groups: &mut BTreeMap<Option<GroupId>, Together>,
        tasks: &mut JoinSet<()>,
    ) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.under_way).try_acquire_owned() {
            return Some(permit);
        }
        self.send_together(groups, tasks);
        Arc::clone(&self.under_way).acquire_owned().await.ok()
    }

    fn send_together(
        self: &Arc<Self>,
        groups: &mut BTreeMap<Option<GroupId>, Together>,
        tasks: &mut JoinSet<()>,
    ) {
        for (_group, together) in std::mem::take(groups) {
            tasks.spawn(Arc::clone(self).ask_together(together));
        }
    }

    async fn ask_together(self: Arc<Self>, together: Together) {
        let Together { ids, requests, within_ms, permits, .. } = together;
        let result = self.api.ask_door(Request::Kv(requests), within_ms).await;
        let mut out = BytesMut::new();
        match result {
            Ok(Reply::Kv(answers)) if answers.len() == ids.len() => {
                for (id, answer) in ids.into_iter().zip(answers) {
                    put_answer(&mut out, id, answer);
                }
            }
            other => {
                let refusal = refusal_of(other);
                for id in ids {
                    put(&mut out, &Said::Kv(id, Err(refusal.clone())));
                }
            }
        }
        drop(permits);
        self.send(out.freeze()).await;
    }

    async fn take_other(
        self: &Arc<Self>,
        asked: Asked,
        tasks: &mut JoinSet<()>,
        watches: &mut Watches,
    ) {
        match asked {
            Asked::Kv { .. } => unreachable!("acts go together"),
            Asked::Bind { namespace, lease } => {
                let mut bound = self.bound();
                // Beyond the bound a lease has only its term, which is all it was promised.
                if bound.len() < BOUND_MAX {
                    bound.insert((lease, namespace));
                }
            }
            Asked::Unbind { lease } => self.bound().retain(|(bound, _namespace)| *bound != lease),
            Asked::Unwatch { id } => {
                if let Some(watch) = watches.remove(&id) {
                    watch.abort();
                }
            }
            Asked::Watch { id, watch } => {
                watches.retain(|_id, watch| !watch.is_finished());
                if watches.len() >= WATCHES_MAX {
                    let what = "the table of this stream's watches".to_owned();
                    let busy = Refusal::Busy { what, retry_after_ms: 1000 };
                    return self.say(&Said::Changed(id, Err(busy))).await;
                }
                watches.insert(id, tasks.spawn(Arc::clone(self).watch(id, watch)));
            }
            Asked::Read { ask, reads, consistency } => {
                self.later(tasks, |link| link.read(ask, reads, consistency)).await;
            }
            Asked::Keep { ask, lease } => self.later(tasks, |link| link.keep(ask, lease)).await,
            Asked::Submit { ask, specs } => self.later(tasks, |link| link.submit(ask, specs)).await,
        }
    }

    /// Answers beside whatever else is under way.
    async fn later<F: Future<Output = Said> + Send + 'static>(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        answer: impl FnOnce(Arc<Self>) -> F,
    ) {
        let Ok(permit) = Arc::clone(&self.under_way).acquire_owned().await else { return };
        let (answer, link) = (answer(Arc::clone(self)), Arc::clone(self));
        tasks.spawn(async move {
            let said = answer.await;
            drop(permit);
            link.say(&said).await;
        });
    }

    async fn read(
        self: Arc<Self>,
        (id, within_ms): (u64, u64),
        reads: Vec<KvRead>,
        consistency: Consistency,
    ) -> Said {
        let request = Request::KvRead(reads, consistency);
        Said::Found(
            id,
            match self.api.ask_door(request, bounded(within_ms)).await {
                Ok(Reply::KvFound(found, stale)) => Ok((found, stale)),
                other => Err(refusal_of(other)),
            },
        )
    }

    async fn keep(self: Arc<Self>, (id, within_ms): (u64, u64), lease: LeaseId) -> Said {
        let request = Request::KvKeep(lease);
        Said::Kept(
            id,
            match self.api.ask_door(request, bounded(within_ms)).await {
                Ok(Reply::Renewed(term_ms)) => Ok(term_ms),
                other => Err(refusal_of(other)),
            },
        )
    }

    async fn submit(self: Arc<Self>, (id, within_ms): (u64, u64), specs: Vec<TaskSpec>) -> Said {
        let submission = |mut spec: TaskSpec| {
            if spec.trace == TraceId::default() {
                spec.trace = self.trace;
            }
            Submission { spec, nonce: self.api.fresh.nonce() }
        };
        let submissions = specs.into_iter().map(submission).collect();
        let request = Request::Submit(submissions);
        Said::Submitted(
            id,
            match self.api.ask_door(request, bounded(within_ms)).await {
                Ok(Reply::Submitted(each)) => Ok(each),
                other => Err(refusal_of(other)),
            },
        )
    }

    async fn watch(self: Arc<Self>, id: u64, watch: KvWatch) {
        let mut source = self.api.door.kv_watch(watch);
        while let Some(changes) = source.next().await {
            self.say(&Said::Changed(id, changes)).await;
        }
        let stopped = Refusal::Unavailable("this node is stopping".to_owned());
        self.say(&Said::Changed(id, Err(stopped))).await;
    }

    async fn say(&self, said: &Said) {
        let mut out = BytesMut::new();
        put(&mut out, said);
        self.send(out.freeze()).await;
    }

    async fn send(&self, out: Bytes) {
        if self.answers.send(out).await.is_err() {
            tracing::debug!("an answer came after its stream had ended");
        }
    }

    fn bound(&self) -> MutexGuard<'_, BTreeSet<(LeaseId, String)>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the leases that were bound to this stream.
    async fn revoke_bound(&self) {
        let bound = std::mem::take(&mut *self.bound());
        let mut groups: BTreeMap<Option<GroupId>, Vec<KvRequest>> = BTreeMap::new();
        for (lease, namespace) in bound {
            let acts = vec![Act::Revoke(lease)];
            // A repeat finds nothing to revoke, so it needs no number.
            let request = KvRequest { namespace, nonce: None, acts };
            let group = request.group(self.api.door.layout());
            groups.entry(group).or_default().push(request);
        }
        for requests in groups.into_values() {
            let asked = self.api.ask_door(Request::Kv(requests), REVOKE_WITHIN_MS).await;
            if let Err(why) = asked {
                tracing::info!(%why, "a stream's leases were not revoked; their terms will end");
            }
        }
    }
}

fn bounded(within_ms: u64) -> u64 {
    within_ms.clamp(1, DEADLINE_MS_MAX)
}

fn put_answer(out: &mut BytesMut, id: u64, answer: KvAnswer) {
    put(out, &Said::Kv(id, Ok(answer)));
}

fn put<T: Serialize>(out: &mut BytesMut, said: &T) {
    if let Err(error) = put_frame(out, said) {
        // Pages and answers are bounded far below a frame.
        tracing::error!(%error, "an answer does not fit a frame");
    }
}

fn refusal_of(result: Result<Reply, Refusal>) -> Refusal {
    match result {
        Ok(reply) => {
            tracing::error!(?reply, "a door answered another question");
            Refusal::Unavailable("the node answered a question that was not asked".to_owned())
        }
        Err(refusal) => refusal,
    }
}
