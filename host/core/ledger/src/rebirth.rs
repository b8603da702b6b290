//! A state that begins another era of its cluster: restored from a backup, or what is
//! left of a cluster that lost its quorum.
//!
//! What happened behind this state in the era before is not known here, but others
//! may have seen it: they hold revisions, fencing tokens, leases, ids and incarnations
//! that were given there. So every counter leaps ahead, further than the era before can
//! have come, and no number is given twice. Nobody who worked or held something then
//! does so now: nodes are down, agents retired, leases ended, seats free; watchers are
//! told to list again. What the records say stays as it is.
//!
//! A function of the state and of its arguments: every member that begins the era
//! from one backup has one state.

use std::sync::Arc;

use quorate_types::{GroupId, Incarnation, Index, NodeId, Token};

use crate::ledger::Ledger;
use crate::roster::{Roster, RosterMember};
use crate::shard::{Moment, Shard};
use crate::system::{Agent, Node, Retired, System};

/// How far counters leap: at 100,000 entries a second, eight days of what is not known. Ids of 48
/// bits stand 4,096 such leaps.
pub const LEAP: u64 = 1 << 36;

/// How the era begins.
#[derive(Clone, Debug)]
pub struct Rebirth {
    /// Its members.
    pub members: Vec<RosterMember>,
    /// Ids up to this one were given before and are not given again.
    pub ids_given: NodeId,
    /// What befell leases, agents and nodes, for people.
    pub reason: String,
}

impl Ledger {
    /// This state, whose log ended at `last`, as the first of another era; its place is `LEAP`
    /// behind `last`.
    pub fn reborn(mut self, last: Index, rebirth: &Rebirth) -> Self {
        assert!(self.index <= last, "a state is not ahead of its log");
        self.index = Index(last.0 + LEAP);
        let at = Moment { now: self.time, index: self.index };
        if self.group() == GroupId::SYSTEM {
            self.system.reborn(at, rebirth);
        }
        self.shard.reborn(at, &rebirth.reason);
        self
    }
}

impl System {
    fn reborn(&mut self, at: Moment, rebirth: &Rebirth) {
        let Rebirth { members, ids_given, reason } = rebirth;
        self.roster = Arc::new(Roster::of(members.clone(), *ids_given));
        self.counters.agents += LEAP;
        for node in self.nodes.clone().values() {
            let down = Some(node.down.clone().unwrap_or_else(|| reason.clone()));
            let incarnation = Incarnation(node.incarnation.0 + LEAP);
            self.store_node(Node { incarnation, down, ..Node::clone(node) });
        }
        for agent in self.agents.clone().values() {
            let now = || Retired { at: at.now, reason: reason.clone() };
            let retired = Some(agent.retired.clone().unwrap_or_else(now));
            let incarnation = Incarnation(agent.incarnation.0 + LEAP);
            self.store_agent(Agent { incarnation, retired, ..Agent::clone(agent) });
        }
    }
}

impl Shard {
    fn reborn(&mut self, at: Moment, reason: &str) {
        self.counters.tasks += LEAP;
        self.counters.token = Token(self.counters.token.0 + LEAP);
        // Watchers of tasks are told to list again, so nobody hears of these.
        let mut unheard = Vec::new();
        for (id, token) in self.held_leases() {
            let lost = self.lose(at, id, token, reason, &mut unheard);
            assert!(lost.is_some(), "the lease of {id} was just read");
        }
        self.retire_recorded();
        self.kv.reborn(at);
    }
}
