//! Equal prefixes of the log make equal states.

use std::collections::BTreeMap;

use quorate_types::{Digest, Index, NodeId};

use crate::law::{Law, Verdict};

#[derive(Default)]
pub(crate) struct States(BTreeMap<Index, Digest>);

impl States {
    /// A node's state after the entry at `index`, applied or out of a snapshot.
    pub(crate) fn see(&mut self, node: NodeId, index: Index, digest: Digest) -> Verdict {
        let first = *self.0.entry(index).or_insert(digest);
        if first == digest {
            return Ok(());
        }
        Law::StateDigest.broken(format!("{node} has another state than others at {index}"))
    }

    /// The digest that is kept up to date is the one computed anew.
    pub(crate) fn recompute(&self, node: NodeId, kept: Digest, anew: Digest) -> Verdict {
        if kept == anew {
            return Ok(());
        }
        Law::StateDigest.broken(format!("the digest of {node} is not that of its state"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_states_at_one_index_are_seen() {
        let (mut judge, a, b) = (States::default(), Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(judge.see(NodeId(1), Index(1), a), Ok(()));
        assert_eq!(judge.see(NodeId(1), Index(2), b), Ok(()));
        assert_eq!(judge.see(NodeId(2), Index(2), b), Ok(()));
        let law = |verdict: Verdict| verdict.err().map(|breach| breach.law);
        assert_eq!(law(judge.see(NodeId(2), Index(1), b)), Some(Law::StateDigest));
        assert_eq!(judge.recompute(NodeId(1), a, a), Ok(()));
        assert_eq!(law(judge.recompute(NodeId(1), a, b)), Some(Law::StateDigest));
    }
}
