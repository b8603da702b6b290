//! The transport as its owner holds it: a cheap handle, a thread behind it.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use bytes::Bytes;
use quorate_types::{Inbox, Lane, NodeId, SendError, Wire};
use tokio::sync::{mpsc, oneshot, watch};

use crate::counters::{Counters, Counts};
use crate::members::{Members, keypair_of};
use crate::options::{PeerAddress, StartError, TransportOptions};
use crate::service::{AllQueues, Service, first_status};
use crate::status::{Board, Peers};

struct Inner {
    queues: Arc<ArcSwap<AllQueues>>,
    counters: Arc<Counters>,
    listed: watch::Sender<BTreeMap<NodeId, PeerAddress>>,
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
    /// Listens, and dials every member from now on. Events go to `inbox`, on a thread of the
    /// transport's own: its `deliver` must not block that thread, only wait.
    ///
    /// # Errors
    /// What is wrong with the options, or why it cannot listen.
    pub fn start<I: Inbox>(options: TransportOptions, inbox: I) -> Result<Self, StartError> {
        let (service, ends) = parts(options)?;
        let what = "the transport's thread";
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| StartError::Setup { what, source })?;
        let (report, started) = std::sync::mpsc::sync_channel(1);
        let Ends { half, on_stop, on_stopped } = ends;
        let thread = std::thread::Builder::new()
            .name("quorate-transport".to_owned())
            .spawn(move || {
                let report = move |word| drop(report.send(word));
                runtime.block_on(service.run(inbox, report, on_stop));
                drop(runtime);
                // Nobody may be waiting.
                on_stopped.send(true).ok();
            })
            .map_err(|source| StartError::Setup { what, source })?;
        let local_addr = started
            .recv()
            .map_err(|gone| StartError::Setup { what, source: io::Error::other(gone) })??;
        Ok(half.whole(local_addr, Some(thread)))
    }

    /// The same on the caller's runtime, which must be of one thread. Who answers most events, and
    /// does nothing long there, saves two hops between threads with each frame.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub async fn start_here<I: Inbox>(
        options: TransportOptions,
        inbox: I,
    ) -> Result<Self, StartError> {
        let (service, ends) = parts(options)?;
        let (report, started) = oneshot::channel();
        let Ends { half, on_stop, on_stopped } = ends;
        drop(tokio::spawn(async move {
            service.run(inbox, |word| drop(report.send(word)), on_stop).await;
            on_stopped.send(true).ok();
        }));
        let what = "the transport's task";
        let local_addr = started
            .await
            .map_err(|gone| StartError::Setup { what, source: io::Error::other(gone) })??;
        Ok(half.whole(local_addr, None))
    }

    /// From now on these are the members, this node among them or not. Whoever is no longer listed
    /// loses its connections at once and is refused from then on; whoever is new is dialled; a
    /// member with another address is lost and dialled there. Never waits.
    pub fn set_peers(&self, listed: BTreeMap<NodeId, PeerAddress>) {
        self.0.listed.send_if_modified(|now| {
            let changed = *now != listed;
            *now = listed;
            changed
        });
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

/// A transport that does not listen yet.
struct Half {
    queues: Arc<ArcSwap<AllQueues>>,
    counters: Arc<Counters>,
    listed: watch::Sender<BTreeMap<NodeId, PeerAddress>>,
    peers: watch::Receiver<Peers>,
    peer_id: String,
    stop: mpsc::Sender<()>,
    stopped: watch::Receiver<bool>,
}

impl Half {
    fn whole(self, local_addr: SocketAddr, thread: Option<JoinHandle<()>>) -> Transport {
        let Self { queues, counters, listed, peers, peer_id, stop, stopped } = self;
        let thread = Mutex::new(thread);
        Transport(Arc::new(Inner {
            queues,
            counters,
            listed,
            peers,
            local_addr,
            peer_id,
            stop,
            stopped,
            thread,
        }))
    }
}

/// What its handle and its life hold of one another.
struct Ends {
    half: Half,
    on_stop: mpsc::Receiver<()>,
    on_stopped: watch::Sender<bool>,
}

fn parts(options: TransportOptions) -> Result<(Service, Ends), StartError> {
    let members = Arc::new(Members::from_options(&options)?);
    refuse_taken_port(options.listen)?;
    let queues = Arc::new(ArcSwap::from_pointee(AllQueues::new()));
    let counters = Arc::new(Counters::default());
    let first: Peers =
        members.now().iter().map(|member| (member.node, first_status(member))).collect();
    let board = Board::new(first);
    let (listed, on_listed) = watch::channel(options.peers.clone());
    let peers = board.watch();
    let peer_id = keypair_of(&options.key).public().to_peer_id().to_string();
    let (stop, on_stop) = mpsc::channel(1);
    let (on_stopped, stopped) = watch::channel(false);
    let half = Half {
        queues: queues.clone(),
        counters: counters.clone(),
        listed,
        peers,
        peer_id,
        stop,
        stopped,
    };
    let service = Service { options, members, queues, counters, board, listed: on_listed };
    Ok((service, Ends { half, on_stop, on_stopped }))
}

impl Wire for Transport {
    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let sent = match self.0.queues.load().get(&to) {
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
