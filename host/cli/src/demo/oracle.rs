//! What the answers must be, found without the cluster and without the code that
//! the agents run: one process, one pass.
//!
//! A word is a maximal run of `A-Z a-z 0-9 _`, at most 64 bytes long.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::{AhoCorasick, MatchKind};
use bytes::Bytes;
use quorate_types::Digest;
use quorate_types::rng::Rng;

const WORD_MAX: usize = 64;

/// Word → (file, how often), by word and by file.
pub(crate) type Index = BTreeMap<Vec<u8>, Vec<(u32, u64)>>;

fn in_word(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_')
}

/// The index of these files, the plain way.
pub(crate) fn index(files: &[Bytes]) -> Index {
    let mut index = Index::new();
    for (id, content) in (0_u32..).zip(files) {
        let mut counts: BTreeMap<&[u8], u64> = BTreeMap::new();
        for word in content.split(|byte| !in_word(*byte)) {
            if (1..=WORD_MAX).contains(&word.len()) {
                *counts.entry(word).or_default() += 1;
            }
        }
        for (word, count) in counts {
            match index.get_mut(word) {
                Some(found) => found.push((id, count)),
                None => drop(index.insert(word.to_vec(), vec![(id, count)])),
            }
        }
    }
    index
}

/// The digest of an index: every word with its files and counts, in order.
pub(crate) fn digest(index: &Index) -> Digest {
    let mut bytes = Vec::new();
    for (word, found) in index {
        bytes.extend_from_slice(word);
        bytes.push(0);
        for (file, count) in found {
            bytes.extend_from_slice(&file.to_be_bytes());
            bytes.extend_from_slice(&count.to_be_bytes());
        }
        bytes.push(0xff);
    }
    Digest::of(&bytes)
}

/// Words to ask for: `count`, most from the files, some that stand in none of them.
pub(crate) fn queries(index: &Index, count: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(seed);
    let known: Vec<&Vec<u8>> = index.keys().collect();
    let mut queries = BTreeSet::new();
    let bound = u64::try_from(known.len().max(1)).unwrap_or(u64::MAX);
    for at in 0..count * 20 {
        if queries.len() == count {
            break;
        }
        let drawn = known.get(usize::try_from(rng.below(bound)).unwrap_or(0));
        match drawn {
            Some(word) if at % 10 != 0 => queries.insert((*word).clone()),
            Some(_) | None => queries.insert(format!("absent_{:x}", rng.next_u64()).into_bytes()),
        };
    }
    queries.into_iter().collect()
}

/// One scan of the files for all of these words at once (Aho and Corasick 1975): for each word the
/// files that have it and how often, not by splitting but by looking at what stands around a match.
pub(crate) fn scan(files: &[Bytes], words: &[Vec<u8>]) -> anyhow::Result<Vec<Vec<(u32, u64)>>> {
    let automaton = AhoCorasick::builder().match_kind(MatchKind::Standard).build(words)?;
    let mut found = vec![Vec::new(); words.len()];
    for (id, content) in (0_u32..).zip(files) {
        let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
        for hit in automaton.find_overlapping_iter(content.as_ref()) {
            let before = hit.start().checked_sub(1).and_then(|at| content.get(at));
            let after = content.get(hit.end());
            if ![before, after].into_iter().flatten().any(|byte| in_word(*byte)) {
                *counts.entry(hit.pattern().as_usize()).or_default() += 1;
            }
        }
        for (word, count) in counts {
            found[word].push((id, count));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_and_scan_agree_on_what_a_word_is() {
        let long = "x".repeat(65);
        let files =
            [Bytes::from(format!("let ab = ab2(ab); {long}")), Bytes::from_static(b"ab_ ab")];
        let index = index(&files);
        assert_eq!(index[&b"ab"[..]], [(0, 2), (1, 1)]);
        assert!(!index.contains_key(long.as_bytes()), "too long to be a word");
        let words = [b"ab".to_vec(), b"let".to_vec(), b"nothing".to_vec()];
        let scanned = scan(&files, &words).expect("an automaton");
        assert_eq!(scanned, [vec![(0, 2), (1, 1)], vec![(0, 1)], vec![]]);
    }
}
