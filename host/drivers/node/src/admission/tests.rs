//! Voters with directories in memory, and a wire that is a table of porches.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quorate_storage::MemoryDisk;
use quorate_types::{Inbox, SendError, WireEvent};
use tokio::sync::mpsc;

use super::*;

mod eras;

const FIRST: DirectoryId = DirectoryId([1; 16]);
const SECOND: DirectoryId = DirectoryId([2; 16]);

fn presence(node: u64, directory: DirectoryId, life: u64, position: u64) -> Presence {
    // Two processes never draw the same number.
    let boot = BOOTS.fetch_add(1, Ordering::Relaxed);
    let position = Box::new(move || position);
    let era = Some(Era::FIRST);
    Presence { node: NodeId(node), directory, life, boot, era, position }
}

static BOOTS: AtomicU64 = AtomicU64::new(1);

#[test]
fn every_quorum_that_a_voter_stands_in_has_a_witness() {
    for voters in 2..=9 {
        let others = voters - 1;
        let witnesses = witnesses(voters);
        assert!(witnesses <= others, "{voters} voters can begin");
        assert!(witnesses + majority(voters) - 1 > others, "a quorum of {voters} has one");
        assert!(2 * witnesses > others, "those who remember and those who are asked meet");
    }
    assert_eq!(witnesses(1), 0);
}

type Arrival = (NodeId, Lane, Bytes);
type Ends = Arc<Table<BTreeMap<NodeId, mpsc::UnboundedSender<Arrival>>>>;

/// One node's end of a net on which absent nodes are not connected.
#[derive(Clone)]
struct Net {
    me: NodeId,
    ends: Ends,
}

impl Wire for Net {
    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let ends = self.ends.lock().expect("no test panics with it");
        let end = ends.get(&to).ok_or(SendError::Unconnected)?;
        end.send((self.me, lane, frame)).map_err(|_gone| SendError::Unconnected)
    }
}

/// Counts what is passed on.
struct Inside(mpsc::UnboundedSender<WireEvent>);

impl Inbox for Inside {
    async fn deliver(&self, event: WireEvent) {
        self.0.send(event).ok();
    }
}

/// Starts a voter on a net; its desk, and what its porch passes on. Its place on the net is that
/// of the newest process, as a connection is.
async fn voter(
    ends: &Ends,
    own: Presence,
    disk: &MemoryDisk,
) -> (Desk<MemoryDisk, Net>, mpsc::UnboundedReceiver<WireEvent>) {
    let me = own.node;
    let desk = Desk::new(own, Directories::open(disk.clone()).await.expect("sound"));
    desk.open(Net { me, ends: Arc::clone(ends) });
    let (end, mut arrives) = mpsc::unbounded_channel::<Arrival>();
    let others: Vec<NodeId> = {
        let mut ends = ends.lock().expect("no test panics with it");
        ends.insert(me, end);
        ends.keys().copied().filter(|other| *other != me).collect()
    };
    for other in others {
        desk.peer_up(other);
    }
    let (pass, passed) = mpsc::unbounded_channel();
    let porch = Porch { desk: desk.clone(), inside: Inside(pass) };
    tokio::spawn(async move {
        while let Some((from, lane, frame)) = arrives.recv().await {
            porch.deliver(WireEvent::Frame { from, lane, frame }).await;
        }
    });
    (desk, passed)
}

fn three() -> BTreeSet<NodeId> {
    (1..=3).map(NodeId).collect()
}

async fn admit(desk: &Desk<MemoryDisk, Net>) -> Result<(), String> {
    desk.admit(&three()).await.map_err(|error| error.to_string())
}

fn own(at: u8) -> DirectoryId {
    DirectoryId([10 + at; 16])
}

/// Three voters that have begun, each in its first life with a log up to 100.
struct Begun {
    ends: Ends,
    disks: [MemoryDisk; 3],
    desks: Vec<Desk<MemoryDisk, Net>>,
    passed: Vec<mpsc::UnboundedReceiver<WireEvent>>,
}

async fn begun() -> Begun {
    let ends = Ends::default();
    let disks = [MemoryDisk::new(), MemoryDisk::new(), MemoryDisk::new()];
    let (mut desks, mut passed) = (Vec::new(), Vec::new());
    for (at, disk) in (1..).zip(&disks) {
        let (desk, inside) = voter(&ends, presence(at.into(), own(at), 1, 100), disk).await;
        desks.push(desk);
        passed.push(inside);
    }
    let begun = tokio::join!(admit(&desks[0]), admit(&desks[1]), admit(&desks[2]));
    assert_eq!(begun, (Ok(()), Ok(()), Ok(())));
    for desk in &desks {
        three()
            .into_iter()
            .filter(|other| *other != desk.0.own.node)
            .for_each(|other| desk.peer_up(other));
    }
    Begun { ends, disks, desks, passed }
}

impl Begun {
    /// The process of node 2 ends, its port refusing.
    fn end_two(&mut self) {
        self.desks.truncate(1);
        self.passed.truncate(1);
        for desk in &self.desks {
            desk.peer_gone(NodeId(2), Gone::Refused);
        }
        self.ends.lock().expect("no test panics with it").remove(&NodeId(3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_begins_and_later_starts_wait_for_nobody() {
    let begun = begun().await;
    begun.ends.lock().expect("no test panics with it").clear();
    let (again, _) = voter(&begun.ends, presence(2, own(2), 2, 100), &begun.disks[1].crash()).await;
    let began = Instant::now();
    assert_eq!(admit(&again).await, Ok(()));
    assert!(began.elapsed() <= ANSWER_WITHIN + ASK_EVERY, "{:?}", began.elapsed());
    assert!(!again.is_accepted_by(NodeId(1)), "but its log speaks to nobody yet");
}

#[tokio::test(start_paused = true)]
async fn a_voter_without_its_directory_is_refused_for_good() {
    let begun = begun().await;
    begun.ends.lock().expect("no test panics with it").clear();
    let (_one, _) = voter(&begun.ends, presence(1, own(1), 2, 100), &begun.disks[0].crash()).await;
    let emptied = presence(2, SECOND, 1, 0);
    let (emptied, _) = voter(&begun.ends, emptied, &MemoryDisk::new()).await;
    let said = admit(&emptied).await.expect_err("one witness is enough to refuse");
    for words in [
        own(2).to_string().as_str(),
        &SECOND.to_string(),
        "node n1 remembers",
        "data_dir",
        "quorate cluster member replace 2 NEW@ADDRESS",
    ] {
        assert!(said.contains(words), "no `{words}` in: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_is_refused_whatever_its_life() {
    for (life, position) in [(1, 100), (1, 5_000), (2, 99), (7, 0)] {
        let mut begun = begun().await;
        begun.end_two();
        let (copy, _) =
            voter(&begun.ends, presence(2, own(2), life, position), &MemoryDisk::new()).await;
        let said = admit(&copy).await.expect_err("refused");
        assert!(said.contains("quorate cluster member replace 2 NEW@ADDRESS"), "{said}");
        assert!(!copy.is_accepted_by(NodeId(1)));
    }
    let mut begun = begun().await;
    begun.end_two();
    let (sound, _) = voter(&begun.ends, presence(2, own(2), 2, 100), &begun.disks[1].crash()).await;
    assert_eq!(admit(&sound).await, Ok(()));
    assert!(sound.is_accepted_by(NodeId(1)), "the directory itself goes on");
}

#[tokio::test(start_paused = true)]
async fn a_copy_beside_its_original_is_refused_and_the_original_stays() {
    let begun = begun().await;
    // Let node 2 be heard; then its copy, one life later, takes its place on the net now and then,
    // as two processes under one key take each other's connections.
    tokio::time::sleep(SAY_EVERY * 2).await;
    let (copy, _) = voter(&begun.ends, presence(2, own(2), 2, 100), &begun.disks[1].fork()).await;
    let said = admit(&copy).await.expect_err("both speak");
    assert!(said.contains("another process runs as node n2"), "{said}");
    assert!(begun.desks[1].failure().is_none(), "{:?}", begun.desks[1].failure());
}

#[tokio::test(start_paused = true)]
async fn a_life_that_follows_a_silent_one_is_accepted_though_nobody_saw_the_end() {
    let mut begun = begun().await;
    tokio::time::sleep(SAY_EVERY * 2).await;
    // Power loss: no connection is closed.
    drop(begun.desks.remove(1));
    let (next, _) = voter(&begun.ends, presence(2, own(2), 2, 100), &begun.disks[1].crash()).await;
    assert_eq!(admit(&next).await, Ok(()));
    tokio::time::sleep(SAY_EVERY * 2).await;
    assert!(next.is_accepted_by(NodeId(1)) && next.is_accepted_by(NodeId(3)));
}

#[tokio::test(start_paused = true)]
async fn an_original_whose_copy_went_on_is_told_while_it_runs() {
    let begun = begun().await;
    let newer = Life { directory: own(2), life: 5, boot: 999, position: 100 };
    let known = begun.desks[0].0.directories.lock().await.settle(NodeId(2), newer).await;
    assert_eq!(known.expect("kept"), Verdict::Sound);
    tokio::time::sleep(SAY_EVERY * 3).await;
    let failure = begun.desks[1].failure().expect("the process must end");
    assert!(
        matches!(failure, AdmissionError::Behind { known, .. } if known.life == 5),
        "{failure}"
    );
    assert!(!begun.desks[1].is_accepted_by(NodeId(3)), "and nothing of its log passes any more");
}

#[tokio::test(start_paused = true)]
async fn a_new_directory_waits_until_enough_others_hold_it() {
    let ends = Ends::default();
    let (one, _) = voter(&ends, presence(1, FIRST, 1, 0), &MemoryDisk::new()).await;
    let (_two, _) = voter(&ends, presence(2, own(2), 1, 0), &MemoryDisk::new()).await;
    let waits = tokio::time::timeout(Duration::from_secs(60), admit(&one)).await;
    assert!(waits.is_err(), "of three voters, both others must hold it");
    let (_three, _) = voter(&ends, presence(3, own(3), 1, 0), &MemoryDisk::new()).await;
    assert_eq!(admit(&one).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn frames_of_the_log_pass_when_the_peer_has_accepted_and_others_always() {
    let ends = Ends::default();
    let (desk, mut passed) = voter(&ends, presence(1, FIRST, 1, 0), &MemoryDisk::new()).await;
    let sender = Net { me: NodeId(2), ends: Arc::clone(&ends) };
    let log = Bytes::from_static(b"a vote");
    sender.send(NodeId(1), Lane::Vote, log.clone()).expect("connected");
    for frame in [&b"dir2"[..], &[0x82; 45], b""] {
        let frame = Bytes::copy_from_slice(frame);
        sender.send(NodeId(1), Lane::Control, frame.clone()).expect("connected");
        let event = passed.recv().await.expect("passed on");
        assert!(matches!(event, WireEvent::Frame { frame: got, .. } if got == frame));
    }
    let fence = Fence::new(desk.clone(), Net { me: NodeId(1), ends: Arc::clone(&ends) });
    let (two, _) = voter(&ends, presence(2, own(2), 1, 0), &MemoryDisk::new()).await;
    assert_eq!(fence.send(NodeId(2), Lane::Vote, log.clone()), Err(SendError::Unconnected));
    desk.peer_up(NodeId(2));
    let event = passed.recv().await.expect("passed on");
    assert!(matches!(event, WireEvent::PeerUp(NodeId(2))), "it is up when it has accepted");
    fence.send(NodeId(2), Lane::Vote, log.clone()).expect("it has accepted");
    sender.send(NodeId(1), Lane::Vote, log).expect("connected");
    let event = passed.recv().await.expect("passed on");
    assert!(matches!(event, WireEvent::Frame { lane: Lane::Vote, .. }), "{event:?}");
    drop(two);
}
