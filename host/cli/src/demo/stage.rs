//! What all parts of the demo share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use code_index_format::Query;
use quorate_client::{CallRequest, Client, EventStream};
use quorate_types::{Digest, Payload, TaskId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::record::Record;

/// A call has this long, the failover of its node included.
const CALL_WITHIN: Duration = Duration::from_secs(30);
/// When no task ends for so long, what is open is lost. Twice a lease's term.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(20);
/// Results fetched at once.
const FETCHED_AT_ONCE: usize = 16;

/// Calls, counted by who makes them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Begun.
    pub(crate) calls: AtomicU64,
    /// Ended without an answer.
    pub(crate) failed: AtomicU64,
    /// Under way.
    in_flight: watch::Sender<u64>,
    /// Answers compared with the scan.
    pub(crate) compared: AtomicU64,
    /// Answers that differ.
    pub(crate) wrong: AtomicU64,
}

impl Tally {
    /// Calls under way.
    pub(crate) fn in_flight(&self) -> u64 {
        *self.in_flight.borrow()
    }

    /// Waits until so many calls are under way.
    pub(crate) async fn until_in_flight(&self, wanted: u64) -> anyhow::Result<()> {
        self.in_flight.subscribe().wait_for(|calls| *calls >= wanted).await?;
        Ok(())
    }
}

/// The demo's shared state.
pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) tally: Tally,
    record: Mutex<Record>,
    /// Completions heard of.
    heard: watch::Sender<usize>,
    /// Events heard of.
    stirred: watch::Sender<u64>,
    /// How far the feed may go, as a number of files.
    gate: watch::Sender<usize>,
    note: Mutex<String>,
}

impl Stage {
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self {
            client,
            tally: Tally::default(),
            record: Mutex::default(),
            heard: watch::Sender::new(0),
            stirred: watch::Sender::new(0),
            gate: watch::Sender::new(0),
            note: Mutex::default(),
        })
    }

    /// The record.
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what happens now, for the live view.
    pub(crate) fn note(&self, text: impl Into<String>) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = text.into();
    }

    /// What happens now.
    pub(crate) fn noted(&self) -> String {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Told at each completion.
    pub(crate) fn completions(&self) -> watch::Receiver<usize> {
        self.heard.subscribe()
    }

    /// Lets the feed go on to this number of files.
    pub(crate) fn open_gate(&self, files: usize) {
        self.gate.send_replace(files);
    }

    /// Waits until the feed may submit so many files.
    pub(crate) async fn pass_gate(&self, files: usize) -> anyhow::Result<()> {
        self.gate.subscribe().wait_for(|open| *open >= files).await?;
        Ok(())
    }

    /// Writes down what the log says, until the stream ends.
    pub(crate) async fn listen(self: Arc<Self>, mut events: EventStream) -> anyhow::Result<()> {
        while let Some(seen) = events.next().await {
            let seen = seen.context("the event stream broke")?;
            let heard = {
                let mut record = self.record();
                record.hear(&seen.kind);
                record.heard()
            };
            self.heard.send_if_modified(|last| std::mem::replace(last, heard) != heard);
            self.stirred.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Waits until this holds; looked at after each event.
    pub(crate) async fn until(&self, holds: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let mut stirred = self.stirred.subscribe();
        while !holds(self) {
            stirred.changed().await?;
        }
        Ok(())
    }

    /// Waits until so many completions were heard of.
    pub(crate) async fn wait_heard(&self, wanted: usize) -> anyhow::Result<()> {
        let mut completions = self.completions();
        while *completions.borrow_and_update() < wanted {
            tokio::time::timeout(STALLED_AFTER, completions.changed()).await.with_context(
                || {
                    let span = STALLED_AFTER.as_secs();
                    format!("no task ended for {span} s while more were expected to")
                },
            )??;
        }
        Ok(())
    }

    /// The postings in these results, in their order.
    pub(crate) async fn postings(&self, results: Vec<Payload>) -> anyhow::Result<Vec<Bytes>> {
        let mut fetched = BTreeMap::new();
        let mut under_way = JoinSet::new();
        for (at, result) in results.into_iter().enumerate() {
            match result {
                // A completion without a result: what a lost completion looks like.
                Payload::Inline(bytes) if bytes.is_empty() => {}
                Payload::Inline(bytes) => drop(fetched.insert(at, bytes)),
                Payload::Blob { digest, .. } => {
                    if under_way.len() >= FETCHED_AT_ONCE {
                        take(&mut under_way, &mut fetched).await?;
                    }
                    let client = self.client.clone();
                    under_way.spawn(async move { (at, client.get_blob(digest).await) });
                }
            }
        }
        while !under_way.is_empty() {
            take(&mut under_way, &mut fetched).await?;
        }
        Ok(fetched.into_values().collect())
    }

    /// Makes an index of these postings and stores its shards.
    pub(crate) async fn store_index(
        &self,
        postings: &[Bytes],
        shards: u32,
    ) -> anyhow::Result<(Vec<Digest>, Vec<Bytes>)> {
        let (shards, _files) = code_index_format::merge(without_repeats(postings)?, shards)?;
        let mut digests = Vec::new();
        let mut stored = Vec::new();
        for shard in shards {
            let shard = Bytes::from(shard);
            digests.push(self.client.put_blob(shard.clone()).await?.sha256);
            stored.push(shard);
        }
        Ok((digests, stored))
    }

    /// Asks a searcher for one word, and counts.
    pub(crate) async fn search(&self, shards: &[Digest], word: &[u8]) -> Option<Vec<(u32, u64)>> {
        let query = Query {
            shards: shards.iter().map(|digest| digest.0).collect(),
            words: vec![word.to_vec()],
        };
        let mut call = CallRequest::new("code-search", query.encode());
        call.deadline = CALL_WITHIN;
        call.idempotent = true;
        self.tally.calls.fetch_add(1, Ordering::Relaxed);
        self.tally.in_flight.send_modify(|calls| *calls += 1);
        let reply = self.client.call(&call).await;
        self.tally.in_flight.send_modify(|calls| *calls -= 1);
        let answer = match reply {
            Ok(reply) => code_index_format::decode_answer(&reply.body).ok(),
            Err(error) => {
                tracing::warn!(%error, "a call failed");
                None
            }
        };
        let hits = answer.and_then(|mut answer| answer.pop());
        if hits.is_none() {
            self.tally.failed.fetch_add(1, Ordering::Relaxed);
        }
        hits.map(|hits| hits.iter().map(|hit| (hit.file, hit.count)).collect())
    }

    /// Asks for one word and compares the answer.
    pub(crate) async fn search_and_compare(
        &self,
        shards: &[Digest],
        word: &[u8],
        expected: &[(u32, u64)],
    ) {
        let Some(found) = self.search(shards, word).await else { return };
        self.tally.compared.fetch_add(1, Ordering::Relaxed);
        if found != expected {
            tracing::error!(word = %String::from_utf8_lossy(word), "an answer differs from the scan");
            self.tally.wrong.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks the cluster itself about tasks whose end was not heard of: for people, when some are lost.
    pub(crate) async fn explain(&self, lost: &[TaskId]) {
        for task in lost.iter().take(3) {
            match self.client.task(*task, quorate_types::door::Consistency::Linearizable).await {
                Ok(read) => tracing::error!(%task, state = %read.task.state, "a task is lost"),
                Err(error) => tracing::error!(%task, %error, "a task is lost"),
            }
        }
    }
}

type Fetched = (usize, Result<Bytes, quorate_client::ClientError>);

async fn take(
    under_way: &mut JoinSet<Fetched>,
    fetched: &mut BTreeMap<usize, Bytes>,
) -> anyhow::Result<()> {
    if let Some(joined) = under_way.join_next().await {
        let (at, bytes) = joined?;
        fetched.insert(at, bytes.context("a result cannot be fetched")?);
    }
    Ok(())
}

/// The merge refuses a file that comes twice; it was counted, so go on with the first.
fn without_repeats(postings: &[Bytes]) -> anyhow::Result<Vec<&[u8]>> {
    let mut seen = BTreeSet::new();
    let mut once = Vec::new();
    for bytes in postings {
        let ids: Vec<u32> = code_index_format::PostingsReader::new(bytes)?
            .files()
            .iter()
            .map(|file| file.id)
            .collect();
        if ids.iter().all(|id| !seen.contains(id)) {
            seen.extend(ids);
            once.push(bytes.as_ref());
        }
    }
    Ok(once)
}
