//! Seeds by the hundred: nothing acknowledged is lost, and planted bugs are found.
//!
//! The tests take turns: each that runs many seeds uses every core there is.

#![expect(clippy::print_stdout, reason = "what a batch came to is the proof that it ran")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_sim::{
    BUGS, Budget, Bug, LEADERLESS_MAX, Plan, Profile, Scene, Seen, Summary, Trap, UNJUDGED,
    play_trap, run_many, run_seed, shrink,
};

/// Threads of a batch: the cores that a test run is given.
const THREADS: usize = 2;
/// What the main test must reach, whatever the machine; having reached it, it ends.
const SEEDS_MIN: u64 = 1_000;
const SIMULATED_MIN: Duration = Duration::from_secs(50 * 3_600);
const FAULTS_MIN: u64 = 15_000;
/// A machine that has not reached it within this span is too slow to mean anything.
const WALL_MAX: Duration = Duration::from_secs(900);

const PROFILES: [Profile; 2] = [Profile::Default, Profile::Lan];

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
        !summary.failed.is_empty() || is_enough(summary)
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
    assert!(summary.tally.unjudged <= summary.seeds / 100, "too much unjudged: {summary}");
    for (name, count) in summary.tally.counts() {
        assert!(
            name == UNJUDGED || count > summary.seeds / 4,
            "too few {name} to mean anything: {summary}"
        );
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

/// What to do where a bug is not seen at its seed.
const AGAIN: &str = "what a seed does has moved: `quorate sim planted --record` records them anew";

/// That a bug shows at its recorded seed, and that the same seed without it is clean.
fn see(bug: &Bug) -> Result<String, String> {
    let Some(seed) = bug.seed() else { return Err(format!("{} is not recorded", bug.name)) };
    let complaints = run_seed(seed, &bug.plan()).complaints;
    let Some(broken) = complaints.iter().find(|found| bug.laws.contains(&found.law)) else {
        return Err(format!("{} breaks none of {:?} in seed {seed}; {AGAIN}", bug.name, bug.laws));
    };
    if let Some(found) = run_seed(seed, &bug.control()).complaints.first() {
        return Err(format!("seed {seed} without {}: {found}", bug.name));
    }
    Ok(format!("{:<26} seed {seed:>4}: {broken}", bug.name))
}

#[test]
fn every_planted_bug_is_seen_at_its_seed_and_its_control_is_clean() {
    let _turn = turn();
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(bug) = BUGS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match see(bug) {
                        Ok(seen) => say(&seen),
                        Err(what) => {
                            missed.lock().unwrap_or_else(PoisonError::into_inner).push(what);
                        }
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// Cuts in which a naive election is stuck: a connected quorum is soon served again.
#[test]
fn no_cut_leaves_a_connected_quorum_without_a_leader() {
    let _turn = turn();
    let mut scenes = Vec::new();
    for trap in Trap::ALL {
        for nodes in [3, 5, 7] {
            for (busy, profile) in
                [false, true].into_iter().flat_map(|busy| PROFILES.map(|profile| (busy, profile)))
            {
                scenes.push(Scene { trap, nodes, profile, busy, seed: nodes });
            }
        }
    }
    let (next, worst) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(scene) = scenes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Seen { longest, complaints } = play_trap(*scene);
                    assert_eq!(complaints, [], "{scene:?}");
                    let mut worst = worst.lock().unwrap_or_else(PoisonError::into_inner);
                    let so_far = worst.entry(format!("{:?}", scene.trap)).or_insert(longest);
                    *so_far = longest.max(*so_far);
                }
            });
        }
    });
    let worst = worst.into_inner().unwrap_or_else(PoisonError::into_inner);
    say(&format!("longest without a write, by trap: {worst:?}"));
    assert!(worst.values().all(|longest| *longest <= LEADERLESS_MAX));
}

#[test]
fn a_failing_schedule_is_brought_down_to_few_faults() {
    let _turn = turn();
    let Some(bug) = BUGS.iter().find(|bug| bug.name == "early-vote") else {
        panic!("the table has it")
    };
    let Some(seed) = bug.seed() else { panic!("it is recorded") };
    let Some(shrunk) = shrink(seed, &bug.plan(), Duration::from_secs(60)) else {
        panic!("{AGAIN}")
    };
    say(&format!("{shrunk:?}"));
    assert!(bug.laws.contains(&shrunk.law) && 4 * shrunk.kept.len() <= shrunk.faults, "{shrunk:?}");
    assert!(shrunk.faults > shrunk.kept.len() && shrunk.command.contains("--only"));
    let only = shrunk.kept.iter().map(|(number, _)| *number).collect();
    let again = run_seed(seed, &Plan { only: Some(only), ..bug.plan() });
    assert!(again.complaints.iter().any(|complaint| complaint.law == shrunk.law));
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
