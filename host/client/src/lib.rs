//! A typed client of the HTTP door `/v1`. It knows several nodes and asks another
//! when one does not answer, cannot be reached, or has no leader, until a deadline.
//!
//! Nothing is repeated that could do harm: what the door calls idempotent is, a
//! submission carries an idempotency key (one is made where the owner gave none), and
//! a call is repeated only if its owner says that it may run twice, or if it was
//! surely never taken. An event stream resumes at the revision it last saw, at
//! whatever node answers, and says so where it cannot.

#![forbid(unsafe_code)]

mod ask;
mod backup;
mod calls;
mod client;
mod cluster;
mod error;
mod events;
mod link;
mod membership;
mod reader;
mod sse;
mod tasks;
mod watch;
mod work;

pub use backup::BackupStream;
pub use calls::{CallReply, CallRequest, CallStream};
pub use client::{Client, ClientOptions};
pub use cluster::PolicySource;
pub use error::ClientError;
pub use events::{EventStream, Seen};
pub use link::{Campaign, KvStream, Link, LinkLease, LockGuard, Observed};
pub use watch::TaskStream;
