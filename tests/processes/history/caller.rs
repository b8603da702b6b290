//! Keys over plain HTTP with keep-alive: a request an operation, and nothing is sent
//! twice, so that what was asked happens once or never.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::history::{Asked, End};
use quorate_types::http::{HEADER_DEADLINE_MS, KvGot};
use quorate_types::kv::OpDone;
use quorate_types::problem::{Problem, ProblemKind};
use reqwest::{Method, RequestBuilder, Response};

/// A node that keeps its deadline answers with a typed error, this much later at most.
const GRACE: Duration = Duration::from_millis(300);
/// Before the next node is asked, or where all refuse they would be asked without pause.
const PAUSE: Duration = Duration::from_millis(20);

/// A client that asks one node until that does not answer, and then the next.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    http: reqwest::Client,
    urls: Arc<[String]>,
    token: Arc<str>,
    node: usize,
    within: Duration,
}

impl Caller {
    /// Asks the node at this place first, and waits so long for each answer.
    pub(crate) fn new(urls: &[String], token: &str, first: usize, within: Duration) -> Self {
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(1);
        let http = http.build().expect("a client");
        Self { http, urls: urls.into(), token: token.into(), node: first, within }
    }

    /// Asks once. What was answered, or `Failed` where it was surely not done.
    pub(crate) async fn ask(&mut self, key: &str, asked: &Asked) -> End {
        let request = match asked {
            Asked::Get => self.request(Method::GET, key),
            Asked::Put(value) => self.request(Method::PUT, key).body(value.clone()),
            Asked::PutIf { version, value } => {
                let request = self.request(Method::PUT, &format!("{key}?version={version}"));
                request.body(value.clone())
            }
            Asked::Delete => self.request(Method::DELETE, key),
        };
        let answered = tokio::time::timeout(self.within + GRACE, async {
            let response = request.send().await.ok()?;
            read(response, asked).await
        });
        let end = answered.await.ok().flatten();
        if matches!(end, None | Some(End::Unknown | End::Failed)) {
            self.node += 1;
            tokio::time::sleep(PAUSE).await;
        }
        // A read that failed has changed nothing.
        let lost = if *asked == Asked::Get { End::Failed } else { End::Unknown };
        end.unwrap_or(lost)
    }

    fn request(&self, method: Method, key: &str) -> RequestBuilder {
        let url = &self.urls[self.node % self.urls.len()];
        self.http
            .request(method, format!("{url}/v1/kv/{key}"))
            .bearer_auth(&self.token)
            .header(HEADER_DEADLINE_MS, self.within.as_millis().to_string())
    }
}

async fn read(response: Response, asked: &Asked) -> Option<End> {
    let status = response.status();
    let body = response.bytes().await.ok()?;
    if !status.is_success() {
        let problem: Problem = serde_json::from_slice(&body).ok()?;
        return Some(of_problem(problem.kind, asked));
    }
    if *asked == Asked::Get {
        let record = serde_json::from_slice::<KvGot>(&body).ok()?.record;
        let value = String::from_utf8_lossy(&record.value.0).into_owned();
        return Some(End::Found(Some((value, record.version))));
    }
    match serde_json::from_slice(&body).ok()? {
        OpDone::Put { version, .. } => Some(End::Put(version)),
        OpDone::Deleted { count, .. } => Some(End::Deleted(count > 0)),
        OpDone::Got(_) => None,
    }
}

fn of_problem(kind: ProblemKind, asked: &Asked) -> End {
    match kind {
        ProblemKind::NotFound if *asked == Asked::Get => End::Found(None),
        ProblemKind::Conflict => End::Mismatch,
        ProblemKind::Busy => End::Failed,
        ProblemKind::Unavailable | ProblemKind::Timeout if *asked == Asked::Get => End::Failed,
        ProblemKind::Unavailable | ProblemKind::Timeout => End::Unknown,
        ProblemKind::Invalid
        | ProblemKind::Unauthorized
        | ProblemKind::Forbidden
        | ProblemKind::NotFound
        | ProblemKind::MethodNotAllowed
        | ProblemKind::Compacted
        | ProblemKind::Across
        | ProblemKind::TooLarge
        | ProblemKind::Internal
        | ProblemKind::Agent => panic!("{asked:?} is a sound question, and was answered {kind:?}"),
    }
}
