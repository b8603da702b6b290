//! Puts from end to end: three node processes on loopback, every write fsynced on a
//! quorum, clients in a closed loop; over the native stream, over HTTP with
//! keep-alive, and in batches over the stream.
//!
//! `cargo bench -p quorate-cli --bench kv`; with `-- --seconds 3 --clients 1,64 --way
//! stream` only a part. What limits it is told beside: the fsyncs a second of the
//! disk come from `--bench raft`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed bench")]

mod load;

use std::time::Duration;

use load::{Figures, Way};
use quorate_cli::Launch;
use quorate_cli::local::{Layout, LocalCluster};
use quorate_client::{Client, ClientOptions};
use tokio::runtime::Builder;

const NODES: u8 = 3;
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How much to do.
struct Plan {
    span: Duration,
    clients: Vec<usize>,
    ways: Vec<Way>,
}

impl Plan {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let value = |name: &str| {
            let at = arguments.iter().position(|one| one == name)?;
            arguments.get(at + 1).map(String::as_str)
        };
        // Cargo says `--bench` when it measures; as a test everything runs once and briefly.
        let once = !arguments.iter().any(|one| one == "--bench");
        let seconds =
            value("--seconds").map_or(if once { 1 } else { 5 }, |text| text.parse().unwrap());
        let clients = match value("--clients") {
            Some(text) => text.split(',').map(|one| one.parse().unwrap()).collect(),
            None if once => vec![1, 16],
            None => vec![1, 16, 64, 256, 1024],
        };
        let ways = match value("--way") {
            Some(text) => text.split(',').map(|one| Way::named(one).expect("a way")).collect(),
            None => Way::ALL.to_vec(),
        };
        Self { span: Duration::from_secs(seconds), clients, ways }
    }
}

fn main() {
    let plan = Plan::read();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let layout = Layout {
        nodes: NODES,
        dir: Some(folder.path().to_owned()),
        shards: 1,
        first_api_port: None,
        agents: Vec::new(),
    };
    let launch = Launch::of(env!("CARGO_BIN_EXE_quorate"));
    let mut cluster = LocalCluster::lay_out(&layout, launch).unwrap();
    cluster.start().unwrap();
    runtime.block_on(cluster.wait_all_ready(READY_WITHIN)).unwrap();
    let urls = runtime.block_on(leader_first(&cluster));
    tell_heads();
    for way in &plan.ways {
        for clients in &plan.clients {
            let token = cluster.token().to_owned();
            let figures = runtime.block_on(load::measure(&urls, &token, *way, *clients, plan.span));
            tell(*way, *clients, &figures);
        }
    }
    cluster.stop(Duration::from_secs(5));
}

/// The nodes' URLs, the leader's first.
async fn leader_first(cluster: &LocalCluster) -> Vec<String> {
    let mut urls = cluster.urls();
    let options = ClientOptions::new(urls.clone(), Some(cluster.token().to_owned()));
    let views = Client::new(options).unwrap().cluster().await.unwrap();
    let leader = views.iter().flat_map(|view| &view.groups).find_map(|group| group.leader);
    // Nodes are numbered from 1 in the order of their places.
    let place = leader.and_then(|leader| usize::try_from(leader.0).ok()).unwrap_or(1) - 1;
    urls.rotate_left(place);
    urls
}

#[expect(clippy::print_stdout, reason = "what a bench prints is its result")]
fn line(text: &str) {
    println!("{text}");
}

fn tell_heads() {
    line(&format!(
        "{:<8} {:>7} {:>9} {:>10} {:>10} {:>10} {:>7}",
        "way", "clients", "puts", "puts/s", "p50 ms", "p99 ms", "failed"
    ));
}

fn tell(way: Way, clients: usize, figures: &Figures) {
    let ms = |per_cent| figures.percentile(per_cent).as_secs_f64() * 1e3;
    line(&format!(
        "{:<8} {clients:>7} {:>9} {:>10.0} {:>10.2} {:>10.2} {:>7}",
        way.name(),
        figures.puts,
        figures.puts as f64 / figures.took.as_secs_f64(),
        ms(50),
        ms(99),
        figures.failed
    ));
}
