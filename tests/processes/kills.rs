//! `kill -9`, ten times over. Acknowledgements are recorded outside the cluster, by
//! an HTTP client that submits and an HTTP worker that completes; afterwards each
//! acknowledged task must have been completed, and by one lease alone.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate_cli::Launch;
use quorate_cli::local::{Layout, LocalCluster};
use quorate_client::{Client, ClientOptions};
use quorate_types::door::{Consistency, TaskFilter};
use quorate_types::http::Register;
use quorate_types::rng::Rng;
use quorate_types::{NodeId, Payload, TaskId, TaskSpec, TaskState, Token};

const KILLS: usize = 10;
const LEADER_KILLS_MIN: usize = 3;
const IN_FLIGHT: usize = 50;
const WITHIN: Duration = Duration::from_secs(60);

/// What the outside knows.
#[derive(Default)]
struct Record {
    acked: BTreeSet<TaskId>,
    /// Completions that the cluster acknowledged, by task.
    completed: BTreeMap<TaskId, Vec<Token>>,
}

type Shared = Arc<Mutex<Record>>;

fn record(shared: &Shared) -> std::sync::MutexGuard<'_, Record> {
    shared.lock().expect("no test thread panics with it")
}

fn client(cluster: &LocalCluster) -> Client {
    let mut options = ClientOptions::new(cluster.urls(), Some(cluster.token().to_owned()));
    options.timeout = Duration::from_secs(30);
    Client::new(options).expect("a client")
}

/// Submits, keeping somewhat more in flight than a kill needs.
async fn submit(client: Client, shared: Shared, stop: Arc<AtomicBool>) {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let open = {
            let record = record(&shared);
            record.acked.len() - record.completed.len().min(record.acked.len())
        };
        if open > 2 * IN_FLIGHT {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        }
        let batch: Vec<TaskSpec> = (0..8).map(|at| spec(number + at)).collect();
        number += 8;
        let answers = client.submit_many(batch).await.expect("some node serves within 30 s");
        let mut record = record(&shared);
        for answer in answers {
            record.acked.insert(answer.expect("nothing is wrong with the task").id);
        }
    }
}

fn spec(number: u64) -> TaskSpec {
    TaskSpec {
        capabilities: vec!["echo".to_owned()],
        input: Payload::Inline(number.to_string().into()),
        idempotency_key: Some(format!("task-{number}")),
        ..TaskSpec::default()
    }
}

/// An outside worker; registers again when the node it spoke through has died.
async fn work(client: Client, shared: Shared, stop: Arc<AtomicBool>) {
    let agent = Register {
        namespace: "default".to_owned(),
        name: "worker".to_owned(),
        capabilities: vec!["echo".to_owned()],
        slots: 32,
    };
    while !stop.load(Ordering::Relaxed) {
        let Ok(registered) = client.register(&agent).await else { continue };
        while !stop.load(Ordering::Relaxed) {
            let wait = Duration::from_millis(500);
            let taken = client.take(registered.id, registered.incarnation, &[], 16, wait).await;
            // Fenced, or nobody to ask: a new life.
            let Ok(leases) = taken else { break };
            for grant in leases {
                let (task, token) = (grant.lease.task, grant.lease.token);
                if client.complete(task, token, grant.spec.input).await.is_ok() {
                    record(&shared).completed.entry(task).or_default().push(token);
                }
            }
        }
    }
}

async fn leader(client: &Client) -> Option<NodeId> {
    let nodes = client.cluster().await.ok()?;
    let leaders: Vec<NodeId> =
        nodes.iter().filter_map(|view| view.groups.first()?.leader).collect();
    let first = *leaders.first()?;
    (leaders.len() >= 2 && leaders.iter().all(|leader| *leader == first)).then_some(first)
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come within {WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn in_flight(shared: &Shared) -> usize {
    let record = record(shared);
    record.acked.iter().filter(|task| !record.completed.contains_key(task)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_lose_nothing_and_complete_nothing_twice() {
    let agents = Vec::new();
    let layout = Layout { nodes: 3, shards: 1, dir: None, first_api_port: None, agents };
    let launch = Launch::of(env!("CARGO_BIN_EXE_quorate"));
    let mut cluster = LocalCluster::lay_out(&layout, launch).expect("laid out");
    cluster.start().expect("started");
    cluster.wait_all_ready(WITHIN).await.expect("ready");
    let client = client(&cluster);
    let shared = Shared::default();
    let (stop_submitting, stop_working) =
        (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let submitting =
        tokio::spawn(submit(client.clone(), Arc::clone(&shared), Arc::clone(&stop_submitting)));
    let working =
        tokio::spawn(work(client.clone(), Arc::clone(&shared), Arc::clone(&stop_working)));

    let mut rng = Rng::new(1);
    let mut leaders = 0;
    for kill in 0..KILLS {
        let leads = until("a leader that all agree on", async || leader(&client).await).await;
        let leader_at = usize::try_from(leads.0 - 1).expect("few nodes");
        // The last kills are the leader's as long as too few were.
        let must = KILLS - kill <= LEADER_KILLS_MIN.saturating_sub(leaders);
        let drawn = usize::try_from(rng.below(3)).expect("few nodes");
        let victim = if must { leader_at } else { drawn };
        leaders += usize::from(victim == leader_at);
        until("enough tasks in flight", async || (in_flight(&shared) >= IN_FLIGHT).then_some(()))
            .await;
        cluster.kill_node(victim).expect("it ran");
        cluster.start_node(victim).expect("it starts again");
        cluster.wait_ready(victim, WITHIN).await.expect("it comes back");
    }
    assert!(leaders >= LEADER_KILLS_MIN);

    stop_submitting.store(true, Ordering::Relaxed);
    submitting.await.expect("submitted to the end");
    let acked = record(&shared).acked.clone();
    // A completion whose acknowledgement died with its node is in the log all the same.
    until("the end of every acknowledged task", async || {
        let filter = TaskFilter {
            namespace: "default".to_owned(),
            state: Some(TaskState::Completed),
            limit: 1,
            ..TaskFilter::default()
        };
        let page = client.tasks(&filter, Consistency::Linearizable).await.ok()?;
        let completed = page.counts.get(&TaskState::Completed).copied().unwrap_or(0);
        (completed >= u64::try_from(acked.len()).ok()?).then_some(())
    })
    .await;
    stop_working.store(true, Ordering::Relaxed);
    working.await.expect("worked to the end");

    let mut lost = Vec::new();
    for task in &acked {
        match client.task(*task, Consistency::Linearizable).await {
            Ok(read) if read.task.state == TaskState::Completed => {}
            Ok(read) => lost.push(format!("{task} is {}", read.task.state)),
            Err(error) => lost.push(format!("{task}: {error}")),
        }
    }
    assert!(lost.is_empty(), "acknowledged and not completed: {lost:?}");
    let record = record(&shared);
    let twice: Vec<_> = record
        .completed
        .iter()
        .filter(|(_task, tokens)| tokens.iter().collect::<BTreeSet<_>>().len() > 1)
        .collect();
    assert!(twice.is_empty(), "completed under two leases: {twice:?}");
    println!("{} tasks, {KILLS} kills, {leaders} of them of the leader", acked.len());
}
