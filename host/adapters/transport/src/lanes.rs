//! The gate of the swarm: who gets a connection, and which of two is kept.
//!
//! A peer id outside the allow-list is refused when its handshake is done and
//! before it has a single stream.
//!
//! Both nodes of a pair may dial, and the lower one alone decides which connection
//! they use: it keeps what it has while that is young, since two dials that cross
//! are no reason to lose a frame, and later takes the newer, since a peer that
//! comes again has given up the older. It says so by opening lanes; the higher one
//! opens its own only on a connection where it was given one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use quorate_types::{Lane, NodeId};

use crate::handler::{LaneChange, LaneHandler, Reopen};
use crate::members::Members;

/// Why a connection was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    #[error("the peer id is not on the list of members")]
    Stranger,
    #[error("a young connection to the same peer is kept")]
    Doubled,
}

/// News of a lane, with the connection it belongs to.
#[derive(Debug)]
pub(crate) struct LaneEvent {
    pub(crate) node: NodeId,
    pub(crate) connection: ConnectionId,
    pub(crate) change: LaneChange,
}

struct Held {
    connection: ConnectionId,
    since: Instant,
}

/// The behaviour.
pub(crate) struct Lanes {
    members: Arc<Members>,
    handshake_timeout: Duration,
    /// The connections that this node chose, where the choice is its own.
    held: BTreeMap<NodeId, Held>,
    /// Emptied by the swarm before it hands us anything more.
    events: VecDeque<ToSwarm<LaneEvent, Reopen>>,
}

impl Lanes {
    pub(crate) fn new(members: Arc<Members>, handshake_timeout: Duration) -> Self {
        Self { members, handshake_timeout, held: BTreeMap::new(), events: VecDeque::new() }
    }

    /// Asks the peer for a lane again.
    pub(crate) fn reopen(&mut self, peer: PeerId, connection: ConnectionId, lane: Lane) {
        self.events.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: Reopen(lane),
        });
    }

    /// The connection is given up, though it may take long to close: it stands in no other's way.
    pub(crate) fn forget(&mut self, connection: ConnectionId) {
        self.held.retain(|_, held| held.connection != connection);
    }

    fn admit(
        &mut self,
        connection: ConnectionId,
        peer: &PeerId,
    ) -> Result<LaneHandler, ConnectionDenied> {
        let node =
            self.members.node_of(peer).ok_or_else(|| ConnectionDenied::new(Denial::Stranger))?;
        if !self.members.decides(node) {
            return Ok(LaneHandler::following(self.handshake_timeout));
        }
        // A dial that was under way when the held connection came ends within the handshake's bound.
        let young = |held: &Held| held.since.elapsed() < self.handshake_timeout;
        if self.held.get(&node).is_some_and(young) {
            return Err(ConnectionDenied::new(Denial::Doubled));
        }
        self.held.insert(node, Held { connection, since: Instant::now() });
        Ok(LaneHandler::leading(self.handshake_timeout))
    }
}

impl NetworkBehaviour for Lanes {
    type ConnectionHandler = LaneHandler;
    type ToSwarm = LaneEvent;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<LaneHandler, ConnectionDenied> {
        self.admit(connection, &peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<LaneHandler, ConnectionDenied> {
        self.admit(connection, &peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = event {
            self.forget(closed.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        change: LaneChange,
    ) {
        if let Some(node) = self.members.node_of(&peer) {
            let event = LaneEvent { node, connection, change };
            self.events.push_back(ToSwarm::GenerateEvent(event));
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<LaneEvent, Reopen>> {
        // Whoever adds an event also polls the swarm afterwards, so no waker is kept.
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
