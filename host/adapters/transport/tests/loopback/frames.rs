//! Frames arrive whole and in order, on every lane, under load and back-pressure.

use std::collections::BTreeMap;

use quorate_types::limits::FRAME_BYTES_MAX;
use quorate_types::{Lane, NodeId, SendError, WireEvent};

use crate::fixture::{Cluster, Node, pair};

/// A frame that says who sent it, when, and fills the rest with what both imply.
fn numbered(from: u64, lane: Lane, turn: u64, bytes: usize) -> Vec<u8> {
    let mut frame = vec![lane.number() ^ turn.to_le_bytes()[0]; bytes.max(16)];
    frame[..8].copy_from_slice(&from.to_be_bytes());
    frame[8..16].copy_from_slice(&turn.to_be_bytes());
    frame
}

/// Takes `frames` frames and checks that each lane of each sender counts up without a gap.
async fn expect_in_order(node: &mut Node, frames: u64) {
    let mut turns: BTreeMap<(NodeId, Lane), u64> = BTreeMap::new();
    for _ in 0..frames {
        let (from, lane, frame) = node.frame().await;
        let turn = turns.entry((from, lane)).or_default();
        assert_eq!(frame, numbered(from.0, lane, *turn, frame.len()), "{from} {lane:?} {turn}");
        *turn += 1;
    }
}

#[tokio::test]
async fn two_nodes_exchange_frames_on_all_lanes_in_order() {
    const TURNS: u64 = 500;
    let (mut one, mut two) = pair(&Cluster::of(2)).await;
    for turn in 0..TURNS {
        for lane in Lane::ALL {
            one.send(2, lane, numbered(1, lane, turn, 16)).unwrap();
            two.send(1, lane, numbered(2, lane, turn, 300)).unwrap();
        }
    }
    expect_in_order(&mut one, TURNS * 7).await;
    expect_in_order(&mut two, TURNS * 7).await;

    let counts = one.transport.counts();
    for lane in Lane::ALL {
        assert_eq!(counts.lane(lane).frames_sent, TURNS);
        assert_eq!(counts.lane(lane).bytes_sent, TURNS * 16);
        assert_eq!(counts.lane(lane).bytes_received, TURNS * 300);
    }
    assert_eq!(counts.connections, 1);
}

#[tokio::test]
async fn three_nodes_form_a_full_mesh_and_each_hears_the_others() {
    let cluster = Cluster::of(3);
    let mut nodes = [cluster.start(1), cluster.start(2), cluster.start(3)];
    for node in &mut nodes {
        let mut up = [node.next().await, node.next().await].map(|event| match event {
            WireEvent::PeerUp(peer) => peer.0,
            other @ (WireEvent::Frame { .. } | WireEvent::PeerGone(..)) => panic!("{other:?}"),
        });
        up.sort_unstable();
        assert!(matches!(up, [1, 2] | [1, 3] | [2, 3]), "{up:?}");
    }
    for (from, node) in (1..).zip(&nodes) {
        for to in (1..=3).filter(|to| *to != from) {
            for turn in 0..100 {
                node.send(to, Lane::Call, numbered(from, Lane::Call, turn, 64)).unwrap();
            }
        }
    }
    for node in &mut nodes {
        expect_in_order(node, 200).await;
    }
}

#[tokio::test]
async fn bulk_in_both_directions_at_once_does_not_stall() {
    let cluster = Cluster::of(2);
    let start = |node| {
        let mut options = cluster.options(node);
        // All of it is queued before any of it is read.
        options.queue.bytes_max = 64 << 20;
        Node::start(options).unwrap()
    };
    let (mut one, mut two) = (start(1), start(2));
    one.up(2).await;
    two.up(1).await;
    let sizes = [64 << 10, 100_000, 1 << 20, (1 << 20) - 1, 256 << 10];
    for lane in [Lane::Blob, Lane::Append] {
        for turn in 0..40 {
            let bytes = sizes[usize::try_from(turn).unwrap() % sizes.len()];
            one.send(2, lane, numbered(1, lane, turn, bytes)).unwrap();
            two.send(1, lane, numbered(2, lane, turn, bytes)).unwrap();
        }
    }
    // 20 MB a lane and direction.
    tokio::join!(expect_in_order(&mut one, 80), expect_in_order(&mut two, 80));
    let received = one.transport.counts().lane(Lane::Blob).bytes_received;
    assert!(received > 10 << 20, "{received} bytes");
}

#[tokio::test]
async fn the_largest_frame_passes_and_a_larger_one_is_refused() {
    let (one, mut two) = pair(&Cluster::of(2)).await;
    one.send(2, Lane::Snapshot, vec![3; FRAME_BYTES_MAX]).unwrap();
    let refused = one.send(2, Lane::Snapshot, vec![3; FRAME_BYTES_MAX + 1]);
    assert_eq!(refused, Err(SendError::TooLarge));
    one.send(2, Lane::Snapshot, Vec::new()).unwrap();
    assert_eq!(two.frame().await.2.len(), FRAME_BYTES_MAX);
    assert_eq!(two.frame().await.2.len(), 0, "an empty frame is a frame");
    assert_eq!(one.transport.counts().lane(Lane::Snapshot).refused_too_large, 1);
}

#[tokio::test]
async fn a_held_lane_fills_its_queue_alone_and_recovers() {
    let (one, mut two) = pair(&Cluster::of(2)).await;
    two.hold(Some(Lane::Blob));
    let mut accepted = 0;
    let refused = loop {
        match one.send(2, Lane::Blob, numbered(1, Lane::Blob, accepted, 64 << 10)) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 100_000, "a queue is bounded");
        // Lets the writer take what it can, on this machine's one or two cores.
        tokio::task::yield_now().await;
    };
    assert_eq!(refused, SendError::Full);
    assert!(one.transport.counts().lane(Lane::Blob).refused_full > 0);

    one.send(2, Lane::Vote, numbered(1, Lane::Vote, 0, 16)).unwrap();
    let (_, lane, _) = two.frame().await;
    assert_eq!(lane, Lane::Vote, "the other lanes go on");

    two.hold(None);
    expect_in_order(&mut two, accepted).await;
    one.send(2, Lane::Blob, numbered(1, Lane::Blob, 0, 16)).unwrap();
    expect_in_order(&mut two, 1).await;
}
