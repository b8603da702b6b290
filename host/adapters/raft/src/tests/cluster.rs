//! The fixture: `Cluster::start(3, seed)`, then verbs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::{AsyncRuntime, Instant, Select2, Watch, WatchReceiver};
use quorate_ledger::{Command, Outcome, ShardCommand};
use quorate_storage::{DirectoryId, Log, LogOptions, Snapshots};
use quorate_types::{
    Faults, Gone, GroupId, Index, Lane, NodeId, Payload, Submission, TaskId, TaskSpec, Time,
};

use super::judges::{Judges, Told, Witness};
use super::mesh::{Mesh, Weather};
use super::slow_disk::SlowDisk;
use crate::propose::ProposeError;
use crate::raft::{GroupStatus, Raft, RaftOptions};
use crate::settings::{Compaction, LogSize, Profile, SNAPSHOT_BYTES_PER_S};
use crate::types::locked;

pub(super) const GROUP: GroupId = GroupId(0);

/// No scenario waits longer for anything; on tokio it is real time.
const PATIENCE: Duration = Duration::from_secs(30);

struct Node<RT: AsyncRuntime> {
    disk: SlowDisk<RT>,
    raft: Option<Raft<RT, SlowDisk<RT>>>,
    witness: Option<Arc<Witness<RT>>>,
}

/// How the nodes run.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) profile: Profile,
    pub(super) compaction: Compaction,
    pub(super) faults: Faults,
    pub(super) log_size: LogSize,
    pub(super) snapshot_bytes_per_s: Option<u64>,
}

pub(super) struct Cluster<RT: AsyncRuntime> {
    mesh: Mesh<RT>,
    nodes: BTreeMap<NodeId, Node<RT>>,
    /// The first voters.
    founders: BTreeSet<NodeId>,
    settings: Settings,
    judges: Arc<Mutex<Judges>>,
    bell: <RT::Watch as Watch>::Sender<u64>,
    ear: <RT::Watch as Watch>::Receiver<u64>,
    submissions: u64,
    /// What every task from now on carries, bytes.
    pub(super) input_bytes: usize,
    /// Tasks whose submission was acknowledged.
    pub(super) acked: Vec<TaskId>,
}

impl<RT: AsyncRuntime> Drop for Cluster<RT> {
    fn drop(&mut self) {
        for node in self.nodes.keys() {
            self.mesh.detach(*node); // The mesh and the groups hold each other.
        }
    }
}

impl<RT: AsyncRuntime> Cluster<RT> {
    /// `count` nodes with empty disks, all started.
    pub(super) async fn start(count: u64, seed: u64, settings: Settings) -> Self {
        let (bell, ear) = RT::Watch::channel(0);
        let node = |id| Node { disk: SlowDisk::new(seed ^ id), raft: None, witness: None };
        let mut cluster = Self {
            mesh: Mesh::new(seed),
            nodes: (1..=count).map(|id| (NodeId(id), node(id))).collect(),
            founders: (1..=count).map(NodeId).collect(),
            settings,
            judges: Arc::default(),
            bell,
            ear,
            submissions: 0,
            input_bytes: 0,
            acked: Vec::new(),
        };
        for id in 1..=count {
            cluster.boot(NodeId(id)).await;
        }
        cluster
    }

    pub(super) async fn raft(count: u64, seed: u64) -> Self {
        Self::start(count, seed, Settings::default()).await
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(super) fn live(&self) -> Vec<NodeId> {
        let live = self.nodes.iter().filter(|(_, node)| node.raft.is_some());
        live.map(|(id, _)| *id).collect()
    }

    pub(super) fn handle(&self, id: NodeId) -> Raft<RT, SlowDisk<RT>> {
        self.nodes[&id].raft.clone().unwrap()
    }

    pub(super) fn disk(&self, id: NodeId) -> &SlowDisk<RT> {
        &self.nodes[&id].disk
    }

    pub(super) fn told(&self, id: NodeId) -> Told {
        locked(&self.nodes[&id].witness.as_ref().unwrap().told).clone()
    }

    pub(super) fn status(&self, id: NodeId) -> GroupStatus {
        self.handle(id).status()
    }

    pub(super) fn weather(&self, weather: Weather) -> &Self {
        self.mesh.weather(weather);
        self
    }

    /// Starts a life of a node on whatever its disk holds.
    pub(super) async fn boot(&mut self, id: NodeId) {
        let disk = self.nodes[&id].disk.clone();
        let directory = DirectoryId([u8::try_from(id.0).unwrap(); 16]);
        let Settings { profile, compaction, faults, log_size, .. } = self.settings.clone();
        let (log, _recovered) =
            Log::<RT, _>::open(disk.clone(), LogOptions::new(directory), &faults).await.unwrap();
        let snapshots = Snapshots::open(disk).await.unwrap();
        let witness = Arc::new(Witness {
            node: id,
            told: Mutex::default(),
            judges: Arc::clone(&self.judges),
            bell: Mutex::new(self.bell.clone()),
        });
        let options = RaftOptions {
            profile,
            compaction,
            faults,
            log_size,
            snapshot_bytes_per_s: self
                .settings
                .snapshot_bytes_per_s
                .unwrap_or(SNAPSHOT_BYTES_PER_S),
            ..RaftOptions::new(id, GROUP, self.founders.clone())
        };
        let observer: Arc<Witness<RT>> = Arc::clone(&witness);
        let raft =
            Raft::start(options, log, snapshots, self.mesh.wire(id), observer).await.unwrap();
        self.mesh.attach(id, raft.clone());
        let node = self.nodes.get_mut(&id).unwrap();
        (node.raft, node.witness) = (Some(raft), Some(witness));
    }

    /// Power loss. The others hear of it as `gone`, or not at all.
    pub(super) fn kill(&mut self, id: NodeId, gone: Option<Gone>) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.disk = node.disk.crash();
        node.raft = None;
        self.mesh.detach(id);
        for other in gone.is_some().then(|| self.live()).into_iter().flatten() {
            self.handle(other).peer_gone(id, gone.unwrap());
        }
    }

    /// A new node with an empty disk comes, which nobody knows yet.
    pub(super) async fn join(&mut self, id: NodeId) {
        let node = Node { disk: SlowDisk::new(id.0), raft: None, witness: None };
        self.nodes.insert(id, node);
        self.boot(id).await;
    }

    /// Frames and their bytes that a lane has carried to a node.
    pub(super) fn carried(&self, to: NodeId, lane: Lane) -> (usize, usize) {
        self.mesh.carried(to, lane)
    }

    /// Ends a node in order.
    pub(super) async fn stop(&mut self, id: NodeId) {
        self.handle(id).shutdown().await;
        self.kill(id, Some(Gone::Closed));
    }

    /// Cuts a node off from all others, both ways.
    pub(super) fn isolate(&self, id: NodeId) {
        for other in self.ids() {
            self.mesh.cut(id, other);
            self.mesh.cut(other, id);
        }
    }

    /// Nothing reaches the node any more, though it is still heard.
    pub(super) fn deafen(&self, id: NodeId) {
        for other in self.ids() {
            self.mesh.cut(other, id);
        }
    }

    /// The connection between two nodes breaks, and nothing passes until it is healed.
    pub(super) fn part(&self, one: NodeId, other: NodeId) {
        self.mesh.cut(one, other);
        self.mesh.cut(other, one);
        self.handle(one).peer_gone(other, Gone::Timeout);
        self.handle(other).peer_gone(one, Gone::Timeout);
    }

    pub(super) fn heal(&self) {
        self.mesh.heal();
    }

    /// Waits until `condition` holds; looks whenever something is told, and now and then.
    pub(super) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = RT::Instant::now() + PATIENCE;
        let mut ear = self.ear.clone();
        while !condition(self) {
            assert!(RT::Instant::now() < deadline, "never {what}: {:#?}", self.statuses());
            // Positions move without being told.
            match RT::select2(ear.changed(), RT::sleep(Duration::from_millis(5))).await {
                Select2::First(Err(_)) => panic!("the bell is gone"),
                Select2::First(Ok(())) | Select2::Second(()) => {}
            }
        }
    }

    fn statuses(&self) -> Vec<GroupStatus> {
        self.live().into_iter().map(|id| self.status(id)).collect()
    }

    fn leader_now(&self) -> Option<NodeId> {
        let leads = |id: &NodeId| {
            let status = self.status(*id);
            status.leads && status.leader == Some(*id)
        };
        self.live().into_iter().filter(leads).max_by_key(|id| self.status(*id).term)
    }

    /// The node that leads, as it thinks itself; the newest term's where two do.
    pub(super) async fn leader(&self) -> NodeId {
        self.until("a leader", |cluster| cluster.leader_now().is_some()).await;
        self.leader_now().unwrap()
    }

    pub(super) async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        self.live().into_iter().find(|id| *id != leader).unwrap()
    }

    /// The next submission in bytes; the same bytes may be proposed again.
    pub(super) fn submission(&mut self) -> Bytes {
        self.submissions += 1;
        let input = Payload::Inline(Bytes::from(vec![7; self.input_bytes]));
        let spec = TaskSpec { input, ..TaskSpec::default() };
        let submission = Submission { spec, nonce: (0, 1, self.submissions) };
        Command::from(ShardCommand::Submit(vec![submission])).encode(Time(self.submissions))
    }

    /// Submits tasks, one after the other, until each is acknowledged by whoever leads.
    pub(super) async fn submit(&mut self, count: usize) {
        for _ in 0..count {
            let command = self.submission();
            let deadline = RT::Instant::now() + PATIENCE;
            loop {
                assert!(
                    RT::Instant::now() < deadline,
                    "no acknowledgement: {:#?}",
                    self.statuses()
                );
                let leader = self.leader().await;
                match self.handle(leader).propose(command.clone()).await {
                    Ok((_index, outcome)) => break self.acked.push(task_of(&outcome)),
                    Err(ProposeError::NotLeader { .. } | ProposeError::Unknown) => {
                        RT::sleep(Duration::from_millis(5)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Waits until all live nodes have applied the same entries, then judges.
    pub(super) async fn settle(&self) {
        self.until("settled", |cluster| {
            let statuses = cluster.statuses();
            let last = statuses.iter().map(|status| status.last_log).max();
            statuses.iter().all(|status| Some(status.applied) == last && status.leader.is_some())
        })
        .await;
        self.judge();
    }

    /// Every acknowledged task is on every live node, the states are one, nobody complained.
    pub(super) fn judge(&self) {
        let views: Vec<_> =
            self.live().into_iter().map(|id| (id, self.handle(id).view())).collect();
        for (id, view) in &views {
            for task in &self.acked {
                assert!(view.task(*task).is_some(), "{id} lost the acknowledged {task}");
            }
            assert_eq!(view.digest(), views[0].1.digest(), "{id} and {}", views[0].0);
            assert_eq!(view.digest(), view.recompute_digest(), "{id}");
        }
        assert_eq!(locked(&self.judges).complaints(), [] as [String; 0]);
    }

    pub(super) fn applied(&self, id: NodeId) -> Index {
        self.status(id).applied
    }
}

/// The task of a submission's outcome.
pub(super) fn task_of(outcome: &Outcome) -> TaskId {
    let Outcome::Submitted(tasks) = outcome else {
        panic!("not the outcome of a submission: {outcome:?}");
    };
    tasks[0].as_ref().unwrap().id
}
