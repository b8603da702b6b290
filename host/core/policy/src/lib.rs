//! The questions a policy answers, and the native reference answers to them.

#![forbid(unsafe_code)]

pub mod balancer;

pub use balancer::{Balancer, Descriptor, Fault, Feature, Observation, Outcome, Slot, Snapshot};
