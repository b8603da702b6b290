//! Measures two transports on loopback: round trips a second at 1 and 64 in flight,
//! bulk, votes beside bulk, and the time from a peer's SIGKILL to `PeerGone(Refused)`.
//!
//! `cargo run --release -p quorate-transport --example roundtrip`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a measurement")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_transport::{PeerAddress, Transport, TransportOptions, peer_id_of};
use quorate_types::{Gone, Inbox, Lane, NodeId, Wire, WireEvent};

const HERE: NodeId = NodeId(1);
const THERE: NodeId = NodeId(2);
const FRAME_BYTES: usize = 256;
const SPAN: Duration = Duration::from_secs(3);
const KILLS: usize = 30;

fn options(node: NodeId) -> TransportOptions {
    let listed = |node: u8| {
        let address = SocketAddr::from(([127, 0, 77, node], 7400));
        (NodeId(u64::from(node)), PeerAddress { peer_id: peer_id_of(&[node; 32]), address })
    };
    let peers = BTreeMap::from([listed(1), listed(2)]);
    let key = [u8::try_from(node.0).unwrap(); 32];
    TransportOptions::new(key, node, peers[&node].address, peers)
}

/// Sends every frame of `Call` and `Vote` back on its lane; bulk it only takes.
#[derive(Clone, Default)]
struct Echo(Arc<OnceLock<Transport>>);

impl Inbox for Echo {
    async fn deliver(&self, event: WireEvent) {
        match event {
            WireEvent::Frame { from, lane: lane @ (Lane::Call | Lane::Vote), frame } => {
                self.0.wait().send(from, lane, frame).expect("an echo has room");
            }
            WireEvent::Frame { .. } | WireEvent::PeerUp(_) | WireEvent::PeerGone(..) => {}
        }
    }
}

/// Hands every event to the measuring thread.
struct Ear(mpsc::Sender<(Instant, WireEvent)>);

impl Inbox for Ear {
    async fn deliver(&self, event: WireEvent) {
        self.0.send((Instant::now(), event)).ok();
    }
}

struct Here {
    transport: Transport,
    events: mpsc::Receiver<(Instant, WireEvent)>,
}

impl Here {
    fn start() -> Self {
        let (events, on_events) = mpsc::channel();
        let transport = Transport::start(options(HERE), Ear(events)).unwrap();
        Self { transport, events: on_events }
    }

    fn next(&self) -> (Instant, WireEvent) {
        self.events.recv_timeout(Duration::from_secs(30)).expect("the peer answers")
    }

    fn until_up(&self) {
        while !matches!(self.next().1, WireEvent::PeerUp(_)) {}
    }

    fn send(&self, lane: Lane, sent: Instant, start: Instant) {
        let mut frame = vec![7; FRAME_BYTES];
        let nanos = u64::try_from((sent - start).as_nanos()).unwrap();
        frame[..8].copy_from_slice(&nanos.to_le_bytes());
        self.transport.send(THERE, lane, Bytes::from(frame)).expect("the window has room");
    }

    /// Keeps `window` frames of `lane` in flight for a while; `beside` runs at each answer.
    fn round_trips(&self, name: &str, lane: Lane, window: usize, mut beside: impl FnMut()) {
        let start = Instant::now();
        for _ in 0..window {
            self.send(lane, Instant::now(), start);
        }
        let mut times = Vec::new();
        let mut in_flight = window;
        while in_flight > 0 {
            let (now, event) = self.next();
            let WireEvent::Frame { frame, .. } = event else { panic!("{event:?}") };
            let sent =
                start + Duration::from_nanos(u64::from_le_bytes(frame[..8].try_into().unwrap()));
            times.push(now - sent);
            in_flight -= 1;
            beside();
            if start.elapsed() < SPAN {
                self.send(lane, Instant::now(), start);
                in_flight += 1;
            }
        }
        let elapsed = start.elapsed();
        let rate = times.len() as f64 / elapsed.as_secs_f64();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        println!("{name}: {rate:.0} round trips/s, p50 {:?}, p99 {:?}", at(50), at(99));
    }

    fn bulk(&self) {
        let frame = Bytes::from(vec![1; 64 << 10]);
        let before = self.transport.counts().lane(Lane::Blob).bytes_sent;
        let start = Instant::now();
        while start.elapsed() < SPAN {
            if self.transport.send(THERE, Lane::Blob, frame.clone()).is_err() {
                std::thread::yield_now();
            }
        }
        let bytes = self.transport.counts().lane(Lane::Blob).bytes_sent - before;
        println!("bulk of 64 KiB frames: {:.0} MB/s", bytes as f64 / 1e6 / SPAN.as_secs_f64());
    }
}

/// Another process that is n2 until it is killed.
fn spawn_there() -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("there")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child
}

fn be_there() {
    let echo = Echo::default();
    let transport = Transport::start(options(THERE), echo.clone()).unwrap();
    assert!(echo.0.set(transport).is_ok());
    println!("ready");
    // Until killed, or until the parent is gone.
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
}

fn kills(here: &Here) {
    let (mut refused, mut reconnected) = (Vec::new(), Vec::new());
    let mut others = 0;
    for _ in 0..KILLS {
        let started = Instant::now();
        let mut there = spawn_there();
        here.until_up();
        reconnected.push(started.elapsed());
        let killed = Instant::now();
        there.kill().unwrap();
        loop {
            match here.next() {
                (at, WireEvent::PeerGone(_, Gone::Refused)) => {
                    refused.push(at - killed);
                    break;
                }
                (_, WireEvent::PeerGone(_, Gone::Closed | Gone::Timeout)) => others += 1,
                (_, event @ (WireEvent::Frame { .. } | WireEvent::PeerUp(_))) => {
                    panic!("{event:?}")
                }
            }
        }
        there.wait().unwrap();
    }
    for (name, times) in
        [("SIGKILL to PeerGone(Refused)", refused), ("start to PeerUp", reconnected)]
    {
        let mut times = times;
        times.sort_unstable();
        let (min, median, max) = (times[0], times[KILLS / 2], times[KILLS - 1]);
        println!("{name}: min {min:?}, median {median:?}, max {max:?} of {KILLS}");
    }
    println!("kills first told as something else: {others}");
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("there") {
        return be_there();
    }
    let here = Here::start();
    let mut there = spawn_there();
    here.until_up();
    here.round_trips("1 in flight", Lane::Call, 1, || {});
    here.round_trips("64 in flight", Lane::Call, 64, || {});
    here.round_trips("512 in flight", Lane::Call, 512, || {});
    here.bulk();
    let chunk = Bytes::from(vec![1; 64 << 10]);
    here.round_trips("1 vote in flight beside bulk", Lane::Vote, 1, || {
        // Keeps the bulk lane full; a refusal says that it is.
        while here.transport.send(THERE, Lane::Blob, chunk.clone()).is_ok() {}
    });
    there.kill().unwrap();
    there.wait().unwrap();
    while !matches!(here.next().1, WireEvent::PeerGone(_, Gone::Refused)) {}
    kills(&here);
}
