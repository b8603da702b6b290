//! Agents: components that do the work.
//!
//! An agent is one store with one instance, on a fiber while it works: whatever it
//! asks of the host suspends the fiber, and so does the end of its slice. One
//! piece of work at a time is in it. Work that is cancelled, too late or trapped takes
//! the store with it, since its memory is in no known state; the next work begins
//! a fresh one.

pub(crate) mod blobs;
mod env;
mod grants;
mod host;
mod instance;

pub use env::{AgentEnv, Level};
pub use grants::Grants;
pub use host::{AgentComponent, AgentDescriptor, AgentHost};
pub use instance::{AgentFault, AgentInstance, Work, WorkKind};
