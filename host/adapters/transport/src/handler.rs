//! The lanes of one connection, inside the swarm: opens each lane once, reopens
//! those that the session asks for, and passes streams up when they are lanes.
//!
//! We speak to the swarm directly and not through `libp2p-stream`: that crate
//! hands inbound streams over a channel of one and drops the second of two that
//! arrive in one poll, as the three raft lanes of a fresh connection do; and it
//! opens on a random one of several connections, where a lane belongs to exactly
//! one. Here a stream is never dropped and always carries its connection's id.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::Stream;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
    ListenUpgradeError,
};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
};
use quorate_types::Lane;

use crate::opening::{AcceptLane, OpenLane, OpeningError};

/// What became of a lane.
#[derive(Debug)]
pub(crate) enum LaneChange {
    /// Ours to write.
    Opened(Lane, Stream),
    /// Ours to read.
    Accepted(Lane, Stream),
    /// The peer did not open the lane that we asked for.
    Failed(Lane, String),
    /// The peer broke the rules of opening.
    Malformed(String),
}

/// A lane to open again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reopen(pub(crate) Lane);

pub(crate) struct LaneHandler {
    /// At most one entry a lane, since the session asks again only when a lane ended.
    to_open: VecDeque<Lane>,
    /// Bounded by the multiplexer's streams; emptied at each poll.
    changes: VecDeque<LaneChange>,
    /// Our lanes wait for the peer's first.
    following: bool,
    timeout: Duration,
}

impl LaneHandler {
    /// For the node that decides: it opens its lanes at once.
    pub(crate) fn leading(timeout: Duration) -> Self {
        let (to_open, changes) = (VecDeque::from(Lane::ALL), VecDeque::new());
        Self { to_open, changes, following: false, timeout }
    }

    /// For the other: it opens its lanes where it is given one.
    pub(crate) fn following(timeout: Duration) -> Self {
        let (to_open, changes) = (VecDeque::new(), VecDeque::new());
        Self { to_open, changes, following: true, timeout }
    }
}

impl ConnectionHandler for LaneHandler {
    type FromBehaviour = Reopen;
    type ToBehaviour = LaneChange;
    type InboundProtocol = AcceptLane;
    type OutboundProtocol = OpenLane;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Lane;

    fn listen_protocol(&self) -> SubstreamProtocol<AcceptLane> {
        SubstreamProtocol::new(AcceptLane, ()).with_timeout(self.timeout)
    }

    /// Members stay connected; only failed pings, broken framing and leaving end a connection.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<OpenLane, Lane, LaneChange>> {
        if let Some(change) = self.changes.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(change));
        }
        if let Some(lane) = self.to_open.pop_front() {
            let protocol = SubstreamProtocol::new(OpenLane(lane), lane).with_timeout(self.timeout);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        // The connection polls again after each call below, so no waker is kept.
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, Reopen(lane): Reopen) {
        self.to_open.push_back(lane);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "addresses and protocol lists are not ours")]
    fn on_connection_event(&mut self, event: ConnectionEvent<'_, AcceptLane, OpenLane, (), Lane>) {
        let change = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (lane, stream),
                info: (),
            }) => {
                if std::mem::take(&mut self.following) {
                    self.to_open.extend(Lane::ALL);
                }
                LaneChange::Accepted(lane, stream)
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: lane,
            }) => LaneChange::Opened(lane, stream),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: lane, error }) => {
                LaneChange::Failed(lane, reason_of(&error))
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info: (), error }) => {
                match error {
                    // The peer opens again if it still wants the lane.
                    OpeningError::Broken(_) => return,
                    OpeningError::UnknownLane { .. } | OpeningError::WrongEcho { .. } => {
                        LaneChange::Malformed(error.to_string())
                    }
                }
            }
            _ => return,
        };
        self.changes.push_back(change);
    }
}

fn reason_of(error: &StreamUpgradeError<OpeningError>) -> String {
    match error {
        StreamUpgradeError::Timeout => "the peer did not confirm it in time".to_owned(),
        StreamUpgradeError::NegotiationFailed => "the peer does not speak its protocol".to_owned(),
        StreamUpgradeError::Apply(error) => error.to_string(),
        StreamUpgradeError::Io(error) => error.to_string(),
    }
}
