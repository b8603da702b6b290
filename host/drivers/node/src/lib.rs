//! A real node: tokio for a runtime, files for a disk, libp2p for a wire, wasmtime
//! for its guests. Everything that decides is elsewhere; this room only supplies.
//!
//! * [`config`]: the node file.
//! * `disk`: the `Disk` seam over files.
//! * `agents`, `policies`: components as the crank's guests.
//! * [`node`]: start and stop.

#![forbid(unsafe_code)]

mod agents;
pub mod config;
mod disk;
pub mod node;
mod policies;

pub use config::{ConfigError, NodeConfig};
pub use disk::{FileDisk, FileDiskError};
pub use node::{Node, StartError, builtin_balancers, new_key, peer_id_of, read_token};
