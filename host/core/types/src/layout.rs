//! How the groups of a cluster share its work: fixed when the cluster is made.
//!
//! A cluster of one shard has one group, which carries both machines of the ledger.
//! One of more has the system group, and a group for each shard, whose number in its
//! tasks' ids is the number of its group.

use std::num::NonZeroU16;

use crate::id::{GroupId, TaskId};
use crate::rng::Rng;
use crate::task::Submission;

/// Shards of a cluster, at most: beyond some tens batches thin out and idle groups cost more than
/// they bring.
pub const SHARDS_MAX: u16 = 64;

/// So many submissions without a key that come after one another go to one shard, so that a batch
/// of them stays one entry.
const KEYLESS_RUN: u64 = 64;

/// What a group carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Both machines.
    Both,
    /// Members, agents of record, slots.
    System,
    /// A share of the tasks and keys.
    Shard,
}

/// How many groups there are, and what each carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    shards: NonZeroU16,
}

impl Default for Layout {
    fn default() -> Self {
        Self::ONE
    }
}

impl Layout {
    /// One group that carries both machines.
    pub const ONE: Self = Self { shards: NonZeroU16::MIN };

    /// A cluster of 1 to [`SHARDS_MAX`] shards; none where `shards` is another number.
    pub fn new(shards: u16) -> Option<Self> {
        NonZeroU16::new(shards)
            .filter(|shards| shards.get() <= SHARDS_MAX)
            .map(|shards| Self { shards })
    }

    /// How many shards.
    pub const fn shards_count(self) -> u16 {
        self.shards.get()
    }

    /// Every group, the system group first.
    pub fn groups(self) -> impl Iterator<Item = GroupId> + Clone {
        let last = if self == Self::ONE { 0 } else { self.shards.get() };
        (0..=last).map(|number| GroupId(u32::from(number)))
    }

    /// The groups that carry a shard.
    pub fn shards(self) -> impl Iterator<Item = GroupId> + Clone {
        self.groups().filter(move |group| self.role(*group) != Role::System)
    }

    /// What a group carries.
    pub fn role(self, group: GroupId) -> Role {
        match group {
            GroupId::SYSTEM if self == Self::ONE => Role::Both,
            GroupId::SYSTEM => Role::System,
            GroupId(_) => Role::Shard,
        }
    }

    /// The group that owns a task; none where its id is not of this cluster.
    pub fn of_task(self, task: TaskId) -> Option<GroupId> {
        let group = GroupId(u32::from(task.shard()));
        self.shards().any(|shard| shard == group).then_some(group)
    }

    /// The group that a submission goes to: the same each time it is sent, so that its key or nonce
    /// is recognised.
    pub fn of_submission(self, submission: &Submission) -> GroupId {
        let (node, incarnation, count) = submission.nonce;
        match &submission.spec.idempotency_key {
            Some(key) => self.of_key(&[submission.spec.namespace.as_bytes(), key.as_bytes()]),
            None => self.of_key(&[
                &node.to_be_bytes(),
                &incarnation.to_be_bytes(),
                &(count / KEYLESS_RUN).to_be_bytes(),
            ]),
        }
    }

    /// The group of whatever is named by these parts, which are told apart by their lengths.
    pub fn of_key(self, parts: &[&[u8]]) -> GroupId {
        let hash = parts.iter().fold(FNV_OFFSET, |hash, part| {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            fnv(fnv(hash, &length.to_be_bytes()), part)
        });
        // FNV alone spreads short keys badly; what `Rng` does to its state mixes every bit.
        let at = Rng::new(hash).below(u64::from(self.shards.get()));
        self.shards().nth(usize::try_from(at).unwrap_or(0)).unwrap_or(GroupId::SYSTEM)
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits (Fowler, Noll, Vo; RFC 9923): cheap, and the same everywhere for ever.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn one_shard_is_one_group_and_more_have_a_group_each_beside_the_system() {
        let groups = |layout: Layout| layout.groups().map(|group| group.0).collect::<Vec<_>>();
        let shards = |layout: Layout| layout.shards().map(|group| group.0).collect::<Vec<_>>();
        assert_eq!((groups(Layout::ONE), shards(Layout::ONE)), (vec![0], vec![0]));
        assert_eq!(Layout::ONE.role(GroupId::SYSTEM), Role::Both);
        let three = Layout::new(3).expect("a number of shards");
        assert_eq!((groups(three), shards(three)), (vec![0, 1, 2, 3], vec![1, 2, 3]));
        assert_eq!(
            (three.role(GroupId::SYSTEM), three.role(GroupId(2))),
            (Role::System, Role::Shard)
        );
        assert_eq!((Layout::new(0), Layout::new(SHARDS_MAX + 1)), (None, None));
    }

    #[test]
    fn a_task_is_found_by_its_id_and_another_clusters_is_not() {
        let three = Layout::new(3).expect("a number of shards");
        assert_eq!(three.of_task(TaskId::new(3, 9)), Some(GroupId(3)));
        assert_eq!(three.of_task(TaskId::new(0, 9)), None, "the system group has no tasks");
        assert_eq!(three.of_task(TaskId::new(4, 9)), None);
        assert_eq!(Layout::ONE.of_task(TaskId::new(0, 9)), Some(GroupId::SYSTEM));
    }

    /// Published: a cluster's keys must be found by the next version of this program.
    #[test]
    fn keys_spread_evenly_and_stay_where_they_are() {
        let four = Layout::new(4).expect("a number of shards");
        let mut counts = BTreeMap::new();
        for number in 0..4_000 {
            let key = format!("key-{number}");
            *counts.entry(four.of_key(&[b"default", key.as_bytes()])).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 4);
        assert!(counts.values().all(|count| (850..1_150).contains(count)), "{counts:?}");
        let of = |parts: &[&[u8]]| four.of_key(parts).0;
        let places = [
            of(&[b"default", b"a"]),
            of(&[b"default", b"b"]),
            of(&[b"default", b"c"]),
            of(&[b"ab", b"c"]),
            of(&[b"a", b"bc"]),
        ];
        assert_eq!(places, [3, 1, 2, 2, 4]);
    }

    #[test]
    fn a_submission_that_is_sent_again_finds_the_group_that_knows_it() {
        let many = Layout::new(16).expect("a number of shards");
        let submission = |namespace: &str, key: Option<&str>, nonce| Submission {
            spec: crate::task::TaskSpec {
                namespace: namespace.to_owned(),
                idempotency_key: key.map(str::to_owned),
                ..crate::task::TaskSpec::default()
            },
            nonce,
        };
        // By its key, whichever node sends it and how often.
        let first = many.of_submission(&submission("a", Some("key"), (1, 1, 1)));
        let again = many.of_submission(&submission("a", Some("key"), (2, 9, 640)));
        assert_eq!((first, first == many.of_key(&[b"a", b"key"])), (again, true));
        // Without a key, by its nonce: runs of 64 stay together, and runs spread.
        let group = |count| many.of_submission(&submission("a", None, (1, 7, count)));
        for run in 0..32 {
            let begin = run * KEYLESS_RUN;
            assert_eq!(group(begin), group(begin + KEYLESS_RUN - 1), "run {run}");
        }
        let spread: std::collections::BTreeSet<_> =
            (0..256).map(|run| group(run * KEYLESS_RUN)).collect();
        assert_eq!(spread.len(), 16, "every shard has its part");
    }
}
