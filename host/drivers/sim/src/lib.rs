//! Whole clusters in one thread under a seed: the crank, the raft room, the
//! storage and the ledger that ship, on virtual time, a disk that loses what was
//! not synced and a wire that loses, delays and cuts.
//!
//! A seed draws its own knobs and faults, so the same seed is the same run, to
//! the bit: its trace hash says so. Checkers look after every sync of a disk,
//! every frame and every applied entry. At the end all is healed, and every
//! acknowledged task must come to its end.
//!
//! * `disk`, `wire`, `guests`: what stands in for the world.
//! * `node`: a life of a node; `chaos`: what befalls it; `client`: who asks it.
//! * `world`: the trace and the judges; [`checkers`](crate): one file, one invariant.
//! * [`run_seed`]: one seed; [`run_many`]: as many as fit.

#![forbid(unsafe_code)]

mod chaos;
mod checkers;
mod client;
mod disk;
mod guests;
mod knobs;
mod many;
mod node;
mod run;
mod trace;
mod wire;
mod world;

pub use knobs::Plan;
pub use many::{Budget, Summary, run_many};
pub use run::{Outcome, replay, run_seed};
