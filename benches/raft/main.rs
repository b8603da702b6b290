//! Consensus: from submission to applied, three nodes in one process, on disks in memory
//! and on files that are fsynced, at several numbers of clients.
//!
//! The limit of the latter is the disk: its fsyncs a second are measured in the same run,
//! by one writer and by three at once, since three nodes here share what each would have
//! alone. A submission waits for one fsync of a quorum; that there are more submissions
//! than fsyncs a second is group commit.
//!
//! Not a criterion bench: what counts is the tail over single submissions of many
//! clients at once, which criterion's samples would average away.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed bench")]

mod cluster;
mod mesh;

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_benches::{line, percentile, runs_once};
use quorate_node::FileDisk;
use quorate_storage::MemoryDisk;
use quorate_types::{Disk, DiskFile as _, Open};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use cluster::{Cluster, Extent, Figures};

const NODES: usize = 3;
/// One write of the fsync measurement, bytes: a page, about what a few submissions take.
const PAGE: usize = 4 << 10;
/// Pages over which those writes go round, preallocated as the log's segments are.
const PAGES: u64 = 1 << 10;

/// How much to do.
struct Plan {
    clients: &'static [u32],
    extent: Extent,
    fsync_span: Duration,
}

impl Plan {
    fn new(once: bool) -> Self {
        if once {
            let extent = Extent { ops_max: 64, span: Duration::from_secs(20) };
            return Self { clients: &[1, 8], extent, fsync_span: Duration::from_millis(50) };
        }
        let extent = Extent { ops_max: 80_000, span: Duration::from_secs(5) };
        Self { clients: &[1, 64, 256], extent, fsync_span: Duration::from_secs(2) }
    }
}

/// A folder on the disk that builds are on; the system's own may be in memory.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Fsyncs a second, of one writer while so many write.
async fn fsync_rate(writers: usize, span: Duration) -> f64 {
    let folder = folder();
    let mut running = JoinSet::new();
    for writer in 0..writers {
        let disk = FileDisk::open(&folder.path().join(writer.to_string())).unwrap();
        running.spawn(async move { write_pages(&disk, span).await });
    }
    let rates = running.join_all().await;
    rates.iter().sum::<f64>() / writers as f64
}

async fn write_pages(disk: &FileDisk, span: Duration) -> f64 {
    let file = disk.open("pages", Open::New).await.unwrap();
    file.set_len(PAGES * PAGE as u64).await.unwrap();
    file.sync().await.unwrap();
    let page = Bytes::from(vec![7; PAGE]);
    let begun = Instant::now();
    let mut done = 0_u64;
    while begun.elapsed() < span {
        let offset = (done % PAGES) * PAGE as u64;
        file.write_and_sync(offset, page.clone()).await.unwrap();
        done += 1;
    }
    done as f64 / begun.elapsed().as_secs_f64()
}

fn files(folder: &Path) -> Vec<FileDisk> {
    let open = |node: usize| FileDisk::open(&folder.join(node.to_string())).unwrap();
    (0..NODES).map(open).collect()
}

async fn measure<D: Disk>(disks: Vec<D>, clients: u32, extent: Extent) -> Figures {
    let cluster = Cluster::start(disks).await;
    let figures = cluster.measure(clients, extent).await;
    cluster.stop().await;
    figures
}

fn rate(figures: &Figures) -> f64 {
    figures.latencies.len() as f64 / figures.took.as_secs_f64()
}

/// One line; `limits` are ratios that only files have.
fn tell(disk: &str, clients: u32, figures: &Figures, limits: &str) {
    let at = |per_cent| {
        let latency = percentile(&figures.latencies, per_cent);
        latency.expect("at least one submission").as_secs_f64() * 1e6
    };
    let again = match figures.again {
        0 => String::new(),
        again => format!("  ({again} attempts found no leader)"),
    };
    line(&format!(
        "{disk:<8} {clients:>7} {:>9} {:>11.0} {:>11.0} {:>10.0} {limits}{again}",
        figures.latencies.len(),
        at(50),
        at(99),
        rate(figures),
    ));
}

async fn run(plan: Plan) {
    let alone = fsync_rate(1, plan.fsync_span).await;
    let beside = fsync_rate(NODES, plan.fsync_span).await;
    line(&format!(
        "fsyncs/s of this disk: {alone:.0} by one writer, {beside:.0} by each of {NODES} at once"
    ));
    line(&format!(
        "{:<8} {:>7} {:>9} {:>11} {:>11} {:>10} {:>12} {:>12} {:>10}",
        "disk",
        "clients",
        "applied",
        "p50 us",
        "p99 us",
        "ops/s",
        "/ fsync of 1",
        "/ fsync of 3",
        "/ memory"
    ));
    for clients in plan.clients {
        let memory = (0..NODES).map(|_| MemoryDisk::new()).collect();
        let in_memory = measure(memory, *clients, plan.extent).await;
        tell("memory", *clients, &in_memory, "");
        let folder = folder();
        let on_files = measure(files(folder.path()), *clients, plan.extent).await;
        let ops = rate(&on_files);
        let limits = format!(
            "{:>12.2} {:>12.2} {:>10.3}",
            ops / alone,
            ops / beside,
            ops / rate(&in_memory)
        );
        tell("fsync", *clients, &on_files, &limits);
    }
}

fn main() {
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(Plan::new(runs_once())));
}
