//! Log matching: an (index, term) is one entry with one predecessor, on every
//! node and for ever (Raft paper, figure 3), also where it was never committed.

use std::collections::BTreeMap;

use quorate_types::{Index, NodeId, Term};

use super::Book;
use super::voters::{Sets, voters_in};
use crate::law::{Law, Verdict};
use crate::trace::bytes_hash;

/// A cut may reach so far behind what was last seen of a log.
const LOOK_BACK: u64 = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    hash: u64,
    previous: Option<Term>,
}

#[derive(Default)]
pub(crate) struct Entries {
    known: BTreeMap<(Index, Term), Entry>,
    seen: BTreeMap<NodeId, (Index, Term)>,
    /// Entries that set voters, since somebody asked.
    voters: Vec<((Index, Term), Sets)>,
}

impl Entries {
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.seen.remove(&node);
    }

    /// The entries that were seen since this was asked and set voters.
    pub(crate) fn take_voters(&mut self) -> Vec<((Index, Term), Sets)> {
        std::mem::take(&mut self.voters)
    }

    pub(crate) fn see(&mut self, node: NodeId, log: &impl Book) -> Verdict {
        let Some(last) = log.last() else { return Ok(()) };
        let seen = self.seen.insert(node, last);
        if seen == Some(last) {
            return Ok(());
        }
        let from = match seen {
            Some((index, term)) if index < last.0 && term == last.1 => index.0,
            Some((index, _)) => index.min(last.0).0.saturating_sub(LOOK_BACK),
            None => 0,
        };
        let mut before: Option<(Index, Term)> = log.purged();
        for record in log.read(Index(from)..Index(last.0.0 + 1)) {
            let follows = |(index, _): &(Index, Term)| index.0 + 1 == record.index.0;
            let previous = before.filter(follows).map(|(_, term)| term);
            before = Some((record.index, record.term));
            let key = (record.index, record.term);
            let entry = Entry { hash: bytes_hash(&record.payload), previous };
            self.voters.extend(voters_in(&record).map(|sets| (key, sets)));
            let first = self.known.entry(key).or_insert(entry);
            let (index, term) = key;
            if first.hash != entry.hash {
                let what = format!("{node} has another entry {index} of term {term}");
                return Law::LogMatching.broken(what);
            }
            match (first.previous, entry.previous) {
                (Some(one), Some(other)) if one != other => {
                    return Law::LogMatching.broken(format!(
                        "before entry {index} of term {term} {node} has term {other}, others {one}"
                    ));
                }
                (None, Some(_)) => first.previous = entry.previous,
                (Some(_) | None, _) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::tests::pages;
    use super::*;

    fn law(verdict: Verdict) -> Option<Law> {
        verdict.err().map(|breach| breach.law)
    }

    #[test]
    fn one_index_and_term_with_two_contents_is_seen() {
        let mut judge = Entries::default();
        assert_eq!(judge.see(NodeId(1), &pages(&[(1, 1, "a"), (2, 1, "b")])), Ok(()));
        assert_eq!(judge.see(NodeId(2), &pages(&[(1, 1, "a"), (2, 2, "x")])), Ok(()));
        let other = pages(&[(1, 1, "a"), (2, 1, "x")]);
        assert_eq!(law(judge.see(NodeId(3), &other)), Some(Law::LogMatching));
    }

    #[test]
    fn one_entry_after_two_others_is_seen() {
        let mut judge = Entries::default();
        assert_eq!(judge.see(NodeId(1), &pages(&[(1, 1, "a"), (2, 3, "b")])), Ok(()));
        let other = pages(&[(1, 2, "c"), (2, 3, "b")]);
        assert_eq!(law(judge.see(NodeId(2), &other)), Some(Law::LogMatching));
    }

    #[test]
    fn what_a_node_writes_over_its_own_entry_is_seen() {
        let mut judge = Entries::default();
        assert_eq!(judge.see(NodeId(1), &pages(&[(1, 1, "a"), (2, 1, "b"), (3, 1, "c")])), Ok(()));
        // Cut to the first and written again in the same term.
        let again = pages(&[(1, 1, "a"), (2, 1, "x")]);
        assert_eq!(law(judge.see(NodeId(1), &again)), Some(Law::LogMatching));
    }
}
