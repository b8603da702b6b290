//! Who is told what became of a group.

use std::sync::Arc;

use quorate_ledger::Ledger;
use quorate_types::{EventKind, GroupId, Index, NodeId, Term};

/// Told in order, from within the room's own tasks: an observer notes and
/// returns; it never waits and never calls back into the group.
pub trait Observer: Send + Sync {
    /// The entry at `index` was applied. `view` is the state after the batch that the entry came
    /// in, and is published before this is called. Called for every entry with events and for the
    /// last of every batch; also while a restarted node applies its log again.
    fn applied(&self, group: GroupId, index: Index, events: &[EventKind], view: &Arc<Ledger>);

    /// The state was replaced by a snapshot that ends at `index`: what happened up to there is in
    /// `view` and was not told as events.
    fn restored(&self, group: GroupId, index: Index, view: &Arc<Ledger>) {
        self.applied(group, index, &[], view);
    }

    /// Who leads, as this node knows; `None` while nobody does.
    fn leadership(&self, group: GroupId, leader: Option<NodeId>, term: Term);

    /// The group has other members: those with a vote (of both sets, while they change), and those
    /// without one.
    fn membership(&self, _group: GroupId, _voters: &[NodeId], _learners: &[NodeId]) {}

    /// The group has stopped on this node and will not go on: an entry that cannot be applied, or
    /// a log that cannot be written.
    fn failed(&self, group: GroupId, reason: String);
}
