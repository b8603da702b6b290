//! Changes of keys and seats as server-sent events. The id of each is its revision;
//! now and then comes a `progress`, which has only an id, so that whoever resumes
//! after a long silence resumes from there. What is no longer kept is a 410 where
//! that is known at once, else an event `problem`.

use std::collections::VecDeque;

use axum::http::HeaderMap;
use axum::response::sse::Event as Sent;
use quorate_types::kv::{Change, Changes, KvWatch, Revision, What};

use crate::events::{problem_event, sse};
use crate::failure::{Answer, Failure};
use crate::feed::{Feed, last_event_id};
use crate::params::{Params, parsed};
use crate::state::Api;

/// Where a watch goes on.
pub(crate) fn after(headers: &HeaderMap, params: &Params) -> Result<Option<Revision>, Failure> {
    match last_event_id(headers) {
        Some(text) => parsed("the Last-Event-ID", text).map(Some),
        None => params.one("after"),
    }
}

/// The stream of a watch.
pub(crate) async fn stream(api: &Api, watch: KvWatch) -> Answer {
    let feed = Feed::open(api, true, |door| door.kv_watch(watch)).await?;
    let reading = Reading { feed, ready: VecDeque::new() };
    Ok(sse(futures::stream::unfold(Some(reading), step)))
}

struct Reading {
    feed: Feed<Changes>,
    ready: VecDeque<Change>,
}

type Step = Option<(Result<Sent, axum::Error>, Option<Reading>)>;

async fn step(reading: Option<Reading>) -> Step {
    let mut reading = reading?;
    if let Some(change) = reading.ready.pop_front() {
        return Some((sent(&change), Some(reading)));
    }
    match reading.feed.next().await? {
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
