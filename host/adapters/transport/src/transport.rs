//! The transport as its owner holds it: a cheap handle, a thread behind it.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{Swarm, SwarmEvent};
use quorate_types::rng::Rng;
use quorate_types::{Inbox, Lane, NodeId, SendError, Wire};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::counters::{Counters, Counts};
use crate::driver::Driver;
use crate::link::{Link, Patience};
use crate::members::{Members, keypair_of};
use crate::options::{StartError, TransportOptions};
use crate::queue::PeerQueues;
use crate::status::{Board, PeerState, PeerStatus, Peers};
use crate::swarm::{Behaviour, build_swarm};

/// What one connection says at most while its link is busy: itself, 14 lanes, and as many reopened.
const LINK_EVENTS_MAX: usize = 64;

/// Commands waiting for the swarm's task; links wait for room.
const COMMANDS_MAX: usize = 256;

/// A listener on a concrete address is there at once; one on all addresses asks the system which.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

struct Inner {
    queues: BTreeMap<NodeId, Arc<PeerQueues>>,
    counters: Arc<Counters>,
    peers: watch::Receiver<Peers>,
    local_addr: SocketAddr,
    peer_id: String,
    /// A word asks for an orderly end; dropping it ends the thread at once.
    stop: mpsc::Sender<()>,
    stopped: watch::Receiver<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// This node's end of every connection. A clone is another handle to the same; when the last is
/// dropped without [`shutdown`](Self::shutdown), peers see the connections break.
#[derive(Clone)]
pub struct Transport(Arc<Inner>);

impl Transport {
    /// Listens, and dials every member from now on. Events go to `inbox`, on the transport's own
    /// thread: its `deliver` must not block that thread, only wait.
    pub fn start<I: Inbox>(options: TransportOptions, inbox: I) -> Result<Self, StartError> {
        let members = Arc::new(Members::from_options(&options)?);
        refuse_taken_port(options.listen)?;
        let queues: BTreeMap<NodeId, Arc<PeerQueues>> = members
            .iter()
            .map(|member| (member.node, Arc::new(PeerQueues::new(options.queue))))
            .collect();
        let counters = Arc::new(Counters::default());
        let board = Board::new(first_status(&members));
        let peers = board.watch();
        let peer_id = keypair_of(&options.key).public().to_peer_id().to_string();
        let (stop, on_stop) = mpsc::channel(1);
        let (on_stopped, stopped) = watch::channel(false);
        let (report, started) = std::sync::mpsc::sync_channel(1);
        let service =
            Service { options, members, queues: queues.clone(), counters: counters.clone(), board };
        let thread = std::thread::Builder::new()
            .name("quorate-transport".to_owned())
            .spawn(move || {
                service.run(inbox, &report, on_stop);
                // Nobody may be waiting.
                on_stopped.send(true).ok();
            })
            .map_err(|source| StartError::Setup { what: "the transport's thread", source })?;
        let local_addr = started.recv().map_err(|gone| StartError::Setup {
            what: "the transport's thread",
            source: io::Error::other(gone),
        })??;
        let thread = Mutex::new(Some(thread));
        let inner = Inner { queues, counters, peers, local_addr, peer_id, stop, stopped, thread };
        Ok(Self(Arc::new(inner)))
    }

    /// Where it listens, with the port that was found if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr
    }

    /// This node's own peer id.
    pub fn peer_id(&self) -> &str {
        &self.0.peer_id
    }

    /// How it stands with every member but this node.
    pub fn peers(&self) -> Peers {
        self.0.peers.borrow().clone()
    }

    /// The same, told at each change.
    pub fn watch_peers(&self) -> watch::Receiver<Peers> {
        self.0.peers.clone()
    }

    /// What passed and what was lost.
    pub fn counts(&self) -> Counts {
        self.0.counters.read()
    }

    /// Leaves in order: frames that wait are sent, peers are told, connections closed, the thread
    /// joined. Takes at most about half a second; runs on any executor.
    pub async fn shutdown(&self) {
        // A full or closed channel says that somebody asked before.
        self.0.stop.try_send(()).ok();
        // An error says that the thread is gone without a word, which is an end as well.
        self.0.stopped.clone().wait_for(|stopped| *stopped).await.ok();
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the transport's thread panicked");
        }
    }
}

impl Wire for Transport {
    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let sent = match self.0.queues.get(&to) {
            Some(queues) => queues.lane(lane).push(frame),
            None => Err(SendError::Unconnected),
        };
        sent.inspect_err(|error| self.0.counters.lane(lane).refused(*error))
    }
}

/// libp2p listens with `SO_REUSEPORT`, so two nodes of one user would share a port and steal each
/// other's connections; a plain bind says whether somebody is there.
fn refuse_taken_port(address: SocketAddr) -> Result<(), StartError> {
    if address.port() == 0 {
        return Ok(());
    }
    match TcpListener::bind(address) {
        Ok(_free) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(StartError::PortTaken { address })
        }
        Err(source) => Err(StartError::Listen { address, source }),
    }
}

fn first_status(members: &Members) -> Peers {
    let status = |member: &crate::members::Member| PeerStatus {
        node: member.node,
        peer_id: member.peer.to_string(),
        address: member.address,
        state: PeerState::Connecting,
        problem: None,
        round_trip: None,
    };
    members.iter().map(|member| (member.node, status(member))).collect()
}

/// What the thread owns.
struct Service {
    options: TransportOptions,
    members: Arc<Members>,
    queues: BTreeMap<NodeId, Arc<PeerQueues>>,
    counters: Arc<Counters>,
    board: Board,
}

type Report = std::sync::mpsc::SyncSender<Result<SocketAddr, StartError>>;

impl Service {
    /// The whole life of the thread. One thread for swarm, connections and lanes: with several, the
    /// wake-ups between them cost more than they gain (1.3 to 2.3 times slower, measured).
    fn run<I: Inbox>(self, inbox: I, report: &Report, stop: mpsc::Receiver<()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let started = match runtime {
            Ok(runtime) => runtime.block_on(async {
                let (swarm, address) = self.listen().await?;
                report.send(Ok(address)).ok();
                self.serve(swarm, inbox, stop).await;
                Ok(())
            }),
            Err(source) => Err(StartError::Setup { what: "the transport's event queue", source }),
        };
        if let Err(error) = started {
            // The starter waits for exactly one word.
            report.send(Err(error)).ok();
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
        let (leaving, on_leaving) = watch::channel(false);
        let mut driver = Driver::new(
            swarm,
            self.members.clone(),
            on_commands,
            self.counters.clone(),
            self.board.clone(),
            &self.options,
        );
        let inbox = Arc::new(inbox);
        let mut rng = Rng::new(entropy());
        let mut links = JoinSet::new();
        for member in self.members.iter() {
            let Some(queues) = self.queues.get(&member.node) else { continue };
            let (link, events) = mpsc::channel(LINK_EVENTS_MAX);
            driver.links.insert(member.node, link);
            let at_once = self.options.node < member.node;
            let (first, max) = (self.options.redial_first, self.options.redial_max);
            links.spawn(
                Link {
                    member: *member,
                    events,
                    commands: commands.clone(),
                    queues: queues.clone(),
                    counters: self.counters.clone(),
                    inbox: inbox.clone(),
                    board: self.board.clone(),
                    backoff: Backoff::new(first, max, at_once, rng.fork()),
                    patience: Patience {
                        handshake: self.options.handshake_timeout,
                        probe: self.options.probe_timeout,
                        steady: max,
                    },
                    leaving: on_leaving.clone(),
                    unsettled: false,
                    session: None,
                }
                .run(),
            );
        }
        let orderly = tokio::select! {
            asked = stop.recv() => asked.is_some(),
            () = driver.drive() => false,
        };
        if orderly {
            leaving.send_replace(true);
            tokio::select! {
                () = async { while links.join_next().await.is_some() {} } => {}
                () = driver.drive() => {}
            }
            driver.close().await;
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
