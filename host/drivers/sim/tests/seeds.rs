//! Seeds by the hundred: nothing acknowledged is lost, and planted bugs are found.
//!
//! The tests take turns: each that runs many seeds uses every core there is.

#![expect(clippy::print_stdout, reason = "what a batch came to is the proof that it ran")]

use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_sim::{Budget, Failure, Law, Plan, Summary, run_many, run_seed};
use quorate_types::Faults;

/// Threads of a batch: the cores that a test run is given.
const THREADS: usize = 2;
/// What the main test must reach, whatever the machine.
const SEEDS_MIN: u64 = 1_000;
const SIMULATED_MIN: Duration = Duration::from_secs(20 * 3_600);
const FAULTS_MIN: u64 = 5_000;
/// Having reached it, the main test goes on for as long as this: more seeds are more worth.
const WALL: Duration = Duration::from_secs(200);
/// A machine that has not reached it within this span is too slow to mean anything.
const WALL_MAX: Duration = Duration::from_secs(480);

/// Held by each test, so that they run one after another.
fn turn() -> MutexGuard<'static, ()> {
    static CORES: Mutex<()> = Mutex::new(());
    CORES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Past the test runner, which would keep what a passing test prints to itself.
fn say(text: &str) {
    // Where nobody reads it there is nothing to prove.
    writeln!(std::io::stderr(), "{text}").ok();
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
    say(&format!("{summary}, in {:.0} s of real time", begun.elapsed().as_secs_f64()));
    assert_clean(&summary);
    assert!(
        is_enough(&summary),
        "too slow a machine: {WALL_MAX:?} gave {summary}; {SEEDS_MIN} seeds, {} cluster-hours and \
         {FAULTS_MIN} faults are the least",
        SIMULATED_MIN.as_secs() / 3_600
    );
    assert!(summary.repeated >= summary.seeds / 20, "too few were run twice: {summary}");
    for (name, count) in summary.tally.counts() {
        assert!(count > summary.seeds / 4, "too few {name} to mean anything: {summary}");
    }
}

fn assert_clean(summary: &Summary) {
    summary.failed.iter().for_each(|failure| println!("{failure}"));
    assert!(summary.failed.is_empty(), "{} seeds failed", summary.failed.len());
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

/// The first seed in which a planted bug breaks one of the laws that it must break. Any other
/// complaint is not the bug's; and without the bug that seed, and those before it, are clean.
fn hunt(plan: &Plan, laws: &[Law]) -> Failure {
    let budget = Budget { wall: None, threads: THREADS };
    let is_it = |failure: &&Failure| failure.breaks(laws);
    let found = run_many(1..PLANTED_SEEDS_MAX, plan, budget, |summary| {
        summary.failed.iter().any(|failure| is_it(&failure))
    });
    let found = found.failed.iter().find(is_it).cloned();
    let found =
        found.unwrap_or_else(|| panic!("no seed below {PLANTED_SEEDS_MAX} breaks {laws:?}"));
    say(&format!("{:?} is found:\n{found}", plan.faults));
    let control = Plan { faults: Faults::none(), ..plan.clone() };
    assert_eq!(run_seed(found.seed, &control).complaints, [], "the control at the same seed");
    found
}

#[test]
fn a_vote_acknowledged_before_it_is_durable_is_found() {
    let _turn = turn();
    let faults = Faults { vote_acked_early: true, ..Faults::none() };
    let plan = Plan { faults, ..Plan::default() };
    hunt(&plan, &[Law::DurableVote, Law::ElectionSafety]);
}

#[test]
fn an_append_acknowledged_before_its_sync_is_found() {
    let _turn = turn();
    let faults = Faults { append_acked_early: true, ..Faults::none() };
    let plan = Plan { faults, ..Plan::default() };
    hunt(&plan, &[Law::Durability, Law::LeaderCompleteness]);
}

#[test]
fn a_recovery_that_drops_the_last_entry_is_found() {
    let _turn = turn();
    let faults = Faults { recovery_drops_last: true, ..Faults::none() };
    let plan = Plan { faults, ..Plan::default() };
    hunt(&plan, &[Law::Durability, Law::LeaderCompleteness]);
}

/// At ten a second it does not show. The control goes on for as many seeds again and more.
#[test]
fn a_restored_leader_is_found_at_a_hundred_a_second() {
    let _turn = turn();
    let faults = Faults { leader_restore: true, ..Faults::none() };
    let plan = Plan { faults, rate: Some(100), seconds: 30, ..Plan::default() };
    let found = hunt(&plan, &[Law::LogMatching]);
    let control = Plan { faults: Faults::none(), ..plan };
    let budget = Budget { wall: None, threads: THREADS };
    let clean = run_many(1..found.seed.max(CONTROL_SEEDS_MIN) + 1, &control, budget, |_| false);
    say(&format!("without it: {clean}"));
    assert_clean(&clean);
}

const CONTROL_SEEDS_MIN: u64 = 8;

#[test]
fn a_completion_that_is_forgotten_is_found() {
    let _turn = turn();
    let faults = Faults { completion_dropped: Some(20), ..Faults::none() };
    let plan = Plan { faults, seconds: 10, ..Plan::default() };
    hunt(&plan, &[Law::Conservation, Law::Fencing]);
}

#[test]
fn a_completion_that_happens_twice_is_found() {
    let _turn = turn();
    let faults = Faults { completion_doubled: Some(20), ..Faults::none() };
    let plan = Plan { faults, seconds: 10, ..Plan::default() };
    hunt(&plan, &[Law::Conservation]);
}

#[test]
fn five_nodes_keep_their_promises() {
    let _turn = turn();
    let plan = Plan { nodes: 5, seconds: 30, ..Plan::default() };
    let budget = Budget { wall: None, threads: THREADS };
    let summary = run_many(1..9, &plan, budget, |_| false);
    println!("of five nodes: {summary}");
    assert_clean(&summary);
    assert_eq!(summary.seeds, 8);
}
