//! One group's log and snapshot, copied from one voter.

use std::time::Duration;

use bytes::BytesMut;
use quorate_storage::{Anew, Record, SnapshotMeta};
use quorate_types::{Disk, GroupId, Index, NodeId, Wire};

use super::{ASK_EVERY, Entry, Patient, Piece, RepairError, Standing, Word};

/// Between two copies of a log that changes: an election is over by then.
const ANEW_AFTER: Duration = Duration::from_millis(500);

/// A copy under way.
pub(super) struct Copying<'a, D, W> {
    pub(super) patient: &'a mut Patient<D, W>,
    pub(super) from: NodeId,
    pub(super) group: GroupId,
}

impl<D: Disk, W: Wire> Copying<'_, D, W> {
    /// Copies until it has a whole.
    pub(super) async fn run(mut self) -> Result<Anew, RepairError> {
        loop {
            let standing = self.standing().await;
            let purged = standing.as_ref().and_then(|standing| standing.purged);
            if let Some((index, _)) = purged
                && !self.snapshot(index).await?
            {
                tokio::time::sleep(ANEW_AFTER).await;
                continue;
            }
            if let Some(records) = self.entries(purged).await {
                return Ok(Anew { vote: None, committed: None, purged, records });
            }
            tokio::time::sleep(ANEW_AFTER).await;
        }
    }

    async fn standing(&mut self) -> Option<Standing> {
        let (group, question) = (self.group, Word::Ask);
        let standings = self
            .ask(&question, |word| {
                let Word::Stand(standings) = word else { return None };
                Some(standings)
            })
            .await;
        standings.into_iter().find(|standing| standing.group == group)
    }

    /// Sees that there is a snapshot here that ends at `index` or behind it.
    async fn snapshot(&mut self, index: Index) -> Result<bool, RepairError> {
        let group = self.group;
        self.patient.snapshots.discard_damaged(group).await?;
        let here = self.patient.snapshots.latest(group).await?;
        if here.is_some_and(|(meta, _)| meta.index >= index) {
            return Ok(true);
        }
        let mut body = BytesMut::new();
        let mut first: Option<Piece> = None;
        loop {
            let wanted = u64::try_from(body.len()).unwrap_or(u64::MAX);
            let question = Word::WantSnapshot { group, offset: wanted };
            let found = self
                .ask(&question, |word| {
                    let Word::Snapshot { group: of, offset, found } = word else { return None };
                    (of == group && offset == wanted).then_some(found)
                })
                .await;
            let Some(piece) = found else { return Ok(false) };
            let begun = first.get_or_insert_with(|| piece.clone());
            if (begun.index, begun.total) != (piece.index, piece.total) || piece.index < index {
                // Another snapshot has taken its place.
                return Ok(false);
            }
            body.extend_from_slice(&piece.bytes);
            let received = u64::try_from(body.len()).unwrap_or(u64::MAX);
            if received >= piece.total {
                let Piece { index, term, membership, .. } = piece;
                let meta = SnapshotMeta { index, term, membership };
                self.patient.snapshots.write(group, meta, body.freeze()).await?;
                return Ok(true);
            }
            if piece.bytes.is_empty() {
                return Ok(false);
            }
        }
    }

    /// All entries behind `after`; none where the log has changed meanwhile.
    async fn entries(
        &mut self,
        after: Option<(Index, quorate_types::Term)>,
    ) -> Option<Vec<Record>> {
        let group = self.group;
        let (mut records, mut behind) = (Vec::new(), after);
        loop {
            let question = Word::WantEntries { group, after: behind };
            let found = self
                .ask(&question, |word| {
                    let Word::Entries { group: of, after, found } = word else { return None };
                    (of == group && after == behind).then_some(found)
                })
                .await?;
            if found.is_empty() {
                return Some(records);
            }
            for Entry { index, term, payload } in found {
                behind = Some((index, term));
                records.push(Record { index, term, payload });
            }
        }
    }

    /// Asks until this answer comes.
    async fn ask<T>(&mut self, question: &Word, answer: impl Fn(Word) -> Option<T>) -> T {
        let (from, patient) = (self.from, &mut *self.patient);
        loop {
            patient.say(from, question);
            let wait = tokio::time::sleep(ASK_EVERY);
            tokio::pin!(wait);
            loop {
                tokio::select! {
                    Some((heard_from, word)) = patient.heard.recv() => {
                        if heard_from == from && let Some(found) = answer(word) {
                            return found;
                        }
                    }
                    () = &mut wait => break,
                }
            }
        }
    }
}
