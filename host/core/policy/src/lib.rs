//! The questions a policy answers, and the native reference answers to them.
//!
//! A built-in policy exists twice: as a component under `plugins/`, which is what
//! runs, and here, written for clarity from the same document
//! (`plugins/<name>/README.md`) and sharing no source with the component. The two
//! agree bit for bit; when a component fails, the answer here takes its place.

#![forbid(unsafe_code)]

pub mod balancer;
pub mod least_used;
pub mod load_aware;
pub mod native;
pub mod peak_ewma;
pub mod round_robin;
mod seats;

pub use balancer::{Balancer, Descriptor, Fault, Feature, Observation, Outcome, Slot, Snapshot};
pub use native::{by_name, open};
