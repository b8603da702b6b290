//! Whole clusters in one thread under a seed: the crank, the raft room, the
//! storage and the ledger that ship, on virtual time, a disk that loses what was
//! not synced and a wire that loses, delays and cuts.
//!
//! A seed draws its own knobs and faults, so the same seed is the same run, to
//! the bit: its trace hash says so. Judges look at every change of a disk, every
//! frame and every applied entry; their module says who looks when. Owners submit,
//! cancel, read and call, workers take leases from outside, clients share keys,
//! operators swap the policy. At the end all is healed, and every acknowledged task must come to its
//! end and every acknowledged blob be there.
//!
//! * `disk`, `wire`, `guests`: what stands in for the world.
//! * `node`: a life of a node; `chaos`: what befalls it; `workload`: who asks it.
//! * `world`: the trace and the judges; `checkers`: one file, one invariant.
//! * [`run_seed`]: one seed; [`run_many`]: as many as fit. A seed that breaks a
//!   [`Law`], panics or never ends is named with the command that replays it.

#![forbid(unsafe_code)]

mod chaos;
mod checkers;
mod desk;
mod disk;
mod fleet;
mod guests;
mod knobs;
mod law;
pub mod linear;
mod many;
mod members;
mod node;
mod planted;
mod run;
mod runtime;
mod schedule;
mod shrink;
mod tally;
mod trace;
mod traps;
mod wire;
mod workload;
mod world;

pub use knobs::{NODES_MAX, Plan};
pub use law::{Complaint, Law};
pub use many::{Budget, Failure, Summary, run_many};
pub use planted::{BUGS, Bug, Found, RECORD, UnknownFault, plant, planted};
pub use quorate_raft::Profile;
pub use run::{Outcome, replay, run_seed};
pub use shrink::{Shrunk, shrink};
pub use tally::{Tally, UNJUDGED};
pub use traps::{LEADERLESS_MAX, Scene, Seen, Trap, play_trap};
