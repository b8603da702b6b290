//! The HTTP door: `/v1` in JSON, server-sent events, `problem+json` errors, over
//! any [`Door`](quorate_types::Door). It translates and guards; it decides nothing
//! about tasks, agents or policies.
//!
//! Before a route runs, a request has passed, in this order: the allow-list of
//! host names (a browser lured to a name that points here is refused), the bearer
//! token (compared by digest, in constant time; `/healthz` alone needs none), and
//! the size its head announces. No body is read past its limit, none is read
//! slower than its deadline allows, and connections, streams and bytes of blobs in
//! hand are bounded.
//!
//! `/v1` may still change until the product work closes; `GET /v1` says so.

#![forbid(unsafe_code)]

mod agents;
mod backup;
mod blobs;
mod calls;
mod changes;
mod cluster;
mod events;
mod failure;
mod feed;
mod fresh;
mod guard;
mod input;
mod kv;
mod leases;
mod locks;
mod membership;
mod meter;
mod numbers;
mod options;
mod params;
mod routes;
mod serve;
mod state;
mod stream;
mod tasks;
mod watch;

pub use options::{ApiOptions, Secret};
pub use serve::{ServeError, serve};
