//! The code indexer without a sandbox, on one core: what the component is measured
//! against. Written from `plugins/code-index-format`'s document alone; it shares no
//! source with the component, and gives the same bytes or the bench fails.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

const WORD_BYTES_MAX: usize = 64;

/// Which bytes stand in words.
static IN_WORD: [bool; 256] = in_word();

const fn in_word() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    loop {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'_';
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

/// A multiplicative hash by eight bytes a step. The corpus is ours: nobody chooses its
/// words to collide, and the standard hash would make the native side look slow.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            let mixed = self.0.rotate_left(5) ^ u64::from_le_bytes(word);
            self.0 = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn write_usize(&mut self, number: usize) {
        self.0 ^= number as u64;
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// For each word the files that have it, in order, and how often.
type Hits<'a> = HashMap<&'a [u8], Vec<(u32, u64)>, BuildHasherDefault<Mix>>;

/// The postings of these files, which ascend by id, as `QIP1` bytes.
pub(crate) fn index(files: &[(u32, &[u8])]) -> Vec<u8> {
    let mut hits = Hits::default();
    for (id, bytes) in files {
        count(*id, bytes, &mut hits);
    }
    let mut out = b"QIP1".to_vec();
    put_len(&mut out, files.len());
    put_ascending(&mut out, files.iter().map(|(id, bytes)| (*id, bytes.len() as u64)));
    put_len(&mut out, hits.len());
    let mut words: Vec<_> = hits.into_iter().collect();
    words.sort_unstable_by_key(|(word, _)| *word);
    for (word, hits) in words {
        put_len(&mut out, word.len());
        out.extend_from_slice(word);
        put_len(&mut out, hits.len());
        put_ascending(&mut out, hits.into_iter());
    }
    out
}

fn count<'a>(id: u32, bytes: &'a [u8], hits: &mut Hits<'a>) {
    for word in bytes.split(|byte| !IN_WORD[usize::from(*byte)]) {
        if word.is_empty() || word.len() > WORD_BYTES_MAX {
            continue;
        }
        let files = hits.entry(word).or_default();
        match files.last_mut() {
            Some((last, count)) if *last == id => *count += 1,
            _ => files.push((id, 1)),
        }
    }
}

/// Each id as its distance from the one after the id before, then its number.
fn put_ascending(out: &mut Vec<u8>, rows: impl Iterator<Item = (u32, u64)>) {
    let mut next = 0;
    for (id, number) in rows {
        put(out, u64::from(id) - next);
        put(out, number);
        next = u64::from(id) + 1;
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    put(out, len as u64);
}

/// LEB128.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}
