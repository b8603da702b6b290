//! The client itself: nodes, token, and numbers that are never used twice.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use quorate_types::TraceId;
use reqwest::Url;

use crate::error::ClientError;

/// A node closes a connection that idles for 30 s; a request must not meet that.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// On one network a connection stands in milliseconds; a lost first packet is sent again after 1 s.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Where the cluster is, and how long to wait for it.
#[derive(Clone)]
pub struct ClientOptions {
    /// The HTTP doors of its nodes, `http://HOST:PORT`; at least one.
    pub urls: Vec<String>,
    /// The bearer token.
    pub token: Option<String>,
    /// The whole time given to a request, over all nodes and repeats.
    pub timeout: Duration,
}

impl ClientOptions {
    /// With these nodes and this token, 10 s.
    pub fn new(urls: impl IntoIterator<Item = String>, token: Option<String>) -> Self {
        Self { urls: urls.into_iter().collect(), token, timeout: Duration::from_secs(10) }
    }
}

/// A client of one cluster; cheap to clone, all clones share connections.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) http: reqwest::Client,
    pub(crate) nodes: Vec<Url>,
    pub(crate) token: Option<String>,
    pub(crate) timeout: Duration,
    /// The node that answered last; asked first.
    preferred: AtomicUsize,
    /// Drawn once; no other client has it.
    origin: u128,
    count: AtomicU64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<&str> = self.0.nodes.iter().map(Url::as_str).collect();
        f.debug_struct("Client").field("nodes", &nodes).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; connects when it is first used.
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        let nodes = options.urls.iter().map(|text| address(text)).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(ClientError::Address(String::new()));
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .pool_idle_timeout(IDLE_MAX)
            .build()
            .map_err(|error| ClientError::Setup(Box::new(error)))?;
        let mut origin = [0; 16];
        getrandom::fill(&mut origin)
            .map_err(|error| ClientError::Setup(error.to_string().into()))?;
        Ok(Self(Arc::new(Shared {
            http,
            nodes,
            token: options.token,
            timeout: options.timeout,
            preferred: AtomicUsize::new(0),
            origin: u128::from_ne_bytes(origin),
            count: AtomicU64::new(1),
        })))
    }

    /// The nodes it knows.
    pub fn nodes(&self) -> &[Url] {
        &self.0.nodes
    }

    /// The node to ask first.
    pub(crate) fn preferred(&self) -> usize {
        self.0.preferred.load(Ordering::Relaxed)
    }

    /// Asks `node` first from now on.
    pub(crate) fn prefer(&self, node: usize) {
        self.0.preferred.store(node % self.0.nodes.len(), Ordering::Relaxed);
    }

    /// An idempotency key that no client has used.
    pub(crate) fn fresh_key(&self) -> String {
        format!("{:032x}-{}", self.0.origin, self.0.count.fetch_add(1, Ordering::Relaxed))
    }

    /// A trace that no request has had.
    pub(crate) fn fresh_trace(&self) -> TraceId {
        let count = self.0.count.fetch_add(1, Ordering::Relaxed);
        TraceId(self.0.origin.wrapping_add(u128::from(count) << 64).max(1))
    }
}

fn address(text: &str) -> Result<Url, ClientError> {
    let bad = || ClientError::Address(text.to_owned());
    let url = Url::parse(text.trim_end_matches('/')).map_err(|_source| bad())?;
    let plain = url.scheme() == "http" && url.has_host() && url.path() == "/";
    if plain { Ok(url) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_nodes() {
        let client = |url: &str| Client::new(ClientOptions::new([url.to_owned()], None));
        assert!(client("http://127.0.0.1:7400/").is_ok());
        for other in ["127.0.0.1:7400", "https://node:1", "http://node/v1", "node"] {
            let refused = client(other).expect_err("refused");
            assert!(matches!(&refused, ClientError::Address(text) if text == other), "{refused}");
        }
    }
}
