//! Frames become state again. Entries written again when their segment was freed
//! come later than entries that follow them, so positions are a map until the
//! end; then they must be whole.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_types::{GroupId, Index, Term};

use super::OpenError;
use super::frame::{Frame, Kind};
use super::tail::Tail;
use super::writer::Live;
use crate::record::Record;

#[derive(Default)]
struct Pieces {
    entries: BTreeMap<Index, (Record, u64)>,
    purged: Option<(Index, Term, u64)>,
    vote: Option<(Bytes, u64)>,
    committed: Option<(Bytes, u64)>,
}

/// The state that the frames so far give.
#[derive(Default)]
pub(super) struct Replay {
    groups: BTreeMap<GroupId, Pieces>,
    released: u64,
}

impl Replay {
    /// Segments up to this number hold nothing that counts.
    pub(super) fn released(&self) -> u64 {
        self.released
    }

    /// The next frame in order, from segment `number`.
    pub(super) fn apply(&mut self, frame: &Frame<'_>, number: u64) {
        let head = frame.head;
        match head.kind {
            // What it says was read before.
            Kind::Segment => return,
            Kind::Released => {
                self.released = self.released.max(head.index.0);
                return;
            }
            // It only had to be readable.
            Kind::Seal => return,
            Kind::Entry | Kind::Vote | Kind::Committed | Kind::Truncate | Kind::Purge => {}
        }
        let group = self.groups.entry(head.group).or_default();
        // A copy: a slice would keep the whole segment in memory for one live entry.
        let body = Bytes::copy_from_slice(frame.body);
        match head.kind {
            Kind::Entry => {
                let record = Record { index: head.index, term: head.term, payload: body };
                group.entries.insert(head.index, (record, number));
            }
            Kind::Vote => group.vote = Some((body, number)),
            Kind::Committed => group.committed = Some((body, number)),
            Kind::Truncate => {
                group.entries.split_off(&Index(head.index.0.saturating_add(1)));
            }
            Kind::Purge => {
                group.entries = group.entries.split_off(&Index(head.index.0.saturating_add(1)));
                group.purged = Some((head.index, head.term, number));
            }
            Kind::Segment | Kind::Released | Kind::Seal => {}
        }
    }

    /// The state, if every group's entries are whole.
    pub(super) fn finish(self) -> Result<Live, OpenError> {
        let mut live = Live::new();
        for (group, pieces) in self.groups {
            let mut tail = Tail::default();
            if let Some((index, term, place)) = pieces.purged {
                tail.purge_upto(index, term, place);
            }
            for (record, place) in pieces.entries.into_values() {
                if !tail.follows(record.index) {
                    let after = tail.last().map_or(Index(0), |(index, _)| index);
                    return Err(OpenError::Hole { group, after, before: record.index });
                }
                tail.append(record, place);
            }
            if let Some((vote, place)) = pieces.vote {
                tail.set_vote(vote, place);
            }
            if let Some((mark, place)) = pieces.committed {
                tail.set_committed(mark, place);
            }
            live.insert(group, tail);
        }
        Ok(live)
    }
}
