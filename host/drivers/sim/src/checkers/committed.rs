//! State machine safety, leader completeness and durability: what one node has
//! applied at an index is what all apply there, every later leader has it, and a
//! quorum keeps it whatever is switched off.
//!
//! A node is held to the entries that it applied *out of its log*: those above the
//! snapshot that it began from. Up to a snapshot's index nothing of the log is
//! applied: there may still lie what another leader of an earlier term left, which
//! is purged a moment later and was never committed (the paper, section 7, lets a
//! follower discard it). That this loses no violation: the content of a snapshot is
//! a state, and `states` compares its digest with that of every node that applied
//! its way to the same index; whoever took it was one of them. For the same reason
//! a node counts as having an entry that its snapshot covers: the snapshot was
//! durable before it was put in place, and a node that comes back without it is
//! complained of.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{Index, NodeId, Term};

use super::Book;
use super::voters::{Voters, voters_in};
use crate::law::{Law, Verdict};
use crate::trace::bytes_hash;

/// Of what is committed, the newest so many are looked for in a log.
const NEWEST: usize = 64;

#[derive(Default)]
pub(crate) struct Committed {
    entries: BTreeMap<Index, (Term, u64)>,
    /// How far each node that lives has applied.
    applied: BTreeMap<NodeId, Index>,
    /// The newest snapshot that each node has on its disk, as far as is known.
    covered: BTreeMap<NodeId, Index>,
}

impl Committed {
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.applied.remove(&node);
    }

    /// A snapshot took the place of everything up to `index`.
    pub(crate) fn restored(&mut self, node: NodeId, index: Index) {
        self.applied.insert(node, index);
        let covered = self.covered.entry(node).or_insert(index);
        *covered = index.max(*covered);
    }

    /// A node is up on what its disk held, and has heard of nothing yet.
    pub(crate) fn began(&self, node: NodeId) -> Verdict {
        let (Some(covered), applied) = (self.covered.get(&node), self.applied.get(&node)) else {
            return Ok(());
        };
        match applied {
            Some(applied) if applied >= covered => Ok(()),
            Some(_) | None => Law::Durability
                .broken(format!("{node} came back without its snapshot of {covered}")),
        }
    }

    /// A node has applied everything up to `index`; where it was the first to, `voters` hear.
    pub(crate) fn see(
        &mut self,
        node: NodeId,
        index: Index,
        log: &impl Book,
        voters: &mut Voters,
    ) -> Verdict {
        // A life without a snapshot applies from the log's beginning.
        let before = self.applied.insert(node, index).unwrap_or(Index(0));
        for record in log.read(Index(before.0 + 1)..Index(index.0 + 1)) {
            let entry = (record.term, bytes_hash(&record.payload));
            if let (None, Some(sets)) = (self.entries.get(&record.index), voters_in(&record)) {
                voters.applied(record.index, &sets)?;
            }
            let first = *self.entries.entry(record.index).or_insert(entry);
            if first != entry {
                let at = record.index;
                let what = format!("{node} applied another entry at {at}");
                return Law::StateMachineSafety.broken(what);
            }
        }
        Ok(())
    }

    /// A leader has every entry committed in terms before its own.
    pub(crate) fn leads(&self, node: NodeId, term: Term, log: &impl Book) -> Verdict {
        for (index, (committed_in, _)) in self.entries.iter().rev().take(NEWEST) {
            if *committed_in < term && !self.has(node, log, *index, *committed_in) {
                return Law::LeaderCompleteness.broken(format!(
                    "{node} leads term {term} without entry {index} of term {committed_in}"
                ));
            }
        }
        Ok(())
    }

    /// A quorum has what was just applied; a node that is down is believed.
    pub(crate) fn kept<B: Book>(
        &self,
        index: Index,
        logs: &BTreeMap<NodeId, B>,
        voters: &Voters,
    ) -> Verdict {
        match self.entries.get(&index) {
            Some((term, _)) => self.is_kept(index, *term, logs, voters),
            None => Ok(()),
        }
    }

    /// A quorum has the newest committed entries; a node that is down is believed.
    pub(crate) fn all_kept<B: Book>(&self, logs: &BTreeMap<NodeId, B>, voters: &Voters) -> Verdict {
        let mut newest = self.entries.iter().rev().take(NEWEST);
        newest.try_for_each(|(index, (term, _))| self.is_kept(*index, *term, logs, voters))
    }

    fn is_kept<B: Book>(
        &self,
        index: Index,
        term: Term,
        logs: &BTreeMap<NodeId, B>,
        voters: &Voters,
    ) -> Verdict {
        let lacks = |(node, log): &(&NodeId, &B)| !self.has(**node, *log, index, term);
        let lacking: BTreeSet<NodeId> =
            logs.iter().filter(lacks).map(|(node, _log)| *node).collect();
        if voters.have_quorum_without(&lacking) {
            return Ok(());
        }
        let what = format!("{lacking:?} are without the committed entry {index}, and no quorum");
        Law::Durability.broken(format!("{what} of the voters has it"))
    }

    /// In its log, or in the state that a snapshot gave it.
    fn has(&self, node: NodeId, log: &impl Book, index: Index, term: Term) -> bool {
        let reaches = |known: &BTreeMap<NodeId, Index>| known.get(&node) >= Some(&index);
        reaches(&self.applied) || reaches(&self.covered) || holds(log, index, term)
    }
}

fn holds(log: &impl Book, index: Index, term: Term) -> bool {
    if log.purged().is_some_and(|(purged, _)| purged >= index) {
        return true;
    }
    let found = log.read(index..Index(index.0 + 1));
    found.first().is_some_and(|record| record.term == term)
}

#[cfg(test)]
mod tests {
    use super::super::book::tests::{Pages, pages};
    use super::*;

    const N1: NodeId = NodeId(1);
    const N2: NodeId = NodeId(2);
    const N3: NodeId = NodeId(3);

    fn law(verdict: Verdict) -> Option<Law> {
        verdict.err().map(|breach| breach.law)
    }

    fn three() -> Voters {
        Voters::new([N1, N2, N3].into())
    }

    /// Three nodes, of which the first has applied two entries.
    fn two_applied() -> (Committed, Pages) {
        let mut judge = Committed::default();
        let log = pages(&[(1, 1, "a"), (2, 1, "b")]);
        assert_eq!(judge.see(N1, Index(2), &log, &mut three()), Ok(()));
        (judge, log)
    }

    #[test]
    fn another_entry_at_an_applied_index_is_seen() {
        let (mut judge, log) = two_applied();
        assert_eq!(judge.see(N2, Index(2), &log, &mut three()), Ok(()));
        // The first of a batch counts as much as its last.
        let other = pages(&[(1, 1, "x"), (2, 1, "b")]);
        assert_eq!(
            law(judge.see(N3, Index(2), &other, &mut three())),
            Some(Law::StateMachineSafety)
        );
        let later = pages(&[(1, 1, "a"), (2, 2, "b")]);
        judge.forget(N3);
        assert_eq!(
            law(judge.see(N3, Index(2), &later, &mut three())),
            Some(Law::StateMachineSafety)
        );
    }

    #[test]
    fn leftovers_beneath_a_snapshot_are_not_applied_and_what_follows_is() {
        let (mut judge, _log) = two_applied();
        judge.restored(N2, Index(2));
        let beside = pages(&[(1, 1, "a"), (2, 0, "left over"), (3, 1, "c")]);
        assert_eq!(judge.see(N2, Index(3), &beside, &mut three()), Ok(()));
        let other = pages(&[(1, 1, "a"), (2, 1, "b"), (3, 1, "x")]);
        assert_eq!(
            law(judge.see(N1, Index(3), &other, &mut three())),
            Some(Law::StateMachineSafety)
        );
    }

    #[test]
    fn a_leader_without_a_committed_entry_is_seen() {
        let (judge, log) = two_applied();
        assert_eq!(judge.leads(N2, Term(2), &log), Ok(()));
        let short = pages(&[(1, 1, "a")]);
        assert_eq!(law(judge.leads(N2, Term(2), &short)), Some(Law::LeaderCompleteness));
        assert_eq!(judge.leads(N2, Term(1), &short), Ok(()), "of its own term it may lack some");
        let cut = Pages { purged: Some((Index(2), Term(1))), ..Pages::default() };
        assert_eq!(judge.leads(N2, Term(2), &cut), Ok(()));
    }

    #[test]
    fn an_entry_that_a_quorum_has_lost_is_seen() {
        let (mut judge, log) = two_applied();
        let short = pages(&[(1, 1, "a")]);
        let logs = |third: &Pages| {
            BTreeMap::from([(N1, log.clone()), (N2, short.clone()), (N3, third.clone())])
        };
        assert_eq!(judge.all_kept(&logs(&log), &three()), Ok(()));
        assert_eq!(law(judge.all_kept(&logs(&short), &three())), Some(Law::Durability));
        assert_eq!(law(judge.kept(Index(2), &logs(&short), &three())), Some(Law::Durability));
        assert_eq!(judge.kept(Index(1), &logs(&short), &three()), Ok(()));
        judge.restored(N3, Index(2));
        assert_eq!(judge.all_kept(&logs(&short), &three()), Ok(()), "its snapshot has it");
    }

    #[test]
    fn a_snapshot_that_did_not_outlive_a_power_loss_is_seen() {
        let mut judge = Committed::default();
        judge.restored(N1, Index(7));
        assert_eq!(judge.began(N1), Ok(()));
        judge.forget(N1);
        assert_eq!(law(judge.began(N1)), Some(Law::Durability));
        judge.restored(N1, Index(6));
        assert_eq!(law(judge.began(N1)), Some(Law::Durability));
        judge.restored(N1, Index(8));
        assert_eq!((judge.began(N1), judge.began(N2)), (Ok(()), Ok(())));
    }
}
