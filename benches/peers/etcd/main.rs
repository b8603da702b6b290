//! Puts to three etcd processes on loopback, every write fsynced, 256 B values,
//! clients in a closed loop: the same load as `benches/kv`, so that one run of both
//! gives a ratio. `--endpoint` measures a cluster that runs already.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, Txn, TxnOp};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

const VALUE_BYTES: usize = 256;
const KEYS: u64 = 10_000;
/// Clients that share one connection, as those of `benches/kv` do.
const CLIENTS_PER_CONNECTION: usize = 64;
const PORTS: [(u16, u16); 3] = [(23790, 23800), (23791, 23801), (23792, 23802)];

fn start(folder: &str) -> Vec<Child> {
    let cluster: Vec<String> = (0..PORTS.len())
        .map(|at| format!("n{at}=http://127.0.0.1:{}", PORTS[at].1))
        .collect();
    let one = |at: usize| {
        let (client, peer) = PORTS[at];
        let (client, peer) =
            (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        Command::new("etcd")
            .args(["--name", &format!("n{at}"), "--data-dir", &format!("{folder}/n{at}")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("etcd is installed")
    };
    (0..PORTS.len()).map(one).collect()
}

/// The endpoint of the member that leads.
async fn leader(endpoints: &[String]) -> String {
    for endpoint in endpoints {
        let mut client = Client::connect([endpoint], None).await.expect("connected");
        let status = client.status().await.expect("answered");
        if status.leader() == status.header().expect("a header").member_id() {
            return endpoint.clone();
        }
    }
    endpoints[0].clone()
}

async fn ready(endpoints: &[String]) {
    for endpoint in endpoints {
        loop {
            if let Ok(mut client) = Client::connect([endpoint], None).await
                && client.get("ready", None).await.is_ok()
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn measure(endpoint: &str, clients: usize, batch: usize, span: Duration) -> Vec<Duration> {
    let next = Arc::new(AtomicU64::new(0));
    let mut connections = Vec::new();
    for _connection in 0..clients.div_ceil(CLIENTS_PER_CONNECTION) {
        connections.push(Client::connect([endpoint], None).await.expect("connected"));
    }
    let until = Instant::now() + span;
    let mut running = JoinSet::new();
    for nth in 0..clients {
        let mut client = connections[nth % connections.len()].kv_client();
        let next = Arc::clone(&next);
        running.spawn(async move {
            let value = vec![b'v'; VALUE_BYTES];
            let key = || format!("bench/{:08}", next.fetch_add(1, Ordering::Relaxed) % KEYS);
            let mut latencies = Vec::new();
            while Instant::now() < until {
                let begun = Instant::now();
                if batch == 1 {
                    client.put(key(), value.clone(), None).await.expect("put");
                } else {
                    let ops: Vec<_> =
                        (0..batch).map(|_| TxnOp::put(key(), value.clone(), None)).collect();
                    client.txn(Txn::new().and_then(ops)).await.expect("put");
                }
                latencies.push(begun.elapsed());
            }
            latencies
        });
    }
    let mut latencies = Vec::new();
    while let Some(one) = running.join_next().await {
        latencies.extend(one.expect("no panic"));
    }
    latencies.sort_unstable();
    latencies
}

fn value_of(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|one| one != name);
    arguments.nth(1)
}

#[tokio::main]
async fn main() {
    let seconds = value_of("--seconds").map_or(5, |text| text.parse().expect("a number"));
    let span = Duration::from_secs(seconds);
    let clients = value_of("--clients").unwrap_or_else(|| "1,16,64,256,1024".to_owned());
    let folder = value_of("--folder").expect("--folder DIR, on the disk to measure");
    let _members = start(&folder);
    let endpoints: Vec<String> =
        PORTS.iter().map(|(client, _)| format!("http://127.0.0.1:{client}")).collect();
    ready(&endpoints).await;
    let endpoint = leader(&endpoints).await;
    println!(
        "{:<8} {:>7} {:>9} {:>10} {:>10} {:>10}",
        "way", "clients", "puts", "puts/s", "p50 ms", "p99 ms"
    );
    for (way, batch) in [("etcd", 1), ("etcd-txn", 64)] {
        for clients in clients.split(',').map(|text| text.parse().expect("a number")) {
            let begun = Instant::now();
            let latencies = measure(&endpoint, clients, batch, span).await;
            let rate = (latencies.len() * batch) as f64 / begun.elapsed().as_secs_f64();
            let at = |per_cent: usize| {
                latencies[(latencies.len() - 1) * per_cent / 100].as_secs_f64() * 1e3
            };
            println!(
                "{way:<8} {clients:>7} {:>9} {rate:>10.0} {:>10.2} {:>10.2}",
                latencies.len() * batch,
                at(50),
                at(99)
            );
        }
    }
}
