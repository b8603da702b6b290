//! Counting words: one pass over the bytes, one table over all files of a task.
//!
//! A word's bytes are kept once, in one arena. A file's counts stand in the table
//! while it is read and move to a list when it ends, so that the table never holds
//! words times files.

use code_index_format::{Hit, WORD_BYTES_MAX, is_word_byte};

#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    start: usize,
    len: usize,
    /// In the file being read.
    count: u32,
}

/// The words of some files.
#[derive(Default)]
pub(crate) struct Words {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    /// Open addressing with linear probing; an entry's number plus one, or 0. Its length
    /// is a power of two and at least twice the number of entries.
    table: Vec<usize>,
    /// Numbers of the words that the current file has.
    touched: Vec<usize>,
    /// Of the files that have ended: which word, and how often it stands in which file.
    counts: Vec<(usize, Hit)>,
    /// A word that the last chunk ended in; longer than a word may be when it is none.
    pending: Vec<u8>,
}

impl Words {
    /// Reads on in the current file. A word may go on in the next chunk.
    pub(crate) fn read(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        if !self.pending.is_empty() {
            let (head, tail) = rest.split_at(run_len(rest));
            self.hold(head);
            rest = tail;
            if rest.is_empty() {
                return;
            }
            self.release();
        }
        let mut place = 0;
        while place < rest.len() {
            if !WORD_BYTE[usize::from(rest[place])] {
                place += 1;
                continue;
            }
            let start = place;
            let mut hash = SEED;
            while place < rest.len() && WORD_BYTE[usize::from(rest[place])] {
                hash = mix(hash, rest[place]);
                place += 1;
            }
            if place == rest.len() {
                self.hold(&rest[start..]);
            } else if place - start <= WORD_BYTES_MAX {
                self.count(&rest[start..place], finish(hash));
            }
        }
    }

    /// Ends the current file; the next bytes are another's.
    pub(crate) fn end_file(&mut self, file: u32) {
        self.release();
        for word in self.touched.drain(..) {
            let entry = &mut self.entries[word];
            self.counts.push((word, Hit { file, count: entry.count.into() }));
            entry.count = 0;
        }
    }

    /// The number of words.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Gives the words in order of their bytes, each with its hits in the order in which
    /// the files ended.
    pub(crate) fn sorted<E>(
        &self,
        mut each: impl FnMut(&[u8], &[Hit]) -> Result<(), E>,
    ) -> Result<(), E> {
        // Most comparisons end within eight bytes, and as numbers those need no loop.
        let mut order: Vec<(u64, usize)> =
            self.entries.iter().map(|entry| prefix(self.bytes(entry))).zip(0..).collect();
        order.sort_unstable_by(|left, right| {
            left.0.cmp(&right.0).then_with(|| self.word(left.1).cmp(self.word(right.1)))
        });
        let (hits, ends) = self.by_word();
        for (_, number) in order {
            let start = number.checked_sub(1).map_or(0, |before| ends[before]);
            each(self.word(number), &hits[start..ends[number]])?;
        }
        Ok(())
    }

    /// All hits, those of one word together, and where each word's end.
    fn by_word(&self) -> (Vec<Hit>, Vec<usize>) {
        let mut places = vec![0; self.entries.len()];
        for (word, _) in &self.counts {
            places[*word] += 1;
        }
        let mut start = 0;
        for place in &mut places {
            (*place, start) = (start, start + *place);
        }
        let mut hits = vec![Hit { file: 0, count: 0 }; self.counts.len()];
        for (word, hit) in &self.counts {
            hits[places[*word]] = *hit;
            places[*word] += 1;
        }
        (hits, places)
    }

    fn hold(&mut self, bytes: &[u8]) {
        // One byte more than a word may have is enough to know that it is none.
        let room = (WORD_BYTES_MAX + 1).saturating_sub(self.pending.len());
        self.pending.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn release(&mut self) {
        let pending = core::mem::take(&mut self.pending);
        if (1..=WORD_BYTES_MAX).contains(&pending.len()) {
            let hash = pending.iter().fold(SEED, |hash, byte| mix(hash, *byte));
            self.count(&pending, finish(hash));
        }
        self.pending = pending;
        self.pending.clear();
    }

    #[inline]
    fn count(&mut self, word: &[u8], hash: u32) {
        if self.table.len() < 2 * (self.entries.len() + 1) {
            self.grow();
        }
        let mask = self.table.len() - 1;
        let mut place = hash as usize & mask;
        loop {
            let number = self.table[place];
            if number == 0 {
                return self.add(word, hash, place);
            }
            let entry = &self.entries[number - 1];
            if entry.hash == hash && self.bytes(entry) == word {
                let entry = &mut self.entries[number - 1];
                if entry.count == 0 {
                    self.touched.push(number - 1);
                }
                entry.count = entry.count.saturating_add(1);
                return;
            }
            place = (place + 1) & mask;
        }
    }

    fn add(&mut self, word: &[u8], hash: u32, place: usize) {
        let start = self.arena.len();
        self.arena.extend_from_slice(word);
        self.touched.push(self.entries.len());
        self.entries.push(Entry { hash, start, len: word.len(), count: 1 });
        self.table[place] = self.entries.len();
    }

    fn grow(&mut self) {
        let len = (2 * self.table.len()).max(1 << 12);
        let mask = len - 1;
        self.table = vec![0; len];
        for (entry, number) in self.entries.iter().zip(1..) {
            let mut place = entry.hash as usize & mask;
            while self.table[place] != 0 {
                place = (place + 1) & mask;
            }
            self.table[place] = number;
        }
    }

    fn word(&self, number: usize) -> &[u8] {
        self.bytes(&self.entries[number])
    }

    #[inline]
    fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.arena[entry.start..entry.start + entry.len]
    }
}

/// The first eight bytes as a number of the same order.
fn prefix(word: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = word.len().min(8);
    head[..len].copy_from_slice(&word[..len]);
    u64::from_be_bytes(head)
}

const SEED: u32 = 0x811c_9dc5;

/// FNV-1a, 32 bits: one multiplication a byte, on the byte that the scan has in hand.
#[inline]
fn mix(hash: u32, byte: u8) -> u32 {
    (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
}

/// FNV's low bits are weak, and they are the ones that choose a place.
#[inline]
fn finish(hash: u32) -> u32 {
    hash ^ (hash >> 15)
}

fn run_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_word_byte(*byte)).unwrap_or(bytes.len())
}

static WORD_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    loop {
        table[byte as usize] = is_word_byte(byte);
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(files: &[&[&[u8]]]) -> Vec<(String, Vec<(u32, u64)>)> {
        let mut words = Words::default();
        for (chunks, id) in files.iter().zip(0..) {
            for chunk in *chunks {
                words.read(chunk);
            }
            words.end_file(id);
        }
        let mut sorted = Vec::new();
        let given = words.sorted(|word, hits| {
            let hits = hits.iter().map(|hit| (hit.file, hit.count)).collect();
            sorted.push((String::from_utf8(word.to_vec()).unwrap(), hits));
            Ok::<_, ()>(())
        });
        assert_eq!(given, Ok(()));
        assert_eq!(sorted.len(), words.len());
        sorted
    }

    fn word(word: &str, counts: &[(u32, u64)]) -> (String, Vec<(u32, u64)>) {
        (word.to_owned(), counts.to_vec())
    }

    #[test]
    fn words_are_maximal_runs_and_counted_by_file() {
        assert_eq!(
            counted(&[&[b"fn f(x: f64) { x2 }"], &[b"\xc3\xa9_fn--fn"]]),
            [
                word("_fn", &[(1, 1)]),
                word("f", &[(0, 1)]),
                word("f64", &[(0, 1)]),
                word("fn", &[(0, 1), (1, 1)]),
                word("x", &[(0, 1)]),
                word("x2", &[(0, 1)]),
            ]
        );
    }

    #[test]
    fn chunks_may_end_anywhere_and_files_end_words() {
        let text = b"alpha beta_1 alpha";
        let whole = counted(&[&[text]]);
        for cut in 0..=text.len() {
            let (head, tail) = text.split_at(cut);
            assert_eq!(counted(&[&[head, tail]]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(counted(&[&bytes]), whole);
        assert_eq!(
            counted(&[&[b"al"], &[b"pha"]]),
            [word("al", &[(0, 1)]), word("pha", &[(1, 1)])]
        );
    }

    #[test]
    fn a_run_of_more_than_64_bytes_is_skipped_whole() {
        let (fits, long) = ("a".repeat(64), "b".repeat(65));
        for text in
            [format!("{fits} {long} c"), format!("{long} {fits} c"), format!("c {fits} {long}")]
        {
            let expected = [word(&fits, &[(0, 1)]), word("c", &[(0, 1)])];
            assert_eq!(counted(&[&[text.as_bytes()]]), expected);
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(7).collect();
            assert_eq!(counted(&[&chunks]), expected);
        }
    }

    #[test]
    fn many_words_outgrow_the_first_table() {
        let text: String = (0..20_000).map(|number| format!("w{number} ")).collect();
        let words = counted(&[&[text.as_bytes(), text.as_bytes()]]);
        assert_eq!(words.len(), 20_000);
        assert!(words.iter().all(|(_, counts)| *counts == [(0, 2)]));
    }
}
