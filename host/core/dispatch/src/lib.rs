//! Which agent should do it, and what becomes of a call meanwhile.
//!
//! * [`source`]: where a policy's instances come from, with their fallback.
//! * [`endpoints`]: the immutable table of agents that a router chooses from.
//! * [`router`]: picks through a policy instance, in leased batches that a new
//!   table voids; each pick is closed by exactly one observation.
//! * [`pool`]: slots, table and router of one set of interchangeable agents.
//! * [`registry`]: the live index of agents by namespace and capability.
//! * [`calls`]: calls in flight: attempts, deadlines, retries.
//!
//! Nothing here knows of Raft, sockets or clocks.

#![forbid(unsafe_code)]

pub mod calls;
pub mod endpoints;
pub mod pool;
pub mod pools;
pub mod registry;
pub mod router;
pub mod source;

pub use calls::{CallEffect, Calls, Delivery};
pub use endpoints::{Candidate, Endpoint, Endpoints, SlotTable};
pub use pool::{Choice, Pool};
pub use pools::{POOLS_MAX, PoolId, Pools};
pub use registry::{Entry, Registry};
pub use router::{Pick, Router};
pub use source::{Guarded, NativeSource, PolicyRef, PolicySource};
