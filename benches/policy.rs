//! Routing: a pick through the component against the native answer, and a router over
//! the component, leased batches and revision checks included.
//!
//! Promised for one pick through the component are 250 ns where nothing is scanned and
//! 500 ns where 100 endpoints are; for the router 10 million picks a second by
//! round-robin and 1 million by least-used at 100 endpoints.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed bench")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use quorate_benches::{Board, Case};
use quorate_dispatch::{
    Candidate, Endpoints, Guarded, NativeSource, PolicyRef, PolicySource as _, Router, SlotTable,
};
use quorate_policy::native::NAMES;
use quorate_policy::{Balancer, Feature, Outcome, Slot, by_name};
use quorate_types::rng::Rng;
use quorate_types::{AgentId, Incarnation, LoadReading, NodeId, PolicyEpoch};
use quorate_wasm::{GuardedBalancer, PolicyComponent, PolicyHost, PolicyLimits, builtin};

const SEED: u64 = 7;
const SIZES: [u32; 4] = [3, 60, 100, 1_000];
const BATCH: u32 = 64;
/// Picks that are open at once in front of a router.
const OPEN: usize = 64;

/// A component behind its native fallback, as a router takes it.
struct Component(GuardedBalancer);

impl Guarded for Component {
    fn balancer(&mut self) -> &mut dyn Balancer {
        &mut self.0
    }
    fn fell_back(&self) -> bool {
        self.0.last_was_fallback()
    }
}

fn admit(host: &PolicyHost, name: &str) -> Arc<PolicyComponent> {
    host.admit(builtin::find(name).unwrap().bytes).unwrap()
}

fn guarded(component: &Arc<PolicyComponent>) -> GuardedBalancer {
    GuardedBalancer::open(Arc::clone(component), b"", SEED).unwrap()
}

/// Puts as many endpoints into a policy, with readings by a seed.
fn fill(policy: &mut dyn Balancer, count: u32) {
    let mut random = Rng::new(SEED);
    let slots: Vec<Slot> = (0..count).collect();
    let features = policy.describe().features.clone();
    let mut columns = Vec::new();
    for feature in features {
        let (least, bound) = match feature {
            Feature::InFlight => (0, 8),
            Feature::Load => (0, 11),
            Feature::LatencyUs => (500, 50_000),
            Feature::SuccessPpm => (900_000, 100_001),
            Feature::Weight => (1, 1),
            Feature::Capacity => (16, 1),
        };
        columns.extend(slots.iter().map(|_| least + i64::try_from(random.below(bound)).unwrap()));
    }
    policy.replace(1, &slots, &columns).unwrap();
}

/// What one pick through the component may take, nanoseconds.
fn pick_target_ns(name: &str, count: u32) -> Option<f64> {
    match name {
        "round-robin" | "peak-ewma" => Some(250.0),
        _ => (count == 100).then_some(500.0),
    }
}

fn pick_once_each(policy: &mut dyn Balancer, key: &mut u64, iterations: u64) {
    for _ in 0..iterations {
        *key += 1;
        black_box(policy.pick(*key, 1).unwrap().unwrap());
    }
}

fn pick_by_batch(policy: &mut dyn Balancer, key: &mut u64, iterations: u64) {
    let mut picked = Vec::new();
    for _ in 0..iterations {
        picked.clear();
        policy.pick_batch(*key, BATCH, &mut picked).unwrap();
        *key += u64::from(BATCH);
        black_box(picked.last().unwrap());
    }
}

/// A way of picking, told how often.
type Way = fn(&mut dyn Balancer, &mut u64, u64);

fn picks(criterion: &mut Criterion, board: &mut Board, host: &PolicyHost) {
    let ways: [(&str, u64, Way); 2] =
        [("pick", 1, pick_once_each), ("pick-batch", u64::from(BATCH), pick_by_batch)];
    for name in NAMES {
        let component = admit(host, name);
        for (way, ops, pick) in ways {
            for count in SIZES {
                let mut native = by_name(name, b"", SEED).unwrap();
                let mut live = guarded(&component);
                fill(native.as_mut(), count);
                fill(&mut live, count);
                let title = format!("{way}/{name}/{count}");
                let target = if ops == 1 { pick_target_ns(name, count) } else { None };
                let mut group = board.group(criterion, &title);
                let (mut key, mut live_key) = (0, 0);
                board.run(&mut group, &title, Case::new("native").of(ops), |iterations| {
                    pick(native.as_mut(), &mut key, iterations);
                });
                let case = Case::new("component").of(ops).within(target);
                board.run(&mut group, &title, case, |iterations| {
                    pick(&mut live, &mut live_key, iterations);
                });
                group.finish();
                assert_eq!(live.counters().read(), <_>::default(), "{title}: the component failed");
            }
        }
    }
}

fn table(count: u64) -> Arc<Endpoints> {
    let candidate = |agent| Candidate {
        agent: AgentId(agent),
        incarnation: Incarnation(1),
        node: NodeId(1 + agent % 3),
        capacity: 16,
        weight: 1,
        reading: LoadReading {
            in_flight: 0,
            load: 0,
            latency_us: 500 + 13 * agent,
            success_ppm: 1_000_000,
        },
    };
    Arc::new(SlotTable::default().table((1..=count).map(candidate).collect()))
}

/// A router with its open picks, of which the oldest ends before each new one.
struct Front {
    router: Router,
    table: Arc<Endpoints>,
    open: [Option<Slot>; OPEN],
    oldest: usize,
}

impl Front {
    fn new(policy: Box<dyn Guarded>, batch: u32) -> Self {
        Self {
            router: Router::new(policy, batch),
            table: table(100),
            open: [None; OPEN],
            oldest: 0,
        }
    }

    fn route(&mut self, iterations: u64) {
        for _ in 0..iterations {
            self.router.refresh(&self.table);
            let place = &mut self.open[self.oldest];
            if let Some(slot) = place.take() {
                self.router.close(slot, 700, Outcome::Ok);
            }
            let pick = self.router.pick().unwrap();
            *place = Some(black_box(pick).slot);
            self.oldest = (self.oldest + 1) % OPEN;
        }
    }
}

fn routers(criterion: &mut Criterion, board: &mut Board, host: &PolicyHost) {
    for (name, target_ns) in [("round-robin", 100.0), ("least-used", 1_000.0)] {
        let component = admit(host, name);
        let title = format!("router/{name}/100");
        let mut group = board.group(criterion, &title);
        for batch in [64, 256] {
            let policy = PolicyRef {
                name: name.to_owned(),
                digest: component.digest(),
                epoch: PolicyEpoch(1),
                config: Vec::new(),
            };
            let mut native = Front::new(NativeSource.open(&policy, SEED), batch);
            board.run(&mut group, &title, Case::new(format!("native-{batch}")), |iterations| {
                native.route(iterations);
            });
            let live = guarded(&component);
            let counters = live.counters();
            let mut front = Front::new(Box::new(Component(live)), batch);
            let case = Case::new(format!("component-{batch}")).within(Some(target_ns));
            board.run(&mut group, &title, case, |iterations| front.route(iterations));
            assert_eq!(counters.read(), <_>::default(), "{title}: the component failed");
        }
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let host = PolicyHost::new(PolicyLimits::hot(), None).unwrap();
    let mut board = Board::new();
    picks(&mut criterion, &mut board, &host);
    routers(&mut criterion, &mut board, &host);
    criterion.final_summary();
    board.print();
}
