//! A group's log as the judges read it.

use std::ops::Range;

use quorate_storage::Record;
use quorate_types::{GroupId, Index, Term};

use crate::world::SimLog;

/// A node's own log, or one that a test has written by hand.
pub(crate) trait Book {
    fn last(&self) -> Option<(Index, Term)>;
    fn purged(&self) -> Option<(Index, Term)>;
    fn read(&self, range: Range<Index>) -> Vec<Record>;
}

/// What a node's log has of one group.
pub(crate) struct Volume {
    pub(crate) group: GroupId,
    pub(crate) log: SimLog,
}

impl Book for Volume {
    fn last(&self) -> Option<(Index, Term)> {
        self.log.last(self.group)
    }

    fn purged(&self) -> Option<(Index, Term)> {
        self.log.purged(self.group)
    }

    fn read(&self, range: Range<Index>) -> Vec<Record> {
        self.log.read(self.group, range)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;

    use super::*;

    /// Written by hand: what was cut off, then each entry.
    #[derive(Clone, Default)]
    pub(crate) struct Pages {
        pub(crate) purged: Option<(Index, Term)>,
        pub(crate) entries: Vec<Record>,
    }

    /// A log of these (index, term, content).
    pub(crate) fn pages(entries: &[(u64, u64, &'static str)]) -> Pages {
        let entries = entries.iter().map(|(index, term, content)| Record {
            index: Index(*index),
            term: Term(*term),
            payload: Bytes::from_static(content.as_bytes()),
        });
        Pages { purged: None, entries: entries.collect() }
    }

    impl Book for Pages {
        fn last(&self) -> Option<(Index, Term)> {
            self.entries.last().map(|record| (record.index, record.term)).or(self.purged)
        }

        fn purged(&self) -> Option<(Index, Term)> {
            self.purged
        }

        fn read(&self, range: Range<Index>) -> Vec<Record> {
            self.entries.iter().filter(|record| range.contains(&record.index)).cloned().collect()
        }
    }
}
