//! Voters with logs in memory, one of them damaged, and a wire that is a table.

use std::sync::{Arc, Mutex as Table};

use quorate_storage::{DirectoryId, Log, MemoryDisk, Record, SnapshotMeta};
use quorate_types::{Faults, SendError};

use super::*;

type FileLog = Log<TokioRuntime, MemoryDisk>;
type Ends = Arc<Table<BTreeMap<NodeId, mpsc::UnboundedSender<(NodeId, Bytes)>>>>;

const GROUP: GroupId = GroupId(0);
const ME: NodeId = NodeId(1);

#[derive(Clone)]
struct Net {
    me: NodeId,
    ends: Ends,
}

impl Wire for Net {
    fn send(&self, to: NodeId, _lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let ends = self.ends.lock().expect("no test panics with it");
        let end = ends.get(&to).ok_or(SendError::Unconnected)?;
        end.send((self.me, frame)).map_err(|_gone| SendError::Unconnected)
    }
}

struct Nobody;

impl Inbox for Nobody {
    async fn deliver(&self, _event: WireEvent) {}
}

/// Puts an inbox on the net.
fn attach(ends: &Ends, me: NodeId, inbox: impl Inbox) {
    let (end, mut arrives) = mpsc::unbounded_channel();
    ends.lock().expect("no test panics with it").insert(me, end);
    tokio::spawn(async move {
        while let Some((from, frame)) = arrives.recv().await {
            inbox.deliver(WireEvent::Frame { from, lane: Lane::Blob, frame }).await;
        }
    });
}

fn options(node: NodeId) -> LogOptions {
    let directory = DirectoryId([u8::try_from(node.0).expect("small"); 16]);
    LogOptions { segment_bytes: 4096, ..LogOptions::new(directory) }
}

fn record(index: u64, term: u64) -> Record {
    let payload = Bytes::from(vec![u8::try_from(index % 251).expect("small"); 200]);
    Record { index: Index(index), term: Term(term), payload }
}

async fn open(node: NodeId, disk: &MemoryDisk) -> Result<FileLog, OpenError> {
    Ok(Log::open(disk.clone(), options(node), &Faults::none()).await?.0)
}

async fn append(log: &FileLog, records: Vec<Record>) {
    let (durable, waits) = tokio::sync::oneshot::channel();
    let done = move |result: Result<(), _>| {
        durable.send(result.is_ok()).ok();
    };
    log.append(GROUP, records, done).expect("taken");
    assert!(waits.await.expect("told"));
}

/// A voter that answers: entries of these terms from 1 on, in a term.
async fn voter(ends: &Ends, node: u64, term: u64, entries: &[(u64, u64)]) -> (MemoryDisk, FileLog) {
    let (node, disk) = (NodeId(node), MemoryDisk::new());
    let log = open(node, &disk).await.expect("new");
    append(&log, entries.iter().map(|(index, term)| record(*index, *term)).collect()).await;
    log.save_vote(GROUP, vote_for_itself(Term(term), node), drop).expect("taken");
    let snapshots = Snapshots::open(disk.clone()).await.expect("opens");
    let pharmacy = Pharmacy::new(log.clone(), snapshots);
    pharmacy.open(Net { me: node, ends: Arc::clone(ends) }, |_| vec![ME, NodeId(2), NodeId(3)]);
    attach(ends, node, Counter { pharmacy, inside: Nobody });
    (disk, log)
}

/// This node's disk with rot in the middle of its log, and what a start says of it.
async fn damaged() -> (MemoryDisk, Salvage) {
    let disk = MemoryDisk::new();
    let log = open(ME, &disk).await.expect("new");
    for index in 1..=60 {
        append(&log, vec![record(index, 1)]).await;
    }
    log.save_vote(GROUP, vote_for_itself(Term(4), ME), drop).expect("taken");
    log.close().await.expect("closed");
    let disk = disk.crash();
    let path = disk.paths().into_iter().find(|path| path.ends_with("02.wal")).expect("several");
    disk.tamper(&path, |bytes| bytes[500] ^= 1);
    let damage = open(ME, &disk).await.expect_err("refused");
    let salvage = Salvage::of(&disk, &options(ME), damage).await.expect("readable");
    (disk, salvage.expect("others can help"))
}

async fn patient(ends: &Ends, disk: &MemoryDisk) -> Patient<MemoryDisk, Net> {
    let (ear, heard) = ear();
    attach(ends, ME, ear);
    let snapshots = Snapshots::open(disk.clone()).await.expect("opens");
    let (disk, wire) = (disk.clone(), Net { me: ME, ends: Arc::clone(ends) });
    Patient { node: ME, disk, options: options(ME), snapshots, wire, heard }
}

fn listed() -> BTreeSet<NodeId> {
    [ME, NodeId(2)].into()
}

#[tokio::test]
async fn the_furthest_log_is_copied_and_the_highest_term_is_kept() {
    let ends = Ends::default();
    // Longer, but of an older term: what it has behind 70 was never committed.
    let longer: Vec<_> = (1..=200).map(|index| (index, 1)).collect();
    let newer: Vec<_> = (1..=70).map(|index| (index, 1)).chain([(71, 3), (72, 3)]).collect();
    let _two = voter(&ends, 2, 9, &longer).await;
    let _three = voter(&ends, 3, 3, &newer).await;
    let (disk, salvage) = damaged().await;
    patient(&ends, &disk).await.repair(&salvage, &listed()).await.expect("repaired");
    let log = open(ME, &disk.crash()).await.expect("sound");
    let found: Vec<_> = log.read(GROUP, Index(0)..Index(u64::MAX));
    let expected: Vec<_> = newer.iter().map(|(index, term)| record(*index, *term)).collect();
    assert_eq!(found, expected);
    assert_eq!(log.vote(GROUP), Some(vote_for_itself(Term(9), ME)), "the highest of all");
}

#[tokio::test(start_paused = true)]
async fn every_other_voter_must_answer_also_one_that_only_they_know() {
    let ends = Ends::default();
    let _two = voter(&ends, 2, 1, &[(1, 1)]).await;
    let (disk, salvage) = damaged().await;
    let before = disk.bytes("log/00000000000000000002.wal");
    let mut asking = patient(&ends, &disk).await;
    let listed = listed();
    let waits = asking.repair(&salvage, &listed);
    assert!(tokio::time::timeout(Duration::from_secs(60), waits).await.is_err());
    assert_eq!(disk.bytes("log/00000000000000000002.wal"), before, "nothing is changed until then");
    let _three = voter(&ends, 3, 1, &[(1, 1), (2, 1)]).await;
    asking.repair(&salvage, &listed).await.expect("repaired");
    let log = open(ME, &disk).await.expect("sound");
    assert_eq!(log.last(GROUP), Some((Index(2), Term(1))));
    assert_eq!(log.vote(GROUP), Some(vote_for_itself(Term(4), ME)), "its own is readable");
}

#[tokio::test]
async fn a_log_that_was_cut_comes_with_its_snapshot() {
    let ends = Ends::default();
    let entries: Vec<_> = (1..=50).map(|index| (index, 1)).collect();
    let (disk_two, two) = voter(&ends, 2, 1, &entries).await;
    let _three = voter(&ends, 3, 1, &[(1, 1)]).await;
    let body = Bytes::from(vec![5; 3 * PIECE_BYTES + 17]);
    let membership = Bytes::from_static(b"voters");
    let meta = SnapshotMeta { index: Index(45), term: Term(1), membership };
    let theirs = Snapshots::open(disk_two).await.expect("opens");
    theirs.write(GROUP, meta.clone(), body.clone()).await.expect("written");
    two.purge_upto(GROUP, Index(40), Term(1), drop).expect("taken");

    let (disk, salvage) = damaged().await;
    let own = Snapshots::open(disk.clone()).await.expect("opens");
    let rotten = SnapshotMeta { index: Index(44), ..meta.clone() };
    own.write(GROUP, rotten, Bytes::from_static(b"rotten")).await.expect("written");
    let path = disk.paths().into_iter().find(|path| path.ends_with(".snap")).expect("one");
    disk.tamper(&path, |bytes| bytes[60] ^= 1);
    patient(&ends, &disk).await.repair(&salvage, &listed()).await.expect("repaired");
    let disk = disk.crash();
    let own = Snapshots::open(disk.clone()).await.expect("opens");
    assert_eq!(own.latest(GROUP).await.expect("sound"), Some((meta, body)));
    let log = open(ME, &disk).await.expect("sound");
    assert_eq!(log.purged(GROUP), Some((Index(40), Term(1))));
    let found: Vec<_> = log.read(GROUP, Index(0)..Index(u64::MAX));
    assert_eq!(found, (41..=50).map(|index| record(index, 1)).collect::<Vec<_>>());
}

#[test]
fn frames_of_this_room_are_no_frames_of_the_blob_exchange() {
    let frame = Word::Ask.write();
    assert!(Word::read(&frame).is_some() && Word::read(&frame[1..]).is_none());
    assert!(cbor::decode::<(u16, u8)>(&frame, FRAME_BYTES_MAX).is_err(), "theirs are an array");
}
