//! Frames become state again. Entries written again when their segment was freed
//! come later than entries that follow them, so positions are a map until the
//! end; then they must be whole.
//!
//! Of released segments some files may still be there and others not: an entry
//! may be found whose truncation is gone. All that was live when a segment was
//! released was written again behind it, so what lies in one does not count.

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
    sealed: bool,
}

impl Replay {
    /// Segments up to this number hold nothing that counts.
    pub(super) fn released(&self) -> u64 {
        self.released
    }

    /// Whether the last frame so far says that the log was closed in order.
    pub(super) fn sealed(&self) -> bool {
        self.sealed
    }

    /// The next frame in order, from segment `number`.
    pub(super) fn apply(&mut self, frame: &Frame<'_>, number: u64) {
        let (index, term) = (frame.head.index, frame.head.term);
        let group = frame.head.group;
        // A copy: a slice would keep the whole segment in memory for one live entry.
        let body = || Bytes::copy_from_slice(frame.body);
        self.sealed = frame.head.kind == Kind::Seal;
        match frame.head.kind {
            // What a segment says of itself was read before, and a seal only had to be readable.
            Kind::Segment | Kind::Seal => {}
            Kind::Released => self.released = self.released.max(index.0),
            Kind::Entry => {
                let record = Record { index, term, payload: body() };
                self.pieces(group).entries.insert(index, (record, number));
            }
            Kind::Vote => self.pieces(group).vote = Some((body(), number)),
            Kind::Committed => self.pieces(group).committed = Some((body(), number)),
            Kind::Truncate => {
                self.pieces(group).entries.split_off(&next(index));
            }
            Kind::Purge => {
                let pieces = self.pieces(group);
                if pieces.purged.is_none_or(|(purged, ..)| index >= purged) {
                    pieces.entries = pieces.entries.split_off(&next(index));
                    pieces.purged = Some((index, term, number));
                }
            }
        }
    }

    fn pieces(&mut self, group: GroupId) -> &mut Pieces {
        self.groups.entry(group).or_default()
    }

    /// The state, if every group's entries are whole.
    pub(super) fn finish(self) -> Result<Live, OpenError> {
        let mut live = Live::new();
        let counts = |place: u64| place > self.released;
        for (group, pieces) in self.groups {
            let mut tail = Tail::default();
            if let Some((index, term, place)) = pieces.purged.filter(|(.., at)| counts(*at)) {
                tail.purge_upto(index, term, place);
            }
            for (record, place) in pieces.entries.into_values().filter(|(_, at)| counts(*at)) {
                if !tail.follows(record.index) {
                    let after = tail.last().map_or(Index(0), |(index, _)| index);
                    return Err(OpenError::Hole { group, after, before: record.index });
                }
                tail.append(record, place);
            }
            if let Some((vote, place)) = pieces.vote.filter(|(_, at)| counts(*at)) {
                tail.set_vote(vote, place);
            }
            if let Some((mark, place)) = pieces.committed.filter(|(_, at)| counts(*at)) {
                tail.set_committed(mark, place);
            }
            live.insert(group, tail);
        }
        Ok(live)
    }
}

fn next(index: Index) -> Index {
    Index(index.0.saturating_add(1))
}
