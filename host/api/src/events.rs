//! `/v1/events`: all that happens, in the order of the log, as server-sent events.
//!
//! The id of each is its revision, opaque to users; a reader that lost its
//! connection sends the last one it saw and misses nothing, at any node. What is no
//! longer kept is a 410 where that is known at once, else an event `problem`.

use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use quorate_types::id::BadId;
use quorate_types::problem::Problem;
use quorate_types::{Event, EventKind, Revision};

use crate::failure::{Answer, Failure};
use crate::feed::{Feed, last_event_id};
use crate::params::Params;
use crate::state::Shared;

/// How often an idle stream says that it lives. A reader may take three of them missed for lost.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

fn revision(text: &str) -> Result<Revision, Failure> {
    text.parse().map_err(|_not_one: BadId| {
        Failure::invalid(
            format!("`{text}` is not a revision"),
            "send the id of an event as it was received, or none to watch from now on",
        )
    })
}

/// A stream as it is sent: no cache, kept alive.
pub(crate) fn sse<S>(stream: S) -> Response
where
    S: Stream<Item = Result<Sent, axum::Error>> + Send + 'static,
{
    Sse::new(stream).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response()
}

/// The last event of a stream that cannot go on.
pub(crate) fn problem_event(problem: &Problem) -> Result<Sent, axum::Error> {
    Sent::default().event("problem").json_data(problem)
}

/// `GET /v1/events`
pub(crate) async fn events(
    State(api): State<Shared>,
    headers: HeaderMap,
    params: Params,
) -> Answer {
    let params = params.only(&["after"])?;
    let after = match last_event_id(&headers).map(str::to_owned).or(params.one("after")?) {
        Some(text) => Some(revision(&text)?),
        None => None,
    };
    let feed = Feed::open(&api, after.is_some(), |door| door.events(after)).await?;
    Ok(sse(futures::stream::unfold(Some(feed), step)))
}

type Step = Option<(Result<Sent, axum::Error>, Option<Feed<Event>>)>;

async fn step(feed: Option<Feed<Event>>) -> Step {
    let mut feed = feed?;
    match feed.next().await? {
        Ok(Event { revision, kind }) => {
            let sent = Sent::default().id(revision.to_string()).event(name(&kind));
            Some((sent.json_data(&kind), Some(feed)))
        }
        Err(refusal) => Some((problem_event(&refusal.into()), None)),
    }
}

const fn name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Task { .. } => "task",
        EventKind::AgentUp { .. } => "agent-up",
        EventKind::AgentDown { .. } => "agent-down",
        EventKind::Policy { .. } => "policy",
    }
}
