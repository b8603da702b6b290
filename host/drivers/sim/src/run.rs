//! One seed, from nothing to a verdict.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Once;
use std::time::Duration;

use crate::runtime::{STANDS_STILL, SimInstant, SimRuntime, elapsed, set_clock, spawn_at};
use openraft_rt::{AsyncRuntime as _, Instant as _};
use quorate_types::door::Consistency;
use quorate_types::rng::Rng;
use quorate_types::{Digest, Door as _, NodeId, Request};

use crate::chaos::Chaos;
use crate::fleet::Fleet;
use crate::knobs::{Knobs, Plan};
use crate::law::{Complaint, Law};
use crate::members;
use crate::node::{Doors, SimHandle, SimNode, Site};
use crate::schedule::{self, Blow};
use crate::tally::Tally;
use crate::wire::Mesh;
use crate::workload::{self, Front};
use crate::world::World;

/// Once all is healed, every acknowledged task comes to its end within this span.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
const SETTLE_STEP: Duration = Duration::from_millis(100);
/// And then every group answers a read at every node within this span.
const READ_WITHIN_MS: u64 = 2_000;

thread_local! {
    /// What panicked in the run on this thread.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// What to type to see that run again.
    static COMMAND: RefCell<Option<String>> = const { RefCell::new(None) };
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
    /// What was done.
    pub tally: Tally,
    /// What the judges found wrong; nothing, where all is well.
    pub complaints: Vec<Complaint>,
}

/// Runs one seed.
pub fn run_seed(seed: u64, plan: &Plan) -> Outcome {
    conduct(seed, plan, false, |world| play(seed, plan.clone(), world)).0
}

/// Runs one seed and gives every event as a line.
pub fn replay(seed: u64, plan: &Plan) -> (Outcome, Vec<String>) {
    conduct(seed, plan, true, |world| play(seed, plan.clone(), world))
}

pub(crate) fn conduct<F: Future<Output = ()>>(
    seed: u64,
    plan: &Plan,
    keep_lines: bool,
    play: impl FnOnce(World) -> F,
) -> (Outcome, Vec<String>) {
    watch_panics();
    let _silence = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
    PANICS.take();
    COMMAND.set(Some(plan.command(seed)));
    let world = World::new(keep_lines, (1..=plan.nodes).map(NodeId).collect());
    let mut runtime = SimRuntime::with_seed(seed);
    if keep_lines {
        runtime.keep_steps();
    }
    let (shared, played) = (world.clone(), play(world.clone()));
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async move {
            played.await;
            for panic in PANICS.take() {
                shared.complain(Law::Panic, panic);
            }
            elapsed()
        })
    }));
    let mut closed = world.close();
    // The runtime panics where virtual time stands still: a busy loop.
    let lasted = played.unwrap_or_else(|_panic| {
        closed.lines.extend(runtime.take_steps());
        closed.complaints.extend(PANICS.take().into_iter().map(|what| {
            let law = if what.contains(STANDS_STILL) { Law::Busy } else { Law::Panic };
            Complaint { at: Duration::ZERO, law, what }
        }));
        Duration::ZERO
    });
    let hash = closed.hash ^ runtime.hash();
    drop(runtime);
    COMMAND.set(None);
    let outcome = Outcome {
        seed,
        hash,
        events: closed.events,
        lasted,
        faults: closed.faults,
        tally: closed.tally,
        complaints: closed.complaints,
    };
    (outcome, closed.lines)
}

/// A task's panic shows only on its handle, which nobody holds; so it is noted, and the
/// run in which it happened is named.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let in_a_run = COMMAND.with_borrow(|command| {
                if let Some(command) = command {
                    // In few words: a planted bug makes nodes panic by the hundred.
                    eprintln!("{panic}\nin a simulated run; see it again: {command}");
                    PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
                }
                command.is_some()
            });
            if !in_a_run {
                before(panic);
            }
        }));
    });
}

/// The faults that a seed draws, whether the plan lets all of them happen or not.
pub(crate) fn faults_of(seed: u64, plan: &Plan) -> Vec<Blow> {
    let knobs = Knobs::draw(plan, &mut Rng::new(seed));
    schedule::draw(plan, knobs.gap_ms, knobs.sync_us_max, &mut Rng::new(!seed))
}

async fn play(seed: u64, plan: Plan, world: World) {
    let mut rng = Rng::new(seed);
    let knobs = Knobs::draw(&plan, &mut rng);
    let mesh = Mesh::new(world.clone(), rng.next_u64(), &knobs);
    let founders: BTreeSet<NodeId> = (1..=plan.nodes).map(NodeId).collect();
    let doors = Doors::default();
    let site = Site {
        world: world.clone(),
        mesh: mesh.clone(),
        doors: Doors::clone(&doors),
        back_doors: Doors::default(),
        faults: plan.faults.clone(),
        knobs,
        founders: founders.clone(),
    };
    let mut nodes: Vec<SimNode> = Vec::new();
    for id in founders {
        set_clock(id, knobs.clock(&mut rng));
        let mut node = SimNode::new(site.clone(), id, rng.fork());
        node.boot();
        nodes.push(node);
    }
    let fleet = Fleet::new(nodes);
    let mut chaos = Chaos::new(site.clone(), fleet.clone());
    let span = Duration::from_secs(plan.seconds);
    let blows = faults_of(seed, &plan);
    let chosen = |number: &usize| plan.only.as_ref().is_none_or(|only| only.contains(number));
    let blows: Vec<_> =
        blows.into_iter().enumerate().filter(|(number, _)| chosen(number)).collect();
    let front = Front::new(world.clone(), doors, span);
    workload::begin(&front, &mut rng, knobs.rate);
    let operator = (knobs.voters_max > 0).then(|| {
        let front = front.clone();
        let operator = members::Operator::new(front, site, fleet.clone(), rng.fork());
        SimRuntime::spawn(operator.operate())
    });
    chaos.play(&blows, span).await;
    if !world.has_complaints() {
        chaos.heal();
        // What was begun is brought to its end, or gives up.
        if let Some(operator) = operator {
            drop(SimRuntime::timeout(SETTLE_WITHIN, operator).await);
        }
        settle(&world, &fleet, &front, &mut rng).await;
    }
    chaos.end();
    mesh.end();
}

/// Waits until all nodes have ended all acknowledged tasks and are of one state, then judges.
async fn settle(world: &World, fleet: &Fleet, front: &Front, rng: &mut Rng) {
    let end = SimInstant::now() + SETTLE_WITHIN;
    // Owners who were not answered yet submit again; what they are told counts as well.
    SimRuntime::sleep(Duration::from_secs(5)).await;
    rest(world, fleet, end).await;
    // Whoever asked for a removal may have given up before he was told of it.
    let members = members_of(fleet);
    for id in fleet.ids().into_iter().filter(|id| members.iter().all(|(node, _)| node != id)) {
        fleet.on(id, SimNode::close_door);
    }
    read_all_groups(world, fleet).await;
    workload::keys::read_all(front, rng).await;
    workload::locks::take_all(front, rng).await;
    SimRuntime::sleep(workload::watchers::CAUGHT_UP).await;
    world.judge(world.know(|judges| judges.watches.end()));
    read_blobs(world, fleet).await;
    rest(world, fleet, end).await;
    for (node, handle) in members_of(fleet) {
        match handle {
            Some(handle) => world.judge_end(node, &handle.views()),
            None => world.complain(Law::Liveness, format!("{node} is down")),
        }
    }
}

async fn rest(world: &World, fleet: &Fleet, end: SimInstant) {
    while SimInstant::now() < end && !world.has_complaints() && !is_settled(world, fleet) {
        SimRuntime::sleep(SETTLE_STEP).await;
    }
}

fn is_settled(world: &World, fleet: &Fleet) -> bool {
    let of = |door: SimHandle| {
        let views = door.views();
        let index = |group| views.group(group).map(|view| view.index());
        door.layout().groups().map(index).collect::<Vec<_>>()
    };
    let indices = members_of(fleet).into_iter().map(|(_, handle)| handle.map(of));
    let indices: BTreeSet<_> = indices.collect();
    world.is_settled() && indices.len() == 1 && !indices.contains(&None)
}

/// Those that must come to one state: who is sound and was not removed, as whoever has applied
/// most has it.
fn members_of(fleet: &Fleet) -> Vec<(NodeId, Option<SimHandle>)> {
    let ruined = fleet.those(SimNode::is_ruined);
    let mut doors = fleet.doors();
    let views = doors.iter().filter_map(|(_, handle)| Some(handle.as_ref()?.views()));
    if let Some(newest) = views.max_by_key(|views| views.system().index())
        && newest.roster().begun()
    {
        doors.retain(|(node, _)| newest.roster().get(*node).is_some());
    }
    doors.retain(|(node, _)| !ruined.contains(node));
    doors
}

/// Every node is served by every group's leader.
async fn read_all_groups(world: &World, fleet: &Fleet) {
    for (node, handle) in members_of(fleet) {
        let Some(handle) = handle else { continue };
        let everywhere = Request::Policies(Consistency::Linearizable);
        let answer = spawn_at(node, handle.ask(everywhere, READ_WITHIN_MS)).await;
        if let Ok(Err(refusal)) = answer {
            let what = format!("{node} cannot read all groups: {refusal}");
            world.complain(Law::Liveness, what);
        }
    }
}

/// Every node gives what any node has acknowledged.
async fn read_blobs(world: &World, fleet: &Fleet) {
    for digest in world.know(|judges| judges.blobs.sample()) {
        for (node, handle) in members_of(fleet) {
            let Some(handle) = handle else { continue };
            let Ok(got) = spawn_at(node, handle.get_blob(digest)).await else { continue };
            let got = got.map(|content| Digest::of(&content));
            world.ask(|judges| judges.blobs.read(node, digest, got));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laws(outcome: &Outcome) -> Vec<Law> {
        outcome.complaints.iter().map(|complaint| complaint.law).collect()
    }

    #[test]
    fn a_panic_in_a_task_is_a_complaint_of_its_seed() {
        let plan = Plan::default();
        let in_a_task = |_world| async {
            drop(SimRuntime::spawn(async { panic!("planted in a task") }));
            SimRuntime::sleep(Duration::from_secs(1)).await;
        };
        let (outcome, _) = conduct(41, &plan, false, in_a_task);
        assert_eq!((outcome.seed, laws(&outcome)), (41, vec![Law::Panic]));
        assert!(outcome.complaints[0].what.contains("planted in a task"));
        let (outcome, _) = conduct(42, &plan, false, |_world| async { panic!("in the play") });
        assert_eq!(laws(&outcome), [Law::Panic]);
        let (outcome, _) = conduct(43, &plan, false, |_world| async {});
        assert_eq!(laws(&outcome), []);
    }

    #[test]
    fn a_loop_in_which_no_time_passes_is_a_complaint_of_its_seed() {
        let spin = |_world| {
            std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                std::task::Poll::Pending
            })
        };
        let (outcome, lines) = conduct(44, &Plan::default(), true, spin);
        assert_eq!((outcome.seed, laws(&outcome)), (44, vec![Law::Busy]));
        assert!(!lines.is_empty(), "what it did last is shown");
    }
}
