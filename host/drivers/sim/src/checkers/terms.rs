//! A node never forgets a term that it was in: its term and vote are on stable
//! storage before it answers anybody (Raft paper, figure 2).

use std::collections::BTreeMap;

use quorate_types::{NodeId, Term};

#[derive(Default)]
pub(crate) struct Terms(BTreeMap<NodeId, Term>);

impl Terms {
    pub(crate) fn heard(&mut self, node: NodeId, term: Term) {
        let known = self.0.entry(node).or_insert(term);
        *known = term.max(*known);
    }

    pub(crate) fn began(&self, node: NodeId, term: Term) -> Result<(), String> {
        match self.0.get(&node) {
            Some(known) if *known > term => {
                Err(format!("durable vote: {node} was in term {known} and came back in {term}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}
