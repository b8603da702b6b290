//! A transport against a member that misbehaves: the same swarm, without the care.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever else comes is not what was expected")]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures::{AsyncWriteExt, StreamExt};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{ConnectionId, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Stream};
use quorate_types::limits::FRAME_BYTES_MAX;
use quorate_types::{Gone, Inbox, Lane, NodeId, Wire, WireEvent};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::frame::{Arrival, FrameReader, FrameWriter};
use crate::handler::LaneChange;
use crate::lanes::LaneEvent;
use crate::members::Members;
use crate::swarm::{Behaviour, BehaviourEvent, build_swarm};
use crate::{PeerAddress, Transport, TransportOptions, peer_id_of};

/// A bound for what must happen; reaching it is a failure.
const SOON: Duration = Duration::from_secs(30);

const HONEST: NodeId = NodeId(1);
const ROGUE: NodeId = NodeId(2);

struct Ear(mpsc::UnboundedSender<WireEvent>);

impl Inbox for Ear {
    async fn deliver(&self, event: WireEvent) {
        self.0.send(event).ok();
    }
}

/// Options of the two nodes, at addresses that no other test has.
fn options() -> [TransportOptions; 2] {
    static TESTS: AtomicU8 = AtomicU8::new(1);
    let test = TESTS.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    let listed = |node: NodeId, port: u16| {
        let peer_id = peer_id_of(&[port.to_be_bytes()[1]; 32]);
        (node, PeerAddress { peer_id, address: SocketAddr::from(([127, high, low, test], port)) })
    };
    let peers = BTreeMap::from([listed(HONEST, 7501), listed(ROGUE, 7502)]);
    [(HONEST, 7501_u16), (ROGUE, 7502)].map(|(node, port)| {
        let key = [port.to_be_bytes()[1]; 32];
        TransportOptions::new(key, node, peers[&node].address, peers.clone())
    })
}

/// The misbehaving member. What it does beyond opening its lanes is the test's.
struct Rogue {
    swarm: Swarm<Behaviour>,
    at: Option<(PeerId, ConnectionId)>,
    connections: u32,
    opened: BTreeMap<Lane, Stream>,
    accepted: BTreeMap<Lane, Stream>,
}

impl Rogue {
    fn start(options: &TransportOptions) -> Self {
        let members = Arc::new(Members::from_options(options).unwrap());
        let mut swarm = build_swarm(options, members).unwrap();
        let address = options.listen;
        swarm.listen_on(Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))).unwrap();
        let (opened, accepted) = (BTreeMap::new(), BTreeMap::new());
        Self { swarm, at: None, connections: 0, opened, accepted }
    }

    async fn step(&mut self) {
        match self.swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                self.at = Some((peer_id, connection_id));
                self.connections += 1;
            }
            SwarmEvent::Behaviour(BehaviourEvent::Lanes(LaneEvent { change, .. })) => {
                match change {
                    LaneChange::Opened(lane, stream) => drop(self.opened.insert(lane, stream)),
                    LaneChange::Accepted(lane, stream) => drop(self.accepted.insert(lane, stream)),
                    other @ (LaneChange::Failed(..) | LaneChange::Malformed(_)) => {
                        tracing::debug!(?other, "as may be");
                    }
                }
            }
            _ => {}
        }
    }

    /// Keeps the rogue's swarm going until `what` is done.
    async fn during<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        let done = async {
            loop {
                tokio::select! {
                    done = &mut what => return done,
                    () = self.step() => {}
                }
            }
        };
        timeout(SOON, done).await.expect("what was waited for")
    }

    async fn until(&mut self, what: impl Fn(&Self) -> bool) {
        let done = async {
            while !what(self) {
                self.step().await;
            }
        };
        timeout(SOON, done).await.expect("what was waited for");
    }
}

struct Pair {
    honest: Transport,
    events: mpsc::UnboundedReceiver<WireEvent>,
    rogue: Rogue,
}

/// Both up, with all lanes of the rogue in its hands.
async fn pair() -> Pair {
    let [honest, rogue] = options();
    let mut rogue = Rogue::start(&rogue);
    let (events, mut on_events) = mpsc::unbounded_channel();
    let honest = Transport::start(honest, Ear(events)).unwrap();
    rogue.until(|rogue| rogue.opened.len() == 7 && rogue.accepted.len() == 7).await;
    let up = rogue.during(on_events.recv()).await;
    assert!(matches!(up, Some(WireEvent::PeerUp(ROGUE))), "{up:?}");
    Pair { honest, events: on_events, rogue }
}

impl Pair {
    async fn next(&mut self) -> WireEvent {
        self.rogue.during(self.events.recv()).await.expect("the transport runs")
    }

    async fn frame(&mut self) -> Vec<u8> {
        match self.next().await {
            WireEvent::Frame { frame, .. } => frame.to_vec(),
            other => panic!("a frame was expected, not {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_oversized_length_ends_the_connection_and_nothing_is_read_of_it() {
    for length in [u32::try_from(FRAME_BYTES_MAX).unwrap() + 1, u32::MAX - 1] {
        let mut pair = pair().await;
        let mut stream = pair.rogue.opened.remove(&Lane::Append).unwrap();
        let said = async {
            stream.write_all(&length.to_be_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        };
        pair.rogue.during(said).await;
        let gone = pair.next().await;
        assert!(matches!(gone, WireEvent::PeerGone(ROGUE, Gone::Closed)), "{gone:?}");
        let counts = pair.honest.counts();
        assert_eq!(counts.malformed, 1);
        assert_eq!(counts.lane(Lane::Append).frames_received, 0);
        let problem = pair.honest.peers()[&ROGUE].problem.clone().unwrap();
        assert!(problem.contains(&length.to_string()), "{problem}");
    }
}

#[tokio::test]
async fn a_member_that_was_cut_off_may_come_back() {
    let mut pair = pair().await;
    let mut stream = pair.rogue.opened.remove(&Lane::Blob).unwrap();
    pair.rogue.during(stream.write_all(&[255, 255, 255, 0])).await.unwrap();
    pair.rogue.during(stream.flush()).await.unwrap();
    let gone = pair.next().await;
    assert!(matches!(gone, WireEvent::PeerGone(ROGUE, Gone::Closed)), "{gone:?}");
    let back = pair.next().await;
    assert!(matches!(back, WireEvent::PeerUp(ROGUE)), "{back:?}");
    assert_eq!(pair.rogue.connections, 2);
}

#[tokio::test]
async fn a_stream_that_breaks_on_a_living_connection_is_opened_again() {
    let mut pair = pair().await;
    drop(pair.rogue.accepted.remove(&Lane::Vote));
    // Frames are lost until the writer has noticed, and none after.
    let reopened = async {
        let mut turn = 0_u64;
        while !pair.rogue.accepted.contains_key(&Lane::Vote) {
            turn += 1;
            pair.honest.send(ROGUE, Lane::Vote, turn.to_be_bytes().to_vec().into()).unwrap();
            pair.rogue.step().await;
        }
    };
    timeout(SOON, reopened).await.expect("the lane opens again");
    let mark = vec![9; 9];
    pair.honest.send(ROGUE, Lane::Vote, mark.clone().into()).unwrap();
    let mut reader = FrameReader::new(pair.rogue.accepted.remove(&Lane::Vote).unwrap());
    let mut last = 0;
    loop {
        match pair.rogue.during(reader.next()).await.unwrap() {
            Arrival::Frame(frame) if frame == mark => break,
            Arrival::Frame(frame) => {
                let turn = u64::from_be_bytes(frame.as_ref().try_into().unwrap());
                assert!(turn > last, "in order and once: {turn} after {last}");
                last = turn;
            }
            Arrival::Farewell => panic!("nobody leaves"),
        }
    }
    assert_eq!(pair.rogue.connections, 1, "the connection lived on");
    assert_eq!(pair.honest.counts().lanes_reopened, 1);
}

#[tokio::test]
async fn a_peer_that_breaks_its_streams_for_ever_is_cut_off() {
    let mut pair = pair().await;
    let cut_off = async {
        loop {
            pair.rogue.accepted.clear();
            // Fails only once the peer is gone, which the event says.
            pair.honest.send(ROGUE, Lane::Gossip, vec![1; 16].into()).ok();
            tokio::select! {
                event = pair.events.recv() => return event,
                () = pair.rogue.step() => {}
            }
        }
    };
    let gone = timeout(SOON, cut_off).await.expect("the peer is cut off");
    assert!(matches!(gone, Some(WireEvent::PeerGone(ROGUE, Gone::Closed))), "{gone:?}");
    let problem = pair.honest.peers()[&ROGUE].problem.clone().unwrap();
    assert!(problem.contains("does not stay open"), "{problem}");
}

#[tokio::test]
async fn of_two_streams_for_one_lane_the_newest_is_read() {
    let mut pair = pair().await;
    let mut older = FrameWriter::new(pair.rogue.opened.remove(&Lane::Call).unwrap());
    pair.rogue.during(older.write(&["first".into()])).await.unwrap();
    pair.rogue.during(older.flush()).await.unwrap();
    assert_eq!(pair.frame().await, b"first");

    let (peer, connection) = pair.rogue.at.unwrap();
    pair.rogue.swarm.behaviour_mut().lanes.reopen(peer, connection, Lane::Call);
    pair.rogue.until(|rogue| rogue.opened.contains_key(&Lane::Call)).await;
    let mut newer = FrameWriter::new(pair.rogue.opened.remove(&Lane::Call).unwrap());
    pair.rogue.during(newer.write(&["second".into()])).await.unwrap();
    pair.rogue.during(newer.flush()).await.unwrap();
    assert_eq!(pair.frame().await, b"second");

    // The older stream is no longer read; whether writing to it fails yet is the network's.
    pair.rogue.during(older.write(&["stale".into()])).await.ok();
    pair.rogue.during(older.flush()).await.ok();
    pair.rogue.during(newer.write(&["third".into()])).await.unwrap();
    pair.rogue.during(newer.flush()).await.unwrap();
    assert_eq!(pair.frame().await, b"third");
}
