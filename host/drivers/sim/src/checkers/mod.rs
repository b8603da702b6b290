//! The judges: one file, one invariant. Each notes what it sees and says what must not be.

mod committed;
mod entries;
mod leaders;
mod states;
mod tasks;
mod terms;

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
