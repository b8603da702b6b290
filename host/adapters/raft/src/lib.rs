//! Replicated groups: the only room that names openraft.
//!
//! It carries opaque commands through a Raft log on every voter's disk (Ongaro
//! and Ousterhout, 2014; openraft has the rules), applies them to the ledger in
//! log order, publishes an immutable view and tells an observer. An outcome is
//! given only when its command is fsynced on a quorum and applied here.
//!
//! Ours are the network (`network`, `pipeline`, `outbox`, `inbound`,
//! `assembly`), the log
//! and the snapshots beneath openraft (`log`, `state_machine`), the state
//! machine (`machine`), the settings that safety hangs on (`settings`), the
//! watchdog (`supervisor`) and the hand-off (`hand_off`). No openraft type
//! leaves. Leases are never trusted, guest code never runs here, an entry that
//! is not known stops the group and is never skipped.
//!
//! Generic over the runtime: the same code runs on tokio and under a seed.

#![forbid(unsafe_code)]

mod assembly;
mod hand_off;
mod inbound;
mod instance;
mod log;
mod machine;
mod message;
mod network;
mod observer;
mod outbox;
mod pipeline;
mod propose;
mod raft;
mod record;
mod settings;
mod state_machine;
mod supervisor;
mod types;

#[cfg(test)]
mod tests;

pub use hand_off::TransferError;
pub use instance::OpenError;
pub use message::group_of;
pub use observer::Observer;
pub use propose::{ProposeError, Proposed, ReadError};
pub use raft::{GroupStatus, Raft, RaftOptions, StartError};
pub use settings::{Compaction, Profile};
