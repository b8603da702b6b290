//! What every room speaks of: identifiers, time, limits, the records that cross
//! rooms, and the seams (`Disk`, `Wire`, `Door`) behind which the world stands.
//!
//! Nothing here reads a clock, a socket, a file or the system's entropy; the
//! seams are traits that drivers supply. Every other room imports this one and
//! this one imports none.

#![forbid(unsafe_code)]

pub mod agent;
pub mod cbor;
pub mod clocks;
pub mod disk;
pub mod door;
pub mod era;
pub mod faults;
pub mod history;
pub mod http;
pub mod id;
pub mod kv;
pub mod layout;
pub mod limits;
pub mod link;
pub mod member;
pub mod metrics;
pub mod nearest;
pub mod problem;
pub mod quorum;
pub mod revision;
pub mod rng;
pub mod task;
pub mod text;
pub mod time;
pub mod view;
pub mod wire;

pub use agent::{AgentSpec, CapabilitySet, LoadReading, Wanted};
pub use disk::{Disk, DiskFile, Open};
pub use door::{Door, Event, EventKind, Refusal, Reply, Request};
pub use era::Era;
pub use faults::Faults;
pub use id::{
    AgentId, CallId, Digest, GroupId, Incarnation, Index, NodeId, PolicyEpoch, TaskId, Term, Token,
    TraceId,
};
pub use layout::{Layout, Role};
pub use revision::Revision;
pub use task::{Payload, Retry, Submission, TaskSpec, TaskState, Timeouts};
pub use time::Time;
pub use wire::{Gone, Inbox, Lane, SendError, Wire, WireEvent};
