//! One question, put to one node after another until there is an answer or no time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_types::TraceId;
use quorate_types::http::{HEADER_DEADLINE_MS, traceparent};
use quorate_types::problem::{Problem, ProblemKind};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::error::ClientError;

/// A node that keeps its deadline answers with a typed error; it gets this long to do so before
/// the client decides that it does not.
const GRACE: Duration = Duration::from_millis(500);

/// Between two rounds over all nodes where no node said when to come again.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// The shortest try, so that a short rest of a deadline is not cut into slivers.
const TRY_MIN: Duration = Duration::from_secs(1);

/// When a question may be put again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Whatever became of it: it does the same once or twice.
    Safe,
    /// Only if it was surely not taken.
    IfNotTaken,
}

/// A question.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Option<(String, Bytes)>,
    repeat: Repeat,
    trace: Option<TraceId>,
    timeout: Option<Duration>,
    try_min: Duration,
    patient: bool,
}

impl Ask {
    /// Of this route; each segment is encoded by itself.
    pub(crate) fn new(method: Method, path: &[&str]) -> Self {
        Self {
            method,
            path: path.iter().map(ToString::to_string).collect(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            repeat: Repeat::Safe,
            trace: None,
            timeout: None,
            try_min: TRY_MIN,
            patient: false,
        }
    }

    pub(crate) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: &[&str]) -> Self {
        Self::new(Method::POST, path)
    }

    pub(crate) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(crate) fn json<T: Serialize>(self, body: &T) -> Result<Self, ClientError> {
        let bytes = serde_json::to_vec(body).map_err(|error| ClientError::Setup(error.into()))?;
        Ok(self.body("application/json", bytes.into()))
    }

    pub(crate) fn body(mut self, content_type: &str, body: Bytes) -> Self {
        self.body = Some((content_type.to_owned(), body));
        self
    }

    pub(crate) fn repeat(mut self, repeat: Repeat) -> Self {
        self.repeat = repeat;
        self
    }

    pub(crate) fn trace(mut self, trace: TraceId) -> Self {
        self.trace = Some(trace);
        self
    }

    /// The whole time given, in place of the client's own.
    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// No try is shorter: a long poll, which is silent by design.
    pub(crate) fn try_min(mut self, try_min: Duration) -> Self {
        self.try_min = try_min;
        self
    }

    /// An answer without an end: the deadline is the client's business, not the node's.
    pub(crate) fn endless(mut self) -> Self {
        self.patient = true;
        self
    }
}

/// The head of an answer, and who gave it.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) url: Url,
}

/// What became of one try.
enum Tried {
    Answered(Response),
    /// Not now; perhaps later, or elsewhere.
    Later {
        error: ClientError,
        after: Option<Duration>,
    },
    Never(ClientError),
}

impl Client {
    /// The answer in JSON.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, ClientError> {
        let (bytes, url) = self.ask_bytes(ask).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ClientError::Garbled { url: url.to_string(), what: error.to_string() })
    }

    /// That it was done.
    pub(crate) async fn ask_done(&self, ask: Ask) -> Result<(), ClientError> {
        self.ask_bytes(ask).await.map(|_nothing| ())
    }

    /// The answer whole. A body that breaks off is asked for again where that is safe.
    pub(crate) async fn ask_bytes(&self, ask: Ask) -> Result<(Bytes, Url), ClientError> {
        let started = Instant::now();
        let whole = ask.timeout.unwrap_or(self.0.timeout);
        loop {
            let left = whole.saturating_sub(started.elapsed());
            let answer = self.ask_head(ask.clone().timeout(left)).await?;
            let url = answer.url;
            let rest = whole.saturating_sub(started.elapsed()) + GRACE;
            match tokio::time::timeout(rest, answer.response.bytes()).await {
                Ok(Ok(bytes)) => return Ok((bytes, url)),
                Ok(Err(_broken)) if ask.repeat == Repeat::Safe && started.elapsed() < whole => {
                    self.prefer(self.preferred() + 1);
                }
                Ok(Err(source)) => {
                    return Err(ClientError::Unreachable { url: url.to_string(), source });
                }
                Err(_elapsed) => {
                    return Err(ClientError::Timeout { url: url.to_string(), after: whole });
                }
            }
        }
    }

    /// The head of the answer; its body is still to be read.
    pub(crate) async fn ask_head(&self, ask: Ask) -> Result<Answer, ClientError> {
        let started = Instant::now();
        let whole = ask.timeout.unwrap_or(self.0.timeout);
        let trace = ask.trace.unwrap_or_else(|| self.fresh_trace());
        let nodes = self.0.nodes.len();
        let mut tried = 0;
        loop {
            let node = self.preferred() % nodes;
            let url = self.url(node, &ask);
            let left = whole.saturating_sub(started.elapsed());
            let (error, after) = match self.try_once(&ask, &url, left, trace).await {
                Tried::Answered(response) => return Ok(Answer { response, url }),
                Tried::Never(error) => return Err(error),
                Tried::Later { error, after } => (error, after),
            };
            tried += 1;
            // Only if no one else has moved on meanwhile, or two would step past a good node.
            if self.preferred() % nodes == node {
                self.prefer(node + 1);
            }
            let pause =
                if tried % nodes == 0 { after.unwrap_or(ROUND_PAUSE) } else { Duration::ZERO };
            if started.elapsed() + pause >= whole {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// After a stream broke: another node first, and not at once, or a node that ends every stream
    /// as it stops would be asked without pause.
    pub(crate) async fn move_on(&self) {
        self.prefer(self.preferred() + 1);
        tokio::time::sleep(ROUND_PAUSE).await;
    }

    fn url(&self, node: usize, ask: &Ask) -> Url {
        let mut url = self.0.nodes[node].clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(&ask.path);
        }
        if !ask.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&ask.query);
        }
        url
    }

    async fn try_once(&self, ask: &Ask, url: &Url, left: Duration, trace: TraceId) -> Tried {
        // While others can be asked, a silent node gets half of what is left.
        let others = self.0.nodes.len() > 1 && ask.repeat == Repeat::Safe;
        let patience = if others { (left / 2).max(ask.try_min).min(left) } else { left };
        let sent = self.request(ask, url, patience, trace).send();
        let answered = match tokio::time::timeout(patience + GRACE, sent).await {
            Ok(answered) => answered,
            Err(_elapsed) => {
                let error = ClientError::Timeout { url: url.to_string(), after: patience };
                return later_if(ask.repeat == Repeat::Safe, error, None);
            }
        };
        match answered {
            Ok(response) if response.status().is_success() => Tried::Answered(response),
            Ok(response) => refused(ask, url, response).await,
            Err(source) => {
                // A connection that never stood carried nothing.
                let untaken = source.is_connect();
                let error = ClientError::Unreachable { url: url.to_string(), source };
                later_if(untaken || ask.repeat == Repeat::Safe, error, None)
            }
        }
    }

    fn request(
        &self,
        ask: &Ask,
        url: &Url,
        patience: Duration,
        trace: TraceId,
    ) -> reqwest::RequestBuilder {
        let span = u64::try_from(trace.0 >> 64).unwrap_or(1).max(1);
        let mut request = self
            .0
            .http
            .request(ask.method.clone(), url.clone())
            .header("traceparent", traceparent(trace, span));
        if !ask.patient {
            request = request.header(HEADER_DEADLINE_MS, patience.as_millis().max(1).to_string());
        }
        if let Some(token) = &self.0.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if let Some((content_type, body)) = &ask.body {
            request = request.header(CONTENT_TYPE, content_type).body(body.clone());
        }
        request
    }
}

fn later_if(again: bool, error: ClientError, after: Option<Duration>) -> Tried {
    if again { Tried::Later { error, after } } else { Tried::Never(error) }
}

async fn refused(ask: &Ask, url: &Url, response: Response) -> Tried {
    let status = response.status();
    let body = tokio::time::timeout(GRACE, response.bytes()).await;
    let problem = match &body {
        Ok(Ok(bytes)) => serde_json::from_slice::<Problem>(bytes).ok(),
        Ok(Err(_)) | Err(_) => None,
    };
    let Some(problem) = problem else {
        return Tried::Never(ClientError::Garbled {
            url: url.to_string(),
            what: format!("status {status} without a problem"),
        });
    };
    let again = match problem.kind {
        // Nothing was taken.
        ProblemKind::Busy => true,
        // Nothing is known to have been done, which is not the same.
        ProblemKind::Unavailable | ProblemKind::Timeout => ask.repeat == Repeat::Safe,
        ProblemKind::Invalid
        | ProblemKind::Unauthorized
        | ProblemKind::Forbidden
        | ProblemKind::NotFound
        | ProblemKind::MethodNotAllowed
        | ProblemKind::Conflict
        | ProblemKind::Across
        | ProblemKind::Compacted
        | ProblemKind::TooLarge
        | ProblemKind::Internal
        | ProblemKind::Agent => false,
    };
    let after = problem.retry_after_ms.map(Duration::from_millis);
    later_if(again, problem.into(), after)
}
