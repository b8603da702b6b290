//! `quorate demo`: a real job on a real cluster, checked at its end.
//!
//! Node processes on loopback index real files as durable tasks; meanwhile calls
//! run all the time, the leader is killed and comes back, and the policy is swapped.
//! Then a thousand queries are compared with a scan that shares no code with the
//! index, and the index with a reference made in this process.

mod callers;
mod chaos;
mod corpus;
mod feed;
mod oracle;
mod record;
mod stage;
mod stages;
mod summary;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use code_index_format::Shard;
use quorate_client::{Client, ClientOptions};
use quorate_types::door::Consistency;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use self::callers::Questions;
use self::chaos::Done;
use self::corpus::Corpus;
use self::stage::{STALLED_AFTER, Stage};
use self::summary::Summary;
use crate::exit::{Exit, ended};
use crate::launch::Launch;
use crate::local::{Layout, LocalAgent, LocalCluster};
use crate::output::Output;
use crate::run_args::{Chaos, DemoArgs};
use crate::signals::Signals;

/// Queries at the end.
const QUERIES: usize = 1_000;
/// Shards of the index.
const SHARDS: u32 = 8;
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// One request of the demo's client, the failover included.
const ASK_WITHIN: Duration = Duration::from_secs(30);
/// Agents of each kind on a node, and their slots.
const AGENTS: u32 = 2;
const SLOTS: u32 = 8;

/// Runs it to its end, with a runtime of its own.
pub(crate) fn run(args: &DemoArgs, launch: &Launch, output: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let summary = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        // What is dropped here ends its processes and removes its directory.
        tokio::select! {
            summary = play(args, launch, output) => summary,
            word = signals.next() => Err(ended(Exit::Failed, word, "")),
        }
    })?;
    output.one(&summary, Summary::table)?;
    if summary.is_clean() {
        return Ok(());
    }
    Err(ended(Exit::Failed, "the demo found what must not be: see the summary", ""))
}

async fn play(args: &DemoArgs, launch: &Launch, output: Output) -> anyhow::Result<Summary> {
    let corpus = Corpus::read(args.corpus.as_deref(), args.seed)?;
    output.line(&format!(
        "{} files, {} MB, from {}",
        corpus.files.len(),
        corpus.bytes() / 1_000_000,
        corpus.root.display()
    ))?;
    let layout = Layout {
        nodes: args.nodes,
        shards: args.shards,
        dir: None,
        first_api_port: None,
        agents: (1..=args.nodes).map(agents).collect(),
    };
    let mut cluster = LocalCluster::lay_out(&layout, launch.clone())?;
    cluster.start()?;
    cluster.wait_all_ready(READY_WITHIN).await?;
    let mut options = ClientOptions::new(cluster.urls(), Some(cluster.token().to_owned()));
    options.timeout = ASK_WITHIN;
    let stage = Stage::new(Client::new(options)?);
    wait_for_agents(&stage, usize::from(args.nodes) * 2 * usize::try_from(AGENTS)?).await?;
    output.line(&format!("{} nodes are up, data in {}", args.nodes, cluster.dir().display()))?;

    let cluster = Arc::new(Mutex::new(cluster));
    let summary = act(args, &stage, &cluster, &corpus).await;
    cluster.lock().await.stop(STOP_WITHIN);
    summary
}

fn agents(node: u8) -> Vec<LocalAgent> {
    let kinds = ["code-indexer", "code-searcher"];
    let one = |(kind, number): (&str, u32)| LocalAgent {
        name: format!("{kind}-{node}-{number}"),
        plugin: kind.to_owned(),
        slots: SLOTS,
    };
    kinds.iter().flat_map(|kind| (1..=AGENTS).map(move |number| (*kind, number))).map(one).collect()
}

async fn wait_for_agents(stage: &Stage, wanted: usize) -> anyhow::Result<()> {
    let registered = async {
        loop {
            let agents = stage.client.agents(&[], Consistency::Linearizable).await?;
            if agents.len() >= wanted {
                let mut record = stage.record();
                agents.iter().for_each(|agent| record.lives(agent.id, agent.spec.node));
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(READY_WITHIN, registered).await.context("agents did not register")?
}

async fn act(
    args: &DemoArgs,
    stage: &Arc<Stage>,
    cluster: &Arc<Mutex<LocalCluster>>,
    corpus: &Corpus,
) -> anyhow::Result<Summary> {
    let begun = Instant::now();
    let total = corpus.files.len();
    let shown = tokio::spawn(view::show(Arc::clone(stage), total, args.headless));
    // Connected before anything is submitted, so that nothing is missed.
    let events = stage.client.events(None).await?;
    let listening = tokio::spawn(Arc::clone(stage).listen(events));
    stage.note(chaos::apply(stage, "round-robin").await?);
    // The last file is not fed: its submission measures the failover.
    let mut files = corpus.files.clone();
    let last = (u32::try_from(total - 1)?, files.pop().unwrap_or_default());
    let feeding = tokio::spawn(feed::feed(Arc::clone(stage), files));
    let directing = match args.chaos {
        Chaos::Kill => {
            tokio::spawn(chaos::direct(Arc::clone(stage), Arc::clone(cluster), total, last))
        }
    };
    let warm = Arc::new(callers::warm(stage, &corpus.files, args.seed).await?);
    let stop = Arc::new(AtomicBool::new(false));
    let calling = tokio::spawn(callers::keep_calling(Arc::clone(stage), warm, Arc::clone(&stop)));

    let (directed, ()) = tokio::try_join!(ended_well(directing), ended_well(feeding))?;
    wait_done(stage, &listening).await?;
    let worked = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    calling.await??;
    listening.abort();

    stage.note("comparing");
    let outcome = compare(args, stage, corpus).await?;
    shown.abort();
    Ok(summarise(args, stage, corpus, directed, &outcome, [worked, begun.elapsed()]))
}

async fn ended_well<T>(task: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    task.await?
}

/// Waits until every acknowledged task has ended, or nothing ends any more.
async fn wait_done(
    stage: &Stage,
    listening: &JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut completions = stage.completions();
    loop {
        let open = stage.record().open();
        if open.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(!listening.is_finished(), "the event stream ended before the work did");
        completions.borrow_and_update();
        if tokio::time::timeout(STALLED_AFTER, completions.changed()).await.is_err() {
            stage.explain(&open).await;
            return Ok(());
        }
    }
}

/// What the comparison found.
struct Outcome {
    lost: u64,
    applied_twice: u64,
    index_differs: bool,
}

async fn compare(args: &DemoArgs, stage: &Arc<Stage>, corpus: &Corpus) -> anyhow::Result<Outcome> {
    let results = stage.record().results();
    let postings = stage.postings(results).await?;
    let (indexed, applied_twice) = record::indexed(&postings)?;
    let lost = stage.record().lost(&indexed);
    let (digests, shards) = stage.store_index(&postings, SHARDS).await?;
    let files = corpus.files.clone();
    let seed = args.seed;
    let (reference, words, expected) = tokio::task::spawn_blocking(move || {
        let reference = oracle::index(&files);
        let words = oracle::queries(&reference, QUERIES, seed);
        let expected = oracle::scan(&files, &words);
        expected.map(|expected| (reference, words, expected))
    })
    .await??;
    let made = unpack(&shards)?;
    let index_differs = oracle::digest(&made) != oracle::digest(&reference);
    let questions = Arc::new(Questions { shards: digests, words, expected });
    callers::ask_all(Arc::clone(stage), questions).await?;
    Ok(Outcome { lost, applied_twice, index_differs })
}

fn unpack(shards: &[Bytes]) -> anyhow::Result<oracle::Index> {
    let mut index = oracle::Index::new();
    for bytes in shards {
        let shard = Shard::open(bytes)?;
        for place in 0..shard.words() {
            let (word, hits) = shard.entry(place)?;
            let found = hits.iter().map(|hit| (hit.file, hit.count)).collect();
            index.insert(word.to_vec(), found);
        }
    }
    Ok(index)
}

fn summarise(
    args: &DemoArgs,
    stage: &Stage,
    corpus: &Corpus,
    done: Done,
    outcome: &Outcome,
    [worked, wall]: [Duration; 2],
) -> Summary {
    let record = stage.record();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let wrong = read(&stage.tally.wrong);
    Summary {
        submitted: count(record.submitted()),
        completed: count(record.completed()),
        lost: outcome.lost,
        applied_twice: outcome.applied_twice,
        requeued: record.requeued,
        calls: read(&stage.tally.calls),
        failed_calls: read(&stage.tally.failed),
        queries_compared: read(&stage.tally.compared),
        mismatches: wrong + u64::from(outcome.index_differs) + record.stale_decisions,
        decisions_per_policy_version: record.decisions_by_name(),
        failover_time: record.failover.map(|span| span.as_secs_f64()),
        wall_time: wall.as_secs_f64(),
        tasks_per_second: f64::from(u32::try_from(record.completed()).unwrap_or(u32::MAX))
            / worked.as_secs_f64(),
        stages: record.stages.shares(),
        leader_kills: done.leader_kills,
        leases_at_kill: done.leases_at_kill,
        calls_at_kill: done.calls_at_kill,
        policy_swaps: done.policy_swaps,
        calls_at_swap: done.calls_at_swap,
        files: count(corpus.files.len()),
        bytes: count(corpus.bytes()),
        nodes: u64::from(args.nodes),
        seed: args.seed,
    }
}
