//! Only members get in, and each only as itself.

use std::sync::Arc;

use futures::StreamExt;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, identify, noise, tcp, yamux};
use quorate_transport::{PeerState, StartError, peer_id_of};
use quorate_types::{Lane, NodeId};
use tokio::time::timeout;

use crate::fixture::{Cluster, Node, SOON, key, pair};

#[derive(NetworkBehaviour)]
struct Curious {
    identify: identify::Behaviour,
}

/// A node of somebody else: right protocols, unknown key.
fn stranger() -> Swarm<Curious> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| Curious {
            identify: identify::Behaviour::new(identify::Config::new(
                "/quorate/1".to_owned(),
                key.public(),
            )),
        })
        .unwrap()
        .build()
}

#[tokio::test]
async fn a_stranger_is_disconnected_and_gets_no_stream_while_members_work_on() {
    let cluster = Cluster::of(2);
    let (one, mut two) = pair(&cluster).await;
    let mut stranger = stranger();
    let address = Multiaddr::from(cluster.address(1).ip())
        .with(libp2p::multiaddr::Protocol::Tcp(cluster.address(1).port()));
    stranger.dial(DialOpts::unknown_peer_id().address(address).build()).unwrap();
    let cut_off = async {
        loop {
            match stranger.select_next_some().await {
                SwarmEvent::ConnectionClosed { num_established: 0, .. }
                | SwarmEvent::OutgoingConnectionError { .. } => return,
                SwarmEvent::Behaviour(CuriousEvent::Identify(
                    identify::Event::Received { .. } | identify::Event::Sent { .. },
                )) => panic!("a stranger got a stream"),
                _ => {}
            }
        }
    };
    timeout(SOON, cut_off).await.expect("the stranger is cut off");

    one.send(2, Lane::Call, "still here").unwrap();
    assert_eq!(two.frame().await, (NodeId(1), Lane::Call, "still here".into()));
    assert_eq!(one.transport.counts().strangers_refused, 1);
    assert_eq!(one.transport.peers().len(), 1, "a stranger is no peer");
}

#[tokio::test]
async fn another_key_at_a_members_address_is_not_taken_for_the_member() {
    let cluster = Cluster::of(2);
    let mut one = cluster.start(1);
    // It stands at n2's address, calls itself n2 and would talk to n1, but has not n2's key.
    let mut options = cluster.options(2);
    options.key = key(9);
    options.peers.remove(&NodeId(2));
    let impostor = Node::start(options).unwrap();
    one.see(|peers| {
        let told = peers[&NodeId(2)].problem.as_deref().unwrap_or("");
        told.contains(&peer_id_of(&key(9))) && told.contains("list of members")
    })
    .await;
    assert!(one.transport.counts().wrong_identity > 0);
    assert_eq!(one.transport.peers()[&NodeId(2)].state, PeerState::Connecting);
    impostor.transport.shutdown().await;

    let mut two = cluster.start(2);
    one.up(2).await;
    two.up(1).await;
}

#[tokio::test]
async fn bad_options_are_refused_by_name() {
    let cluster = Cluster::of(2);
    let _one = cluster.start(1);
    let taken = Node::start(cluster.options(1)).err().unwrap();
    assert!(matches!(taken, StartError::PortTaken { .. }));
    assert!(taken.to_string().contains(&cluster.address(1).to_string()), "{taken}");

    let mut options = cluster.options(2);
    options.listen = "192.0.2.1:7000".parse().unwrap();
    let elsewhere = Node::start(options).err().unwrap();
    assert!(matches!(elsewhere, StartError::Listen { .. }), "{elsewhere}");

    let mut options = cluster.options(2);
    options.key = key(3);
    let foreign = Node::start(options).err().unwrap();
    assert!(matches!(foreign, StartError::NotOurKey { .. }), "{foreign}");
}

#[tokio::test]
async fn port_zero_finds_one() {
    let mut options = Cluster::of(1).options(1);
    options.listen.set_port(0);
    let node = Node::start(options).unwrap();
    assert_ne!(node.transport.local_addr().port(), 0);
    assert_eq!(node.transport.peer_id(), peer_id_of(&key(1)));
}

#[tokio::test]
async fn frames_to_whom_nobody_knows_are_unconnected() {
    let cluster = Arc::new(Cluster::of(2));
    let one = cluster.start(1);
    let refused = one.send(7, Lane::Call, "hello");
    assert_eq!(refused, Err(quorate_types::SendError::Unconnected));
    let refused = one.send(2, Lane::Call, "hello");
    assert_eq!(refused, Err(quorate_types::SendError::Unconnected), "n2 does not run");
}
