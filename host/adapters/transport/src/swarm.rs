//! What the swarm is made of: TCP, noise, yamux; limits, lanes, identify, ping.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::{Config, NetworkBehaviour, Swarm};
use libp2p::{connection_limits, identify, noise, ping, tcp, yamux};

use crate::lanes::Lanes;
use crate::members::{Members, keypair_of};
use crate::options::{StartError, TransportOptions};
use crate::socket;

/// Streams on one connection. Lanes need 14, ping 2, identify 4; the rest is room for reopening.
const STREAMS_MAX: usize = 64;

/// Handshakes from outside at once. Each costs a key exchange (some 0.2 ms) and a socket; a cluster of
/// 60 that starts together stays below it.
const HANDSHAKES_MAX: u32 = 64;

/// Connections of one peer. One is in use and dials add two; the rest is for those to a host that
/// vanished, which take as long to close as the socket's limit says.
const CONNECTIONS_MAX: u32 = 16;

/// What the swarm is composed of; `lanes` says who may connect and so comes before what speaks.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(crate) lanes: Lanes,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// A swarm that does not listen yet. Call it on the runtime that will run it.
pub(crate) fn build_swarm(
    options: &TransportOptions,
    members: Arc<Members>,
) -> Result<Swarm<Behaviour>, StartError> {
    let key = keypair_of(&options.key);
    let noise = noise::Config::new(&key).map_err(|error| StartError::Setup {
        what: "the noise handshake",
        source: io::Error::other(error),
    })?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS_MAX);
    let transport = tcp::tokio::Transport::new(tcp::Config::new())
        .map(|stream, _| socket::limit(stream))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux)
        .timeout(options.handshake_timeout)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed();
    let config = Config::with_tokio_executor()
        .with_substream_upgrade_protocol_override(Version::V1Lazy)
        // Off: the lanes keep their connection alive, this is for the moment before they exist.
        .with_idle_connection_timeout(Duration::from_secs(u64::MAX));
    let behaviour = Behaviour::new(options, members, &key);
    Ok(Swarm::new(transport, behaviour, key.public().to_peer_id(), config))
}

impl Behaviour {
    fn new(options: &TransportOptions, members: Arc<Members>, key: &Keypair) -> Self {
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(HANDSHAKES_MAX))
            .with_max_established_per_peer(Some(CONNECTIONS_MAX));
        let about = identify::Config::new("/quorate/1".to_owned(), key.public())
            .with_agent_version(concat!("quorate/", env!("CARGO_PKG_VERSION")).to_owned());
        let pings = ping::Config::new()
            .with_interval(options.ping.interval)
            .with_timeout(options.ping.timeout);
        Self {
            limits: connection_limits::Behaviour::new(limits),
            lanes: Lanes::new(members, options.handshake_timeout),
            identify: identify::Behaviour::new(about),
            ping: ping::Behaviour::new(pings),
        }
    }
}
