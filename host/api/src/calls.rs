//! `/v1/call/{capability}`: a routed request, answered whole or as it comes.
//!
//! A whole reply names its agent, policy epoch and attempts in headers. A streamed
//! one cannot know them at its head, so they are trailers; one that fails half-way
//! ends without its last chunk, which every HTTP client reports as broken.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TRAILER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use quorate_types::door::Source;
use quorate_types::http::{HEADER_AGENT, HEADER_ATTEMPTS, HEADER_POLICY_EPOCH};
use quorate_types::limits::CALL_BYTES_MAX;
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::view::{CallEvent, CallSpec};
use quorate_types::{AgentId, PolicyEpoch, Refusal};
use tokio::time::Instant;

use crate::failure::{Answer, Failure};
use crate::input;
use crate::params::{Named, Params};
use crate::state::{Asked, DEADLINE_MS_DEFAULT, Shared, checked_deadline, overdue};

/// How much longer than its deadline a door may take before it is taken for stuck.
const GRACE: Duration = Duration::from_millis(500);

/// Who answered, in order of their header names.
type Signed = (AgentId, PolicyEpoch, u32);

/// `POST /v1/call/{capability}`
pub(crate) async fn call(
    State(api): State<Shared>,
    Named(capability): Named<String>,
    asked: Asked,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let params =
        params.only(&["capability", "namespace", "deadline_ms", "idempotent", "stream"])?;
    let deadline_ms = match params.one::<u64>("deadline_ms")? {
        Some(given) => checked_deadline(Some(given))?,
        None => asked.deadline_or(DEADLINE_MS_DEFAULT),
    };
    let streamed = params.one::<bool>("stream")?.unwrap_or(false);
    let limit = u64::try_from(CALL_BYTES_MAX).unwrap_or(u64::MAX);
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let spec = CallSpec {
        namespace: params.one("namespace")?.unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned()),
        capabilities: std::iter::once(capability).chain(params.all("capability")).collect(),
        content_type: content_type.unwrap_or("application/octet-stream").to_owned(),
        body: input::read(&headers, body, "the body of a call", limit).await?,
        deadline_ms,
        idempotent: params.one::<bool>("idempotent")?.unwrap_or(false),
        trace: asked.trace,
    };
    let mut source = Events {
        until: Instant::now() + Duration::from_millis(deadline_ms) + GRACE,
        source: api.door.call(spec),
    };
    // Not before the first event does a caller get a head, so that a refusal keeps its status.
    let first = source.next().await?;
    if streamed { Ok(stream_of(source, first)) } else { whole(source, first).await }
}

/// What a door says of a call, never later than its deadline.
struct Events {
    source: Box<dyn Source<Result<CallEvent, Refusal>>>,
    until: Instant,
}

impl Events {
    async fn next(&mut self) -> Result<CallEvent, Failure> {
        let event = tokio::time::timeout_at(self.until, self.source.next()).await;
        let cut = || Refusal::Agent("the reply ended without its end".to_owned());
        Ok(event.map_err(|_elapsed| overdue())?.ok_or_else(cut)??)
    }
}

async fn whole(mut source: Events, first: CallEvent) -> Answer {
    let mut reply = BytesMut::new();
    let mut event = first;
    let signed = loop {
        match event {
            CallEvent::Done { agent, policy_epoch, attempts } => {
                break (agent, policy_epoch, attempts);
            }
            CallEvent::Chunk(chunk) => {
                if reply.len() + chunk.len() > CALL_BYTES_MAX {
                    return Err(Refusal::TooLarge {
                        what: "the reply".to_owned(),
                        got: u64::try_from(reply.len() + chunk.len()).unwrap_or(u64::MAX),
                        limit: u64::try_from(CALL_BYTES_MAX).unwrap_or(u64::MAX),
                    }
                    .into());
                }
                reply.extend_from_slice(&chunk);
            }
        }
        event = source.next().await?;
    };
    let mut response = (StatusCode::OK, reply.freeze()).into_response();
    sign(response.headers_mut(), signed);
    Ok(response)
}

fn sign(headers: &mut HeaderMap, (agent, epoch, attempts): Signed) {
    let values = [
        (HEADER_AGENT, agent.to_string()),
        (HEADER_POLICY_EPOCH, epoch.0.to_string()),
        (HEADER_ATTEMPTS, attempts.to_string()),
    ];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn stream_of(source: Events, first: CallEvent) -> Response {
    let frames = stream::unfold(Some((source, Some(first))), |step| async move {
        let (mut source, peeked) = step?;
        let event = match peeked {
            Some(event) => Ok(event),
            None => source.next().await,
        };
        match event {
            Ok(CallEvent::Chunk(chunk)) => Some((Ok(Frame::data(chunk)), Some((source, None)))),
            Ok(CallEvent::Done { agent, policy_epoch, attempts }) => {
                let mut trailers = HeaderMap::new();
                sign(&mut trailers, (agent, policy_epoch, attempts));
                Some((Ok::<Frame<Bytes>, io::Error>(Frame::trailers(trailers)), None))
            }
            Err(failure) => {
                let detail = failure.problem().detail.clone();
                tracing::info!(detail, "a streamed reply broke off");
                // The connection closes at once; what is written by then must not be lost with it.
                tokio::task::yield_now().await;
                Some((Err(io::Error::other(detail)), None))
            }
        }
    });
    let trailer = [HEADER_AGENT, HEADER_POLICY_EPOCH, HEADER_ATTEMPTS].join(", ");
    let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (TRAILER, trailer)];
    (headers, Body::new(StreamBody::new(frames))).into_response()
}
