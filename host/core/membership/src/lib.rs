//! Who is in the cluster, who answers, and what each node says of itself.
//!
//! One core, [`Membership`], holds two things that feed each other:
//!
//! * *gossip*: records with one owner each, ordered by (incarnation, counter) and merged by the
//!   last write of the owner (the data model of Scuttlebutt, van Renesse et al. 2008). A node
//!   sends its own records to every connected peer, at most once each flush span; a digest
//!   exchange with one random peer repairs what was lost and carries what a peer cannot hear
//!   itself. Loss, order and duplicates change nothing in the end.
//! * *failure detection*: SWIM (Das et al. 2002) with the local health of Lifeguard (Dadgar et
//!   al. 2018). A refused connection is a death at once; silence is a suspicion first.
//!
//! Where it differs from SWIM: an accusation by another node is no verdict here, only a reason
//! to probe now; so one slow or half-connected node starts no storm. An accusation is a record of
//! the accuser, the answer to it a newer presence record of the accused: both travel like any
//! other record. Every verdict may be wrong and must be harmless: leases are fenced elsewhere.
//!
//! It never reads a clock or entropy, never sends twice what it believes was sent, never lets
//! one node write another's records by its own word, and decides nothing that needs agreement.
//!
//! * `record`: keys, versions and bodies, with their limits.
//! * `table`: the records of one owner and how deltas merge.
//! * `frame`: what is said, in bytes.
//! * `gossip`: flush, digests, marks.
//! * `detector`, of `probe`, `errands`, `health` and `suspicion`: who answers.
//! * `readings`: the newest readings by agent.
//! * `membership`: the whole.

#![forbid(unsafe_code)]

mod config;
mod detector;
mod errands;
mod frame;
mod gossip;
mod health;
mod io;
mod membership;
mod probe;
mod readings;
mod record;
mod suspicion;
mod table;

pub use config::{Config, Detection, MEMBERS_MAX};
pub use frame::{FrameError, FrameFault, GOSSIP_FRAME_BYTES_MAX};
pub use io::{Effect, Input, Reason, Status};
pub use membership::{Member, Membership};
pub use readings::ReadingView;
pub use record::{KEYS_MAX, Presence, PublishError, Standing, VALUE_BYTES_MAX};
pub use table::DeltaFault;
