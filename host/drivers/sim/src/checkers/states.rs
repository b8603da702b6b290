//! Equal prefixes of the log make equal states.

use std::collections::BTreeMap;

use quorate_ledger::Ledger;
use quorate_types::{Digest, Index, NodeId};

#[derive(Default)]
pub(crate) struct States(BTreeMap<Index, Digest>);

impl States {
    pub(crate) fn see(&mut self, node: NodeId, index: Index, digest: Digest) -> Result<(), String> {
        let first = *self.0.entry(index).or_insert(digest);
        if first == digest {
            return Ok(());
        }
        Err(format!("state machine: {node} has another state than others at {index}"))
    }

    /// The digest that is kept up to date is that of the state.
    pub(crate) fn recompute(&self, node: NodeId, view: &Ledger) -> Result<(), String> {
        if view.digest() == view.recompute_digest() {
            return Ok(());
        }
        Err(format!("state machine: the digest of {node} is not that of its state"))
    }
}
