//! Calls: a reply whole, or as it comes.

use std::time::Duration;

use bytes::Bytes;
use quorate_types::http::{HEADER_AGENT, HEADER_ATTEMPTS, HEADER_POLICY_EPOCH, HEADER_TRACE};
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::{AgentId, PolicyEpoch, TraceId};
use reqwest::Response;
use reqwest::header::HeaderMap;

use crate::ask::{Answer, Ask, Repeat};
use crate::client::Client;
use crate::error::ClientError;

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRequest {
    /// Whose it is.
    pub namespace: String,
    /// All of these its agent must have; at least one.
    pub capabilities: Vec<String>,
    /// Media type of the body.
    pub content_type: String,
    /// At most `CALL_BYTES_MAX`.
    pub body: Bytes,
    /// Within this span there is a reply or a typed error, over all nodes and repeats.
    pub deadline: Duration,
    /// Whether it may run twice.
    pub idempotent: bool,
}

impl CallRequest {
    /// To an agent with this capability; 10 s; runs at most once.
    pub fn new(capability: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            namespace: NAMESPACE_DEFAULT.to_owned(),
            capabilities: vec![capability.into()],
            content_type: "application/octet-stream".to_owned(),
            body: body.into(),
            deadline: Duration::from_secs(10),
            idempotent: false,
        }
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReply {
    /// What the agent answered.
    pub body: Bytes,
    /// The agent.
    pub agent: AgentId,
    /// The policy epoch that chose it.
    pub policy_epoch: PolicyEpoch,
    /// Attempts that the node made, from 1.
    pub attempts: u32,
    /// The trace.
    pub trace: TraceId,
}

/// A reply as it comes. One that breaks off ends in an error, never in silence.
#[derive(Debug)]
pub struct CallStream {
    response: Response,
    url: String,
    /// The trace.
    pub trace: TraceId,
}

impl CallStream {
    /// The next part; none at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        let part = self.response.chunk().await.transpose()?;
        Some(part.map_err(|source| ClientError::Unreachable { url: self.url.clone(), source }))
    }
}

impl Client {
    /// Calls an agent; the reply whole.
    pub async fn call(&self, call: &CallRequest) -> Result<CallReply, ClientError> {
        let Answer { response, url } = self.ask_head(ask(call, false)).await?;
        let headers = response.headers().clone();
        let body = response
            .bytes()
            .await
            .map_err(|source| ClientError::Unreachable { url: url.to_string(), source })?;
        let reply = (|| {
            Some(CallReply {
                body,
                agent: header(&headers, HEADER_AGENT)?,
                policy_epoch: header(&headers, HEADER_POLICY_EPOCH)?,
                attempts: header(&headers, HEADER_ATTEMPTS)?,
                trace: header(&headers, HEADER_TRACE)?,
            })
        })();
        reply.ok_or_else(|| unsigned(&url))
    }

    /// Calls an agent; the reply as it comes.
    pub async fn call_stream(&self, call: &CallRequest) -> Result<CallStream, ClientError> {
        let Answer { response, url } = self.ask_head(ask(call, true)).await?;
        let trace = header(response.headers(), HEADER_TRACE).ok_or_else(|| unsigned(&url))?;
        Ok(CallStream { response, url: url.to_string(), trace })
    }
}

fn ask(call: &CallRequest, stream: bool) -> Ask {
    let (first, more) = call
        .capabilities
        .split_first()
        .map_or(("", &[][..]), |(first, more)| (first.as_str(), more));
    let ask = Ask::post(&["v1", "call", first])
        .query("namespace", &call.namespace)
        .query("idempotent", call.idempotent)
        .query("stream", stream)
        .body(&call.content_type, call.body.clone())
        .timeout(call.deadline);
    more.iter().fold(ask, |ask, name| ask.query("capability", name)).repeat(if call.idempotent {
        Repeat::Safe
    } else {
        Repeat::IfNotTaken
    })
}

fn header<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn unsigned(url: &reqwest::Url) -> ClientError {
    ClientError::Garbled {
        url: url.to_string(),
        what: "the reply does not say which agent gave it".to_owned(),
    }
}
