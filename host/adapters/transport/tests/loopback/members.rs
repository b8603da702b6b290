//! The list of peers may change while transports run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use quorate_transport::{PeerAddress, PeerState};
use quorate_types::{Gone, Lane, NodeId, SendError};

use crate::fixture::{Cluster, Node, SOON, pair};

fn listed(cluster: &Cluster, nodes: &[u64]) -> BTreeMap<NodeId, PeerAddress> {
    let nodes = nodes.iter().map(|node| NodeId(*node));
    nodes.map(|node| (node, cluster.peers[&node].clone())).collect()
}

/// Three nodes of which the third is not on the others' list.
async fn two_and_a_newcomer() -> (Cluster, Node, Node, Node) {
    let cluster = Cluster::of(3);
    let start = |node: u64, known: &[u64]| {
        let mut options = cluster.options(node);
        options.peers = listed(&cluster, known);
        Node::start(options).unwrap()
    };
    let (mut one, mut two) = (start(1, &[1, 2]), start(2, &[1, 2]));
    one.up(2).await;
    two.up(1).await;
    let third = start(3, &[1, 2, 3]);
    (cluster, one, two, third)
}

#[tokio::test]
async fn who_is_added_is_connected_and_who_is_removed_is_cut_off_at_once() {
    let (cluster, mut one, mut two, mut third) = two_and_a_newcomer().await;
    third.see(|peers| peers[&NodeId(1)].problem.is_some()).await;
    assert_eq!(one.send(3, Lane::Call, "early"), Err(SendError::Unconnected));
    for node in [&one, &two] {
        node.transport.set_peers(listed(&cluster, &[1, 2, 3]));
    }
    one.up(3).await;
    two.up(3).await;
    let mut up = [third.next().await, third.next().await].map(|event| format!("{event:?}"));
    up.sort_unstable();
    assert_eq!(up, ["PeerUp(NodeId(1))", "PeerUp(NodeId(2))"]);
    one.send(3, Lane::Call, "welcome").unwrap();
    assert_eq!(third.frame().await, (NodeId(1), Lane::Call, "welcome".into()));

    let before = one.transport.counts().strangers_refused;
    let since = Instant::now();
    one.transport.set_peers(listed(&cluster, &[1, 2]));
    assert_eq!(one.gone(3).await, Gone::Closed);
    assert_eq!(third.gone(1).await, Gone::Closed);
    assert!(since.elapsed() < SOON / 10, "{:?}", since.elapsed());
    assert_eq!(one.send(3, Lane::Call, "late"), Err(SendError::Unconnected));
    assert!(!one.transport.peers().contains_key(&NodeId(3)));
    // It dials for ever, as a stranger now, and the others work on.
    third.see(|peers| peers[&NodeId(1)].problem.is_some()).await;
    while one.transport.counts().strangers_refused == before {
        one.send(2, Lane::Gossip, "still here").unwrap();
        assert_eq!(two.frame().await.1, Lane::Gossip);
    }
    two.send(3, Lane::Call, "and so are we").unwrap();
    assert_eq!(third.frame().await.0, NodeId(2));

    one.transport.set_peers(listed(&cluster, &[1, 2, 3]));
    one.up(3).await;
}

#[tokio::test]
async fn a_member_that_moved_is_found_where_it_is_now() {
    let cluster = Cluster::of(2);
    let (mut one, two) = pair(&cluster).await;
    two.transport.shutdown().await;
    assert_eq!(one.gone(2).await, Gone::Closed);
    let moved = SocketAddr::new(cluster.address(2).ip(), 7_499);
    let mut peers = cluster.peers.clone();
    peers.get_mut(&NodeId(2)).unwrap().address = moved;
    let mut options = cluster.options(2);
    // The one that moved does not dial: it must be found.
    (options.listen, options.peers) = (moved, peers.clone());
    options.redial_first = SOON;
    let mut two = Node::start(options).unwrap();
    one.transport.set_peers(peers.clone());
    loop {
        match one.next().await {
            quorate_types::WireEvent::PeerUp(NodeId(2)) => break,
            // That it is dead where it was.
            quorate_types::WireEvent::PeerGone(..) => {}
            other => panic!("{other:?}"),
        }
    }
    two.up(1).await;
    assert_eq!(one.transport.peers()[&NodeId(2)].address, moved);
    assert_eq!(one.transport.peers()[&NodeId(2)].state, PeerState::Up);
    // The same list again changes nothing.
    one.transport.set_peers(peers);
    one.send(2, Lane::Call, "there you are").unwrap();
    assert_eq!(two.frame().await, (NodeId(1), Lane::Call, "there you are".into()));
}
