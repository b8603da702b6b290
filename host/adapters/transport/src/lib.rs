//! Frames between nodes over libp2p: TCP, noise, yamux; the only room that names
//! libp2p.
//!
//! A [`Transport`] is a [`Wire`](quorate_types::Wire) to every member of a list
//! that may change while it runs, and gives what arrives to an [`Inbox`](quorate_types::Inbox). For
//! each peer the inbox hears `PeerUp`, then frames, then `PeerGone`, in this order;
//! `PeerUp` means that all lanes of both directions are open. A peer id outside the
//! list gets its handshake and no stream. A lost peer is dialled for ever, and its
//! address is asked at once whether its process is dead (`Gone::Refused`): killing
//! a process is known to its peers within milliseconds.
//!
//! It keeps one connection to a peer and on it one stream for each lane and
//! direction, so lanes do not wait for each other beyond the bytes they share. It
//! retries no frame, keeps no state on disk, and holds no opinion on what a frame
//! means.
//!
//! Inside: `transport` is the handle, `service` the thread and who has a link on it;
//! `driver` runs the `swarm` there; each peer
//! has a `link` (dial, judge, tell) and, while connected, a `session` (lane tasks
//! over `frame` and `queue`); `lanes`, `handler` and `opening` are the swarm's side.

#![forbid(unsafe_code)]

mod backoff;
mod counters;
mod driver;
mod frame;
mod handler;
mod lanes;
mod link;
mod members;
mod opening;
mod options;
mod probe;
mod queue;
mod service;
mod session;
mod socket;
mod status;
mod swarm;
mod transport;

#[cfg(test)]
mod tests;

pub use counters::{Counts, LaneCounts};
pub use members::peer_id_of;
pub use options::{PeerAddress, PingLimits, QueueBound, StartError, TransportOptions};
pub use status::{PeerState, PeerStatus, Peers};
pub use transport::Transport;
