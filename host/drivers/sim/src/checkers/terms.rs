//! A node never forgets a term that it was in: its term and vote are on stable
//! storage before it answers anybody (Raft paper, figure 2).

use std::collections::BTreeMap;

use quorate_types::{NodeId, Term};

use crate::law::{Law, Verdict};

#[derive(Default)]
pub(crate) struct Terms(BTreeMap<NodeId, Term>);

impl Terms {
    pub(crate) fn heard(&mut self, node: NodeId, term: Term) {
        let known = self.0.entry(node).or_insert(term);
        *known = term.max(*known);
    }

    pub(crate) fn began(&self, node: NodeId, term: Term) -> Verdict {
        match self.0.get(&node) {
            Some(known) if *known > term => Law::DurableVote
                .broken(format!("{node} was in term {known} and came back in {term}")),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_term_is_seen() {
        let mut judge = Terms::default();
        assert_eq!(judge.began(NodeId(1), Term(0)), Ok(()));
        judge.heard(NodeId(1), Term(3));
        judge.heard(NodeId(1), Term(2));
        assert_eq!(judge.began(NodeId(1), Term(3)), Ok(()));
        assert_eq!(judge.began(NodeId(2), Term(0)), Ok(()));
        let back = judge.began(NodeId(1), Term(2));
        assert_eq!(back.err().map(|breach| breach.law), Some(Law::DurableVote));
    }
}
