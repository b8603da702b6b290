//! The HTTP door over a toy cluster, and the Rust client at the same door.

#![expect(clippy::expect_used, reason = "a scenario that cannot go on must stop")]

mod backups;
mod calls;
mod client;
mod guard;
mod house;
mod keys;
mod native;
mod policies;
mod refusals;
mod streams;
mod tasks;
mod toy;
