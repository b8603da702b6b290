//! Cuts in which a naive leader election is stuck for ever though a quorum can talk
//! (`reference` measurements of bare openraft: ten of ten runs stuck for a whole
//! minute). Each is set up by hand, left for a while, and asked for a write.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft_rt::AsyncRuntime as _;
use quorate_raft::Profile;
use quorate_types::rng::Rng;
use quorate_types::{Faults, NodeId, Payload, Reply, Request, Submission, TaskSpec};

use crate::chaos::Chaos;
use crate::fleet::Fleet;
use crate::knobs::{Knobs, Plan};
use crate::law::{Complaint, Law};
use crate::node::{Doors, SimNode, Site};
use crate::run::conduct;
use crate::runtime::{SimRuntime, elapsed, spawn_at};
use crate::schedule::{Shape, Whom};
use crate::wire::Mesh;
use crate::workload::Front;
use crate::world::{World, locked};

/// A cluster elects its first leader within this span.
const BEGIN: Duration = Duration::from_secs(4);
/// The cut lasts so long.
const HOLD: Duration = Duration::from_secs(12);
/// Nobody writes meanwhile, where the cluster is idle.
const IDLE: Duration = Duration::from_secs(2);
/// A connected quorum is never without a leader for longer.
pub const LEADERLESS_MAX: Duration = Duration::from_secs(2);
/// Each door is asked with this deadline, and again so soon after.
const WITHIN_MS: u64 = 400;
const PAUSE: Duration = Duration::from_millis(20);

/// Who is cut from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// The leader speaks and hears nobody.
    DeafLeader,
    /// The leader hears all and is heard by nobody.
    MuteLeader,
    /// The leader is cut off.
    LostLeader,
    /// A follower hears nobody.
    DeafFollower,
    /// A follower is heard by nobody.
    MuteFollower,
    /// The leader and one follower do not reach each other; all else do.
    Pair,
    /// Two halves reach each other over one follower only.
    Bridge,
    /// One follower reaches all, and the others only it.
    Star,
}

impl Trap {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::DeafLeader,
        Self::MuteLeader,
        Self::LostLeader,
        Self::DeafFollower,
        Self::MuteFollower,
        Self::Pair,
        Self::Bridge,
        Self::Star,
    ];

    const fn shape(self) -> (bool, Shape) {
        match self {
            Self::DeafLeader => (true, Shape::Deaf),
            Self::MuteLeader => (true, Shape::Mute),
            Self::LostLeader => (true, Shape::Isolated),
            Self::DeafFollower => (false, Shape::Deaf),
            Self::MuteFollower => (false, Shape::Mute),
            Self::Pair => (true, Shape::Pair),
            Self::Bridge => (false, Shape::Bridge),
            Self::Star => (false, Shape::Star),
        }
    }
}

/// A trap and the cluster in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// The cut.
    pub trap: Trap,
    /// Voters.
    pub nodes: u64,
    /// How fast they notice.
    pub profile: Profile,
    /// Whether somebody writes all the time, or only after a while.
    pub busy: bool,
    /// Draws delays and who is cut.
    pub seed: u64,
}

/// What was seen of a scene: the longest time without an acknowledged write, and what the judges
/// found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// In a busy cluster since the write before, in an idle one since somebody first asked.
    pub longest: Duration,
    /// Nothing, where all is well.
    pub complaints: Vec<Complaint>,
}

/// Plays a scene.
pub fn play_trap(scene: Scene) -> Seen {
    let plan = Plan { nodes: scene.nodes, ..Plan::default() };
    let longest = Arc::new(Mutex::new(Duration::ZERO));
    let found = Arc::clone(&longest);
    let (outcome, _lines) =
        conduct(scene.seed, &plan, false, move |world| play(scene, world, found));
    let longest = *locked(&longest);
    Seen { longest, complaints: outcome.complaints }
}

async fn play(scene: Scene, world: World, found: Arc<Mutex<Duration>>) {
    let mut rng = Rng::new(scene.seed);
    let knobs = Knobs::calm(scene.profile);
    let mesh = Mesh::new(world.clone(), rng.next_u64(), &knobs);
    let voters: BTreeSet<NodeId> = (1..=scene.nodes).map(NodeId).collect();
    let doors = Doors::default();
    let site = Site {
        world: world.clone(),
        mesh: mesh.clone(),
        doors: Arc::clone(&doors),
        back_doors: Doors::default(),
        faults: Faults::none(),
        knobs,
        founders: voters.clone(),
    };
    let mut nodes = Vec::new();
    for id in voters {
        let mut node = SimNode::new(site.clone(), id, rng.fork());
        node.boot();
        nodes.push(node);
    }
    let fleet = Fleet::new(nodes);
    let mut chaos = Chaos::new(site, fleet.clone());
    SimRuntime::sleep(BEGIN).await;
    let (leads, shape) = scene.trap.shape();
    let leader = chaos.whom(Whom::Leader(0));
    let drawn = rng.below(scene.nodes - 1);
    let node = if leads { leader } else { NodeId(1 + (leader.0 + drawn) % scene.nodes) };
    mesh.cut_unnoticed(&chaos.ways(node, shape));
    world.fault(&format!("{:?} at {node}", scene.trap), 1);
    if !scene.busy {
        SimRuntime::sleep(IDLE).await;
    }
    let acks = Arc::new(Mutex::new((elapsed(), Duration::ZERO)));
    let front = Front::new(world.clone(), doors, HOLD);
    for node in fleet.ids() {
        drop(SimRuntime::spawn(ask(front.clone(), node, Arc::clone(&acks))));
    }
    SimRuntime::sleep(HOLD).await;
    let (last, longest) = *locked(&acks);
    let longest = longest.max(elapsed() - last);
    *locked(&found) = longest;
    if longest > LEADERLESS_MAX {
        world.complain(Law::Liveness, format!("no write was taken for {longest:?} in {scene:?}"));
    }
    chaos.end();
    mesh.end();
}

/// Submits at one door, for ever; notes each acknowledgement.
async fn ask(front: Front, node: NodeId, acks: Arc<Mutex<(Duration, Duration)>>) {
    for count in 0_u64.. {
        let Some(handle) = front.door(node) else { return };
        let input = Payload::Inline(format!("{node}-{count}").into_bytes().into());
        let spec =
            TaskSpec { capabilities: vec!["nobody".to_owned()], input, ..TaskSpec::default() };
        let request = Request::Submit(vec![Submission { spec, nonce: (0, 0, 0) }]);
        let asked = spawn_at(node, quorate_types::Door::ask(&handle, request, WITHIN_MS));
        if let Ok(Ok(Reply::Submitted(each))) = asked.await
            && each.iter().all(Result::is_ok)
        {
            let mut acks = locked(&acks);
            let since = elapsed() - acks.0;
            *acks = (elapsed(), since.max(acks.1));
        }
        SimRuntime::sleep(PAUSE).await;
    }
}
