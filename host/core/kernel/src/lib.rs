//! One node: `Input` in, `Effect` out.
//!
//! The kernel composes membership, dispatch and what a node does with the
//! replicated log: it forwards requests to whoever leads, routes calls, gives
//! leases while it leads and works them off where its agents live. It holds no
//! clock, socket or file, and it never applies an entry: the log is a service
//! beside it that hands it an immutable view.
//!
//! Order of use, once a step: `handle(now, input)` for each input that is there,
//! then `settle(now)`, then `poll_effect()` until none, then arm one timer for
//! `poll_timeout()`.
//!
//! * [`io`]: inputs and effects.
//! * `asks`: requests under way, here or at another node; `target`: who answers them;
//!   `reads`: those that wait for what was acknowledged; `partings`: those of several
//!   groups.
//! * `errands`: what each request becomes while this node leads.
//! * `leading`: what only a leader does: leases, adoptions, the dead.
//! * `placement`: which agent gets which task.
//! * `offers`: slots that outside agents wait with.
//! * `home`: agents that live here: `residents`, whom this node hosts, with their
//!   `works`, and `outside`, workers that wait at its door.
//! * `ends`: what becomes of the end of a piece of work.
//! * `hosting`: calls that agents of this node are asked to do.
//! * `collect`: blobs that no record refers to.
//! * `swap`: policies as the log activates them.
//! * `member`: who belongs to the cluster, and what follows from it.
//! * `kv`: keys, leases and seats while this node leads.
//! * `figures`: what it says of itself in numbers.
//! * `presence`: what gossip and the wire say of others.

#![forbid(unsafe_code)]

mod asks;
mod collect;
mod ends;
mod errands;
mod figures;
mod frame;
mod home;
mod hosting;
pub mod io;
mod kernel;
mod kv;
mod leading;
mod levels;
mod member;
mod offers;
mod outside;
mod partings;
mod placement;
mod presence;
mod reads;
mod reserving;
mod residents;
mod spread;
mod swap;
mod target;
#[cfg(test)]
mod tests;
mod works;

pub use figures::Figure;
pub use io::{
    AskId, Effect, GroupChange, GroupSetback, Input, KernelConfig, LEASE_TERM, LocalAgent,
    LogSetback, MemberInfo, Now, Ticket, WorkFault, WorkId, WorkOrder,
};
pub use kernel::Kernel;
