//! How large a group's live log is, and how long its oldest write has waited for
//! the disk: what compaction by size and the watch over a stalled disk ask.

use std::collections::VecDeque;

use quorate_types::Index;

/// The sizes of the entries in the log, in order.
#[derive(Debug, Default)]
pub(crate) struct Extent {
    /// The index of the first; meaningless while there is none.
    first: u64,
    bytes_each: VecDeque<u32>,
    bytes: u64,
}

impl Extent {
    /// An entry was appended; whatever stood at its index or after is gone.
    pub(crate) fn append(&mut self, index: Index, bytes: usize) {
        if self.bytes_each.is_empty() {
            self.first = index.0;
        }
        self.truncate_after(Index(index.0 - 1));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes_each.push_back(bytes);
        self.bytes += u64::from(bytes);
    }

    pub(crate) fn truncate_after(&mut self, last: Index) {
        let kept = (last.0 + 1).saturating_sub(self.first);
        while u64::try_from(self.bytes_each.len()).is_ok_and(|count| count > kept) {
            let Some(bytes) = self.bytes_each.pop_back() else { return };
            self.bytes -= u64::from(bytes);
        }
    }

    pub(crate) fn purge_upto(&mut self, last: Index) {
        while self.first <= last.0 {
            let Some(bytes) = self.bytes_each.pop_front() else { return };
            self.bytes -= u64::from(bytes);
            self.first += 1;
        }
    }

    /// Bytes of the entries after this index.
    pub(crate) fn bytes_after(&self, index: Index) -> u64 {
        let skipped = (index.0 + 1).saturating_sub(self.first);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.bytes_each.len());
        if skipped * 2 < self.bytes_each.len() {
            let before: u64 = self.bytes_each.iter().take(skipped).map(|one| u64::from(*one)).sum();
            self.bytes - before
        } else {
            self.bytes_each.iter().skip(skipped).map(|one| u64::from(*one)).sum()
        }
    }

    /// The last entry before those that have at most so many bytes together; none where all have.
    pub(crate) fn last_beyond(&self, bytes_kept: u64) -> Option<Index> {
        let mut beyond = self.bytes.checked_sub(bytes_kept).filter(|beyond| *beyond > 0)?;
        let mut last = self.first;
        for bytes in &self.bytes_each {
            beyond = beyond.saturating_sub(u64::from(*bytes));
            if beyond == 0 {
                break;
            }
            last += 1;
        }
        Some(Index(last))
    }
}

/// Writes that wait for the disk, oldest first.
#[derive(Debug)]
pub(crate) struct Unsynced<T> {
    waiting: VecDeque<(u64, T)>,
    next: u64,
}

impl<T> Default for Unsynced<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), next: 0 }
    }
}

impl<T: Copy> Unsynced<T> {
    /// A write is on its way since then; the number names it.
    pub(crate) fn begin(&mut self, since: T) -> u64 {
        self.next += 1;
        self.waiting.push_back((self.next, since));
        self.next
    }

    /// It ended, and with it all before: the log keeps their order.
    pub(crate) fn end(&mut self, number: u64) {
        while self.waiting.front().is_some_and(|(first, _since)| *first <= number) {
            self.waiting.pop_front();
        }
    }

    /// Since when the oldest waits.
    pub(crate) fn oldest(&self) -> Option<T> {
        self.waiting.front().map(|(_number, since)| *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_log() {
        let mut extent = Extent::default();
        for (index, bytes) in [(5, 10), (6, 20), (7, 30), (8, 40)] {
            extent.append(Index(index), bytes);
        }
        let after = |extent: &Extent| [0, 4, 5, 6, 7, 8, 9].map(|at| extent.bytes_after(Index(at)));
        assert_eq!(after(&extent), [100, 100, 90, 70, 40, 0, 0]);
        let beyond =
            |extent: &Extent| [100, 99, 90, 89, 40, 0].map(|kept| extent.last_beyond(kept));
        let [none, five] = [None, Some(Index(5))];
        assert_eq!(
            beyond(&extent),
            [none, five, five, Some(Index(6)), Some(Index(7)), Some(Index(8))]
        );
        extent.append(Index(7), 1);
        assert_eq!(after(&extent), [31, 31, 21, 1, 0, 0, 0], "a conflict cuts the tail");
        extent.truncate_after(Index(6));
        extent.purge_upto(Index(5));
        assert_eq!(after(&extent), [20, 20, 20, 0, 0, 0, 0]);
        extent.purge_upto(Index(9));
        extent.append(Index(12), 7);
        assert_eq!((extent.bytes_after(Index(11)), extent.bytes_after(Index(12))), (7, 0));
    }

    #[test]
    fn the_oldest_write_is_told_until_it_ends() {
        let mut unsynced = Unsynced::default();
        let [first, second] = [10, 20].map(|since| unsynced.begin(since));
        assert_eq!(unsynced.oldest(), Some(10));
        unsynced.end(first);
        assert_eq!(unsynced.oldest(), Some(20));
        let third = unsynced.begin(30);
        unsynced.end(third);
        assert_eq!(unsynced.oldest(), None, "those before it ended with it");
        unsynced.end(second);
        assert_eq!(unsynced.oldest(), None);
    }
}
