//! Who may be a voter, as the log has it.
//!
//! openraft adopts a voter set when it is appended, so the state machine cannot
//! refuse one. Instead nobody proposes a voter that the list of members does not
//! name, and a replica takes no append that names one. The list lies in the system
//! group's ledger; whoever applies that hands it on, and every group of the node
//! asks the same copy.

use std::sync::Arc;

use arc_swap::ArcSwap;
use quorate_ledger::Roster;
use quorate_types::NodeId;

/// The newest list of members that this node has applied. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct AllowList(Arc<ArcSwap<Roster>>);

impl AllowList {
    /// Whether this node may be a voter. Before there is a list, everybody may: the cluster file
    /// has the say then, and whoever catches up has not read the list yet.
    pub fn admits(&self, node: NodeId) -> bool {
        let roster = self.0.load();
        !roster.begun() || roster.get(node).is_some()
    }

    pub(crate) fn follow(&self, roster: &Arc<Roster>) {
        if !Arc::ptr_eq(&self.0.load(), roster) {
            self.0.store(Arc::clone(roster));
        }
    }
}
