//! What happened, folded into one number, and in lines where somebody reads them.

use std::time::Duration;

use quorate_types::rng::Rng;

/// FNV-1a over words of eight bytes and then the length: to tell contents apart, not to resist
/// anybody. Every event and every entry goes through it.
pub(crate) fn bytes_hash(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let fold = |hash: u64, word: u64| (hash ^ word).wrapping_mul(PRIME).rotate_left(23);
    let mut words = bytes.chunks_exact(8);
    let mut hash = words.by_ref().fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        fold(hash, <[u8; 8]>::try_from(word).map_or(0, u64::from_le_bytes))
    });
    for byte in words.remainder() {
        hash = fold(hash, u64::from(*byte));
    }
    fold(hash, u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

/// A running hash over all events of a run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Lines are kept only where `keep` says so: a run has hundreds of thousands.
    pub(crate) fn new(keep: bool) -> Self {
        Self { hash: 0, events: 0, lines: keep.then(Vec::new) }
    }

    /// One event: when, at which node, what, and two numbers that tell it from others.
    pub(crate) fn note(&mut self, at: Duration, node: u64, kind: &str, sizes: (u64, u64)) {
        self.count(at, node, kind, sizes);
        if let Some(lines) = &mut self.lines {
            let (first, second) = sizes;
            lines.push(format!("{:>12.6} n{node} {kind} {first} {second}", at.as_secs_f64()));
        }
    }

    /// One event of a group at a node.
    pub(crate) fn note_in(
        &mut self,
        at: Duration,
        (node, group): (u64, u32),
        kind: &str,
        sizes: (u64, u64),
    ) {
        self.count(at, node | (u64::from(group) << 32), kind, sizes);
        if let Some(lines) = &mut self.lines {
            let (first, second) = sizes;
            let at = at.as_secs_f64();
            lines.push(format!("{at:>12.6} n{node} g{group} {kind} {first} {second}"));
        }
    }

    fn count(&mut self, at: Duration, place: u64, kind: &str, sizes: (u64, u64)) {
        self.events += 1;
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        for word in [nanos, place, sizes.0, sizes.1] {
            self.fold(word);
        }
        self.fold(bytes_hash(kind.as_bytes()));
    }

    /// Words for people, part of the hash by their length.
    pub(crate) fn say(&mut self, at: Duration, what: &str) {
        self.fold(u64::try_from(what.len()).unwrap_or(u64::MAX));
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6} -- {what}", at.as_secs_f64()));
        }
    }

    /// Words for people alone, made only where they are kept.
    pub(crate) fn tell(&mut self, at: Duration, what: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6} -- {}", at.as_secs_f64(), what()));
        }
    }

    fn fold(&mut self, word: u64) {
        self.hash = Rng::new(self.hash.rotate_left(5) ^ word).next_u64();
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}
