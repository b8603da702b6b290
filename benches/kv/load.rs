//! Clients that put in a closed loop, and what they measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_client::{Client, ClientOptions, Link};
use quorate_types::kv::{Act, Op, Value};
use reqwest::header::AUTHORIZATION;
use tokio::task::JoinSet;

const SPACE: &str = "default";
/// What each put brings, bytes.
const VALUE_BYTES: usize = 256;
/// Keys that are put again and again.
const KEYS: u64 = 10_000;
/// Acts of one batch.
const BATCH: usize = 64;
/// Clients that share one stream.
const CLIENTS_PER_LINK: usize = 64;

/// How puts go to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Stream,
    Http,
    Batch,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Stream, Self::Http, Self::Batch];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.name() == name)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Http => "http",
            Self::Batch => "batch64",
        }
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Of single requests; ascending.
    latencies: Vec<Duration>,
    pub(crate) puts: u64,
    pub(crate) failed: u64,
    pub(crate) took: Duration,
}

impl Figures {
    pub(crate) fn percentile(&self, per_cent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * per_cent / 100).copied().unwrap_or_default()
    }
}

struct Shared {
    value: Value,
    next: AtomicU64,
    until: Instant,
}

impl Shared {
    fn key(&self) -> String {
        format!("bench/{:08}", self.next.fetch_add(1, Ordering::Relaxed) % KEYS)
    }

    fn put(&self) -> Act {
        let (key, value) = (self.key(), self.value.clone());
        Act::Op(Op::Put { key, value, lease: None, expect: None })
    }
}

/// Loads the cluster for a span.
pub(crate) async fn measure(
    urls: &[String],
    token: &str,
    way: Way,
    clients: usize,
    span: Duration,
) -> Figures {
    let shared = Arc::new(Shared {
        value: Value(Bytes::from(vec![b'v'; VALUE_BYTES])),
        next: AtomicU64::new(0),
        until: Instant::now() + span,
    });
    let begun = Instant::now();
    let mut running = JoinSet::new();
    match way {
        Way::Stream | Way::Batch => {
            let client = Client::new(ClientOptions::new(urls.to_vec(), Some(token.to_owned())));
            let client = client.unwrap();
            let mut links = Vec::new();
            for _link in 0..clients.div_ceil(CLIENTS_PER_LINK) {
                links.push(client.connect_stream().await.unwrap());
            }
            let acts = if way == Way::Batch { BATCH } else { 1 };
            for nth in 0..clients {
                let link = links[nth % links.len()].clone();
                running.spawn(over_stream(link, Arc::clone(&shared), acts));
            }
        }
        Way::Http => {
            let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(clients);
            let http = http.build().unwrap();
            for _client in 0..clients {
                let url = urls.first().unwrap().clone();
                let (http, token) = (http.clone(), token.to_owned());
                running.spawn(over_http(http, url, token, Arc::clone(&shared)));
            }
        }
    }
    let mut figures = Figures::default();
    while let Some(one) = running.join_next().await {
        let one: Figures = one.unwrap();
        figures.latencies.extend(one.latencies);
        figures.puts += one.puts;
        figures.failed += one.failed;
    }
    figures.took = begun.elapsed();
    figures.latencies.sort_unstable();
    figures
}

async fn over_stream(link: Link, shared: Arc<Shared>, acts: usize) -> Figures {
    let mut figures = Figures::default();
    while Instant::now() < shared.until {
        let batch = (0..acts).map(|_| shared.put()).collect();
        let begun = Instant::now();
        match link.kv(SPACE, batch).await {
            Ok(answer) => {
                let done = answer.iter().filter(|one| one.is_ok()).count();
                figures.puts += done as u64;
                figures.failed += (answer.len() - done) as u64;
                figures.latencies.push(begun.elapsed());
            }
            Err(_error) => figures.failed += acts as u64,
        }
    }
    figures
}

async fn over_http(
    http: reqwest::Client,
    url: String,
    token: String,
    shared: Arc<Shared>,
) -> Figures {
    let mut figures = Figures::default();
    while Instant::now() < shared.until {
        let put = http.put(format!("{url}/v1/kv/{}", shared.key()));
        let put = put.header(AUTHORIZATION, format!("Bearer {token}"));
        let begun = Instant::now();
        let answer = put.body(shared.value.0.clone()).send().await;
        let read = match answer {
            Ok(answer) if answer.status().is_success() => answer.bytes().await.is_ok(),
            Ok(_) | Err(_) => false,
        };
        if read {
            figures.puts += 1;
            figures.latencies.push(begun.elapsed());
        } else {
            figures.failed += 1;
        }
    }
    figures
}
