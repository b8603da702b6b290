//! Voters with directories in memory, and a wire that is a table of porches.

use std::sync::Mutex as Table;

use quorate_storage::MemoryDisk;
use quorate_types::SendError;
use tokio::sync::mpsc;

use super::*;

const FIRST: DirectoryId = DirectoryId([1; 16]);
const SECOND: DirectoryId = DirectoryId([2; 16]);

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

#[test]
fn words_survive_the_wire_and_are_no_frames_of_the_kernel() {
    for word in [Word::Ask(FIRST), Word::Known(SECOND)] {
        let frame = word.write();
        assert_eq!((frame.len(), Word::read(&frame)), (FRAME_BYTES, Some(word)));
        assert!(
            quorate_types::cbor::decode::<(u16, u8)>(&frame, FRAME_BYTES).is_err(),
            "the kernel's frames are an array with a version"
        );
    }
    assert_eq!(Word::read(b"dir1?short"), None);
}

type Ends = Arc<Table<BTreeMap<NodeId, mpsc::UnboundedSender<(NodeId, Bytes)>>>>;

/// One node's end of a net on which absent nodes are not connected.
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

/// Counts what is passed on.
struct Inside(mpsc::UnboundedSender<WireEvent>);

impl Inbox for Inside {
    async fn deliver(&self, event: WireEvent) {
        self.0.send(event).ok();
    }
}

/// Starts a voter on a net; its desk, and what its porch passes on.
async fn voter(
    ends: &Ends,
    me: u64,
    disk: &MemoryDisk,
) -> (Desk<MemoryDisk, Net>, mpsc::UnboundedReceiver<WireEvent>) {
    let me = NodeId(me);
    let desk = Desk::new(Directories::open(disk.clone()).await.expect("sound"));
    desk.open(Net { me, ends: Arc::clone(ends) });
    let (end, mut arrives) = mpsc::unbounded_channel();
    ends.lock().expect("no test panics with it").insert(me, end);
    let (pass, passed) = mpsc::unbounded_channel();
    let porch = Porch { desk: desk.clone(), inside: Inside(pass) };
    tokio::spawn(async move {
        while let Some((from, frame)) = arrives.recv().await {
            porch.deliver(WireEvent::Frame { from, lane: Lane::Control, frame }).await;
        }
    });
    (desk, passed)
}

fn three() -> BTreeSet<NodeId> {
    (1..=3).map(NodeId).collect()
}

async fn admit(desk: &Desk<MemoryDisk, Net>, me: u64, own: DirectoryId) -> Result<(), String> {
    desk.admit(NodeId(me), own, &three()).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_cluster_begins_and_a_voter_without_its_directory_is_refused_for_good() {
    let ends = Ends::default();
    let disks = [MemoryDisk::new(), MemoryDisk::new(), MemoryDisk::new()];
    let own = |at: u8| DirectoryId([10 + at; 16]);
    let mut desks = Vec::new();
    for (me, disk) in (1..).zip(&disks) {
        desks.push(voter(&ends, me, disk).await.0);
    }
    let begun = tokio::join!(
        admit(&desks[0], 1, own(1)),
        admit(&desks[1], 2, own(2)),
        admit(&desks[2], 3, own(3)),
    );
    assert_eq!(begun, (Ok(()), Ok(()), Ok(())));

    let (again, _) = voter(&ends, 2, &disks[1].crash()).await;
    ends.lock().expect("no test panics with it").retain(|node, _| *node == NodeId(2));
    assert_eq!(admit(&again, 2, own(2)).await, Ok(()), "later starts ask nobody");

    let (_one, _) = voter(&ends, 1, &disks[0].crash()).await;
    let (emptied, _) = voter(&ends, 2, &MemoryDisk::new()).await;
    let said = admit(&emptied, 2, SECOND).await.expect_err("one witness is enough to refuse");
    for words in [&own(2).to_string(), &SECOND.to_string(), "node n1 remembers", "data_dir"] {
        assert!(said.contains(words), "no `{words}` in: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_directory_waits_until_enough_others_hold_it() {
    let ends = Ends::default();
    let (one, _) = voter(&ends, 1, &MemoryDisk::new()).await;
    let (_two, _) = voter(&ends, 2, &MemoryDisk::new()).await;
    let waits = tokio::time::timeout(Duration::from_secs(60), admit(&one, 1, FIRST)).await;
    assert!(waits.is_err(), "of three voters, both others must hold it");
    let (_three, _) = voter(&ends, 3, &MemoryDisk::new()).await;
    assert_eq!(admit(&one, 1, FIRST).await, Ok(()));
}

#[tokio::test]
async fn other_frames_are_passed_on() {
    let ends = Ends::default();
    let (_desk, mut passed) = voter(&ends, 1, &MemoryDisk::new()).await;
    let sender = Net { me: NodeId(2), ends };
    for frame in [&b"dir1"[..], &[0x82; FRAME_BYTES], b""] {
        let frame = Bytes::copy_from_slice(frame);
        sender.send(NodeId(1), Lane::Control, frame.clone()).expect("connected");
        let event = passed.recv().await.expect("passed on");
        assert!(matches!(event, WireEvent::Frame { frame: got, .. } if got == frame));
    }
}
