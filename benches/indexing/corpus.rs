//! Sources as they are found in the wild, by a seed: words by a heavy tail, sizes by a
//! heavy tail, the punctuation of a programming language between.

use quorate_types::rng::Rng;

const SEPARATORS: [&str; 12] =
    [" ", " ", " ", "\n    ", "::", "(", ") ", ", ", ";\n", ".", " = ", "\n/// "];
const STEMS: [&str; 16] = [
    "fn", "let", "self", "Result", "index", "u64", "term", "state", "node", "Some", "apply", "log",
    "return", "match", "struct", "pub",
];
/// As many different words as a few hundred files of real code have.
const VOCABULARY: u64 = 20_000;

/// Files of about `bytes` in all.
pub(crate) fn files(seed: u64, bytes: usize) -> Vec<Vec<u8>> {
    let mut random = Rng::new(seed);
    let (mut files, mut total) = (Vec::new(), 0);
    while total < bytes {
        // One in sixteen is sixteen times as long.
        let longest = if random.below(16) == 0 { 256 << 10 } else { 16 << 10 };
        let len = usize::try_from(random.below(longest)).unwrap_or(0).min(bytes - total) + 1;
        let file = file(&mut random, len);
        total += file.len();
        files.push(file);
    }
    files
}

fn file(random: &mut Rng, len: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(len + 64);
    while text.len() < len {
        // A number below a number: small ones are often, large ones rare.
        let bound = 1 + random.below(VOCABULARY);
        let word = random.below(bound);
        let stem = STEMS[usize::from(word.to_le_bytes()[0] & 15)];
        text.extend_from_slice(stem.as_bytes());
        if word >= 16 {
            text.extend_from_slice(format!("_{:x}", word / 16).as_bytes());
        }
        let place = usize::try_from(random.below(12)).unwrap_or(0);
        text.extend_from_slice(SEPARATORS[place].as_bytes());
    }
    text
}
