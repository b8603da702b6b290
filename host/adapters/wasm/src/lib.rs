//! Components: policies that answer within a step and agents that do the work.
//! The only room that names wasmtime.
//!
//! Two kinds of guest, two hosts. A [`PolicyHost`] runs policies synchronously,
//! with fuel as the only cut that the answers depend on; a policy imports
//! nothing but types, so that equal calls give equal answers everywhere. An
//! [`AgentHost`] runs agents on fibers, one store an agent; whatever an agent
//! waits for suspends the fiber, and to cancel it is to drop its store.
//!
//! A component passes, in this order, size caps and a reading of its outline
//! (`outline`), the compiler on a thread of its own (`compiler`) behind a sealed
//! cache (`cache`), a check of what it needs against the fixed pool, a check of its
//! world, and a first life in which it describes itself. What fails there is an
//! [`AdmitError`] that says what, why, and what to try; nothing unknown is left
//! to trap later. A guest's trap is the world, never our panic: [`GuardedBalancer`]
//! answers natively and starts the component anew, [`AgentInstance`] reports a typed
//! fault and starts anew with the next work.

#![deny(unsafe_code)]

mod admit;
pub mod agent;
mod balancer;
mod bindings;
pub mod builtin;
mod cache;
mod compiler;
mod engine;
mod guarded;
pub mod limits;
mod members;
mod outline;
mod policy;
mod ticker;
mod trap;

pub use admit::{AdmitError, HostError, OpenError};
pub use agent::{
    AgentComponent, AgentDescriptor, AgentEnv, AgentFault, AgentHost, AgentInstance, Grants, Level,
    Work, WorkKind,
};
pub use balancer::{ComponentBalancer, Failure};
pub use cache::{CacheError, CompileCache};
pub use compiler::CompileCounts;
pub use guarded::{GuardCounters, GuardCounts, GuardedBalancer};
pub use limits::{AgentLimits, PolicyLimits, ShapeLimits, Slice};
pub use outline::Outline;
pub use policy::{PolicyComponent, PolicyHost};
