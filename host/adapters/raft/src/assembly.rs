//! Snapshots put together from their pieces, one at a time from each peer.
//!
//! A piece may come twice, because its sender asks again when an answer is lost;
//! so may the last one, while the snapshot is being installed or after: then the
//! newest asker is answered once it is. Nothing is reserved ahead of what has
//! come, and a snapshot that would be too large is refused by its first piece.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use quorate_types::NodeId;

use crate::message::{Chunk, Received, SnapshotHead};
use crate::network::wide;
use crate::types::Vote;

/// A snapshot, bytes. The ledger is bounded far below by its retention.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// What to do with a piece.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Answer it.
    Answer(Received),
    /// It was the last: install, then say so to `finished`.
    Install(Box<SnapshotHead>, Bytes),
    /// Whoever asked is answered when the installation ends.
    Wait,
}

enum Stage {
    Receiving {
        head: Box<SnapshotHead>,
        body: BytesMut,
    },
    /// The newest request that wants to know.
    Installing {
        asker: u64,
    },
    Installed(Vote),
}

struct Arriving {
    transfer: u64,
    total: u64,
    stage: Stage,
}

/// The snapshots on their way in; one entry a peer.
#[derive(Default)]
pub(crate) struct Assembly(BTreeMap<NodeId, Arriving>);

impl Assembly {
    /// Takes a piece that came from `from` under the request `id`.
    pub(crate) fn take(&mut self, from: NodeId, id: u64, mut chunk: Chunk) -> Step {
        let known = self.0.get(&from).is_some_and(|one| one.transfer == chunk.transfer);
        if !known {
            match chunk.head.take() {
                Some(head) if is_sound(&head, chunk.total) => self.begin(from, &chunk, head),
                Some(_) | None => return Step::Answer(Received::Refused),
            }
        }
        let Some(one) = self.0.get_mut(&from) else { return Step::Answer(Received::Refused) };
        let step = one.take(id, chunk);
        if step == Step::Answer(Received::Refused) {
            self.0.remove(&from);
        }
        step
    }

    fn begin(&mut self, from: NodeId, chunk: &Chunk, head: Box<SnapshotHead>) {
        let Chunk { transfer, total, .. } = *chunk;
        let stage = Stage::Receiving { head, body: BytesMut::new() };
        self.0.insert(from, Arriving { transfer, total, stage });
    }

    /// The installation ended, with openraft's vote where it went well. Tells which request to
    /// answer, and how.
    pub(crate) fn finished(
        &mut self,
        from: NodeId,
        transfer: u64,
        vote: Option<Vote>,
    ) -> Option<(u64, Received)> {
        let one = self.0.get_mut(&from).filter(|one| one.transfer == transfer)?;
        let Stage::Installing { asker } = one.stage else { return None };
        let Some(vote) = vote else {
            self.0.remove(&from);
            return Some((asker, Received::Refused));
        };
        one.stage = Stage::Installed(vote);
        Some((asker, Received::Installed(vote)))
    }

    /// Forgets what a peer that went away was sending.
    pub(crate) fn peer_gone(&mut self, peer: NodeId) {
        self.0.remove(&peer);
    }
}

impl Arriving {
    fn take(&mut self, id: u64, chunk: Chunk) -> Step {
        let (head, body) = match &mut self.stage {
            Stage::Installed(vote) => return Step::Answer(Received::Installed(*vote)),
            Stage::Installing { asker } => {
                *asker = id;
                return Step::Wait;
            }
            Stage::Receiving { head, body } => (head, body),
        };
        let received = wide(body.len());
        let end = chunk.offset.saturating_add(wide(chunk.data.len()));
        if chunk.total != self.total || chunk.offset > received || end > self.total {
            return Step::Answer(Received::Refused);
        }
        if chunk.offset == received {
            body.extend_from_slice(&chunk.data);
        }
        if end < self.total {
            return Step::Answer(Received::More);
        }
        let (head, body) = (head.clone(), std::mem::take(body).freeze());
        self.stage = Stage::Installing { asker: id };
        Step::Install(head, body)
    }
}

/// What no peer that follows the protocol sends is refused here; openraft would panic.
fn is_sound(head: &SnapshotHead, total: u64) -> bool {
    let term = head.last.as_ref().map_or(0, |last| last.leader_id.term);
    total <= SNAPSHOT_BYTES_MAX && term <= head.vote.leader_id.term
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CommittedLeaderId, LogId, StoredMembership};

    const FROM: NodeId = NodeId(1);
    const WHOLE: &[u8] = b"abcdefgh";

    fn head(term: u64) -> Box<SnapshotHead> {
        let last = Some(LogId::new(CommittedLeaderId::new(term), 9));
        let membership = StoredMembership::default();
        Box::new(SnapshotHead { vote: Vote::new_committed(3, 1), last, membership })
    }

    fn piece(transfer: u64, from: usize, to: usize) -> Chunk {
        let data = Bytes::from_static(&WHOLE[from..to]);
        let head = (from == 0).then(|| head(2));
        Chunk { transfer, offset: wide(from), total: wide(WHOLE.len()), head, data }
    }

    #[test]
    fn pieces_make_a_snapshot_though_some_come_twice() {
        let mut assembly = Assembly::default();
        let more = Step::Answer(Received::More);
        assert_eq!(assembly.take(FROM, 1, piece(7, 0, 3)), more);
        assert_eq!(assembly.take(FROM, 2, piece(7, 0, 3)), more, "asked again");
        assert_eq!(assembly.take(FROM, 3, piece(7, 3, 6)), more);
        assert_eq!(assembly.take(FROM, 4, piece(7, 3, 6)), more, "asked again");
        let install = Step::Install(head(2), Bytes::from_static(WHOLE));
        assert_eq!(assembly.take(FROM, 5, piece(7, 6, 8)), install);
        assert_eq!(assembly.take(FROM, 6, piece(7, 6, 8)), Step::Wait);
        let vote = Vote::new_committed(3, 1);
        let installed = Received::Installed(vote);
        assert_eq!(assembly.finished(FROM, 7, Some(vote)), Some((6, installed)));
        assert_eq!(assembly.take(FROM, 7, piece(7, 6, 8)), Step::Answer(installed));
    }

    #[test]
    fn an_empty_snapshot_is_one_piece() {
        let mut assembly = Assembly::default();
        let chunk =
            Chunk { transfer: 7, offset: 0, total: 0, head: Some(head(2)), data: Bytes::new() };
        assert_eq!(assembly.take(FROM, 1, chunk), Step::Install(head(2), Bytes::new()));
    }

    #[test]
    fn gaps_strangers_and_the_impossible_are_refused() {
        let mut assembly = Assembly::default();
        let refused = Step::Answer(Received::Refused);
        assert_eq!(assembly.take(FROM, 1, piece(7, 3, 6)), refused, "no first piece");
        assert_eq!(assembly.take(FROM, 2, piece(7, 0, 3)), Step::Answer(Received::More));
        assert_eq!(assembly.take(FROM, 3, piece(7, 6, 8)), refused, "a gap");
        assert_eq!(assembly.take(FROM, 4, piece(7, 3, 6)), refused, "forgotten since");
        let large = Chunk { total: SNAPSHOT_BYTES_MAX + 1, ..piece(8, 0, 3) };
        assert_eq!(assembly.take(FROM, 5, large), refused);
        let ahead = Chunk { head: Some(head(4)), ..piece(9, 0, 3) };
        assert_eq!(assembly.take(FROM, 6, ahead), refused, "newer than its leader");
    }

    #[test]
    fn a_newer_sending_replaces_an_older_one() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(FROM, 1, piece(7, 0, 3)), Step::Answer(Received::More));
        assert_eq!(assembly.take(FROM, 2, piece(8, 0, 6)), Step::Answer(Received::More));
        let install = Step::Install(head(2), Bytes::from_static(WHOLE));
        assert_eq!(assembly.take(FROM, 3, piece(8, 6, 8)), install);
        assert_eq!(assembly.finished(FROM, 7, None), None, "the older one has no say");
        assert_eq!(assembly.finished(FROM, 8, None), Some((3, Received::Refused)));
        assert_eq!(assembly.take(FROM, 4, piece(8, 6, 8)), Step::Answer(Received::Refused));
    }
}
