//! The swarm's task: turns its events into the peers' links, and obeys theirs.
//! It waits for nothing but the swarm and commands; a link that is slow to listen
//! loses its connection, never the others theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionError, ConnectionId, DialError, ListenError, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, ping};
use quorate_types::NodeId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::counters::Counters;
use crate::handler::LaneChange;
use crate::lanes::{Denial, LaneEvent};
use crate::link::{Command, LinkEvent};
use crate::members::Members;
use crate::options::{PingLimits, TransportOptions};
use crate::session::{Cause, Connected, Heard};
use crate::status::Board;
use crate::swarm::{Behaviour, BehaviourEvent};

/// A leaving node gives its connections this long to close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// A connection that is neither closed nor given up.
struct Open {
    node: NodeId,
    peer: PeerId,
    /// Its link's end; none while the peer, which decides, has not opened a lane on it.
    closed: Option<oneshot::Sender<Cause>>,
    heard: Arc<Heard>,
    pings_failed: u32,
    dialled: bool,
}

pub(crate) struct Driver {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) members: Arc<Members>,
    pub(crate) links: BTreeMap<NodeId, mpsc::Sender<LinkEvent>>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) board: Board,
    pub(crate) ping: PingLimits,
    handshake: Duration,
    open: BTreeMap<ConnectionId, Open>,
    dials: BTreeMap<ConnectionId, NodeId>,
}

impl Driver {
    pub(crate) fn new(
        swarm: Swarm<Behaviour>,
        members: Arc<Members>,
        commands: mpsc::Receiver<Command>,
        counters: Arc<Counters>,
        board: Board,
        options: &TransportOptions,
    ) -> Self {
        let (links, open, dials) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (ping, handshake) = (options.ping, options.handshake_timeout);
        Self { swarm, members, links, commands, counters, board, ping, handshake, open, dials }
    }

    /// Runs the swarm until dropped.
    pub(crate) async fn drive(&mut self) {
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(command) = self.commands.recv() => self.on_command(command),
            }
        }
    }

    /// Closes every connection in order.
    pub(crate) async fn close(mut self) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error says that the peer is gone already.
            self.swarm.disconnect_peer_id(peer).ok();
        }
        let closed = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        if timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            tracing::debug!("a peer did not let its connection close in time");
        }
    }

    /// A node belongs to the cluster no more, or is another one now: its connections are closed at
    /// once, whoever chose them.
    pub(crate) fn remove(&mut self, node: NodeId) {
        self.links.remove(&node);
        self.dials.retain(|_connection, dialled| *dialled != node);
        let theirs = self.open.iter().filter(|(_, open)| open.node == node);
        let theirs: Vec<ConnectionId> = theirs.map(|(id, _)| *id).collect();
        for connection in theirs {
            self.give_up(connection, Cause::Left);
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial(node) => self.dial(node),
            Command::Reopen { node, connection, lane } => {
                if let Some(member) = self.members.get(node) {
                    let peer = member.peer;
                    self.swarm.behaviour_mut().lanes.reopen(peer, connection, lane);
                }
            }
            Command::Close { connection, cause } => self.give_up(connection, cause),
        }
    }

    fn dial(&mut self, node: NodeId) {
        let Some(member) = self.members.get(node) else { return };
        if self.open.values().any(|open| open.node == node && open.closed.is_some()) {
            // The peer's dial came first; the link will find it in its queue.
            return;
        }
        self.drop_unchosen(node);
        // A new local port each time: the listener's own could meet a dying connection of the same pair.
        let options = DialOpts::peer_id(member.peer)
            .condition(PeerCondition::Always)
            .addresses(vec![
                Multiaddr::from(member.address.ip()).with(Protocol::Tcp(member.address.port())),
            ])
            .allocate_new_port()
            .build();
        self.dials.insert(options.connection_id(), node);
        let connection = options.connection_id();
        if let Err(error) = self.swarm.dial(options) {
            self.on_dial_failed(connection, &error);
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the swarm tells much that nobody here asks"
    )]
    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Lanes(event)) => self.on_lane(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.on_ping(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                let dialled = self.dials.remove(&connection_id).is_some();
                self.on_established(peer_id, connection_id, dialled);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                self.on_closed(connection_id, Cause::Broken(reason_of(cause.as_ref())));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_failed(connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError { error, peer_id, send_back_addr, .. } => {
                self.on_refused(&error, peer_id, &send_back_addr);
            }
            SwarmEvent::ListenerClosed { reason, .. } => {
                tracing::error!(?reason, "the listener closed; peers can no longer dial this node");
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "the listener could not accept; check the limit on open files");
            }
            _ => {}
        }
    }

    fn on_established(&mut self, peer: PeerId, connection: ConnectionId, dialled: bool) {
        let Some(node) = self.members.node_of(&peer) else { return };
        let open = Open { node, peer, closed: None, heard: Heard::new(), pings_failed: 0, dialled };
        self.open.insert(connection, open);
        if self.members.decides(node) {
            self.choose(connection);
        }
    }

    /// Hands a connection to its link, as the only one.
    fn choose(&mut self, connection: ConnectionId) {
        let Some(mut open) = self.open.remove(&connection) else { return };
        let node = open.node;
        let older: Vec<ConnectionId> = self
            .open
            .iter()
            .filter(|(_, other)| other.node == node && other.closed.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in older {
            self.give_up(id, Cause::Replaced);
        }
        let (closed, on_closed) = oneshot::channel();
        let connected = Connected { connection, closed: on_closed, heard: open.heard.clone() };
        open.closed = Some(closed);
        self.open.insert(connection, open);
        self.tell(node, connection, LinkEvent::Connected(connected));
    }

    fn on_closed(&mut self, connection: ConnectionId, cause: Cause) {
        let Some(open) = self.open.remove(&connection) else { return };
        match open.closed {
            // The link may have given up first.
            Some(closed) => {
                closed.send(cause).ok();
            }
            None if open.dialled => {
                self.tell_dial_failed(open.node, "the peer kept another connection".to_owned());
            }
            None => {}
        }
    }

    fn on_lane(&mut self, event: LaneEvent) {
        let LaneEvent { node, connection, change } = event;
        let Some(open) = self.open.get(&connection) else { return };
        if open.closed.is_none() {
            self.choose(connection);
        }
        if let LaneChange::Malformed(reason) = change {
            self.give_up(connection, Cause::Malformed(reason));
        } else {
            self.tell(node, connection, LinkEvent::Lane { connection, change });
        }
    }

    /// The queue to a link has room for all that an honest connection says; a link that is held back
    /// by its inbox while a peer floods it loses the connection.
    fn tell(&mut self, node: NodeId, connection: ConnectionId, event: LinkEvent) {
        let told = self.links.get(&node).is_some_and(|link| link.try_send(event).is_ok());
        if !told {
            self.give_up(connection, Cause::Unusable("its news outran its inbox".to_owned()));
        }
    }

    /// What the peer did not choose within a handshake's time, it never will.
    fn drop_unchosen(&mut self, node: NodeId) {
        let unchosen = |open: &Open| {
            open.node == node && open.closed.is_none() && open.heard.silence() > self.handshake
        };
        let old: Vec<ConnectionId> =
            self.open.iter().filter(|(_, open)| unchosen(open)).map(|(id, _)| *id).collect();
        for id in old {
            self.give_up(id, Cause::Replaced);
        }
    }

    /// Closes a connection without waiting for it: one to a dead host may take minutes to close.
    fn give_up(&mut self, connection: ConnectionId, cause: Cause) {
        let Some(open) = self.open.remove(&connection) else { return };
        if let Some(closed) = open.closed {
            // The link may have given up first.
            closed.send(cause).ok();
        }
        self.swarm.behaviour_mut().lanes.forget(connection);
        self.swarm.close_connection(connection);
    }

    /// Failed pings count only if no frame came either: a ping waits behind bulk, and a peer whose
    /// frames arrive is alive.
    fn on_ping(&mut self, event: ping::Event) {
        let Some(open) = self.open.get_mut(&event.connection) else { return };
        match event.result {
            Ok(round_trip) => {
                open.pings_failed = 0;
                self.board.change(open.node, |peer| peer.round_trip = Some(round_trip));
            }
            Err(_) if open.heard.silence() < self.ping.timeout => open.pings_failed = 0,
            Err(failure) => {
                // The protocol keeps the first failure to itself, so what is told is the second.
                open.pings_failed = open.pings_failed.max(1) + 1;
                tracing::debug!(node = %open.node, peer = %open.peer, %failure, "ping failed");
                if open.pings_failed >= self.ping.failures_max {
                    self.give_up(event.connection, Cause::Silent);
                }
            }
        }
    }

    fn on_dial_failed(&mut self, connection: ConnectionId, error: &DialError) {
        let Some(node) = self.dials.remove(&connection) else { return };
        if is_doubled(error) {
            // Not a failure: the peer's own dial came first, and the link has it by now.
            return;
        }
        self.counters.dials_failed.add();
        if let DialError::WrongPeerId { obtained, address } = error {
            self.counters.wrong_identity.add();
            tracing::warn!(%node, %obtained, %address, "another key answers at this node's address");
        }
        self.tell_dial_failed(node, explain(error));
    }

    fn tell_dial_failed(&self, node: NodeId, problem: String) {
        if let Some(link) = self.links.get(&node) {
            // If its queue is full, the link's own deadline ends the dial.
            link.try_send(LinkEvent::DialFailed(problem)).ok();
        }
    }

    fn on_refused(&self, error: &ListenError, peer: Option<PeerId>, from: &Multiaddr) {
        let denial = match error {
            ListenError::Denied { cause } => cause.downcast_ref::<Denial>(),
            ListenError::Aborted
            | ListenError::WrongPeerId { .. }
            | ListenError::LocalPeerId { .. }
            | ListenError::Transport(_) => None,
        };
        if denial == Some(&Denial::Stranger) {
            self.counters.strangers_refused.add();
            tracing::warn!(?peer, %from, "refused a peer that is not in the allow-list");
        } else {
            tracing::debug!(?peer, %from, %error, "an incoming connection came to nothing");
        }
    }
}

fn reason_of(cause: Option<&ConnectionError>) -> String {
    cause.map_or_else(|| "it was closed".to_owned(), ToString::to_string)
}

fn is_doubled(error: &DialError) -> bool {
    matches!(error, DialError::Denied { cause }
        if cause.downcast_ref::<Denial>() == Some(&Denial::Doubled))
}

fn explain(error: &DialError) -> String {
    match error {
        DialError::WrongPeerId { obtained, address } => {
            format!(
                "at {address} answers another key, {obtained}; correct its entry in the list of members"
            )
        }
        DialError::LocalPeerId { address } => {
            format!(
                "at {address} answers this node itself; correct its entry in the list of members"
            )
        }
        DialError::Transport(attempts) => attempts
            .iter()
            .map(|(address, error)| format!("{address}: {}", deepest(error)))
            .collect::<Vec<_>>()
            .join("; "),
        DialError::NoAddresses
        | DialError::DialPeerConditionFalse(_)
        | DialError::Aborted
        | DialError::Denied { .. } => error.to_string(),
    }
}

/// The innermost cause: the layers above only say that they failed.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
