//! Who turns the kernel over: takes inputs, has the kernel settle, carries out
//! effects. Generic over the runtime, the disk and the wire, so that the code that
//! orders *persist before send* in `node` is the code that `sim` runs.
//!
//! * [`crank`]: the loop and what carries each effect out.
//! * [`handle`]: the node as its doors see it.
//! * [`contacts`]: whom a node connects to.
//! * [`groups`]: a node's Raft groups.
//! * [`post`]: where frames go: raft lanes to the raft room, blobs to the exchange,
//!   the rest to the kernel.
//! * [`events`]: what the log ordered, kept for a while for watchers.
//! * `watching`, `bell`: watches of keys.
//! * `backup`: the whole cluster's state and content, as one stream.
//! * [`blobs`]: content between nodes.
//! * [`queue`]: a bounded queue for any runtime.

#![forbid(unsafe_code)]

mod backup;
mod bell;
pub mod blobs;
pub mod contacts;
pub mod crank;
pub mod events;
pub mod groups;
pub mod guests;
pub mod handle;
mod members;
pub mod post;
pub mod queue;
mod watching;

pub use backup::Origin;
pub use blobs::BlobExchange;
pub use contacts::{Contact, Contacts, Dial, Listener, Usher};
pub use crank::{Crank, Parts, WallClock};
pub use events::EventLog;
pub use groups::Groups;
pub use guests::Guests;
pub use handle::{AskOrigin, Figures, Handle};
pub use post::{Mailbox, Post};
