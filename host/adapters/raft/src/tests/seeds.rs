//! Random weather and random faults under many seeds: loss, delay, power
//! losses, cuts in one direction or both, while a client submits.

use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant};
use openraft_rt_sim::{SimInstant, SimRuntime};
use quorate_types::rng::Rng;
use quorate_types::{Digest, Gone, Index, NodeId};

use super::cluster::{Cluster, Settings, task_of};
use super::mesh::Weather;
use crate::settings::Compaction;

const SEEDS: u64 = 30;
const FAULTS: usize = 20;
/// A sync takes up to so long: several appends fall into one.
const SYNC_MS: u64 = 6;
const FOUL: Weather = Weather { loss_ppm: 10_000, delay_us: (500, 3_000) };

/// How a run ended: equal for equal seeds.
#[derive(Debug, PartialEq, Eq)]
struct End {
    at: Duration,
    applied: Index,
    digest: Digest,
    acked: usize,
}

#[test]
fn nothing_acknowledged_is_lost_under_any_seed() {
    let mut acked = 0;
    for seed in 1..=SEEDS {
        let end = run(&mut SimRuntime::with_seed(seed), seed);
        println!("seed {seed}: {end:?}");
        acked += end.acked;
    }
    // One seed may leave hardly a quorum; all of them together do not.
    assert!(acked > 1_000, "the client got through {acked} times");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 11, 21] {
        let [first, second] = [(); 2].map(|()| {
            let mut runtime = SimRuntime::with_seed(seed);
            runtime.record_trace(true);
            (run(&mut runtime, seed), runtime.take_trace())
        });
        assert_eq!(first.0, second.0, "seed {seed}");
        assert!(first.1 == second.1, "seed {seed}: other polls, timers or draws");
    }
}

fn run(runtime: &mut SimRuntime, seed: u64) -> End {
    runtime.block_on(async move {
        let mut rng = Rng::new(seed);
        let voters = if seed.is_multiple_of(3) { 5 } else { 3 };
        let compaction = Compaction { entries_per_snapshot: 40, entries_kept: 10 };
        let settings = Settings { compaction, ..Settings::default() };
        let mut cluster = Cluster::<SimRuntime>::start(voters, seed, settings).await;
        cluster.weather(FOUL);
        for id in cluster.ids() {
            cluster.disk(id).slow_down(Duration::from_millis(SYNC_MS));
        }
        for _ in 0..FAULTS {
            let until = SimInstant::now() + Duration::from_millis(rng.below(400));
            while SimInstant::now() < until {
                try_submit(&mut cluster, &mut rng).await;
            }
            fault(&mut cluster, &mut rng, voters).await;
        }
        cluster.weather(Weather::FAIR).heal();
        for id in cluster.ids() {
            if !cluster.live().contains(&id) {
                cluster.boot(id).await;
            }
        }
        cluster.submit(1).await;
        cluster.settle().await;
        let at = SimInstant::now().elapsed_since_start();
        let applied = cluster.applied(NodeId(1));
        let digest = cluster.handle(NodeId(1)).view().digest();
        End { at, applied, digest, acked: cluster.acked.len() }
    })
}

/// One proposal at a random node that may not lead; a lost one is not repeated.
async fn try_submit(cluster: &mut Cluster<SimRuntime>, rng: &mut Rng) {
    SimRuntime::sleep(Duration::from_micros(500 + rng.below(5_000))).await;
    let live = cluster.live();
    let Some(at) = pick(&live, rng) else { return };
    let command = cluster.submission();
    let raft = cluster.handle(at);
    let patience = Duration::from_millis(200);
    if let Ok(Ok((_index, outcome))) = SimRuntime::timeout(patience, raft.propose(command)).await {
        cluster.acked.push(task_of(&outcome));
    }
}

async fn fault(cluster: &mut Cluster<SimRuntime>, rng: &mut Rng, voters: u64) {
    let live = cluster.live();
    let dead: Vec<NodeId> = cluster.ids().into_iter().filter(|id| !live.contains(id)).collect();
    let minority = usize::try_from((voters - 1) / 2).unwrap();
    match rng.below(6) {
        0 | 1 if dead.len() < minority => {
            let how = [None, Some(Gone::Refused), Some(Gone::Timeout), Some(Gone::Closed)];
            let gone = how[usize::try_from(rng.below(4)).unwrap()];
            if let Some(victim) = pick(&live, rng) {
                cluster.kill(victim, gone);
            }
        }
        2 => {
            if let Some(id) = pick(&dead, rng) {
                cluster.boot(id).await;
            }
        }
        3 => {
            if let Some(id) = pick(&live, rng) {
                cluster.isolate(id);
            }
        }
        4 => {
            if let Some(id) = pick(&live, rng) {
                cluster.deafen(id);
            }
        }
        _ => cluster.heal(),
    }
}

fn pick(ids: &[NodeId], rng: &mut Rng) -> Option<NodeId> {
    if ids.is_empty() {
        return None;
    }
    let below = rng.below(u64::try_from(ids.len()).unwrap());
    ids.get(usize::try_from(below).unwrap()).copied()
}
