//! Committed entries become state: applied in log order, published as a view.
//!
//! The ledger lives here, in one place for the life of the node, though
//! openraft's instance above it may be restarted by the watchdog. Every instance
//! has a generation, and only the newest may apply: an old one that is still
//! winding down is refused.
//!
//! An entry that the ledger does not know stops the group for good. It is never
//! skipped, since a replica that skips has diverged.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use bytes::Bytes;
use openraft::EntryPayload;
use quorate_ledger::{Ledger, Outcome, RestoreError};
use quorate_types::{EventKind, Faults, GroupId, Index, Layout};

use crate::allow_list::AllowList;
use crate::observer::Observer;
use crate::types::{Entry, LogId, SnapshotMeta, StoredMembership, index_of, index_or_none, locked};

struct State {
    ledger: Ledger,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Which instance may apply.
    generation: u64,
    /// Why nothing is applied any more.
    failure: Option<String>,
}

/// What came of a batch: the outcomes of the entries that were applied, and why it ended early.
pub(crate) struct Batch {
    pub(crate) outcomes: Vec<Option<Outcome>>,
    pub(crate) failure: Option<io::Error>,
}

/// A state to take a snapshot of; a few reference counts.
pub(crate) struct Frozen {
    pub(crate) ledger: Ledger,
    pub(crate) meta: SnapshotMeta,
}

/// The group's ledger and how far it is.
pub(crate) struct Machine {
    group: GroupId,
    faults: Faults,
    layout: Layout,
    observer: Arc<dyn Observer>,
    /// What the system group's ledger says of members, for every group of the node.
    allow_list: AllowList,
    view: ArcSwap<Ledger>,
    /// Apart from the state, so that nobody waits for a batch to know it.
    applied: AtomicU64,
    state: Mutex<State>,
}

impl Machine {
    /// The state before the first entry.
    pub(crate) fn new(
        layout: Layout,
        group: GroupId,
        faults: Faults,
        observer: Arc<dyn Observer>,
        allow_list: AllowList,
    ) -> Self {
        let ledger = Ledger::of(layout, group, &faults);
        let view = ArcSwap::from_pointee(ledger.clone());
        let state = State {
            ledger,
            applied: None,
            membership: StoredMembership::default(),
            generation: 0,
            failure: None,
        };
        let applied = AtomicU64::new(0);
        let state = Mutex::new(state);
        Self { group, faults, layout, observer, allow_list, view, applied, state }
    }

    /// The newest published state.
    pub(crate) fn view(&self) -> Arc<Ledger> {
        self.view.load_full()
    }

    /// A generation for a new instance; every older one is fenced from here on.
    pub(crate) fn next_generation(&self) -> u64 {
        let mut state = locked(&self.state);
        state.generation += 1;
        state.generation
    }

    pub(crate) fn applied(&self) -> (Option<LogId>, StoredMembership) {
        let state = locked(&self.state);
        (state.applied, state.membership.clone())
    }

    /// How far the state is.
    pub(crate) fn applied_index(&self) -> Index {
        Index(self.applied.load(Ordering::Acquire))
    }

    /// Why nothing is applied any more.
    pub(crate) fn failure(&self) -> Option<String> {
        locked(&self.state).failure.clone()
    }

    /// Applies entries in order, publishes the state after them and tells the observer. All under
    /// one lock, so that observers hear everything in log order whoever calls.
    pub(crate) fn apply(&self, generation: u64, entries: &[Entry]) -> Batch {
        let mut state = locked(&self.state);
        if let Err(error) = state.admit(generation) {
            return Batch { outcomes: Vec::new(), failure: Some(error) };
        }
        let swapped = if self.faults.apply_swapped { swapped(entries) } else { None };
        let entries = swapped.as_deref().unwrap_or(entries);
        let mut batch = Batch { outcomes: Vec::with_capacity(entries.len()), failure: None };
        let mut happened: Vec<(Index, Vec<EventKind>)> = Vec::new();
        for entry in entries {
            match state.apply(entry) {
                Ok((outcome, events)) => {
                    batch.outcomes.push(outcome);
                    if !events.is_empty() {
                        happened.push((index_of(entry.log_id.index), events));
                    }
                }
                Err(reason) => {
                    tracing::error!(group = %self.group, %reason, "the group stops");
                    batch.failure = Some(io::Error::other(reason.clone()));
                    state.failure = Some(reason);
                    break;
                }
            }
        }
        if !batch.outcomes.is_empty() {
            self.publish(&state, &happened);
        }
        batch
    }

    fn publish(&self, state: &State, happened: &[(Index, Vec<EventKind>)]) {
        let (view, last) = self.show(state);
        for (index, events) in happened {
            self.observer.applied(self.group, *index, events, &view);
        }
        if happened.last().is_none_or(|(index, _)| *index < last) {
            self.observer.applied(self.group, last, &[], &view);
        }
    }

    /// Publishes the state.
    fn show(&self, state: &State) -> (Arc<Ledger>, Index) {
        let view = Arc::new(state.ledger.clone());
        let last = index_or_none(state.applied.as_ref());
        if self.group == GroupId::SYSTEM {
            self.allow_list.follow(view.roster());
        }
        self.view.store(Arc::clone(&view));
        self.applied.store(last.0, Ordering::Release);
        (view, last)
    }

    /// The state as it is now.
    pub(crate) fn freeze(&self) -> Frozen {
        let state = locked(&self.state);
        let mut last_membership = state.membership.clone();
        if self.faults.snapshot_forgets_members {
            last_membership = StoredMembership::default();
        }
        let meta = SnapshotMeta { last_log_id: state.applied, last_membership };
        Frozen { ledger: state.ledger.clone(), meta }
    }

    /// A planted fault: whether whoever applies stamps commands by its own clock.
    pub(crate) fn stamps_anew(&self) -> bool {
        self.faults.clock_in_apply
    }

    /// The ledger in a snapshot, checked against the digest that it states.
    pub(crate) fn read_snapshot(&self, body: &Bytes) -> Result<Ledger, RestoreError> {
        Ledger::restore(Ledger::of(self.layout, self.group, &self.faults), body)
    }

    /// Puts a snapshot's state in place of what there is.
    pub(crate) fn install(
        &self,
        generation: u64,
        meta: &SnapshotMeta,
        ledger: Ledger,
    ) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.admit(generation)?;
        state.ledger = ledger;
        state.applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        let (view, last) = self.show(&state);
        self.observer.restored(self.group, last, &view);
        Ok(())
    }
}

/// A planted fault: the last two commands in each other's place.
fn swapped(entries: &[Entry]) -> Option<Vec<Entry>> {
    let mut entries = entries.to_vec();
    let [.., first, second] = entries.as_mut_slice() else { return None };
    let commands = (&first.payload, &second.payload);
    if let (EntryPayload::Normal(_), EntryPayload::Normal(_)) = commands {
        std::mem::swap(&mut first.payload, &mut second.payload);
    }
    Some(entries)
}

impl State {
    fn admit(&self, generation: u64) -> io::Result<()> {
        if self.generation != generation {
            return Err(io::Error::other("this instance was restarted"));
        }
        self.failure.as_ref().map_or(Ok(()), |reason| Err(io::Error::other(reason.clone())))
    }

    fn apply(&mut self, entry: &Entry) -> Result<(Option<Outcome>, Vec<EventKind>), String> {
        let index = index_of(entry.log_id.index);
        let applied = match &entry.payload {
            EntryPayload::Blank => (None, Vec::new()),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                (None, Vec::new())
            }
            EntryPayload::Normal(command) => {
                let applied = self
                    .ledger
                    .apply(index, command.entry())
                    .map_err(|error| format!("entry {index} cannot be applied: {error}"))?;
                (Some(applied.outcome), applied.events)
            }
        };
        self.applied = Some(entry.log_id);
        Ok(applied)
    }
}

#[cfg(test)]
mod tests {
    use quorate_ledger::{Command, ShardCommand};
    use quorate_types::Time;

    use super::*;
    use crate::tests::Deaf;
    use crate::types::{CommittedLeaderId, Framed};

    fn entry(index: u64, command: &[u8]) -> Entry {
        let log_id = LogId::new(CommittedLeaderId::new(1), index);
        Entry { log_id, payload: EntryPayload::Normal(Framed::command(command)) }
    }

    fn machine() -> Machine {
        let observer = Arc::new(Deaf);
        Machine::new(Layout::ONE, GroupId(0), Faults::none(), observer, AllowList::default())
    }

    #[test]
    fn only_the_newest_instance_applies() {
        let machine = machine();
        let sweep = Command::from(ShardCommand::Sweep).encode(Time(1));
        let old = machine.next_generation();
        assert!(machine.apply(old, &[entry(0, &sweep)]).failure.is_none());
        let new = machine.next_generation();
        let fenced = machine.apply(old, &[entry(1, &sweep)]);
        assert!(fenced.failure.is_some() && fenced.outcomes.is_empty());
        assert_eq!(machine.applied_index(), Index(1), "what the old one had applied stays");
        assert!(machine.apply(new, &[entry(1, &sweep)]).failure.is_none());
        assert_eq!(machine.applied_index(), Index(2));
    }

    #[test]
    fn what_is_before_an_unknown_entry_is_applied_and_nothing_after() {
        let machine = machine();
        let sweep = Command::from(ShardCommand::Sweep).encode(Time(1));
        let generation = machine.next_generation();
        let entries = [entry(0, &sweep), entry(1, b"unknown kind"), entry(2, &sweep)];
        let batch = machine.apply(generation, &entries);
        assert_eq!((batch.outcomes.len(), batch.failure.is_some()), (1, true));
        assert!(machine.failure().is_some());
        assert!(machine.apply(generation, &[entry(2, &sweep)]).failure.is_some());
        assert_eq!((machine.applied_index(), machine.view().index()), (Index(1), Index(1)));
    }
}
