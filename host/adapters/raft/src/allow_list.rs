//! Who may be a voter, as the log has it.
//!
//! openraft adopts a voter set when it is appended, so the state machine cannot
//! refuse one. Instead nobody proposes a voter that the list of members does not
//! name, and a replica takes no append with one that it never named. The list lies in the system
//! group's ledger; whoever applies that hands it on, and every group of the node
//! asks the same copy.
//!
//! Whom a leader may propose and what a replica may take differ in those who were
//! members once: a log tells of voters that have been removed since, each group's at its
//! own pace, and a new leader sends again what a replica has already. So a replica takes
//! whoever was ever admitted; it refuses who never was, as far as it knows.

use std::sync::Arc;

use arc_swap::ArcSwap;
use quorate_ledger::Roster;
use quorate_types::NodeId;

/// The newest list of members that this node has applied. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct AllowList(Arc<ArcSwap<Roster>>);

impl AllowList {
    /// Whether this node may be made a voter. Before there is a list, everybody may: the cluster file
    /// has the say then, and whoever catches up has not read the list yet.
    pub fn admits(&self, node: NodeId) -> bool {
        let roster = self.0.load();
        !roster.begun() || roster.get(node).is_some()
    }

    /// Whether this node may be a voter in some entry of a log, of whatever time.
    pub(crate) fn has_admitted(&self, node: NodeId) -> bool {
        let roster = self.0.load();
        !roster.begun() || node < roster.next_id()
    }

    pub(crate) fn follow(&self, roster: &Arc<Roster>) {
        if !Arc::ptr_eq(&self.0.load(), roster) {
            self.0.store(Arc::clone(roster));
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_ledger::{Command, Ledger, RosterMember, SystemCommand};
    use quorate_types::{Faults, Index, Time};

    use super::*;

    #[test]
    fn a_voter_of_former_times_is_taken_and_proposed_no_more() {
        let list = AllowList::default();
        assert!(list.admits(NodeId(9)) && list.has_admitted(NodeId(9)), "there is no list yet");
        let member = |id: u64| RosterMember {
            id: NodeId(id),
            name: format!("node-{id}"),
            peer: format!("peer-{id}"),
            address: format!("127.0.0.1:{}", 7_000 + id),
        };
        let mut ledger = Ledger::new(&Faults::none());
        let seed = SystemCommand::SeedMembers((1..=3).map(member).collect());
        for (at, command) in (1..).zip([seed, SystemCommand::RemoveMember(NodeId(2))]) {
            let entry = Command::from(command).encode(Time(1));
            ledger.apply(Index(at), &entry).unwrap();
        }
        list.follow(ledger.roster());
        let seen = [1, 2, 3, 4].map(NodeId).map(|id| (list.admits(id), list.has_admitted(id)));
        assert_eq!(seen, [(true, true), (false, true), (true, true), (false, false)]);
    }
}
