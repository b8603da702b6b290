//! A snapshot put together from its pieces, one at a time.
//!
//! A sending begins with the snapshot's name and no data, and is told where to go
//! on. What has come is kept when the connection is lost, and whoever sends the same
//! snapshot next, be it another leader, goes on there. A piece may come twice,
//! because its sender asks again when an answer is lost; so may the last one, while
//! the snapshot is being installed or after: then the newest asker is answered once
//! it is. Every piece has its checksum and the whole has one in its name. Nothing is
//! reserved ahead of what has come, and a snapshot that would be too large is refused
//! by its head.

use bytes::{BufMut, Bytes, BytesMut};
use crc32fast::Hasher;
use quorate_types::NodeId;

use crate::message::{Chunk, Received, SnapshotHead};
use crate::network::wide;
use crate::types::{LogId, Vote};

/// A snapshot, bytes. The ledger is bounded far below by its retention.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// The name of a snapshot: the checksum of its body, and one of its place and length.
pub(crate) fn name_of(last: Option<&LogId>, body: &[u8]) -> u64 {
    let mut place = Vec::with_capacity(24);
    place.put_u64(last.map_or(0, |last| last.leader_id.term));
    place.put_u64(last.map_or(u64::MAX, |last| last.index));
    place.put_u64(wide(body.len()));
    u64::from(crc32fast::hash(body)) << 32 | u64::from(crc32fast::hash(&place))
}

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
        sum: Hasher,
    },
    /// The newest request that wants to know.
    Installing {
        asker: u64,
    },
    Installed(Vote),
}

struct Arriving {
    from: NodeId,
    transfer: u64,
    total: u64,
    stage: Stage,
}

/// The snapshot on its way in. One at a time, since one leader sends at a time; another one takes
/// its place.
#[derive(Default)]
pub(crate) struct Assembly(Option<Arriving>);

impl Assembly {
    /// Takes a piece that came from `from` under the request `id`.
    pub(crate) fn take(&mut self, from: NodeId, id: u64, mut chunk: Chunk) -> Step {
        if crc32fast::hash(&chunk.data) != chunk.sum {
            tracing::warn!(%from, offset = chunk.offset, "a snapshot's piece is damaged");
            return Step::Answer(Received::Refused);
        }
        if let Some(head) = chunk.head.take() {
            if !is_sound(&head, chunk.total) {
                return Step::Answer(Received::Refused);
            }
            self.begin(from, &chunk, head);
        }
        let Some(one) = self.0.as_mut() else { return Step::Answer(Received::Refused) };
        if (one.from, one.transfer) != (from, chunk.transfer) {
            return Step::Answer(Received::Refused);
        }
        let step = one.take(id, chunk);
        if step == Step::Answer(Received::Refused) {
            self.0 = None;
        }
        step
    }

    /// Goes on with a snapshot that has come in part, or begins anew.
    fn begin(&mut self, from: NodeId, chunk: &Chunk, head: Box<SnapshotHead>) {
        let Chunk { transfer, total, .. } = *chunk;
        let known = self.0.as_mut().filter(|one| (one.transfer, one.total) == (transfer, total));
        match known.map(|one| (&mut one.from, &mut one.stage)) {
            Some((sender, Stage::Receiving { head: former, .. })) => {
                (*sender, *former) = (from, head);
            }
            Some((sender, Stage::Installing { .. })) => *sender = from,
            Some((_, Stage::Installed(_))) | None => {
                let stage = Stage::Receiving { head, body: BytesMut::new(), sum: Hasher::new() };
                self.0 = Some(Arriving { from, transfer, total, stage });
            }
        }
    }

    /// The installation ended, with openraft's vote where it went well. Tells whom to answer under
    /// which request, and how.
    pub(crate) fn finished(
        &mut self,
        transfer: u64,
        vote: Option<Vote>,
    ) -> Option<(NodeId, u64, Received)> {
        let one = self.0.as_mut().filter(|one| one.transfer == transfer)?;
        let Stage::Installing { asker } = one.stage else { return None };
        let from = one.from;
        let Some(vote) = vote else {
            self.0 = None;
            return Some((from, asker, Received::Refused));
        };
        one.stage = Stage::Installed(vote);
        Some((from, asker, Received::Installed(vote)))
    }
}

impl Arriving {
    fn take(&mut self, id: u64, chunk: Chunk) -> Step {
        let (head, body, sum) = match &mut self.stage {
            Stage::Installed(vote) => return Step::Answer(Received::Installed(*vote)),
            Stage::Installing { asker } => {
                *asker = id;
                return Step::Wait;
            }
            Stage::Receiving { head, body, sum } => (head, body, sum),
        };
        let end = chunk.offset.saturating_add(wide(chunk.data.len()));
        if chunk.total != self.total || end > self.total {
            return Step::Answer(Received::Refused);
        }
        if chunk.offset == wide(body.len()) {
            sum.update(&chunk.data);
            body.extend_from_slice(&chunk.data);
        }
        let received = wide(body.len());
        if received < self.total {
            return Step::Answer(Received::Upto(received));
        }
        if u64::from(sum.clone().finalize()) != self.transfer >> 32 {
            tracing::warn!(from = %self.from, "a snapshot does not have the checksum that it states");
            return Step::Answer(Received::Refused);
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
    use crate::types::{CommittedLeaderId, StoredMembership};

    const FROM: NodeId = NodeId(1);
    const WHOLE: &[u8] = b"abcdefgh";

    fn last(term: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term), 9)
    }

    fn head(term: u64) -> Box<SnapshotHead> {
        let membership = StoredMembership::default();
        Box::new(SnapshotHead {
            vote: Vote::new_committed(3, 1),
            last: Some(last(term)),
            membership,
        })
    }

    fn opening(whole: &[u8]) -> Chunk {
        let transfer = name_of(Some(&last(2)), whole);
        let (head, data) = (Some(head(2)), Bytes::new());
        Chunk { transfer, offset: 0, total: wide(whole.len()), head, data, sum: 0 }
    }

    fn piece(from: usize, to: usize) -> Chunk {
        let data = Bytes::from_static(&WHOLE[from..to]);
        let sum = crc32fast::hash(&data);
        Chunk { offset: wide(from), head: None, data, sum, ..opening(WHOLE) }
    }

    fn upto(offset: u64) -> Step {
        Step::Answer(Received::Upto(offset))
    }

    const REFUSED: Step = Step::Answer(Received::Refused);

    #[test]
    fn pieces_make_a_snapshot_though_some_come_twice() {
        let mut assembly = Assembly::default();
        let transfer = opening(WHOLE).transfer;
        assert_eq!(assembly.take(FROM, 1, opening(WHOLE)), upto(0));
        assert_eq!(assembly.take(FROM, 2, piece(0, 3)), upto(3));
        assert_eq!(assembly.take(FROM, 3, piece(0, 3)), upto(3), "asked again");
        assert_eq!(assembly.take(FROM, 4, piece(3, 6)), upto(6));
        let install = Step::Install(head(2), Bytes::from_static(WHOLE));
        assert_eq!(assembly.take(FROM, 5, piece(6, 8)), install);
        assert_eq!(assembly.take(FROM, 6, piece(6, 8)), Step::Wait);
        let vote = Vote::new_committed(3, 1);
        let installed = Received::Installed(vote);
        assert_eq!(assembly.finished(transfer, Some(vote)), Some((FROM, 6, installed)));
        assert_eq!(assembly.take(FROM, 7, piece(6, 8)), Step::Answer(installed));
        assert_eq!(assembly.take(FROM, 8, opening(WHOLE)), upto(0), "sent anew, it is taken anew");
    }

    #[test]
    fn an_empty_snapshot_is_its_head() {
        let mut assembly = Assembly::default();
        let install = Step::Install(head(2), Bytes::new());
        assert_eq!(assembly.take(FROM, 1, opening(b"")), install);
    }

    #[test]
    fn after_a_lost_connection_it_goes_on_where_both_agree_whoever_sends() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(FROM, 1, opening(WHOLE)), upto(0));
        assert_eq!(assembly.take(FROM, 2, piece(0, 6)), upto(6));
        let next = NodeId(2);
        assert_eq!(assembly.take(next, 3, piece(6, 8)), REFUSED, "it has not said what it sends");
        assert_eq!(assembly.take(next, 4, opening(WHOLE)), upto(6));
        assert_eq!(assembly.take(FROM, 5, piece(6, 8)), REFUSED, "another sends now");
        let install = Step::Install(head(2), Bytes::from_static(WHOLE));
        assert_eq!(assembly.take(next, 6, piece(6, 8)), install);
    }

    #[test]
    fn gaps_are_asked_for_and_strangers_and_the_impossible_refused() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(FROM, 1, piece(3, 6)), REFUSED, "no head");
        assert_eq!(assembly.take(FROM, 2, opening(WHOLE)), upto(0));
        assert_eq!(assembly.take(FROM, 3, piece(6, 8)), upto(0), "a gap");
        let longer = Chunk { total: 7, ..piece(6, 8) };
        assert_eq!(assembly.take(FROM, 4, longer), REFUSED);
        let large = Chunk { total: SNAPSHOT_BYTES_MAX + 1, ..opening(WHOLE) };
        assert_eq!(assembly.take(FROM, 5, large), REFUSED);
        let ahead = Chunk { head: Some(head(4)), ..opening(WHOLE) };
        assert_eq!(assembly.take(FROM, 6, ahead), REFUSED, "newer than its leader");
    }

    #[test]
    fn damage_is_refused_by_piece_and_by_whole() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(FROM, 1, opening(WHOLE)), upto(0));
        assert_eq!(assembly.take(FROM, 2, piece(0, 3)), upto(3));
        let flipped = Chunk { data: Bytes::from_static(b"xyz"), ..piece(3, 6) };
        assert_eq!(assembly.take(FROM, 3, flipped), REFUSED);
        assert_eq!(assembly.take(FROM, 4, piece(3, 6)), upto(6), "what was sound is kept");
        // Each piece is as its sender meant it, and the whole is not what it began to send.
        let data = Bytes::from_static(b"xy");
        let other = Chunk { sum: crc32fast::hash(&data), data, ..piece(6, 8) };
        assert_eq!(assembly.take(FROM, 5, other), REFUSED);
        assert_eq!(assembly.take(FROM, 6, piece(0, 3)), REFUSED, "forgotten since");
    }

    #[test]
    fn a_newer_snapshot_replaces_an_older_one() {
        let mut assembly = Assembly::default();
        let older = opening(b"older").transfer;
        assert_eq!(assembly.take(FROM, 1, opening(b"older")), upto(0));
        assert_eq!(assembly.take(FROM, 2, opening(WHOLE)), upto(0));
        let install = Step::Install(head(2), Bytes::from_static(WHOLE));
        assert_eq!(assembly.take(FROM, 3, piece(0, 8)), install);
        assert_eq!(assembly.finished(older, None), None, "the older one has no say");
        let refused = Some((FROM, 3, Received::Refused));
        assert_eq!(assembly.finished(opening(WHOLE).transfer, None), refused);
        assert_eq!(assembly.take(FROM, 4, piece(6, 8)), REFUSED);
    }
}
