//! The judges: one file, one invariant. Each notes what it sees and says what must not be.
//! Those of one group sit in its `court`, with the logs that they read; the others
//! look at all groups.
//!
//! | when | who looks |
//! |---|---|
//! | a file is written, cut, synced, renamed or removed, a directory is synced | `entries` at the node's log |
//! | a frame is sent or delivered, a peer comes or goes | `entries` at the sender's or receiver's log |
//! | entries are applied | `entries`, `committed` (what was applied, and that a quorum has it), `states`, `tasks`, `policies`, `epochs` |
//! | a snapshot is put in place | `states`, `committed` |
//! | leadership or term changes | `leaders`, `terms`; `committed` at a new leader's log |
//! | a node comes back | `committed` at all logs, before it hears of anything; `terms`, `committed` once it is up |
//! | an entry of voters is seen or applied, a leader is told | `voters` |
//! | a door answers | `tasks`, `policies`, `calls`, `blobs`; the workload itself holds deadlines |
//! | an agent begins a call | `calls` |
//! | a client of the store is answered, or gives up | `keys`, which looks at the end |
//! | a contender is told of its lease or seat, or has written what it guards | `locks` |
//! | a watch is shown changes | `watches` |
//! | the end, all healed | `states` (the digest anew), `tasks`, `keys`, `watches`, `blobs` |
//!
//! An ack that leaves before its fsync is seen where it matters: at the next
//! power loss, when the log that comes back lacks what was committed.

mod blobs;
mod book;
mod calls;
mod committed;
mod court;
mod entries;
mod epochs;
pub(crate) mod keys;
mod leaders;
mod locks;
mod policies;
mod states;
mod tasks;
mod terms;
mod voters;
mod watches;

pub(crate) use book::{Book, Volume};
pub(crate) use calls::{AGAIN, ONCE};
pub(crate) use court::Court;

/// Those over all groups, all nodes and all their lives.
#[derive(Default)]
pub(crate) struct Judges {
    pub(crate) blobs: blobs::Blobs,
    pub(crate) calls: calls::Calls,
    pub(crate) epochs: epochs::Epochs,
    pub(crate) keys: keys::Keys,
    pub(crate) locks: locks::Locks,
    pub(crate) policies: policies::Policies,
    pub(crate) tasks: tasks::Tasks,
    pub(crate) watches: watches::Watches,
}
