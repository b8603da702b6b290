//! The life of one peer: dial, open all lanes, exchange, lose, judge, dial again.
//!
//! One task a peer, so that what its inbox hears is ordered: `PeerUp`, frames,
//! `PeerGone`, and nothing between a `PeerGone` and the next `PeerUp` but one
//! later `PeerGone(Refused)`, when a peer that was lost otherwise turns out dead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use quorate_types::{Gone, Inbox, Lane, NodeId, WireEvent};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout_at};

use crate::backoff::Backoff;
use crate::counters::Counters;
use crate::handler::LaneChange;
use crate::members::Member;
use crate::probe::{Probe, probe, settle};
use crate::queue::PeerQueues;
use crate::session::{Cause, Connected, End, Session};
use crate::status::{Board, PeerState};

/// What the swarm's task tells a link.
pub(crate) enum LinkEvent {
    Connected(Connected),
    Lane { connection: ConnectionId, change: LaneChange },
    DialFailed(String),
}

/// What a link asks of the swarm's task.
pub(crate) enum Command {
    Dial(NodeId),
    Reopen { node: NodeId, connection: ConnectionId, lane: Lane },
    Close { connection: ConnectionId, cause: Cause },
}

/// Whether a link goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It does.
    On,
    /// The node leaves: what waits is sent.
    Leaving,
    /// The peer is no member any more.
    Removed,
}

/// How long a link waits for things.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) handshake: Duration,
    pub(crate) probe: Duration,
    /// A connection that lived this long earns an immediate redial.
    pub(crate) steady: Duration,
}

pub(crate) struct Link<I> {
    pub(crate) member: Member,
    pub(crate) events: mpsc::Receiver<LinkEvent>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) queues: Arc<PeerQueues>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) inbox: Arc<I>,
    pub(crate) board: Board,
    pub(crate) backoff: Backoff,
    pub(crate) patience: Patience,
    pub(crate) stay: watch::Receiver<Stay>,
    /// The loss that was reported may still turn out to be a death.
    pub(crate) unsettled: bool,
    /// The inbox holds the peer for up.
    pub(crate) told_up: bool,
    pub(crate) session: Option<Session<I>>,
}

impl<I: Inbox> Link<I> {
    /// Until the node leaves, or the peer is removed.
    pub(crate) async fn run(mut self) {
        let mut stay = self.stay.clone();
        tokio::select! {
            biased;
            _left = stay.wait_for(|stay| *stay != Stay::On) => {}
            () = self.live() => {}
        }
        let removed = *stay.borrow() == Stay::Removed;
        match self.session.take() {
            Some(session) if removed => session.stop().await,
            Some(session) => session.leave().await,
            None => {}
        }
        self.close_queues();
        if removed && self.told_up {
            self.tell_gone(Gone::Closed).await;
        }
    }

    async fn live(&mut self) {
        loop {
            let connected = self.connect().await;
            let session = Session::new(
                connected,
                self.member.node,
                self.queues.clone(),
                self.counters.clone(),
                self.inbox.clone(),
            );
            let cause = self.attend(session).await;
            self.lose(cause).await;
        }
    }

    /// Dials with back-off until there is a connection, whoever dialled it.
    async fn connect(&mut self) -> Connected {
        loop {
            let pause = Instant::now() + self.backoff.next_wait();
            if let Some(connected) = self.connection_until(pause, false).await {
                return connected;
            }
            if self.unsettled && self.is_dead().await {
                continue;
            }
            self.ask(Command::Dial(self.member.node)).await;
            // The swarm answers within the handshake's bound; the second is for a busy machine.
            let answer = Instant::now() + self.patience.handshake + Duration::from_secs(1);
            if let Some(connected) = self.connection_until(answer, true).await {
                return connected;
            }
        }
    }

    /// Asks a peer, lost without a plain verdict, whether it is dead; tells the inbox once.
    async fn is_dead(&mut self) -> bool {
        let dead = probe(self.member.address, self.patience.probe).await == Probe::Refused;
        if dead {
            self.unsettled = false;
            self.tell_gone(Gone::Refused).await;
        }
        dead
    }

    /// The next connection, none at the deadline or, `while_dialling`, when the dial failed.
    async fn connection_until(
        &mut self,
        deadline: Instant,
        while_dialling: bool,
    ) -> Option<Connected> {
        loop {
            let event = match timeout_at(deadline.into(), self.events.recv()).await {
                Ok(Some(event)) => event,
                Ok(None) => std::future::pending().await,
                Err(_elapsed) => return None,
            };
            match event {
                LinkEvent::Connected(connected) => return Some(connected),
                LinkEvent::DialFailed(problem) => {
                    self.board.change(self.member.node, |peer| peer.problem = Some(problem));
                    if while_dialling {
                        return None;
                    }
                }
                // Of a connection that is gone.
                LinkEvent::Lane { .. } => {}
            }
        }
    }

    async fn ask(&self, command: Command) {
        // The swarm's task ends only with this one.
        self.commands.send(command).await.ok();
    }

    /// Serves the connection until it ends, and returns why it did.
    async fn attend(&mut self, session: Session<I>) -> Cause {
        let connection = session.connection;
        let opened_by = session.since + self.patience.handshake;
        self.session = Some(session);
        loop {
            let Some(session) = self.session.as_mut() else {
                return Cause::Broken("the node leaves".to_owned());
            };
            let is_up = session.is_up();
            let fault = tokio::select! {
                biased;
                cause = &mut session.closed => {
                    return cause.unwrap_or_else(|_lost| Cause::Broken("the swarm stopped".to_owned()));
                }
                event = self.events.recv() => match event {
                    Some(LinkEvent::Lane { connection: of, change }) if of == connection => {
                        on_lane(session, change)
                    }
                    Some(LinkEvent::Lane { .. } | LinkEvent::DialFailed(_)) => None,
                    // The swarm's task closes the old one first, and that branch is polled first.
                    Some(LinkEvent::Connected(_)) | None => {
                        Some(Cause::Unusable("a second connection came unannounced".to_owned()))
                    }
                },
                Some(end) = session.ended.recv() => match end {
                    End::Wrote(lane) => {
                        let node = self.member.node;
                        self.ask(Command::Reopen { node, connection, lane }).await;
                        None
                    }
                    End::Read => None,
                    End::Farewell => session.on_farewell().then_some(Cause::Left),
                    End::Malformed(reason) => Some(Cause::Malformed(reason)),
                },
                () = sleep_until(opened_by.into()), if !is_up => {
                    Some(Cause::Unusable("not all lanes opened in time".to_owned()))
                }
            };
            if let Some(cause) = fault {
                self.ask(Command::Close { connection, cause: cause.clone() }).await;
                return cause;
            }
            self.rise().await;
        }
    }

    /// Tells the inbox that the peer is up, once all lanes are open. Queues open before, so that the
    /// inbox may answer at once; readers begin after, so that it hears no frame first.
    async fn rise(&mut self) {
        let Some(session) = self.session.as_ref() else { return };
        if session.is_up() || !session.is_complete() {
            return;
        }
        self.counters.connections.add();
        self.queues.open();
        self.board.change(self.member.node, |peer| {
            peer.state = PeerState::Up;
            peer.problem = None;
        });
        tracing::info!(node = %self.member.node, "peer up");
        self.told_up = true;
        self.inbox.deliver(WireEvent::PeerUp(self.member.node)).await;
        if let Some(session) = self.session.as_ref() {
            session.set_up();
        }
    }

    /// Ends the session, finds out what became of the peer and tells the inbox.
    async fn lose(&mut self, cause: Cause) {
        self.close_queues();
        let Some(session) = self.session.take() else { return };
        let (was_up, farewell) = (session.is_up(), session.is_leaving());
        if session.since.elapsed() >= self.patience.steady {
            self.backoff.reset();
        }
        session.stop().await;
        self.count(&cause);
        if !was_up {
            self.board.change(self.member.node, |peer| peer.problem = Some(explain(&cause)));
            return;
        }
        let gone = if farewell { Gone::Closed } else { self.judge(&cause).await };
        self.unsettled = gone != Gone::Refused;
        self.board.change(self.member.node, |peer| peer.problem = Some(explain(&cause)));
        self.tell_gone(gone).await;
    }

    fn count(&self, cause: &Cause) {
        let (node, reason) = (self.member.node, explain(cause));
        match cause {
            Cause::Malformed(_) => self.counters.malformed.add(),
            Cause::Silent => self.counters.pings_failed.add(),
            Cause::Broken(_) | Cause::Left | Cause::Replaced => {
                tracing::info!(%node, %reason, "connection lost");
                return;
            }
            Cause::Unusable(_) => {}
        }
        tracing::warn!(%node, %reason, "connection given up");
    }

    async fn judge(&self, cause: &Cause) -> Gone {
        let (address, bound) = (self.member.address, self.patience.probe);
        match cause {
            Cause::Broken(_) => match settle(address, bound).await {
                Probe::Refused => Gone::Refused,
                Probe::Silent => Gone::Timeout,
                // The process lives, or another took its place at once.
                Probe::Answers => Gone::Closed,
            },
            // A stopped process still has a kernel that answers for it.
            Cause::Silent => match probe(address, bound).await {
                Probe::Refused => Gone::Refused,
                Probe::Silent | Probe::Answers => Gone::Timeout,
            },
            Cause::Left | Cause::Replaced | Cause::Malformed(_) | Cause::Unusable(_) => {
                Gone::Closed
            }
        }
    }

    async fn tell_gone(&mut self, gone: Gone) {
        self.board.change(self.member.node, |peer| {
            peer.state = PeerState::Gone(gone);
            peer.round_trip = None;
        });
        tracing::info!(node = %self.member.node, ?gone, "peer gone");
        self.inbox.deliver(WireEvent::PeerGone(self.member.node, gone)).await;
        self.told_up = false;
    }

    fn close_queues(&self) {
        for lane in Lane::ALL {
            let lost = self.queues.lane(lane).close();
            self.counters.lane(lane).lost(lost);
        }
    }
}

/// Takes a lane's news; a cause if the connection is no good.
fn on_lane<I: Inbox>(session: &mut Session<I>, change: LaneChange) -> Option<Cause> {
    match change {
        LaneChange::Opened(lane, stream) => (!session.write(lane, stream))
            .then(|| Cause::Unusable(format!("lane {lane:?} does not stay open"))),
        LaneChange::Accepted(lane, stream) => {
            session.read(lane, stream);
            None
        }
        LaneChange::Failed(lane, reason) => {
            Some(Cause::Unusable(format!("lane {lane:?} did not open: {reason}")))
        }
        LaneChange::Malformed(reason) => Some(Cause::Malformed(reason)),
    }
}

fn explain(cause: &Cause) -> String {
    match cause {
        Cause::Broken(reason) => format!("the connection broke: {reason}"),
        Cause::Silent => "pings went unanswered".to_owned(),
        Cause::Left => "the peer left in order".to_owned(),
        Cause::Replaced => "a newer connection took its place".to_owned(),
        Cause::Malformed(reason) => format!("the peer broke the protocol: {reason}"),
        Cause::Unusable(reason) => format!("the connection was of no use: {reason}"),
    }
}
