//! The network between nodes: a switch of Ethernet frames in this process, with a TAP
//! device in each node's namespace. Each link, one way, can be cut, lose a share of
//! its frames, or deliver them late.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quorate_types::rng::Rng;
use rustix::ioctl::{Setter, ioctl};

use crate::space::Space;

/// Large frames spare the switch most of its work.
const MTU: usize = 9_000;
const FRAME_BYTES_MAX: usize = MTU + 64;
/// What all hardware addresses here begin with; the node's number ends them.
const MAC: [u8; 5] = [0x02, 0x51, 0, 0, 0];
/// As `TUNSETIFF` in `linux/if_tun.h`.
const TUNSETIFF: u32 = 0x4004_54ca;
/// `IFF_TAP | IFF_NO_PI`: frames as they are.
const TAP_PLAIN: u16 = 0x1002;

/// What a link does to frames that go one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Clear,
    Cut,
    /// So many of a thousand are lost.
    Lossy(u16),
    /// Each comes so many milliseconds late.
    Late(u16),
}

/// A frame under way, first the one that is due first.
type Due = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Switch {
    taps: Vec<File>,
    /// By sender and receiver: lost of a thousand, and late by milliseconds.
    ways: Vec<AtomicU32>,
}

impl Switch {
    fn way(&self, from: usize, to: usize) -> &AtomicU32 {
        &self.ways[from * self.taps.len() + to]
    }

    fn deliver(&self, to: usize, frame: &[u8]) {
        // As on any network, what does not fit is lost.
        (&self.taps[to]).write_all(frame).ok();
    }
}

/// The network of one run.
pub(crate) struct Air {
    switch: Arc<Switch>,
    spaces: Vec<Space>,
    threads: Vec<JoinHandle<()>>,
}

/// Where a node is in it; nodes are counted from 0, and numbered from 1.
pub(crate) fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 66, 0, number(node))
}

fn number(node: usize) -> u8 {
    u8::try_from(node + 1).expect("few nodes")
}

impl Air {
    /// Namespaces for so many nodes, joined by a switch that delivers everything.
    pub(crate) fn new(nodes: usize, seed: u64) -> Result<Self, String> {
        Space::sweep();
        let spaces = (0..nodes).map(|node| Space::new(node + 1)).collect::<Result<Vec<_>, _>>()?;
        let mut taps = Vec::new();
        for (node, space) in spaces.iter().enumerate() {
            let tap = space.inside(open_tap).join().expect("no panic");
            taps.push(tap.map_err(|error| format!("a TAP device: {error}"))?);
            let [a, b, c, d, e] = MAC;
            let number = number(node);
            let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{number:02x}");
            space.ip(&format!("link set net0 address {mac} mtu {MTU}"))?;
            space.ip(&format!("addr add {}/24 dev net0", address(node)))?;
            space.ip("link set net0 up")?;
        }
        let ways = (0..nodes * nodes).map(|_| AtomicU32::new(0)).collect();
        let switch = Arc::new(Switch { taps, ways });
        let (late, due) = mpsc::channel();
        let mut rng = Rng::new(seed);
        let mut threads: Vec<_> = (0..nodes)
            .map(|node| {
                let (switch, late, rng) = (Arc::clone(&switch), late.clone(), rng.fork());
                std::thread::spawn(move || read(&switch, node, &late, rng))
            })
            .collect();
        let delayed = Arc::clone(&switch);
        threads.push(std::thread::spawn(move || delay(&delayed, &due)));
        Ok(Self { switch, spaces, threads })
    }

    /// The namespaces, by node.
    pub(crate) fn spaces(&self) -> &[Space] {
        &self.spaces
    }

    /// Changes one link, one way.
    pub(crate) fn set(&self, from: usize, to: usize, way: Way) {
        let (lost, late) = match way {
            Way::Clear => (0, 0),
            Way::Cut => (1_000, 0),
            Way::Lossy(lost) => (lost, 0),
            Way::Late(late) => (0, late),
        };
        let packed = u32::from(lost) << 16 | u32::from(late);
        self.switch.way(from, to).store(packed, Ordering::Relaxed);
    }

    /// All links, each one way.
    pub(crate) fn links(&self) -> Vec<(usize, usize)> {
        let nodes = self.spaces.len();
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        pairs.filter(|(from, to)| from != to).collect()
    }

    /// Clears all of them.
    pub(crate) fn clear(&self) {
        for (from, to) in self.links() {
            self.set(from, to, Way::Clear);
        }
    }
}

impl Drop for Air {
    fn drop(&mut self) {
        // Who reads a device that is gone is told so.
        for space in &self.spaces {
            space.ip("link del net0").ok();
        }
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// `struct ifreq` as far as it is read here.
#[repr(C)]
#[derive(Debug)]
struct Wanted {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

fn open_tap() -> std::io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut wanted = Wanted { name: [0; 16], flags: TAP_PLAIN, rest: [0; 22] };
    wanted.name[..4].copy_from_slice(b"net0");
    #[expect(unsafe_code, reason = "there is no other way to a TAP device")]
    // SAFETY: this call reads a `struct ifreq`, which `Wanted` is in size and form.
    unsafe {
        ioctl(&file, Setter::<TUNSETIFF, Wanted>::new(wanted))?;
    }
    Ok(file)
}

/// Takes the frames that one node sends, until its device is gone.
fn read(switch: &Switch, node: usize, late: &mpsc::Sender<Due>, mut rng: Rng) {
    let mut frame = vec![0; FRAME_BYTES_MAX];
    let mut sent = 0;
    while let Ok(length @ 14..) = (&switch.taps[node]).read(&mut frame) {
        let frame = &frame[..length];
        let receiver = (frame[..5] == MAC).then(|| usize::from(frame[5]).wrapping_sub(1));
        for to in 0..switch.taps.len() {
            // What is for nobody here is for everybody.
            if to == node || receiver.is_some_and(|one| one != to) {
                continue;
            }
            let way = switch.way(node, to).load(Ordering::Relaxed);
            let (lost, wait) = (u64::from(way >> 16), u64::from(way & 0xffff));
            if lost > 0 && rng.below(1_000) < lost {
                continue;
            }
            if wait == 0 {
                switch.deliver(to, frame);
                continue;
            }
            sent += 1;
            let due = Instant::now() + Duration::from_millis(wait);
            if late.send(Reverse((due, sent, to, frame.to_vec()))).is_err() {
                return;
            }
        }
    }
}

/// Delivers late frames when they are due, until nobody sends any more.
fn delay(switch: &Switch, frames: &mpsc::Receiver<Due>) {
    let mut waiting = BinaryHeap::<Due>::new();
    loop {
        let now = Instant::now();
        while let Some(Reverse((due, ..))) = waiting.peek()
            && *due <= now
        {
            let Some(Reverse((_due, _sent, to, frame))) = waiting.pop() else { break };
            switch.deliver(to, &frame);
        }
        let next = waiting.peek().map(|Reverse((due, ..))| due.saturating_duration_since(now));
        match frames.recv_timeout(next.unwrap_or(Duration::from_secs(1))) {
            Ok(frame) => waiting.push(frame),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}
