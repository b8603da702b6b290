//! How long a cluster of three node processes acknowledges nothing when its leader is
//! killed, is told to stop, or hands over by command; every write fsynced.
//!
//! `cargo bench -p quorate-cli --bench failover`; with `-- --rounds 5 --profile lan`
//! only a part. One client submits one task after the other through a node that lives
//! on. After a kill the span runs to the first acknowledgement of a task that was
//! submitted after it; else it is the longest between two acknowledgements.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed bench")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quorate_cli::Launch;
use quorate_cli::local::{Layout, LocalCluster};
use quorate_client::{Client, ClientOptions};
use quorate_types::{GroupId, NodeId, TaskSpec};
use tokio::runtime::Builder;

const NODES: u8 = 3;
const READY_WITHIN: Duration = Duration::from_secs(60);
/// What is looked at around the act.
const BEFORE: Duration = Duration::from_millis(300);
const AFTER: Duration = Duration::from_millis(1_500);

/// What is done to the leader, and what was promised of it.
#[derive(Clone, Copy, Debug)]
enum Act {
    Kill,
    Stop,
    Transfer,
}

impl Act {
    const ALL: [Self; 3] = [Self::Kill, Self::Stop, Self::Transfer];

    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "killed",
            Self::Stop => "told to stop",
            Self::Transfer => "hands over",
        }
    }

    /// (percentile, milliseconds)
    const fn limits(self) -> &'static [(usize, u64)] {
        match self {
            Self::Kill => &[(50, 20), (99, 100)],
            Self::Stop | Self::Transfer => &[(100, 20)],
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|one| one == name)?;
        arguments.get(at + 1).cloned()
    };
    // Cargo says `--bench` when it measures; as a test everything runs once.
    let once = !arguments.iter().any(|one| one == "--bench");
    let rounds = value("--rounds").map_or(if once { 1 } else { 20 }, |text| text.parse().unwrap());
    let profiles = match value("--profile") {
        Some(profile) => vec![profile],
        None if once => vec!["default".to_owned()],
        None => vec!["default".to_owned(), "lan".to_owned()],
    };
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    for profile in profiles {
        runtime.block_on(measure(&profile, rounds));
    }
}

async fn measure(profile: &str, rounds: usize) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut cluster = start(folder.path(), profile).await;
    line(&format!("profile {profile}, {rounds} rounds, ms without an acknowledgement"));
    for act in Act::ALL {
        let mut spans = Vec::new();
        let mut usual = Vec::new();
        for _round in 0..rounds {
            let (span, latency) = round(&mut cluster, act).await;
            spans.push(span);
            usual.push(latency);
        }
        tell(act, &mut spans, &mut usual);
    }
    cluster.stop(Duration::from_secs(10));
}

async fn start(folder: &Path, profile: &str) -> LocalCluster {
    let layout = Layout {
        nodes: NODES,
        dir: Some(folder.to_owned()),
        shards: 1,
        first_api_port: None,
        agents: Vec::new(),
    };
    let mut cluster =
        LocalCluster::lay_out(&layout, Launch::of(env!("CARGO_BIN_EXE_quorate"))).unwrap();
    for node in 1..=NODES {
        let file = folder.join(format!("node-{node}/node.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}[raft]\nprofile = \"{profile}\"\n")).unwrap();
    }
    cluster.start().unwrap();
    cluster.wait_all_ready(READY_WITHIN).await.unwrap();
    cluster
}

/// One act; how long nothing was acknowledged, and the median latency before it.
async fn round(cluster: &mut LocalCluster, act: Act) -> (Duration, Duration) {
    let leader = leader(cluster).await;
    let at = usize::try_from(leader.0).unwrap() - 1;
    let survivor = (at + 1) % usize::from(NODES);
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(submit(client(cluster, survivor), Arc::clone(&stop)));
    tokio::time::sleep(BEFORE).await;
    let acted = match act {
        Act::Kill => cluster.kill_node(at).unwrap(),
        Act::Stop => {
            let pid = cluster.pid(at).unwrap().to_string();
            let acted = Instant::now();
            assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
            acted
        }
        Act::Transfer => {
            let acted = Instant::now();
            client(cluster, survivor).move_leader(GroupId::SYSTEM, None).await.unwrap();
            acted
        }
    };
    tokio::time::sleep(AFTER).await;
    stop.store(true, Ordering::Relaxed);
    let acks = load.await.unwrap();
    let span = match act {
        Act::Kill => {
            let next = acks.iter().find(|(begun, _acked)| *begun > acted);
            next.expect("it goes on").1 - acted
        }
        Act::Stop | Act::Transfer => {
            let acked = acks
                .iter()
                .map(|(_begun, acked)| *acked)
                .filter(|acked| *acked > acted - BEFORE / 3);
            let acked: Vec<Instant> = acked.collect();
            acked.windows(2).map(|pair| pair[1] - pair[0]).max().expect("it goes on")
        }
    };
    let mut before: Vec<Duration> = acks
        .iter()
        .filter(|(_begun, acked)| *acked < acted)
        .map(|(begun, acked)| *acked - *begun)
        .collect();
    before.sort_unstable();
    if !matches!(act, Act::Transfer) {
        // Told to stop, it has ended by now; this only takes note of it.
        cluster.kill_node(at).ok();
        cluster.start_node(at).unwrap();
    }
    cluster.wait_all_ready(READY_WITHIN).await.unwrap();
    (span, before.get(before.len() / 2).copied().unwrap_or_default())
}

fn client(cluster: &LocalCluster, at: usize) -> Client {
    let url = cluster.urls()[at].clone();
    Client::new(ClientOptions::new([url], Some(cluster.token().to_owned()))).unwrap()
}

async fn leader(cluster: &LocalCluster) -> NodeId {
    let client =
        Client::new(ClientOptions::new(cluster.urls(), Some(cluster.token().to_owned()))).unwrap();
    loop {
        if let Ok(nodes) = client.cluster().await {
            let leaders: Vec<_> = nodes.iter().map(|node| node.groups[0].leader).collect();
            if let Some(Some(first)) = leaders.first()
                && leaders.len() == usize::from(NODES)
                && leaders.iter().all(|leader| *leader == Some(*first))
            {
                return *first;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Submits one task after the other: when each was begun, and when acknowledged.
async fn submit(client: Client, stop: Arc<AtomicBool>) -> Vec<(Instant, Instant)> {
    let mut acks = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        client.submit(TaskSpec::default()).await.unwrap();
        acks.push((begun, Instant::now()));
    }
    acks
}

fn tell(act: Act, spans: &mut [Duration], usual: &mut [Duration]) {
    spans.sort_unstable();
    usual.sort_unstable();
    let at = |spans: &[Duration], percent: usize| {
        let rank = (spans.len() * percent).div_ceil(100).clamp(1, spans.len());
        spans[rank - 1]
    };
    let ms = |span: Duration| format!("{:.1}", span.as_secs_f64() * 1e3);
    let mut text = format!(
        "{:<13} min {}  p50 {}  p99 {}  max {}  (a write before: {})",
        act.name(),
        ms(spans[0]),
        ms(at(spans, 50)),
        ms(at(spans, 99)),
        ms(at(spans, 100)),
        ms(at(usual, 50)),
    );
    for (percent, limit) in act.limits() {
        let kept = at(spans, *percent) <= Duration::from_millis(*limit);
        let verdict = if kept { "kept" } else { "MISSED" };
        text += &format!("; p{percent} <= {limit} ms {verdict}");
    }
    line(&text);
}

#[expect(clippy::print_stdout, reason = "a bench has a person for a reader")]
fn line(text: &str) {
    println!("{text}");
}
