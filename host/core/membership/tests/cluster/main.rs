//! Scenarios of whole clusters on an event heap: no runtime, no sockets, one seed each.

#![expect(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

mod convergence;
mod detection;
mod harness;
mod hostile;
mod members;
