//! The judges: one file, one invariant. Each notes what it sees and says what must not be.

mod committed;
mod entries;
mod leaders;
mod states;
mod tasks;
mod terms;

use bytes::Bytes;

/// All of them, over all nodes and all their lives.
#[derive(Default)]
pub(crate) struct Judges {
    pub(crate) committed: committed::Committed,
    pub(crate) entries: entries::Entries,
    pub(crate) leaders: leaders::Leaders,
    pub(crate) states: states::States,
    pub(crate) tasks: tasks::Tasks,
    pub(crate) terms: terms::Terms,
}

/// FNV-1a; entries are compared by it.
fn hash(bytes: &Bytes) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
