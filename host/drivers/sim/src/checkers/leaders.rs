//! Election safety: at most one leader a term (Raft paper, figure 3).

use std::collections::BTreeMap;

use quorate_types::{NodeId, Term};

use crate::law::{Law, Verdict};

#[derive(Default)]
pub(crate) struct Leaders(BTreeMap<Term, NodeId>);

impl Leaders {
    pub(crate) fn see(&mut self, term: Term, leader: NodeId) -> Verdict {
        let first = *self.0.entry(term).or_insert(leader);
        if first == leader {
            return Ok(());
        }
        Law::ElectionSafety.broken(format!("{first} and {leader} both lead term {term}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_of_one_term_are_seen() {
        let mut judge = Leaders::default();
        assert_eq!(judge.see(Term(1), NodeId(1)), Ok(()));
        assert_eq!(judge.see(Term(1), NodeId(1)), Ok(()));
        assert_eq!(judge.see(Term(2), NodeId(2)), Ok(()));
        let second = judge.see(Term(1), NodeId(2));
        assert_eq!(second.err().map(|breach| breach.law), Some(Law::ElectionSafety));
    }
}
