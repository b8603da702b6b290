//! Peers die, leave, fall silent and come back.

use quorate_transport::PeerState;
use quorate_types::{Gone, Lane, NodeId, SendError};

use crate::fixture::{Cluster, Node, SOON, pair};
use crate::proxy::{Mode, Proxy};

/// A node whose handle is dropped dies without a word, as a killed process does.
async fn expect_death(survivor: &mut Node, dead: u64) {
    loop {
        match survivor.gone(dead).await {
            Gone::Refused => return,
            // Its listener may outlive the connection by more than the settling time on a busy machine.
            Gone::Closed => {}
            Gone::Timeout => panic!("a dead process on this machine refuses at once"),
        }
    }
}

#[tokio::test]
async fn a_dead_peer_is_refused_and_its_restart_reconnects_by_itself() {
    for dead in [1, 2] {
        let cluster = Cluster::of(2);
        let survivor = 3 - dead;
        let (mut node, peer) = {
            let (one, two) = pair(&cluster).await;
            if dead == 1 { (two, one) } else { (one, two) }
        };
        drop(peer);
        expect_death(&mut node, dead).await;
        assert_eq!(node.send(dead, Lane::Vote, "anyone?"), Err(SendError::Unconnected));
        assert_eq!(node.transport.peers()[&NodeId(dead)].state, PeerState::Gone(Gone::Refused));

        let mut reborn = cluster.start(dead);
        node.up(dead).await;
        reborn.up(survivor).await;
        node.send(dead, Lane::Vote, "welcome").unwrap();
        assert_eq!(reborn.frame().await, (NodeId(survivor), Lane::Vote, "welcome".into()));
        let refused = node.transport.counts().lane(Lane::Vote).refused_unconnected;
        assert_eq!(refused, 1);
    }
}

#[tokio::test]
async fn an_orderly_end_sends_what_waits_and_is_told_as_closed_then_as_dead() {
    let cluster = Cluster::of(2);
    let (one, mut two) = pair(&cluster).await;
    for turn in 0..1_000_u32 {
        one.send(2, Lane::Call, turn.to_be_bytes().to_vec()).unwrap();
    }
    one.transport.shutdown().await;
    assert_eq!(one.send(2, Lane::Call, "late"), Err(SendError::Unconnected));
    for turn in 0..1_000_u32 {
        assert_eq!(two.frame().await.2, turn.to_be_bytes().to_vec());
    }
    assert_eq!(two.gone(1).await, Gone::Closed);
    assert_eq!(two.gone(1).await, Gone::Refused, "its process no longer listens");
    // A second end changes nothing.
    one.transport.shutdown().await;
    let mut reborn = cluster.start(1);
    two.up(1).await;
    reborn.up(2).await;
}

#[tokio::test]
async fn nodes_that_leave_at_once_do_not_wait_for_each_other_for_ever() {
    let (one, two) = pair(&Cluster::of(2)).await;
    let left = async { tokio::join!(one.transport.shutdown(), two.transport.shutdown()) };
    tokio::time::timeout(SOON, left).await.expect("both leave");
    assert_eq!(one.send(2, Lane::Call, "late"), Err(SendError::Unconnected));
    assert_eq!(two.send(1, Lane::Call, "late"), Err(SendError::Unconnected));
    let again = std::net::TcpListener::bind(one.transport.local_addr());
    assert!(again.is_ok(), "its port is free: {again:?}");
}

/// n2 as n1 reaches it, through a proxy at n2's listed address.
async fn behind_proxy(cluster: &Cluster) -> (Proxy, Node, Node) {
    let mut far = cluster.watchful_options(2);
    far.listen.set_port(7999);
    let proxy = Proxy::start(cluster.address(2), far.listen).await;
    // n2 learns no way to n1, so that every connection passes the proxy.
    let nowhere = std::net::SocketAddr::from((cluster.address(1).ip(), 7998));
    far.peers.get_mut(&NodeId(1)).unwrap().address = nowhere;
    let (mut one, mut two) =
        (Node::start(cluster.watchful_options(1)).unwrap(), Node::start(far).unwrap());
    one.up(2).await;
    two.up(1).await;
    (proxy, one, two)
}

#[tokio::test]
async fn a_cut_connection_to_a_living_peer_is_closed_once_and_comes_back() {
    let cluster = Cluster::of(2);
    let (proxy, mut one, mut two) = behind_proxy(&cluster).await;
    proxy.set(Mode::Cut);
    assert_eq!(one.gone(2).await, Gone::Closed);
    // n2 asks at the address where nobody listens.
    assert_eq!(two.gone(1).await, Gone::Refused);
    proxy.set(Mode::Pass);
    one.up(2).await;
    two.up(1).await;
    two.send(1, Lane::Gossip, "back").unwrap();
    assert_eq!(one.frame().await, (NodeId(2), Lane::Gossip, "back".into()));
}

#[tokio::test]
async fn a_silent_peer_times_out_by_its_pings() {
    let cluster = Cluster::of(2);
    let (proxy, mut one, mut two) = behind_proxy(&cluster).await;
    proxy.set(Mode::Silent);
    assert_eq!(one.gone(2).await, Gone::Timeout, "its address answers, its process does not");
    assert_eq!(one.transport.counts().pings_failed, 1);
    assert_eq!(two.gone(1).await, Gone::Refused);
    proxy.set(Mode::Pass);
    one.up(2).await;
    two.up(1).await;
}

#[tokio::test]
async fn a_silent_peer_that_turns_out_dead_is_told_once_more() {
    let cluster = Cluster::of(2);
    let (proxy, mut one, _two) = behind_proxy(&cluster).await;
    proxy.set(Mode::Silent);
    assert_eq!(one.gone(2).await, Gone::Timeout);
    drop(proxy);
    assert_eq!(one.gone(2).await, Gone::Refused);
    assert_eq!(one.transport.peers()[&NodeId(2)].state, PeerState::Gone(Gone::Refused));
    // Dials go on and none of them is told as a loss.
    one.see(|peers| {
        peers[&NodeId(2)].problem.as_deref().is_some_and(|told| told.contains("refused"))
    })
    .await;
    assert!(one.transport.counts().dials_failed > 0);
    assert!(one.events.try_recv().is_err());
}
