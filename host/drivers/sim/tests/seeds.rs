//! Seeds by the hundred: nothing acknowledged is lost, and planted bugs are found.
//!
//! The tests take turns: each that runs many seeds uses every core there is.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_sim::{Budget, Plan, Summary, run_many, run_seed};
use quorate_types::Faults;

/// Threads of a batch: the cores that a test run is given.
const THREADS: usize = 2;
/// What the main test must reach, whatever the machine.
const SEEDS_MIN: u64 = 1_000;
const SIMULATED_MIN: Duration = Duration::from_secs(20 * 3_600);
const FAULTS_MIN: u64 = 5_000;
/// Having reached it, the main test goes on for as long as this: more seeds are more worth.
const WALL: Duration = Duration::from_secs(210);
/// A machine that has not reached it within this span is too slow to mean anything.
const WALL_MAX: Duration = Duration::from_secs(480);

/// Held by each test, so that they run one after another.
fn turn() -> MutexGuard<'static, ()> {
    static CORES: Mutex<()> = Mutex::new(());
    CORES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_enough(summary: &Summary) -> bool {
    summary.seeds >= SEEDS_MIN && summary.simulated >= SIMULATED_MIN && summary.faults >= FAULTS_MIN
}

#[test]
fn no_seed_breaks_a_promise() {
    let _turn = turn();
    let begun = Instant::now();
    let budget = Budget { wall: Some(WALL_MAX), threads: THREADS };
    let summary = run_many(1..u64::MAX, &Plan::default(), budget, |summary| {
        !summary.failed.is_empty() || is_enough(summary) && begun.elapsed() >= WALL
    });
    println!("{summary}, in {:.0} s of real time", begun.elapsed().as_secs_f64());
    for (seed, complaints) in &summary.failed {
        println!("quorate sim replay {seed}\n{complaints:#?}");
    }
    assert!(summary.failed.is_empty(), "{} seeds failed", summary.failed.len());
    assert!(
        is_enough(&summary),
        "too slow a machine: {WALL_MAX:?} gave {summary}; {SEEDS_MIN} seeds, {} cluster-hours and \
         {FAULTS_MIN} faults are the least",
        SIMULATED_MIN.as_secs() / 3_600
    );
    assert!(summary.repeated >= summary.seeds / 20, "too few were run twice: {summary}");
    assert!(summary.acks > summary.seeds, "nobody was served: {summary}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let _turn = turn();
    let plan = Plan { seconds: 20, ..Plan::default() };
    let [first, second] = [(); 2].map(|()| run_seed(7, &plan));
    assert_eq!(first, second);
    assert_ne!(first.hash, run_seed(8, &plan).hash, "another seed is another run");
}

/// Seeds until one shows the planted bug; more than these would mean that it is not found.
const PLANTED_SEEDS_MAX: u64 = 400;

/// The first seed that shows the bug, and what its judges said.
fn hunt(faults: Faults, rate: Option<u64>) -> Option<(u64, Vec<String>)> {
    let _turn = turn();
    let plan = Plan { faults, rate, ..Plan::default() };
    let budget = Budget { wall: None, threads: 1 };
    let found = |summary: &Summary| !summary.failed.is_empty();
    run_many(1..PLANTED_SEEDS_MAX, &plan, budget, found).failed.into_iter().next()
}

#[test]
fn a_vote_acknowledged_before_it_is_durable_is_found() {
    let found = hunt(Faults { vote_acked_early: true, ..Faults::none() }, None);
    println!("early vote: {found:?}");
    assert!(found.is_some(), "no seed below {PLANTED_SEEDS_MAX} shows it");
}

#[test]
fn an_append_acknowledged_before_its_sync_is_found() {
    let found = hunt(Faults { append_acked_early: true, ..Faults::none() }, None);
    println!("early append: {found:?}");
    assert!(found.is_some(), "no seed below {PLANTED_SEEDS_MAX} shows it");
}

#[test]
fn a_recovery_that_drops_the_last_entry_is_found() {
    let found = hunt(Faults { recovery_drops_last: true, ..Faults::none() }, None);
    println!("lossy recovery: {found:?}");
    assert!(found.is_some(), "no seed below {PLANTED_SEEDS_MAX} shows it");
}

#[test]
fn a_restored_leader_is_found_at_a_hundred_a_second() {
    let found = hunt(Faults { leader_restore: true, ..Faults::none() }, Some(100));
    println!("restored leader: {found:?}");
    assert!(found.is_some(), "no seed below {PLANTED_SEEDS_MAX} shows it");
}
