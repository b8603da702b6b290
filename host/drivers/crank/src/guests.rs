//! What runs the guests: agents and policies. In `node` they are components, in
//! `sim` what the scenario says.

use bytes::Bytes;
use quorate_kernel::{WorkFault, WorkOrder};
use quorate_types::door::Pending;
use quorate_types::{Digest, Payload};

/// The agents and policies of a node.
pub trait Guests: Send + Sync + 'static {
    /// Does a piece of work. Dropping the future cancels it.
    fn run(&self, order: WorkOrder) -> Pending<Result<Payload, WorkFault>>;

    /// Checks and compiles a component for a policy slot, so that an instance can be opened at
    /// once from then on; says why not.
    fn prepare(&self, digest: Digest, component: Bytes) -> Pending<Result<(), String>>;
}
