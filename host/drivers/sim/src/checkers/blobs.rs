//! Acknowledged content can be read at any node once all is healed.

use std::collections::BTreeSet;

use quorate_types::{Digest, NodeId, Refusal};

use crate::law::{Law, Verdict};

/// Of what was acknowledged, so many are read at the end.
const READ_MAX: usize = 12;

#[derive(Default)]
pub(crate) struct Blobs(BTreeSet<Digest>);

impl Blobs {
    pub(crate) fn stored(&mut self, digest: Digest) {
        self.0.insert(digest);
    }

    /// Digests are random: the first few are a sample.
    pub(crate) fn sample(&self) -> Vec<Digest> {
        self.0.iter().take(READ_MAX).copied().collect()
    }

    /// What a node gave for an acknowledged blob.
    pub(crate) fn read(&self, node: NodeId, of: Digest, got: Result<Digest, Refusal>) -> Verdict {
        match got {
            Ok(digest) if digest == of => Ok(()),
            Ok(_other) => Law::Blob.broken(format!("{node} gave other content for blob {of}")),
            Err(why) => Law::Blob.broken(format!("{node} has lost the acknowledged {of}: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_or_wrong_blob_is_seen() {
        let law = |verdict: Verdict| verdict.err().map(|breach| breach.law);
        let (mut judge, a, b) = (Blobs::default(), Digest::of(b"a"), Digest::of(b"b"));
        judge.stored(a);
        assert_eq!(judge.sample(), [a]);
        assert_eq!(judge.read(NodeId(1), a, Ok(a)), Ok(()));
        assert_eq!(law(judge.read(NodeId(1), a, Ok(b))), Some(Law::Blob));
        let gone = Err(Refusal::NotFound("it".to_owned()));
        assert_eq!(law(judge.read(NodeId(1), a, gone)), Some(Law::Blob));
    }
}
