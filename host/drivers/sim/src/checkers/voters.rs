//! Voters: they change in joint steps, so that any two sets that follow one another
//! have a quorum in common (Ongaro's thesis, 4.3), and what was acknowledged is so.
//! Other judges ask here which sets have a say about an entry.
//!
//! A set counts from its entry's append on, and who leads may have one that nobody
//! has applied. So a quorum is one of the set that was applied last by anybody, or
//! of a later one that lies in some log.

use std::collections::{BTreeMap, BTreeSet};

use quorate_raft::{LogEntry, log_entry};
use quorate_storage::Record;
use quorate_types::quorum::majority;
use quorate_types::{Index, NodeId, Term};

use crate::law::{Law, Verdict};

/// One set; two while they change.
pub(crate) type Sets = Vec<BTreeSet<NodeId>>;

/// Voters of a group, at most.
const SIZE_MAX: usize = 7;

/// The sets that an entry of the log makes, if it is such.
pub(crate) fn voters_in(record: &Record) -> Option<Sets> {
    match log_entry(record.payload.clone()) {
        Ok(LogEntry::Voters(sets)) => {
            Some(sets.into_iter().map(|set| set.into_iter().collect()).collect())
        }
        // What cannot be read another law is about.
        Ok(LogEntry::Command(_) | LogEntry::Blank) | Err(_) => None,
    }
}

pub(crate) struct Voters {
    /// As the last entry has them that somebody has applied, and which entry that is.
    in_force: (Index, Sets),
    /// What lies in logs, by the entry that sets it.
    known: BTreeMap<(Index, Term), Sets>,
    /// Who was ever named. A voter that has just lost its vote may still be elected, by those who
    /// have one; openraft lets it lead until its successor is.
    ever: BTreeSet<NodeId>,
}

impl Voters {
    pub(crate) fn new(founders: BTreeSet<NodeId>) -> Self {
        let ever = founders.clone();
        Self { in_force: (Index(0), vec![founders]), known: BTreeMap::new(), ever }
    }

    /// Such an entry is in a log.
    pub(crate) fn noted(&mut self, at: (Index, Term), sets: Sets) {
        self.ever.extend(sets.iter().flatten());
        self.known.insert(at, sets);
    }

    /// Such an entry is applied, for the first time.
    pub(crate) fn applied(&mut self, index: Index, sets: &Sets) -> Verdict {
        let before = std::mem::replace(&mut self.in_force, (index, sets.clone())).1;
        let follows = match (before.as_slice(), sets.as_slice()) {
            ([one], [same]) if one == same => true,
            ([old], [first, second]) => {
                first == old && !second.len().is_multiple_of(2) && second.len() <= SIZE_MAX
            }
            ([_, new], [alone]) => alone == new,
            (_, _) => before == *sets,
        };
        if follows {
            return Ok(());
        }
        Law::Membership.broken(format!("at {index} the voters are {sets:?} after {before:?}"))
    }

    /// A door says that these alone decide.
    pub(crate) fn acknowledged(&self, voters: &BTreeSet<NodeId>) -> Verdict {
        if self.configs().any(|sets| matches!(sets.as_slice(), [alone] if alone == voters)) {
            return Ok(());
        }
        let now = &self.in_force.1;
        Law::ReadYourWrites.broken(format!("{voters:?} were acknowledged as voters of {now:?}"))
    }

    /// Who leads has, or had, a vote.
    pub(crate) fn leads(&self, node: NodeId, term: Term) -> Verdict {
        if self.ever.contains(&node) {
            return Ok(());
        }
        let now = &self.in_force.1;
        Law::Membership.broken(format!("{node} leads term {term}, and the voters are {now:?}"))
    }

    /// Of those that may have a say now.
    pub(crate) fn configs(&self) -> impl Iterator<Item = &Sets> {
        let (index, sets) = &self.in_force;
        let later = self.known.range((Index(index.0 + 1), Term(0))..).map(|(_, sets)| sets);
        std::iter::once(sets).chain(later)
    }

    /// Whether some quorum has nobody in it of whom this holds.
    pub(crate) fn have_quorum_without(&self, lacks: &BTreeSet<NodeId>) -> bool {
        let is_kept = |set: &BTreeSet<NodeId>| {
            set.len() - set.intersection(lacks).count() >= majority(set.len())
        };
        self.configs().any(|sets| sets.iter().all(is_kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<const N: usize>(ids: [u64; N]) -> BTreeSet<NodeId> {
        ids.map(NodeId).into()
    }

    fn law(verdict: Verdict) -> Option<Law> {
        verdict.err().map(|breach| breach.law)
    }

    #[test]
    fn voters_change_in_joint_steps_only() {
        let (three, five) = (set([1, 2, 3]), set([1, 2, 3, 4, 5]));
        let mut judge = Voters::new(three.clone());
        assert_eq!(judge.applied(Index(1), &vec![three.clone()]), Ok(()));
        assert_eq!(law(judge.acknowledged(&five)), Some(Law::ReadYourWrites));
        assert_eq!(judge.applied(Index(5), &vec![three.clone(), five.clone()]), Ok(()));
        assert_eq!(judge.applied(Index(6), &vec![five.clone()]), Ok(()));
        assert_eq!(judge.acknowledged(&five), Ok(()));
        let at_once = vec![set([3, 4, 5])];
        assert_eq!(law(judge.applied(Index(7), &at_once)), Some(Law::Membership));
        let even = vec![set([3, 4, 5]), set([1, 2])];
        assert_eq!(law(judge.applied(Index(8), &even)), Some(Law::Membership));
    }

    #[test]
    fn a_quorum_is_one_of_both_sets_of_a_joint_step_or_of_a_later_set() {
        let (three, other) = (set([1, 2, 3]), set([3, 4, 5]));
        let mut judge = Voters::new(three.clone());
        judge.noted((Index(4), Term(1)), vec![three.clone(), other.clone()]);
        assert_eq!(judge.applied(Index(4), &vec![three, other.clone()]), Ok(()));
        assert!(judge.have_quorum_without(&set([1, 5])));
        assert!(!judge.have_quorum_without(&set([1, 2])), "the old set has none");
        judge.noted((Index(9), Term(2)), vec![other]);
        assert!(judge.have_quorum_without(&set([1, 2])), "the later set has one");
        assert!(!judge.have_quorum_without(&set([4, 5])));
        assert_eq!(judge.leads(NodeId(4), Term(2)), Ok(()));
        assert_eq!(law(judge.leads(NodeId(9), Term(2))), Some(Law::Membership));
    }
}
