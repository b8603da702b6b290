//! What can be read and watched.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{GroupId, Token};
use crate::kv::{LeaseId, Revision, SeatKind, Value, group_of, group_of_lease, segment};
use crate::layout::Layout;

/// A key and all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvRecord {
    /// The key.
    pub key: Arc<str>,
    /// What it holds.
    pub value: Value,
    /// When it came to be.
    pub created: Revision,
    /// When it was put last.
    pub modified: Revision,
    /// How often it was put since it came to be, from 1.
    pub version: u64,
    /// It goes when this lease ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// Which.
    pub lease: LeaseId,
    /// Whose.
    pub namespace: String,
    /// The first segment of what may hang on it.
    pub segment: String,
    /// It ends so long after its last sign of life, milliseconds.
    pub ttl_ms: u64,
    /// Since when.
    pub granted: Revision,
    /// Keys and seats that hang on it.
    pub holds: u64,
}

/// Who has a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// By this lease.
    pub lease: LeaseId,
    /// Greater than that of every holder before.
    pub token: Token,
    /// Since when.
    pub revision: Revision,
    /// What it shows.
    pub value: Value,
}

/// A lock or an election.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatInfo {
    /// Which kind.
    pub kind: SeatKind,
    /// Its name.
    pub name: Arc<str>,
    /// Who has it.
    pub holder: Option<Holder>,
    /// Leases that wait, the next one first.
    pub waiting: Vec<LeaseId>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvRead {
    /// One key.
    Get {
        /// Whose.
        namespace: String,
        /// The key.
        key: String,
    },
    /// The keys under a prefix, in order.
    Range {
        /// Whose.
        namespace: String,
        /// The prefix, within one first segment.
        prefix: String,
        /// After the page that ended with this cursor.
        cursor: Option<String>,
        /// At most so many, 1–1,000.
        limit: u32,
    },
    /// One lease.
    Lease(LeaseId),
    /// Leases of a namespace.
    Leases {
        /// Whose.
        namespace: String,
        /// At most so many, 1–1,000.
        limit: u32,
    },
    /// One lock or election.
    Seat {
        /// Whose.
        namespace: String,
        /// Which kind.
        kind: SeatKind,
        /// Its name.
        name: String,
    },
    /// Locks or elections of a namespace.
    Seats {
        /// Whose.
        namespace: String,
        /// Which kind.
        kind: SeatKind,
        /// After the page that ended with this cursor.
        cursor: Option<String>,
        /// At most so many, 1–1,000.
        limit: u32,
    },
}

impl KvRead {
    /// The groups that it asks.
    pub fn groups(&self, layout: Layout) -> BTreeSet<GroupId> {
        match self {
            Self::Get { namespace, key: path }
            | Self::Range { namespace, prefix: path, .. }
            | Self::Seat { namespace, name: path, .. } => {
                [group_of(layout, namespace, segment(path))].into()
            }
            Self::Lease(lease) => [group_of_lease(layout, *lease)].into(),
            Self::Leases { .. } | Self::Seats { .. } => layout.shards().collect(),
        }
    }
}

/// A page of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangePage {
    /// The keys.
    pub keys: Vec<KvRecord>,
    /// Where to go on, if there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Watch after this revision to miss nothing.
    pub as_of: Revision,
}

/// A page of locks or elections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatPage {
    /// The seats.
    pub seats: Vec<SeatInfo>,
    /// Where to go on, if there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// An answer, to the question of like name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvFound {
    /// To `Get`; watch after the revision to miss nothing.
    Get(Option<KvRecord>, Revision),
    /// To `Range`.
    Range(RangePage),
    /// To `Lease`.
    Lease(LeaseInfo),
    /// To `Leases`.
    Leases(Vec<LeaseInfo>),
    /// To `Seat`; watch after the revision to miss nothing.
    Seat(SeatInfo, Revision),
    /// To `Seats`.
    Seats(SeatPage),
}

/// What a watch is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// One key.
    Key(String),
    /// The keys under a prefix, within one first segment.
    Prefix(String),
    /// A lock or an election.
    Seat(SeatKind, String),
}

/// A watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvWatch {
    /// Whose.
    pub namespace: String,
    /// Of what.
    pub subject: Subject,
    /// Changes after this revision; from now on where there is none.
    pub after: Option<Revision>,
}

impl KvWatch {
    /// The group that it watches.
    pub fn group(&self, layout: Layout) -> GroupId {
        let (Subject::Key(path) | Subject::Prefix(path) | Subject::Seat(_, path)) = &self.subject;
        group_of(layout, &self.namespace, segment(path))
    }
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Go on after it.
    pub revision: Revision,
    /// What changed.
    pub what: What,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A key has this value now.
    Put(KvRecord),
    /// A key is gone.
    Deleted {
        /// The key.
        key: Arc<str>,
        /// Whether it went with its lease.
        expired: bool,
    },
    /// A seat has this holder now, or none.
    Seat {
        /// Which kind.
        kind: SeatKind,
        /// Its name.
        name: Arc<str>,
        /// Who has it.
        holder: Option<Holder>,
    },
}

/// Some changes, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The changes.
    pub changes: Vec<Change>,
    /// All up to here were looked at: go on after it.
    pub seen: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_one_segment_asks_one_group_and_a_list_asks_all_shards() {
        let three = Layout::new(3).expect("a number of shards");
        let namespace = || "n".to_owned();
        for first in ["a", "b", "c", "d"] {
            let home = group_of(three, "n", first);
            let path = format!("{first}/x");
            let reads = [
                KvRead::Get { namespace: namespace(), key: path.clone() },
                KvRead::Range {
                    namespace: namespace(),
                    prefix: path.clone(),
                    cursor: None,
                    limit: 1,
                },
                KvRead::Seat { namespace: namespace(), kind: SeatKind::Lock, name: path.clone() },
                KvRead::Lease(LeaseId::new(u16::try_from(home.0).expect("a shard"), 7)),
            ];
            for read in reads {
                assert_eq!(read.groups(three), [home].into(), "{read:?}");
            }
            for subject in [
                Subject::Key(path.clone()),
                Subject::Prefix(path.clone()),
                Subject::Seat(SeatKind::Lock, path),
            ] {
                let watch = KvWatch { namespace: namespace(), subject, after: None };
                assert_eq!(watch.group(three), home, "{watch:?}");
            }
        }
        let leases = KvRead::Leases { namespace: namespace(), limit: 1 };
        let kind = SeatKind::Election;
        let seats = KvRead::Seats { namespace: namespace(), kind, cursor: None, limit: 1 };
        for read in [leases, seats] {
            assert_eq!(read.groups(three), [1, 2, 3].map(GroupId).into(), "{read:?}");
        }
    }
}
