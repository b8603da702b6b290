//! What is live of one group: its entries above what was purged, its vote, its
//! committed mark. Pure; used twice, for the view that readers see (no places)
//! and for the writer, which also knows the segment each thing lies in.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use quorate_types::{Index, Term};

use crate::record::Record;

/// A group's live state; `P` is the place where each thing lies.
#[derive(Clone, Debug)]
pub(super) struct Tail<P> {
    entries: VecDeque<(Record, P)>,
    purged: Option<(Index, Term, P)>,
    vote: Option<(Bytes, P)>,
    committed: Option<(Bytes, P)>,
}

impl<P> Default for Tail<P> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), purged: None, vote: None, committed: None }
    }
}

impl<P: Copy> Tail<P> {
    /// The last entry's position, or where the group was purged.
    pub(super) fn last(&self) -> Option<(Index, Term)> {
        let last = self.entries.back().map(|(record, _)| (record.index, record.term));
        last.or_else(|| self.purged())
    }

    pub(super) fn purged(&self) -> Option<(Index, Term)> {
        self.purged.map(|(index, term, _)| (index, term))
    }

    pub(super) fn vote(&self) -> Option<&Bytes> {
        self.vote.as_ref().map(|(vote, _)| vote)
    }

    pub(super) fn committed(&self) -> Option<&Bytes> {
        self.committed.as_ref().map(|(mark, _)| mark)
    }

    /// Live entries, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Record, P)> {
        self.entries.iter().map(|(record, place)| (record, *place))
    }

    /// How many entries are live.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The longest of all live bodies, bytes.
    pub(super) fn largest_body(&self) -> usize {
        let entries = self.entries.iter().map(|(record, _)| record.payload.len());
        let marks = [self.vote(), self.committed()].into_iter().flatten().map(Bytes::len);
        entries.chain(marks).max().unwrap_or(0)
    }

    /// The places of purge mark, vote and committed mark.
    pub(super) fn marks(&self) -> (Option<P>, Option<P>, Option<P>) {
        let purged = self.purged.map(|(_, _, place)| place);
        let vote = self.vote.as_ref().map(|(_, place)| *place);
        (purged, vote, self.committed.as_ref().map(|(_, place)| *place))
    }

    /// Whether an entry at `index` may follow.
    pub(super) fn follows(&self, index: Index) -> bool {
        match (self.entries.back(), self.purged) {
            (Some((last, _)), _) => index.0 == last.index.0 + 1,
            (None, Some((purged, ..))) => index > purged,
            (None, None) => index > Index(0),
        }
    }

    /// The entries in `range` that exist.
    pub(super) fn read(&self, range: &Range<Index>) -> Vec<Record> {
        let start = self.rank(range.start);
        let end = self.rank(range.end).max(start);
        self.entries.range(start..end).map(|(record, _)| record.clone()).collect()
    }

    /// How many entries lie below `index`.
    fn rank(&self, index: Index) -> usize {
        let first = self.entries.front().map_or(0, |(record, _)| record.index.0);
        let below = usize::try_from(index.0.saturating_sub(first)).unwrap_or(usize::MAX);
        below.min(self.entries.len())
    }

    /// Adds an entry that [`follows`](Self::follows).
    pub(super) fn append(&mut self, record: Record, place: P) {
        assert!(self.follows(record.index), "entries are contiguous");
        self.entries.push_back((record, place));
    }

    /// Says where an entry lies from now on.
    pub(super) fn place(&mut self, index: Index, place: P) {
        let rank = self.rank(index);
        if let Some((record, at)) = self.entries.get_mut(rank) {
            assert!(record.index == index, "only a live entry is written again");
            *at = place;
        }
    }

    /// Whether entries above `index` may go: nothing that was purged comes back.
    pub(super) fn can_truncate(&self, index: Index) -> bool {
        self.purged.is_none_or(|(purged, ..)| index >= purged)
    }

    /// Removes entries above `index`.
    pub(super) fn truncate_after(&mut self, index: Index) {
        let kept = self.rank(Index(index.0.saturating_add(1)));
        self.entries.truncate(kept);
    }

    /// Removes entries up to `index`. A mark below an earlier one changes nothing.
    pub(super) fn purge_upto(&mut self, index: Index, term: Term, place: P) {
        if self.purged.is_some_and(|(purged, ..)| index < purged) {
            return;
        }
        let gone = self.rank(Index(index.0.saturating_add(1)));
        self.entries.drain(..gone);
        self.purged = Some((index, term, place));
    }

    pub(super) fn set_vote(&mut self, vote: Bytes, place: P) {
        self.vote = Some((vote, place));
    }

    pub(super) fn set_committed(&mut self, mark: Bytes, place: P) {
        self.committed = Some((mark, place));
    }

    /// Forgets the last entry: a planted fault of recovery.
    pub(super) fn drop_last(&mut self) {
        self.entries.pop_back();
    }

    /// The same state under other places.
    pub(super) fn map<Q: Copy>(&self, to: impl Fn(P) -> Q) -> Tail<Q> {
        Tail {
            entries: self.entries.iter().map(|(record, at)| (record.clone(), to(*at))).collect(),
            purged: self.purged.map(|(index, term, at)| (index, term, to(at))),
            vote: self.vote.as_ref().map(|(vote, at)| (vote.clone(), to(*at))),
            committed: self.committed.as_ref().map(|(mark, at)| (mark.clone(), to(*at))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(indices: Range<u64>) -> Tail<u64> {
        let mut tail = Tail::default();
        for index in indices {
            let payload = Bytes::from(index.to_string());
            tail.append(Record { index: Index(index), term: Term(1), payload }, 1);
        }
        tail
    }

    fn indices(tail: &Tail<u64>, range: Range<u64>) -> Vec<u64> {
        let range = Index(range.start)..Index(range.end);
        tail.read(&range).iter().map(|record| record.index.0).collect()
    }

    #[test]
    fn reads_are_cut_to_what_exists() {
        let tail = tail(5..9);
        assert_eq!(indices(&tail, 0..100), [5, 6, 7, 8]);
        assert_eq!(indices(&tail, 6..8), [6, 7]);
        assert!(indices(&tail, 9..12).is_empty() && indices(&tail, 1..5).is_empty());
        #[expect(clippy::reversed_empty_ranges, reason = "a caller may")]
        let reversed = 8..6;
        assert!(indices(&tail, reversed).is_empty());
    }

    #[test]
    fn truncate_and_purge_meet() {
        let mut tail = tail(1..10);
        tail.truncate_after(Index(7));
        tail.purge_upto(Index(3), Term(1), 2);
        assert_eq!(indices(&tail, 0..100), [4, 5, 6, 7]);
        assert!(!tail.can_truncate(Index(2)) && tail.can_truncate(Index(3)));
        tail.truncate_after(Index(3));
        assert_eq!(tail.last(), Some((Index(3), Term(1))), "the purge mark is the end");
        assert!(tail.follows(Index(4)) && !tail.follows(Index(3)));
    }

    #[test]
    fn a_purge_beyond_the_end_leaves_an_empty_log_there() {
        let mut tail = tail(1..4);
        tail.purge_upto(Index(50), Term(6), 2);
        assert_eq!((tail.last(), tail.len()), (Some((Index(50), Term(6))), 0));
        tail.purge_upto(Index(20), Term(2), 3);
        assert_eq!(tail.purged(), Some((Index(50), Term(6))), "an older mark changes nothing");
        assert!(tail.follows(Index(51)));
    }
}
