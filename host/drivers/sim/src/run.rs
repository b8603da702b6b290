//! One seed, from nothing to a verdict.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Once;
use std::time::Duration;

use openraft_rt::{AsyncRuntime as _, Instant as _};
use openraft_rt_sim::{SimInstant, SimRuntime};
use quorate_types::NodeId;
use quorate_types::rng::Rng;

use crate::chaos::Chaos;
use crate::client::submit_all;
use crate::knobs::{Knobs, Plan};
use crate::node::{Doors, SimNode, Site};
use crate::wire::Mesh;
use crate::world::{World, elapsed};

const NODES: u64 = 3;
/// Once all is healed, every acknowledged task comes to its end within this span.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
const SETTLE_STEP: Duration = Duration::from_millis(100);

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// How a seed ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The hash over all its events: equal for equal seeds.
    pub hash: u64,
    /// How many events those were.
    pub events: u64,
    /// Virtual time that passed.
    pub lasted: Duration,
    /// Power losses and cuts.
    pub faults: u64,
    /// Submissions acknowledged.
    pub acks: u64,
    /// What the judges found wrong; nothing, where all is well.
    pub complaints: Vec<String>,
}

/// Runs one seed.
pub fn run_seed(seed: u64, plan: &Plan) -> Outcome {
    run(seed, plan, false).0
}

/// Runs one seed and gives every event as a line.
pub fn replay(seed: u64, plan: &Plan) -> (Outcome, Vec<String>) {
    run(seed, plan, true)
}

fn run(seed: u64, plan: &Plan, keep_lines: bool) -> (Outcome, Vec<String>) {
    count_panics();
    let _silence = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
    let before = PANICS.get();
    let world = World::new(keep_lines);
    let mut runtime = SimRuntime::with_seed(seed);
    runtime.record_trace(keep_lines);
    let (shared, plan) = (world.clone(), plan.clone());
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async move {
            play(seed, &plan, &shared).await;
            if PANICS.get() > before {
                shared.complain("a task has panicked".to_owned());
            }
            elapsed()
        })
    }));
    let mut closed = world.close();
    // The runtime panics where virtual time stands still: a busy loop.
    let lasted = played.unwrap_or_else(|_panic| {
        let lines = runtime.take_trace();
        closed.lines.extend(lines.into_iter().rev().take(200).rev());
        closed.complaints.push("the runtime has panicked: a task is busy for ever".to_owned());
        Duration::ZERO
    });
    drop(runtime);
    let outcome = Outcome {
        seed,
        hash: closed.hash,
        events: closed.events,
        lasted,
        faults: closed.faults,
        acks: closed.acks,
        complaints: closed.complaints,
    };
    (outcome, closed.lines)
}

/// A task's panic shows only on its handle, which nobody holds; so it is counted.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
}

async fn play(seed: u64, plan: &Plan, world: &World) {
    let mut rng = Rng::new(seed);
    let knobs = Knobs::draw(plan, &mut rng);
    let mesh = Mesh::new(world.clone(), rng.next_u64(), &knobs);
    let voters: BTreeSet<NodeId> = (1..=NODES).map(NodeId).collect();
    let doors = Doors::default();
    let site = Site {
        world: world.clone(),
        mesh: mesh.clone(),
        doors: Doors::clone(&doors),
        faults: plan.faults.clone(),
        knobs,
        voters: voters.clone(),
    };
    let mut nodes: Vec<SimNode> = Vec::new();
    for id in voters {
        let mut node = SimNode::new(site.clone(), id, rng.fork());
        node.boot().await;
        nodes.push(node);
    }
    let mut chaos = Chaos::new(site, nodes, rng.fork());
    let span = Duration::from_secs(plan.seconds);
    let client = submit_all(world.clone(), doors, rng.fork(), knobs.rate, span);
    drop(SimRuntime::spawn(client));
    chaos.play(span).await;
    if !world.has_complaints() {
        chaos.heal().await;
        settle(world, &chaos).await;
    }
    chaos.end();
    mesh.end();
}

/// Waits until all nodes have ended all acknowledged tasks and are of one state, then judges.
async fn settle(world: &World, chaos: &Chaos) {
    let end = SimInstant::now() + SETTLE_WITHIN;
    // Owners who were not answered yet submit again; what they are told counts as well.
    SimRuntime::sleep(Duration::from_secs(5)).await;
    while SimInstant::now() < end && !world.has_complaints() && !is_settled(world, chaos) {
        SimRuntime::sleep(SETTLE_STEP).await;
    }
    for node in chaos.nodes() {
        match node.handle() {
            Some(handle) => world.judge_end(node.id, &handle.view()),
            None => world.complain(format!("liveness: {} is down", node.id)),
        }
    }
}

fn is_settled(world: &World, chaos: &Chaos) -> bool {
    let mut views = chaos.nodes().iter().filter_map(|node| node.handle().map(|door| door.view()));
    let Some(first) = views.next() else { return false };
    let index = first.index();
    world.is_settled(&first) && views.all(|view| view.index() == index && world.is_settled(&view))
}
