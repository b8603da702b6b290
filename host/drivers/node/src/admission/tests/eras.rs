//! A cluster that was begun anew, and those who come back from before.

use super::*;

const NOW: Era = Era { number: 1, mark: 0xabc };

fn of_era(era: Option<Era>, presence: Presence) -> Presence {
    Presence { era, ..presence }
}

/// A directory as a node of this era has it.
async fn directory(era: Option<Era>, node: u64) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (cluster, peer, directory) = ("harbour".to_owned(), "peer".to_owned(), own(9));
    let identity = quorate_storage::Identity { cluster, node: NodeId(node), peer, directory, era };
    quorate_storage::DataDir::open_or_create(&disk, identity).await.expect("written");
    disk
}

async fn one(era: Era, node: u64, ends: &Ends) -> (Desk<MemoryDisk, Net>, Passed) {
    let presence = of_era(Some(era), presence(node, own(1), 1, 100));
    voter(ends, presence, &directory(Some(era), node).await).await
}

type Passed = mpsc::UnboundedReceiver<WireEvent>;

#[tokio::test(start_paused = true)]
async fn a_member_of_the_era_before_is_refused_by_name_and_harms_nobody() {
    let ends = Ends::default();
    let (now, mut inside) = one(NOW, 1, &ends).await;
    let (old, _) = one(Era::FIRST, 2, &ends).await;
    let said = admit(&old).await.expect_err("its cluster was begun anew");
    for words in ["era 0", "era 1:0", "node n1 says", "data_dir", "member add", "joins = true"] {
        assert!(said.contains(words), "no `{words}` in: {said}");
    }
    tokio::time::sleep(SAY_EVERY * 3).await;
    assert!(now.failure().is_none() && !now.is_accepted_by(NodeId(2)));
    // Whatever else it sends does not come in.
    let porch = Porch { desk: now.clone(), inside: Inside(mpsc::unbounded_channel().0) };
    assert!(porch.desk.is_of_other_era(NodeId(2)));
    for lane in [Lane::Gossip, Lane::Call, Lane::Control, Lane::Blob, Lane::Append] {
        let frame = Bytes::from_static(b"of the era before");
        let net = Net { me: NodeId(2), ends: Arc::clone(&ends) };
        net.send(NodeId(1), lane, frame).expect("connected");
    }
    tokio::time::sleep(SAY_EVERY).await;
    assert!(inside.try_recv().is_err(), "nothing was passed on");
}

#[tokio::test(start_paused = true)]
async fn two_that_parted_leave_each_other_alone() {
    let ends = Ends::default();
    let (one_side, _a) = one(NOW, 1, &ends).await;
    let (other_side, _b) = one(Era { mark: 0xdef, ..NOW }, 2, &ends).await;
    one_side.peer_up(NodeId(2));
    tokio::time::sleep(SAY_EVERY * 3).await;
    for desk in [&one_side, &other_side] {
        assert!(desk.failure().is_none(), "{:?}", desk.failure());
        assert!(!desk.is_accepted_by(NodeId(1)) && !desk.is_accepted_by(NodeId(2)));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_joins_learns_the_era_and_keeps_it() {
    let ends = Ends::default();
    let (_now, _inside) = one(NOW, 1, &ends).await;
    let disk = directory(None, 4).await;
    let joins = of_era(None, presence(4, own(4), 1, 0));
    let (new, _) = voter(&ends, joins, &disk).await;
    let members = [1, 4].map(NodeId).into();
    new.admit(&members).await.expect("it was not refused");
    assert_eq!(new.era(), NOW);
    let kept = quorate_storage::DataDir::read(&disk.crash()).await.expect("sound");
    assert_eq!(kept.expect("there").era, Some(NOW));
}
