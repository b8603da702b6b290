//! Three nodes of one group in one process, and clients that submit to whoever leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft_rt_tokio::TokioRuntime;
use quorate_ledger::{Command, Ledger, Outcome, ShardCommand};
use quorate_raft::{Observer, ProposeError, Raft, RaftOptions};
use quorate_storage::{DirectoryId, Log, LogOptions, Snapshots};
use quorate_types::{
    Disk, EventKind, Faults, GroupId, Index, NodeId, Submission, TaskSpec, Term, Time,
};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::mesh::Mesh;

const GROUP: GroupId = GroupId(0);
/// Between attempts while nobody leads.
const AGAIN: Duration = Duration::from_millis(1);

/// Who leads, by the newest term that any node has spoken of.
struct Lookout(watch::Sender<(Term, Option<NodeId>)>);

impl Observer for Lookout {
    fn applied(&self, _: GroupId, _: Index, _: &[EventKind], _: &Arc<Ledger>) {}

    fn leadership(&self, _: GroupId, leader: Option<NodeId>, term: Term) {
        self.0.send_if_modified(|known| {
            let newer = term > known.0 || (term == known.0 && leader.is_some());
            if newer {
                *known = (term, leader);
            }
            newer
        });
    }

    fn failed(&self, group: GroupId, reason: String) {
        unreachable!("{group} stopped: {reason}");
    }
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Submissions at most: fewer than the unfinished tasks that a ledger takes.
    pub(crate) ops_max: u64,
    pub(crate) span: Duration,
}

/// What was measured.
pub(crate) struct Figures {
    /// From submission to the answer that it is applied; ascending.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) took: Duration,
    /// Attempts that found no leader.
    pub(crate) again: u64,
}

/// What clients share.
struct Shared<D: Disk> {
    groups: BTreeMap<NodeId, Raft<TokioRuntime, D>>,
    leader: watch::Receiver<(Term, Option<NodeId>)>,
    submissions: AtomicU64,
    again: AtomicU64,
}

impl<D: Disk> Shared<D> {
    fn submission(&self) -> (u64, Bytes) {
        let number = self.submissions.fetch_add(1, Ordering::Relaxed) + 1;
        let submission = Submission { spec: TaskSpec::default(), nonce: (0, 1, number) };
        let command = Command::from(ShardCommand::Submit(vec![submission]));
        (number, command.encode(Time(number)))
    }

    /// Submits until a leader has taken and applied it.
    async fn submit(&self, command: &Bytes) {
        let mut leader = self.leader.clone();
        loop {
            let known = leader.wait_for(|(_, leader)| leader.is_some()).await.unwrap().1;
            let group = &self.groups[&known.unwrap()];
            match group.propose(command.clone()).await {
                Ok((_, Outcome::Submitted(taken))) => {
                    assert!(taken.iter().all(Result::is_ok), "refused: {taken:?}");
                    return;
                }
                Ok((_, other)) => panic!("not the outcome of a submission: {other:?}"),
                Err(ProposeError::NotLeader { .. } | ProposeError::Unknown) => {
                    self.again.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// One client: submits one task after the other and notes how long each took.
    async fn client(self: Arc<Self>, until: Instant, ops_max: u64) -> Vec<Duration> {
        let mut latencies = Vec::new();
        loop {
            let (number, command) = self.submission();
            let begun = Instant::now();
            if begun >= until || number > ops_max {
                return latencies;
            }
            self.submit(&command).await;
            latencies.push(begun.elapsed());
        }
    }
}

/// A running cluster.
pub(crate) struct Cluster<D: Disk> {
    shared: Arc<Shared<D>>,
    lanes: Vec<JoinHandle<()>>,
}

impl<D: Disk> Cluster<D> {
    /// A node on each of these empty disks.
    pub(crate) async fn start(disks: Vec<D>) -> Self {
        let ids: Vec<NodeId> = (1..).take(disks.len()).map(NodeId).collect();
        let mesh = Mesh::between(&ids);
        let (tell, leader) = watch::channel((Term(0), None));
        let lookout = Arc::new(Lookout(tell));
        let mut groups = BTreeMap::new();
        for (id, disk) in ids.iter().copied().zip(disks) {
            let directory = DirectoryId([u8::try_from(id.0).unwrap(); 16]);
            let options = LogOptions::new(directory);
            let (log, _) = Log::open(disk.clone(), options, &Faults::none()).await.unwrap();
            let snapshots = Snapshots::open(disk).await.unwrap();
            let options = RaftOptions::new(id, GROUP, ids.iter().copied().collect());
            let observer: Arc<Lookout> = Arc::clone(&lookout);
            let started = Raft::start(options, log, snapshots, mesh.wire(id), observer).await;
            groups.insert(id, started.unwrap());
        }
        let lanes = mesh.carry(&groups);
        let (submissions, again) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared = Arc::new(Shared { groups, leader, submissions, again });
        Self { shared, lanes }
    }

    /// So many clients at once, each waiting for its answer before it submits again.
    pub(crate) async fn measure(&self, clients: u32, extent: Extent) -> Figures {
        let (_, first) = self.shared.submission();
        self.shared.submit(&first).await; // An election is not what is measured.
        self.shared.again.store(0, Ordering::Relaxed);
        let begun = Instant::now();
        let until = begun + extent.span;
        let mut running = JoinSet::new();
        for _ in 0..clients {
            running.spawn(Arc::clone(&self.shared).client(until, extent.ops_max));
        }
        let mut latencies = running.join_all().await.concat();
        let took = begun.elapsed();
        latencies.sort_unstable();
        Figures { latencies, took, again: self.shared.again.load(Ordering::Relaxed) }
    }

    /// Ends all nodes. Whoever leads tries to hand over, so the lanes end last.
    pub(crate) async fn stop(self) {
        let mut ending = JoinSet::new();
        for group in self.shared.groups.values() {
            let group = group.clone();
            ending.spawn(async move { group.shutdown().await });
        }
        ending.join_all().await;
        for lane in &self.lanes {
            lane.abort();
        }
    }
}
