//! Real nodes, real workers and everything that befalls them: each node in a network
//! namespace of its own, clients that write down what they asked and were told, and a
//! schedule of faults drawn from a seed. At the end all is healed, and then what was
//! told must have one order (Herlihy and Wing), nothing that was acknowledged may be
//! missing, no task may have been completed twice, and all nodes must hold one state.
//!
//! As a test it runs for a minute. The long run is
//! `cargo test --release -p quorate-cli --test chaos -- --minutes 10`; besides it takes
//! `--nodes`, `--seed`, `--seconds`, `--clients`, `--workers`, `--tasks`,
//! `--only KIND,KIND`, and `--fault NAME`: nodes with a bug that the simulator knows,
//! which such a run must find as well.

#![expect(clippy::expect_used, reason = "a run that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

mod air;
mod doors;
mod ends;
mod faults;
#[path = "../history/mod.rs"]
mod history;
#[path = "../mounts/mod.rs"]
mod mounts;
mod plan;
mod report;
mod space;
#[path = "../stage/mod.rs"]
mod stage;
mod town;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use history::caller::Caller;
use history::judge::judge;
use history::meter::Meter;
use history::recorder::{Asker, Load, Recorder};
use plan::{Plan, Schedule};
use quorate_client::{Client, ClientOptions};
use quorate_types::history::History;
use quorate_types::rng::Rng;
use report::{Fault, RATE_MIN, WINDOW};
use tokio::time::sleep;
use town::Town;
use work::{Books, WORKER, Workers};

/// Keys at a time, and how long the same ones.
const KEYS: u64 = 64;
const TURN: Duration = Duration::from_secs(3);
/// A client waits so long for an answer, and then asks another node.
const PATIENCE: Duration = Duration::from_secs(1);
/// A node that is told to stop has stopped by then.
const STOP_MAX: Duration = Duration::from_secs(20);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = words.iter().position(|word| word == WORKER) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work::worker(&words[at + 1]));
        return;
    }
    if words.iter().any(|word| word == "--list") {
        return println!("chaos: test");
    }
    // A name that is asked for, as of any test.
    let named = words.first().filter(|word| !word.starts_with('-'));
    if named.is_some_and(|name| !"chaos".contains(name.as_str())) {
        return println!("\ntest result: ok. 0 passed; 0 failed; 0 ignored");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let sound = runtime.expect("a runtime").block_on(run(&Plan::read(&words)));
    let (word, passed) = if sound { ("ok", 1) } else { ("FAILED", 0) };
    println!("\ntest result: {word}. {passed} passed; {} failed; 0 ignored", 1 - passed);
    std::process::exit(i32::from(!sound));
}

/// One run from the laying out to the verdict; whether everything held.
async fn run(plan: &Plan) -> bool {
    println!("chaos: {plan:?}");
    // It stays where something does not hold.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder").keep();
    let founded = Town::found(&dir, plan).await;
    let Some(mut town) = mounts::need("namespaces, TAP devices, mounts and strace", founded) else {
        return true;
    };
    // Longer than the run, with all that comes after its faults.
    let meter = Arc::new(Meter::new(plan.span + Duration::from_secs(600)));
    let books = Books::new(Arc::clone(&meter));
    let recorder = Recorder::new(Arc::clone(&meter));
    let clients = recorder.start(askers(&town, plan.clients).await, load(plan));
    let urls = town.cluster.urls();
    let options = ClientOptions::new(urls.clone(), Some(town.cluster.token().to_owned()));
    let events = Client::new(options).expect("a client").events(None).await.expect("all serve");
    let watching = tokio::spawn(work::watch(events, books.clone()));
    let stop = Arc::<AtomicBool>::default();
    let submitting = tokio::spawn(work::submit(
        town.client.clone(),
        books.clone(),
        plan.tasks,
        Arc::clone(&stop),
    ));
    let mut workers = Workers::start(&urls, town.cluster.token(), books.clone(), plan.workers);

    let faults = torment(&mut town, &mut workers, plan, &meter).await;

    println!("all is healed; what was told is judged");
    let ran = recorder.begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    submitting.await.expect("submitted to the end");
    let mut history = recorder.stop(clients).await;
    let served = meter.total();
    let mut complaints = judge_all(&town, &books, &recorder, &mut history).await;
    drop(workers);
    watching.abort();
    town.cluster.stop(STOP_MAX);
    complaints.extend(ends::directories(&town));
    complaints.extend(ends::panics(&town));
    let tally = report::tally(&faults, &meter, &history, recorder.begun);
    println!("{}", tally.table);
    println!(
        "{} faults counted, of {} kinds; {served} operations in {} s, {:.0} a second",
        tally.counted,
        tally.kinds.values().filter(|counted| **counted > 0).count(),
        ran.as_secs(),
        served as f64 / ran.as_secs_f64()
    );
    complaints.extend(tally.misses(plan.goal));
    complaints.iter().for_each(|complaint| println!("BROKEN: {complaint}"));
    drop(town);
    if complaints.is_empty() {
        std::fs::remove_dir_all(&dir).expect("ours");
    } else {
        println!("what the nodes said lies in {}", dir.display());
    }
    complaints.is_empty()
}

fn load(plan: &Plan) -> Load {
    Load { clients: plan.clients, keys: KEYS, turn: TURN, deletes: true, seed: plan.seed }
}

/// Two of three speak HTTP, the others the native stream.
async fn askers(town: &Town, count: u32) -> Vec<Asker> {
    let (urls, token) = (town.cluster.urls(), town.cluster.token());
    let mut askers = Vec::new();
    for number in 0..usize::try_from(count).expect("few") {
        askers.push(if number % 3 == 2 {
            let mut urls = urls.clone();
            urls.rotate_left(number % town.nodes);
            let mut options = ClientOptions::new(urls, Some(token.to_owned()));
            options.timeout = PATIENCE;
            let client = Client::new(options).expect("a client");
            Asker::Stream(client.connect_stream().await.expect("all nodes serve"))
        } else {
            Asker::Http(Caller::new(&urls, token, number, PATIENCE))
        });
    }
    askers
}

/// Faults until the time is over, each after the cluster is whole and the load is back.
async fn torment(town: &mut Town, workers: &mut Workers, plan: &Plan, meter: &Meter) -> Vec<Fault> {
    let mut rng = Rng::new(plan.seed);
    let mut schedule = Schedule::new(plan.kinds.clone());
    let mut faults = Vec::new();
    // A window before the first.
    sleep(WINDOW).await;
    let begun = Instant::now();
    while begun.elapsed() < plan.span {
        let waits = Instant::now() + plan.recovery_max;
        // A new window for each: its load is the load after the fault before.
        sleep(Duration::from_millis(1_500)).await;
        while meter.rate(Instant::now(), WINDOW) < RATE_MIN && Instant::now() < waits {
            sleep(Duration::from_millis(50)).await;
        }
        let Some(kind) = schedule.next(&mut rng) else { break };
        let (rate, asked) = (meter.rate(Instant::now(), WINDOW), Instant::now());
        let at = faults::befall(town, workers, kind, &mut rng).await;
        let took = asked.elapsed();
        if let Err(why) = town.whole().await {
            let place = town.cluster.dir().display();
            panic!("after {} ({at:?}) it does not come back: {why}; {place}", kind.name());
        }
        let meanwhile = meter.rate(asked + took, took.max(Duration::from_millis(500)));
        println!(
            "{:>6.1} s  {:<26} after {rate:>5.0} op/s, then {meanwhile:>5.0}; it took {:>5} ms, \
             whole after {:>5} ms{}",
            (asked - begun).as_secs_f64(),
            kind.name(),
            took.as_millis(),
            asked.elapsed().as_millis(),
            at.as_ref().err().map_or_else(String::new, |why| format!("; not done: {why}"))
        );
        faults.push(Fault { kind, at });
    }
    faults
}

/// All that must hold at the end while nodes serve; what does not.
async fn judge_all(
    town: &Town,
    books: &Books,
    recorder: &Recorder,
    history: &mut History,
) -> Vec<String> {
    let mut complaints = Vec::new();
    ends::read_all(town, recorder.begun, history).await;
    let since = Instant::now();
    let keys = judge(history);
    println!(
        "keys: {} operations on {} keys, {} writes acknowledged, {} unknown; judged in {} ms: \
         {} keys refuted, {} given up",
        keys.operations,
        keys.keys,
        keys.acknowledged,
        keys.unknown,
        since.elapsed().as_millis(),
        keys.refuted.len(),
        keys.given_up.len()
    );
    complaints.extend(keys.refuted);
    complaints.extend(keys.given_up.into_iter().map(|key| format!("{key} could not be judged")));
    match ends::tasks(town, books).await {
        Ok(tasks) => {
            println!(
                "tasks: {} acknowledged, {} completions acknowledged; {} lost, {} completed twice",
                tasks.acknowledged,
                tasks.completions,
                tasks.lost.len(),
                tasks.twice.len()
            );
            complaints.extend(tasks.lost);
            complaints.extend(tasks.twice);
            complaints.extend(tasks.untold);
        }
        Err(why) => complaints.push(why),
    }
    match ends::one_state(town).await {
        Ok((index, digest)) => println!("states: all nodes hold {digest} at {index}"),
        Err(why) => complaints.push(why),
    }
    complaints
}
