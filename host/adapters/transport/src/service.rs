//! The transport's thread: it listens, runs the swarm, and keeps one link for each
//! peer of the list as the list is now.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{Swarm, SwarmEvent};
use quorate_types::rng::Rng;
use quorate_types::{Inbox, NodeId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::counters::Counters;
use crate::driver::Driver;
use crate::link::{Command, Link, Patience, Stay};
use crate::members::{Member, Members, Table};
use crate::options::{PeerAddress, StartError, TransportOptions};
use crate::queue::PeerQueues;
use crate::status::{Board, PeerState, PeerStatus};
use crate::swarm::{Behaviour, build_swarm};

/// What one connection says at most while its link is busy: itself, 14 lanes, and as many reopened.
const LINK_EVENTS_MAX: usize = 64;

/// Commands waiting for the swarm's task; links wait for room.
const COMMANDS_MAX: usize = 256;

/// A listener on a concrete address is there at once; one on all addresses asks the system which.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Every peer's queues; replaced as a whole when the list changes.
pub(crate) type AllQueues = BTreeMap<NodeId, Arc<PeerQueues>>;

/// A peer before its first connection.
pub(crate) fn first_status(member: &Member) -> PeerStatus {
    PeerStatus {
        node: member.node,
        peer_id: member.peer.to_string(),
        address: member.address,
        state: PeerState::Connecting,
        problem: None,
        round_trip: None,
    }
}

/// What the thread owns.
pub(crate) struct Service {
    pub(crate) options: TransportOptions,
    pub(crate) members: Arc<Members>,
    pub(crate) queues: Arc<ArcSwap<AllQueues>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) board: Board,
    pub(crate) listed: watch::Receiver<BTreeMap<NodeId, PeerAddress>>,
}

impl Service {
    /// The whole life of the transport. Whoever starts it hears one word from `report`. It belongs
    /// on one thread, swarm, connections and lanes together: with several, the wake-ups between
    /// them cost more than they gain (1.3 to 2.3 times slower, measured).
    pub(crate) async fn run<I: Inbox>(
        self,
        inbox: I,
        report: impl FnOnce(Result<SocketAddr, StartError>),
        stop: mpsc::Receiver<()>,
    ) {
        match self.listen().await {
            Ok((swarm, address)) => {
                report(Ok(address));
                self.serve(swarm, inbox, stop).await;
            }
            Err(error) => report(Err(error)),
        }
    }

    async fn listen(&self) -> Result<(Swarm<Behaviour>, SocketAddr), StartError> {
        let address = self.options.listen;
        let fail = |source| StartError::Listen { address, source };
        let mut swarm = build_swarm(&self.options, self.members.clone())?;
        swarm
            .listen_on(Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port())))
            .map_err(|error| fail(io::Error::other(error)))?;
        let listening = async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await
                    && let Some(port) = tcp_port(&address)
                {
                    return port;
                }
            }
        };
        let port = timeout(LISTEN_TIMEOUT, listening)
            .await
            .map_err(|elapsed| fail(io::Error::new(io::ErrorKind::TimedOut, elapsed)))?;
        Ok((swarm, SocketAddr::new(address.ip(), port)))
    }

    async fn serve<I: Inbox>(
        self,
        swarm: Swarm<Behaviour>,
        inbox: I,
        mut stop: mpsc::Receiver<()>,
    ) {
        let (commands, on_commands) = mpsc::channel(COMMANDS_MAX);
        let mut driver = Driver::new(
            swarm,
            self.members.clone(),
            on_commands,
            self.counters.clone(),
            self.board.clone(),
            &self.options,
        );
        let mut listed = self.listed.clone();
        let rng = Rng::new(entropy());
        let mut links = Links {
            service: self,
            inbox: Arc::new(inbox),
            commands,
            rng,
            running: BTreeMap::new(),
        };
        for member in links.service.members.now().iter() {
            links.begin(&mut driver, *member);
        }
        let orderly = loop {
            tokio::select! {
                asked = stop.recv() => break asked.is_some(),
                Ok(()) = listed.changed() => {
                    let table = links.service.members.read(&listed.borrow_and_update());
                    links.follow(&mut driver, table).await;
                }
                () = driver.drive() => break false,
            }
        };
        if orderly {
            tokio::select! {
                () = links.leave() => {}
                () = driver.drive() => {}
            }
            driver.close().await;
        }
    }
}

/// The links that run, and what a new one is made of.
struct Links<I> {
    service: Service,
    inbox: Arc<I>,
    commands: mpsc::Sender<Command>,
    rng: Rng,
    running: BTreeMap<NodeId, (watch::Sender<Stay>, JoinHandle<()>)>,
}

impl<I> Drop for Links<I> {
    /// Where the transport ends at once, its links end with it.
    fn drop(&mut self) {
        self.running.values().for_each(|(_stay, running)| running.abort());
    }
}

impl<I: Inbox> Links<I> {
    fn begin(&mut self, driver: &mut Driver, member: Member) {
        let Service { options, queues, counters, board, .. } = &self.service;
        let own_queues = Arc::new(PeerQueues::new(options.queue));
        queues.rcu(|all| {
            let mut all = AllQueues::clone(all);
            all.insert(member.node, own_queues.clone());
            all
        });
        board.add(first_status(&member));
        let (link, events) = mpsc::channel(LINK_EVENTS_MAX);
        driver.links.insert(member.node, link);
        let at_once = options.node < member.node;
        let (first, max) = (options.redial_first, options.redial_max);
        let (stay, on_stay) = watch::channel(Stay::On);
        let link = Link {
            member,
            events,
            commands: self.commands.clone(),
            queues: own_queues,
            counters: counters.clone(),
            inbox: self.inbox.clone(),
            board: board.clone(),
            backoff: Backoff::new(first, max, at_once, self.rng.fork()),
            patience: Patience {
                handshake: options.handshake_timeout,
                probe: options.probe_timeout,
                steady: max,
            },
            stay: on_stay,
            unsettled: false,
            told_up: false,
            session: None,
        };
        self.running.insert(member.node, (stay, tokio::spawn(link.run())));
    }

    /// Begins and ends links until they are those of the table. A peer with another address or key
    /// ends as one and begins as another.
    async fn follow(&mut self, driver: &mut Driver, table: Table) {
        let before = self.service.members.now();
        let ended = before.iter().filter(|member| table.get(member.node) != Some(**member));
        let ended: Vec<NodeId> = ended.map(|member| member.node).collect();
        // From here on who was removed is a stranger.
        self.service.members.replace(table.clone());
        for node in ended {
            tracing::info!(%node, "a peer is on the list no more");
            driver.remove(node);
            self.end(driver, node).await;
        }
        for member in table.iter().filter(|member| before.get(member.node) != Some(**member)) {
            tracing::info!(node = %member.node, address = %member.address, "a peer is on the list");
            self.begin(driver, *member);
        }
    }

    /// Waits until the link has told its inbox, so that a later one of the same node is told after.
    async fn end(&mut self, driver: &mut Driver, node: NodeId) {
        self.service.queues.rcu(|all| {
            let mut all = AllQueues::clone(all);
            all.remove(&node);
            all
        });
        let Some((stay, running)) = self.running.remove(&node) else { return };
        stay.send_replace(Stay::Removed);
        tokio::select! {
            // A link that fell is ended as well.
            _ended = running => {}
            () = driver.drive() => {}
        }
        self.service.board.remove(node);
    }

    async fn leave(&mut self) {
        let running = std::mem::take(&mut self.running);
        for (stay, _running) in running.values() {
            stay.send_replace(Stay::Leaving);
        }
        for (_stay, running) in running.into_values() {
            // As above.
            running.await.ok();
        }
    }
}

fn tcp_port(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None })
}

/// A seed for the jitter, so that nodes which start together do not dial in step.
fn entropy() -> u64 {
    let mut seed = [0; 8];
    match getrandom::fill(&mut seed) {
        Ok(()) => u64::from_le_bytes(seed),
        // Jitter is worth no refusal to start.
        Err(_none) => u64::from(std::process::id()),
    }
}
