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

mod allow_list;
mod assembly;
mod compaction;
mod extent;
mod hand_off;
mod inbound;
mod instance;
mod log;
mod machine;
mod members;
mod message;
mod network;
mod observer;
mod outbox;
mod pipeline;
mod propose;
mod raft;
mod read_back;
mod reads;
mod record;
mod settings;
mod state_machine;
mod supervisor;
mod types;

#[cfg(test)]
mod tests;

pub use allow_list::AllowList;
pub use hand_off::TransferError;
pub use instance::OpenError;
pub use members::{MembersError, VOTERS_MAX};
pub use message::group_of;
pub use observer::Observer;
pub use propose::{ProposeError, Proposed, ReadError};
pub use raft::{GroupStatus, Raft, RaftOptions, StartError};
pub use read_back::{
    LogEntry, committed_mark, founding_membership, log_committed, log_entry, log_vote,
    snapshot_voters, vote_for_itself,
};
pub use settings::{Compaction, LogSize, Profile, SNAPSHOT_BYTES_PER_S};
