//! Slots that outside agents wait with, in the memory of whoever leads a shard. An offer is a
//! count beyond the leases that its agent knew of; those given since are taken off.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::clocks::Clocks;
use quorate_types::{AgentId, GroupId, Incarnation, Index, Time};

/// An offer that is not repeated within this span is over.
const OFFER_FOR: Duration = Duration::from_millis(1500);

#[derive(Debug)]
struct Offer {
    incarnation: Incarnation,
    open: u32,
    /// Leases committed after the offer was made: of which group, at which index.
    granted: Vec<(GroupId, Index)>,
}

/// The newest offer of each agent that waits.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    table: BTreeMap<AgentId, Offer>,
    ends: Clocks<AgentId>,
}

impl Offers {
    /// An offer made by an agent that knew of the leases up to `as_of` in each group; it replaces
    /// every earlier one, and an empty one ends them.
    pub(crate) fn take(
        &mut self,
        now: Time,
        agent: AgentId,
        (incarnation, open): (Incarnation, u32),
        as_of: &[(GroupId, Index)],
    ) {
        let mut granted = self.remove(agent).map_or_else(Vec::new, |offer| offer.granted);
        if open == 0 {
            return;
        }
        let knew = |group: GroupId, index: Index| {
            as_of.iter().any(|(known, upto)| *known == group && index <= *upto)
        };
        granted.retain(|(group, index)| !knew(*group, *index));
        self.ends.set(agent, now + OFFER_FOR);
        self.table.insert(agent, Offer { incarnation, open, granted });
    }

    /// The entry at this index of a group gave the agent a lease.
    pub(crate) fn granted(&mut self, agent: AgentId, at: (GroupId, Index)) {
        if let Some(offer) = self.table.get_mut(&agent) {
            offer.granted.push(at);
        }
    }

    /// Leases that this life of the agent may still be given.
    pub(crate) fn left(&self, agent: AgentId, incarnation: Incarnation) -> u32 {
        let offer = self.table.get(&agent).filter(|offer| offer.incarnation == incarnation);
        offer.map_or(0, |offer| {
            offer.open.saturating_sub(u32::try_from(offer.granted.len()).unwrap_or(u32::MAX))
        })
    }

    /// Forgets offers that were not repeated in time.
    pub(crate) fn expire(&mut self, now: Time) {
        while let Some(agent) = self.ends.take(now) {
            self.table.remove(&agent);
        }
    }

    fn remove(&mut self, agent: AgentId) -> Option<Offer> {
        self.ends.stop(agent);
        self.table.remove(&agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G0: GroupId = GroupId(0);

    #[test]
    fn what_was_given_since_an_offer_was_made_is_taken_off() {
        let mut offers = Offers::default();
        let (agent, life) = (AgentId(1), Incarnation(2));
        offers.take(Time(0), agent, (life, 3), &[(G0, Index(10))]);
        offers.granted(agent, (G0, Index(11)));
        offers.granted(agent, (G0, Index(12)));
        assert_eq!(offers.left(agent, life), 1);
        assert_eq!(offers.left(agent, Incarnation(1)), 0, "another life offers nothing");
        offers.take(Time(5), agent, (life, 2), &[(G0, Index(11))]);
        assert_eq!(offers.left(agent, life), 1, "one of the two is in the new count already");

        offers.expire(Time(0) + OFFER_FOR);
        assert_eq!(offers.left(agent, life), 1, "the second offer lives longer than the first");
        offers.expire(Time(5) + OFFER_FOR);
        assert_eq!(offers.left(agent, life), 0);
        offers.take(Time(9), agent, (life, 2), &[(G0, Index(12))]);
        offers.take(Time(9), agent, (life, 0), &[(G0, Index(12))]);
        assert_eq!(offers.left(agent, life), 0);
    }
}
