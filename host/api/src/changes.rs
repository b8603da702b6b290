//! Changes of keys and seats as server-sent events. The id of each is its revision;
//! now and then comes a `progress`, which has only an id, so that whoever resumes
//! after a long silence resumes from there. What is no longer kept is a 410 where
//! that is known at once, else an event `problem`.

use std::collections::VecDeque;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::Event as Sent;
use quorate_types::Refusal;
use quorate_types::door::Source;
use quorate_types::kv::{Change, Changes, KvWatch, Revision, What};
use tokio::sync::OwnedSemaphorePermit;

use crate::events::{problem_event, sse};
use crate::failure::{Answer, Failure};
use crate::params::{Params, parsed};
use crate::state::{Api, Closing};

/// How long a stream waits for word that it cannot begin, before it answers 200.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);

/// Where a watch goes on.
pub(crate) fn after(headers: &HeaderMap, params: &Params) -> Result<Option<Revision>, Failure> {
    // A browser that reconnects repeats its query, but its header is newer.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    match last {
        Some(text) => parsed("the Last-Event-ID", text).map(Some),
        None => params.one("after"),
    }
}

/// The stream of a watch.
pub(crate) async fn stream(api: &Api, watch: KvWatch) -> Answer {
    let permit = api.stream_permit()?;
    let mut source = api.door.kv_watch(watch);
    let first = tokio::time::timeout(REFUSED_WITHIN, source.next()).await.ok();
    if let Some(Some(Err(refusal))) = first {
        return Err(refusal.into());
    }
    let reading =
        Reading { source, first, ready: VecDeque::new(), closing: api.closing(), _permit: permit };
    Ok(sse(futures::stream::unfold(Some(reading), step)))
}

struct Reading {
    source: Box<dyn Source<Result<Changes, Refusal>>>,
    /// What was read while waiting for a refusal; `Some(None)` is the end.
    first: Option<Option<Result<Changes, Refusal>>>,
    ready: VecDeque<Change>,
    closing: Closing,
    _permit: OwnedSemaphorePermit,
}

type Step = Option<(Result<Sent, axum::Error>, Option<Reading>)>;

async fn step(reading: Option<Reading>) -> Step {
    let mut reading = reading?;
    if let Some(change) = reading.ready.pop_front() {
        return Some((sent(&change), Some(reading)));
    }
    let item = match reading.first.take() {
        Some(item) => item,
        None => tokio::select! {
            item = reading.source.next() => item,
            () = reading.closing.wait() => None,
        },
    };
    match item? {
        Ok(Changes { changes, seen }) => {
            reading.ready.extend(changes);
            let first = reading.ready.pop_front();
            let sent = first.map_or_else(|| progress(seen), |change| sent(&change));
            Some((sent, Some(reading)))
        }
        Err(refusal) => Some((problem_event(&refusal.into()), None)),
    }
}

fn progress(seen: Revision) -> Result<Sent, axum::Error> {
    Ok(Sent::default().id(seen.to_string()).event("progress").data("{}"))
}

fn sent(Change { revision, what }: &Change) -> Result<Sent, axum::Error> {
    let sent = Sent::default().id(revision.to_string());
    match what {
        What::Put(record) => sent.event("put").json_data(record),
        What::Deleted { key, expired } => {
            sent.event("deleted").json_data(serde_json::json!({ "key": key, "expired": expired }))
        }
        What::Seat { kind, name, holder } => {
            let seat = serde_json::json!({ "kind": kind, "name": name, "holder": holder });
            sent.event("holder").json_data(seat)
        }
    }
}
