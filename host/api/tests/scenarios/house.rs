//! A served door, and plain HTTP to knock at it.

use std::sync::Arc;
use std::time::Duration;

use quorate_api::{ApiOptions, ServeError, serve};
use quorate_types::problem::{Problem, ProblemKind};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::toy::Toy;

/// The token of every house.
pub(crate) const TOKEN: &str = "open sesame";

/// A toy behind a port of its own.
pub(crate) struct House {
    pub(crate) toy: Toy,
    pub(crate) url: String,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), ServeError>>,
    http: reqwest::Client,
}

impl House {
    /// With default options.
    pub(crate) async fn open() -> Self {
        Self::with(Toy::default(), ApiOptions::new(TOKEN)).await
    }

    /// Over this toy, with these options.
    pub(crate) async fn with(toy: Toy, options: ApiOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (stop, stopped) = oneshot::channel::<()>();
        let door = Arc::new(toy.clone());
        let serving = tokio::spawn(serve(listener, door, options, async {
            stopped.await.ok();
        }));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { toy, url, stop: Some(stop), serving, http }
    }

    /// A request without a token.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// A request with the token.
    pub(crate) fn knock(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(TOKEN)
    }

    /// The JSON that a GET answers.
    pub(crate) async fn get(&self, path: &str) -> Value {
        json(self.knock(Method::GET, path).send().await.expect("an answer"), 200).await
    }

    /// The answer to a POST of this JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.knock(Method::POST, path).json(body).send().await.expect("an answer")
    }

    /// Closes the door; returns when it is closed.
    pub(crate) async fn close(mut self) {
        drop(self.stop.take());
        let closed = tokio::time::timeout(Duration::from_secs(10), self.serving).await;
        closed.expect("closed in time").expect("no panic").expect("no error");
    }
}

/// The JSON of an answer that has this status.
pub(crate) async fn json(response: Response, status: u16) -> Value {
    let got = response.status().as_u16();
    let text = response.text().await.expect("a body");
    assert_eq!(got, status, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// The problem that an answer carries; it must be whole and of this kind.
pub(crate) async fn problem(response: Response, kind: ProblemKind) -> Problem {
    let status = response.status().as_u16();
    let trace = response.headers()["quorate-trace"].to_str().expect("text").to_owned();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Problem = response.json().await.expect("a problem");
    assert_eq!(problem.kind, kind, "{problem:?}");
    assert_eq!(problem.status, status, "the body repeats the status");
    assert_eq!(problem.trace.map(|trace| trace.to_string()), Some(trace));
    assert!(!problem.next.is_empty(), "{problem:?} says what to try");
    problem
}

/// Server-sent events of an answer, as (id, event, data).
pub(crate) struct Sent {
    response: Response,
    text: String,
}

impl Sent {
    /// Of a stream.
    pub(crate) fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next one; none when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = frame.lines().find_map(|line| line.strip_prefix(name));
                    line.map_or(String::new(), |value| value.trim_start().to_owned())
                };
                let (id, event, data) = (field("id:"), field("event:"), field("data:"));
                self.text = rest.to_owned();
                if !data.is_empty() {
                    return Some((id, event, serde_json::from_str(&data).expect("JSON")));
                }
                continue;
            }
            let chunk = self.response.chunk().await.expect("an orderly stream")?;
            self.text.push_str(std::str::from_utf8(&chunk).expect("text in whole letters"));
        }
    }
}
