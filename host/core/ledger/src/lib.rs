//! The replicated state: who the nodes and agents of record are, which policy is
//! in which slot, and what became of every task.
//!
//! Two machines, `System` and `Shard`, each with its own commands; one group
//! carries both, and an *adoption* entry takes what the first decided into the
//! second. Acts across machines are fenced, not atomic: the system commits a new
//! epoch (an agent's incarnation, a policy's activation), then the shard records
//! it, and from that entry on refuses every assignment under another one.
//!
//! Everything here is a function of the entries applied, in order. No clock
//! (ledger time is stamped by the leader and never runs back), no entropy (jitter
//! is drawn from the task's id), no floats, no hash maps. The maps are persistent,
//! so a clone costs a few reference counts and readers hold a view for as long as
//! they like. Two replicas at one index have one [`Ledger::digest`].

#![forbid(unsafe_code)]

mod bounds;
mod command;
mod entry;
mod kv;
mod ledger;
mod outcome;
mod query;
mod rebirth;
mod record;
mod roster;
mod set_hash;
mod shard;
mod snapshot;
mod system;
mod views;

#[cfg(test)]
mod tests;

pub use bounds::{FEATURE_LEVEL_KNOWN, check_agent, check_payload, check_task};
pub use command::{
    Activate, AgentAdoption, Assignment, Command, NodeDown, NodeUp, PolicyAdoption, RetireAgent,
    ShardCommand, Standing, SystemCommand,
};
pub use ledger::{Ledger, SLOT_BALANCER};
pub use outcome::{Applied, ApplyError, Outcome, RestoreError, Unassigned};
pub use rebirth::{LEAP, Rebirth};
pub use roster::{Roster, RosterMember};
pub use system::{Agent, Node, Policy, Retired};
pub use views::Views;
