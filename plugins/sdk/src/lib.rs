//! What a component author needs: one trait to implement and one macro to call.
//!
//! A balancer implements [`balancer::Balancer`] and calls [`export_balancer!`]; an
//! agent implements [`agent::Agent`] and calls [`export_agent!`]. Everything that a
//! contract in `wit/` demands beyond the decision itself is done here: checking
//! what the host pushes, finding places of slots, counting observations, moving
//! bytes. A balancer that uses this crate imports nothing but types.

#![warn(clippy::std_instead_of_core)]

pub mod agent;
pub mod balancer;
mod bindings;
pub mod config;
pub mod splitmix;
pub mod tournament;

pub use bindings::policy::quorate::common::types::{Fault, Outcome, Slot, Snapshot};
pub use config::Config;
pub use splitmix::SplitMix64;
pub use tournament::Tournament;

/// What the macros name; not for use by hand.
#[doc(hidden)]
pub mod exported {
    pub use crate::bindings::{agent, policy};
}

/// A refusal of the caller's input; asking again with the same input will not help.
pub fn invalid(why: &str) -> Fault {
    Fault::Invalid(why.into())
}
