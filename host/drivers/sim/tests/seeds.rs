//! Seeds by the hundred: nothing acknowledged is lost, and planted bugs are found.

use std::time::Duration;

use quorate_sim::{Budget, Plan, Summary, run_many, run_seed};
use quorate_types::Faults;

/// What the machine gives this test.
const WALL: Duration = Duration::from_secs(60);
const BUDGET: Budget = Budget { wall: Some(WALL), threads: 2 };

#[test]
fn no_seed_breaks_a_promise() {
    let summary =
        run_many(1..u64::MAX, &Plan::default(), BUDGET, |summary| !summary.failed.is_empty());
    println!("{summary}");
    for (seed, complaints) in &summary.failed {
        println!("quorate sim replay {seed}\n{complaints:#?}");
    }
    assert!(summary.failed.is_empty(), "{} seeds failed", summary.failed.len());
    assert!(summary.seeds > 20, "too slow to mean anything: {summary}");
    assert!(summary.faults > summary.seeds, "nothing ever happened: {summary}");
    assert!(summary.acks > summary.seeds, "nobody was served: {summary}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let plan = Plan { seconds: 20, ..Plan::default() };
    let [first, second] = [(); 2].map(|()| run_seed(7, &plan));
    assert_eq!(first, second);
    assert_ne!(first.hash, run_seed(8, &plan).hash, "another seed is another run");
}

/// Seeds until one shows the planted bug; more than these would mean that it is not found.
const PLANTED_SEEDS_MAX: u64 = 400;

/// The first seed that shows the bug, and what its judges said.
fn hunt(faults: Faults, rate: Option<u64>) -> Option<(u64, Vec<String>)> {
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
