//! A real node: tokio for a runtime, files for a disk, libp2p for a wire, wasmtime
//! for its guests. Everything that decides is elsewhere; this room only supplies.
//!
//! * [`anew`]: a data directory in which another era of the cluster begins.
//! * [`config`]: the node file.
//! * `admission`: whether this node may vote from its data directory.
//! * `disk`: the `Disk` seam over files.
//! * `agents`, `policies`: components as the crank's guests.
//! * `figures`: what `/metrics` says of its rooms.
//! * `kept`: what lies in the data directory; `secrets`: keys and tokens.
//! * `repair`: a damaged log fetched anew from the others.
//! * [`node`]: start and stop.
//! * [`storage`]: a data directory that no node has open, for people.

#![forbid(unsafe_code)]

mod admission;
mod agents;
pub mod anew;
pub mod config;
mod disk;
mod figures;
mod home;
mod kept;
pub mod node;
mod policies;
mod repair;
mod roster;
mod secrets;
pub mod storage;

pub use admission::AdmissionError;
pub use config::{ConfigError, NodeConfig};
pub use disk::{FileDisk, FileDiskError, sync_name};
pub use node::{Node, StartError, builtin_balancers};
pub use quorate_storage::BackupError;
pub use secrets::{new_key, peer_id_of, read_token};
