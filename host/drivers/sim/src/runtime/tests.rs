use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft_rt::testing::Suite;
use openraft_rt::{AsyncRuntime as _, Instant as _};

use super::*;

const N1: NodeId = NodeId(1);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn it_is_a_runtime_as_openraft_wants_one() {
    Suite::<SimRuntime>::test_all();
}

/// Ten tasks that each run three times; in which order, and the hash over it.
fn order(seed: u64) -> (Vec<u64>, u64) {
    let mut runtime = SimRuntime::with_seed(seed);
    let order = runtime.block_on(async {
        let order = Arc::new(Mutex::new(Vec::new()));
        let run = |name| {
            let order = Arc::clone(&order);
            SimRuntime::spawn(async move {
                for _ in 0..3 {
                    order.lock().unwrap().push(name);
                    SimRuntime::sleep(ms(5)).await;
                }
            })
        };
        let tasks: Vec<_> = (0..10).map(run).collect();
        for task in tasks {
            task.await.unwrap();
        }
        let order = order.lock().unwrap();
        order.clone()
    });
    (order, runtime.hash())
}

#[test]
fn the_seed_decides_who_runs_and_the_hash_tells() {
    assert_eq!(order(7), order(7));
    let orders: std::collections::BTreeSet<_> = (0..20).map(order).collect();
    assert_eq!(orders.len(), 20, "as many orders as seeds");
}

#[test]
fn a_task_has_the_clock_of_its_node() {
    SimRuntime::with_seed(1).block_on(async {
        set_clock(N1, Clock { ahead_ns: 1_000, skew_ppm: 100_000, wall_off_us: -7 });
        let begun = SimInstant::now();
        let (origin, spent) = spawn_at(N1, async {
            let begun = SimInstant::now();
            // A grandchild belongs to the node as well.
            let inner = SimRuntime::spawn(async {
                SimRuntime::sleep(ms(110)).await;
                SimInstant::now()
            });
            (begun, inner.await.unwrap() - begun)
        })
        .await
        .unwrap();
        assert_eq!(spent, ms(110), "by its own clock");
        assert_eq!(SimInstant::now() - begun, ms(100), "by the world's");
        assert_eq!(origin.0 - begun.0, 1_000);
        let apart = wall(N1).since(wall(WORLD));
        assert_eq!(apart, ms(10) - Duration::from_micros(7));
        jump(N1, -2_000_000);
        assert_eq!(wall(WORLD).since(wall(N1)), ms(1_990) + Duration::from_micros(7));
    });
}

/// Counts when it is dropped.
struct Counts(Arc<AtomicU64>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn nothing_of_a_killed_node_runs_on() {
    SimRuntime::with_seed(2).block_on(async {
        let (beats, drops) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let beat = |node| {
            let (beats, counts) = (Arc::clone(&beats), Counts(Arc::clone(&drops)));
            spawn_at(node, async move {
                let _counts = counts;
                loop {
                    beats.fetch_add(1, Ordering::Relaxed);
                    SimRuntime::sleep(ms(10)).await;
                }
            })
        };
        let handles = [beat(N1), beat(N1), beat(NodeId(2))];
        SimRuntime::sleep(ms(95)).await;
        assert_eq!(beats.load(Ordering::Relaxed), 30);
        kill(N1);
        assert_eq!(drops.load(Ordering::Relaxed), 2, "at once");
        SimRuntime::sleep(ms(100)).await;
        assert_eq!(beats.load(Ordering::Relaxed), 40, "the other goes on");
        let [first, second, _other] = handles;
        assert_eq!((first.await, second.await), (Err(JoinError::Killed), Err(JoinError::Killed)));
    });
}

#[test]
fn a_frozen_node_misses_no_wake() {
    SimRuntime::with_seed(3).block_on(async {
        let task = spawn_at(N1, async {
            SimRuntime::sleep(ms(10)).await;
            elapsed()
        });
        SimRuntime::sleep(ms(5)).await;
        freeze(N1);
        SimRuntime::sleep(ms(50)).await;
        thaw(N1);
        assert_eq!(task.await, Ok(ms(55)));
    });
}

#[test]
fn a_panic_of_a_task_is_on_its_handle() {
    SimRuntime::with_seed(4).block_on(async {
        let ended = SimRuntime::spawn(async { panic!("on purpose") }).await;
        let error: JoinError = ended.unwrap_err();
        assert!(SimRuntime::is_panic(&error));
        assert_eq!(error, JoinError::Panicked("on purpose".to_owned()));
    });
}

#[test]
#[should_panic(expected = "nothing can go on")]
fn a_deadlock_ends_the_run() {
    SimRuntime::with_seed(5).block_on(std::future::pending::<()>());
}

#[test]
fn a_loop_in_which_no_time_passes_ends_the_run_and_is_shown() {
    let mut runtime = SimRuntime::with_seed(6);
    runtime.keep_steps();
    let spun = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            drop(spawn_at(N1, async {
                std::future::poll_fn(|context| {
                    context.waker().wake_by_ref();
                    std::task::Poll::<()>::Pending
                })
                .await;
            }));
            SimRuntime::sleep(ms(1)).await;
        });
    }));
    let said = spun.unwrap_err();
    assert!(said.downcast_ref::<String>().unwrap().contains(STANDS_STILL));
    let steps = runtime.take_steps();
    assert_eq!(steps.len(), 200, "the last of them");
    assert!(steps[0].contains("n1") && steps[0].contains("tests.rs"), "{}", steps[0]);
}
