//! Voters of a group are reserved in the system group before they change, so that none
//! of them is removed from the cluster meanwhile, whoever leads which group. Only at
//! the feature level that has reservations.
//!
//! The old and the new voters are reserved, then the group changes, then the new ones
//! alone stay reserved, and only then is whoever asked told: what they ask next finds
//! it so. Where the change fails, or its leader does, too many stay reserved; the next
//! change of voters says who.

use std::collections::BTreeSet;

use quorate_ledger::FEATURE_LEVEL_RESERVES;
use quorate_types::member::{MemberRequest, NewVoters};
use quorate_types::{GroupId, NodeId, Reply, Request};

use crate::asks::{Origin, Own, Target};
use crate::frame::{Done, Errand, Setback};
use crate::io::{GroupChange, Now};
use crate::kernel::Kernel;

impl Kernel {
    /// Whether the cluster has agreed on reservations.
    pub(crate) fn reserves(&self) -> bool {
        self.view.system().feature_level() >= FEATURE_LEVEL_RESERVES
    }

    /// Changes a group's voters for an ask.
    pub(crate) fn reserve_and_change(
        &mut self,
        now: Now,
        id: u64,
        group: GroupId,
        voters: BTreeSet<NodeId>,
    ) {
        if !self.reserves() {
            return self.change_group_for(id, group, GroupChange::Voters(voters));
        }
        let mut both = voters;
        both.extend(self.members_desk.voters(group));
        // One that lost its place in the list at level 1 cannot be reserved, nor be lost again.
        both.retain(|voter| self.view.roster().get(*voter).is_some());
        self.reserve(now, Own::Reserve(id), id, NewVoters { group, voters: both });
    }

    fn reserve(&mut self, now: Now, own: Own, id: u64, voters: NewVoters) {
        let Some(left) = self.asks.left(now, id) else { return };
        let request = Request::Membership(MemberRequest::Reserve(voters));
        let errand = Errand::Door(Box::new(request));
        self.begin(now, Origin::Own(own), Target::Leader(GroupId::SYSTEM), errand, left);
    }

    /// What an ask wants of a group's voters.
    fn wanted(&self, id: u64) -> Option<NewVoters> {
        let MemberRequest::Voters(voters) = self.member_request(id)? else { return None };
        Some(voters.clone())
    }

    pub(crate) fn voters_reserved(&mut self, now: Now, id: u64, result: Result<Done, Setback>) {
        let Some(NewVoters { group, voters }) = self.wanted(id) else { return };
        match result {
            Ok(_) => self.change_group_for(id, group, GroupChange::Voters(voters)),
            Err(setback) => {
                self.members_desk.asked.remove(&id);
                self.finish(now, id, Err(setback));
            }
        }
    }

    /// The group has these voters now.
    pub(crate) fn settle_reservation(&mut self, now: Now, id: u64, voters: BTreeSet<NodeId>) {
        let Some(NewVoters { group, .. }) = self.wanted(id) else { return };
        self.reserve(now, Own::Settle(id), id, NewVoters { group, voters });
    }

    pub(crate) fn voters_settled(&mut self, now: Now, id: u64, result: &Result<Done, Setback>) {
        if let Err(setback) = result {
            tracing::warn!(?setback, "former voters stay reserved until voters are set again");
        }
        self.finish(now, id, Ok(Done::Door(Box::new(Reply::Done))));
    }
}
