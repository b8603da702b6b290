//! State machine safety, leader completeness and durability: what one node has
//! applied at an index is what all apply there, every later leader has it, and a
//! quorum keeps it whatever is switched off.

use std::collections::BTreeMap;

use quorate_types::{Index, NodeId, Term};

use crate::trace::bytes_hash;
use crate::world::{GROUP, SimLog};

/// Of what is committed, the newest so many are looked for in a log.
const NEWEST: usize = 64;
/// Of three voters so many may lack an entry that is committed.
const LACKING_MAX: usize = 1;

#[derive(Default)]
pub(crate) struct Committed {
    entries: BTreeMap<Index, (Term, u64)>,
    applied: BTreeMap<NodeId, Index>,
}

impl Committed {
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.applied.remove(&node);
    }

    /// A snapshot took the place of everything up to `index`.
    pub(crate) fn restored(&mut self, node: NodeId, index: Index) {
        self.applied.insert(node, index);
    }

    /// A node has applied everything up to `index`.
    pub(crate) fn see(&mut self, node: NodeId, index: Index, log: &SimLog) -> Result<(), String> {
        let before = self.applied.insert(node, index);
        // What a snapshot brought may lie in the log beside others' leftovers until it is purged.
        let from = before.map_or(index.0, |before| before.0 + 1);
        for record in log.read(GROUP, Index(from)..Index(index.0 + 1)) {
            let entry = (record.term, bytes_hash(&record.payload));
            let first = *self.entries.entry(record.index).or_insert(entry);
            if first != entry {
                let at = record.index;
                return Err(format!("state machine safety: {node} applied another entry at {at}"));
            }
        }
        Ok(())
    }

    /// A leader has every entry committed in terms before its own.
    pub(crate) fn leads(&self, node: NodeId, term: Term, log: &SimLog) -> Result<(), String> {
        for (index, (committed_in, _)) in self.entries.iter().rev().take(NEWEST) {
            if *committed_in < term && !self.has(node, log, *index, *committed_in) {
                return Err(format!(
                    "leader completeness: {node} leads term {term} without entry {index} of term {committed_in}"
                ));
            }
        }
        Ok(())
    }

    /// A quorum has the newest committed entries; a node that is down is believed.
    pub(crate) fn all_kept(&self, logs: &BTreeMap<NodeId, SimLog>) -> Result<(), String> {
        for (index, (term, _)) in self.entries.iter().rev().take(NEWEST) {
            let lacking =
                logs.iter().filter(|(node, log)| !self.has(**node, log, *index, *term)).count();
            if lacking > LACKING_MAX {
                return Err(format!(
                    "durability: {lacking} nodes came back without the committed entry {index}"
                ));
            }
        }
        Ok(())
    }
}

impl Committed {
    /// In its log, or in the state that a snapshot gave it.
    fn has(&self, node: NodeId, log: &SimLog, index: Index, term: Term) -> bool {
        self.applied.get(&node).is_some_and(|applied| *applied >= index) || holds(log, index, term)
    }
}

fn holds(log: &SimLog, index: Index, term: Term) -> bool {
    if log.purged(GROUP).is_some_and(|(purged, _)| purged >= index) {
        return true;
    }
    let found = log.read(GROUP, index..Index(index.0 + 1));
    found.first().is_some_and(|record| record.term == term)
}
