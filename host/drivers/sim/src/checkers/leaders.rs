//! Election safety: at most one leader a term (Raft paper, figure 3).

use std::collections::BTreeMap;

use quorate_types::{NodeId, Term};

#[derive(Default)]
pub(crate) struct Leaders(BTreeMap<Term, NodeId>);

impl Leaders {
    pub(crate) fn see(&mut self, term: Term, leader: NodeId) -> Result<(), String> {
        let first = *self.0.entry(term).or_insert(leader);
        if first == leader {
            return Ok(());
        }
        Err(format!("election safety: {first} and {leader} both lead term {term}"))
    }
}
