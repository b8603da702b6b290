//! Transports of several nodes on one machine, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(clippy::wildcard_enum_match_arm, reason = "whatever else comes is not what was expected")]

mod fixture;
mod frames;
mod identity;
mod loss;
mod members;
mod proxy;
