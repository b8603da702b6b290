//! The log as a scenario sees it: on a disk in memory, under the seeded runtime
//! unless a test says otherwise.

mod faults;
mod full;
mod misplaced;
mod model;
mod recovery;
mod recycling;
mod repair;
mod serving;

use openraft_rt::Oneshot;
use openraft_rt_sim::SimRuntime;

use super::*;
use crate::MemoryDisk;

type SimLog = Log<SimRuntime, MemoryDisk>;

const A: GroupId = GroupId(0);
const B: GroupId = GroupId(1);
const EVERYTHING: Range<Index> = Index(0)..Index(u64::MAX);

fn sim<T>(scenario: impl Future<Output = T>) -> T {
    SimRuntime::with_seed(11).block_on(scenario)
}

fn options(segment_bytes: u32) -> LogOptions {
    LogOptions { segment_bytes, ..LogOptions::new(DirectoryId([0x1d; 16])) }
}

async fn open_with<RT: AsyncRuntime>(
    disk: &MemoryDisk,
    segment_bytes: u32,
    faults: &Faults,
) -> Result<(Log<RT, MemoryDisk>, Recovered), OpenError> {
    Log::open(disk.clone(), options(segment_bytes), faults).await
}

/// A sound log in segments of 4 KiB.
async fn open(disk: &MemoryDisk) -> SimLog {
    open_with(disk, 4096, &Faults::none()).await.expect("opens").0
}

async fn refusal(disk: &MemoryDisk) -> OpenError {
    open_with::<SimRuntime>(disk, 4096, &Faults::none()).await.expect_err("refused")
}

fn record(index: u64, term: u64, text: &str) -> Record {
    let payload = Bytes::from(text.to_owned());
    Record { index: Index(index), term: Term(term), payload }
}

/// Submits and waits to be told.
async fn told<RT: AsyncRuntime>(
    submit: impl FnOnce(Done) -> Result<(), SubmitError>,
) -> Result<(), Arc<LogError>> {
    let (tell, waits) = <RT::Oneshot as Oneshot>::channel();
    let done = move |result| drop(openraft_rt::OneshotSender::send(tell, result));
    submit(Box::new(done)).expect("taken");
    waits.await.expect("told")
}

/// Appends one record and waits until it is durable.
async fn append(log: &SimLog, group: GroupId, record: Record) {
    told::<SimRuntime>(|done| log.append(group, vec![record], done)).await.expect("durable");
}

async fn vote(log: &SimLog, group: GroupId, text: &'static str) {
    let vote = Bytes::from_static(text.as_bytes());
    told::<SimRuntime>(|done| log.save_vote(group, vote, done)).await.expect("durable");
}

/// What a group has, as far as readers see.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    entries: Vec<Record>,
    purged: Option<(Index, Term)>,
    vote: Option<Bytes>,
}

fn seen<RT: AsyncRuntime>(log: &Log<RT, MemoryDisk>, group: GroupId) -> Seen {
    Seen { entries: log.read(group, EVERYTHING), purged: log.purged(group), vote: log.vote(group) }
}

fn indices(log: &SimLog, group: GroupId) -> Vec<u64> {
    log.read(group, EVERYTHING).iter().map(|record| record.index.0).collect()
}

/// Every file with its content.
fn dump(disk: &MemoryDisk) -> Vec<(String, Vec<u8>)> {
    let content = |path: String| (path.clone(), disk.bytes(&path).unwrap_or_default());
    disk.paths().into_iter().map(content).collect()
}
