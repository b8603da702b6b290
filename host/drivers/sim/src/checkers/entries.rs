//! Log matching: an (index, term) is one entry with one predecessor, on every
//! node and for ever (Raft paper, figure 3), also where it was never committed.

use std::collections::BTreeMap;

use quorate_types::{Index, NodeId, Term};

use crate::trace::bytes_hash;
use crate::world::{GROUP, SimLog};

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
}

impl Entries {
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.seen.remove(&node);
    }

    pub(crate) fn see(&mut self, node: NodeId, log: &SimLog) -> Result<(), String> {
        let Some(last) = log.last(GROUP) else { return Ok(()) };
        let seen = self.seen.insert(node, last);
        if seen == Some(last) {
            return Ok(());
        }
        let from = match seen {
            Some((index, term)) if index < last.0 && term == last.1 => index.0,
            Some((index, _)) => index.min(last.0).0.saturating_sub(LOOK_BACK),
            None => 0,
        };
        let mut before: Option<(Index, Term)> = log.purged(GROUP);
        for record in log.read(GROUP, Index(from)..Index(last.0.0 + 1)) {
            let follows = |(index, _): &(Index, Term)| index.0 + 1 == record.index.0;
            let previous = before.filter(follows).map(|(_, term)| term);
            before = Some((record.index, record.term));
            let key = (record.index, record.term);
            let entry = Entry { hash: bytes_hash(&record.payload), previous };
            let first = self.known.entry(key).or_insert(entry);
            let (index, term) = key;
            if first.hash != entry.hash {
                return Err(format!("log matching: {node} has another entry {index} of {term}"));
            }
            match (first.previous, entry.previous) {
                (Some(one), Some(other)) if one != other => {
                    return Err(format!(
                        "log matching: before entry {index} of term {term} {node} has term {other}, others {one}"
                    ));
                }
                (None, Some(_)) => first.previous = entry.previous,
                (Some(_) | None, _) => {}
            }
        }
        Ok(())
    }
}
