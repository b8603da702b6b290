//! Leaders of several groups spread over the nodes by themselves.
//!
//! A node that leads at least two groups more than another voter hands that one a group:
//! afterwards it leads no fewer, so that nothing goes back and forth. Only where
//! everything has been quiet for a while: every group has had its leader and its voters
//! for [`SETTLED`], and all voters live. Nodes take turns, and each move begins that
//! span anew for all of them, so that one moves at a time. A voter that is not caught
//! up is asked again later; the log room judges that.
//!
//! A group that left a settled leader which lived is left alone for [`HELD`]: whoever moved
//! it by command finds it where they put it. When that former leader goes, it had handed over
//! because it was to stop, and the group may move on. A leader that had not led for
//! [`SETTLED`] was a candidate of a restless beginning: nobody put the group anywhere.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::{GroupId, NodeId, Time};

use crate::io::{Effect, GroupChange, GroupSetback, Now, Ticket};
use crate::kernel::Kernel;

/// So long nothing has moved before something is moved.
const SETTLED: Duration = Duration::from_secs(10);
/// And so much longer for each member before this one. More than a move takes to be seen.
const TURN: Duration = Duration::from_secs(1);
/// A group that was moved stays where it is.
const HELD: Duration = Duration::from_secs(600);
/// How often one looks at what may have become uneven without a move.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What was seen of moves.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    /// When something moved last.
    moved: Time,
    /// Who led each group last, and since when.
    led: BTreeMap<GroupId, (NodeId, Time)>,
    /// Groups that left this leader while it lived, and until when they stay.
    held: BTreeMap<GroupId, (NodeId, Time)>,
    /// One is being handed over.
    moving: Option<Ticket>,
    /// When one looks again.
    look: Option<Time>,
}

impl Spread {
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.look
    }

    /// Something moved: a leader, a voter, a node.
    pub(crate) fn unsettle(&mut self, now: Now) {
        self.moved = now.mono;
    }

    /// A group is led by another; whether its former leader lives says why.
    fn leads(&mut self, now: Now, group: GroupId, to: NodeId, lives: bool) {
        let former = self.led.get(&group).copied();
        if former.is_some_and(|(from, _since)| from == to) {
            return;
        }
        self.led.insert(group, (to, now.mono));
        let Some((from, since)) = former.filter(|_from| lives) else { return };
        // What was put somewhere a moment ago can be put elsewhere at once.
        if since + SETTLED <= now.mono || self.held.contains_key(&group) {
            self.held.insert(group, (from, now.mono + HELD));
        }
    }

    /// A node went: what it had handed over may move on.
    fn let_go(&mut self, node: NodeId) {
        self.held.retain(|_group, (from, _until)| *from != node);
    }

    /// When something may be moved by the node before which so many others have their turn.
    fn due(&self, turn: u32) -> Time {
        self.moved + SETTLED + TURN.saturating_mul(turn)
    }
}

impl Kernel {
    /// A group has another leader, or none.
    pub(crate) fn leader_moved(&mut self, now: Now, group: GroupId) {
        self.spread.unsettle(now);
        let Some(to) = self.leader(group) else { return };
        let former = self.spread.led.get(&group);
        let lives = former.is_some_and(|(from, _since)| self.is_reachable(*from));
        self.spread.leads(now, group, to, lives);
    }

    /// A node came or went.
    pub(crate) fn reach_moved(&mut self, now: Now, node: NodeId, is_there: bool) {
        self.spread.unsettle(now);
        if !is_there {
            self.spread.let_go(node);
        }
    }

    pub(crate) fn settle_spread(&mut self, now: Now) {
        if !self.config.spreads_leaders || self.leading.len() < 2 || self.spread.moving.is_some() {
            self.spread.look = None;
            return;
        }
        let before = self.config.members.keys().filter(|id| **id < self.config.node).count();
        let turn = u32::try_from(before).unwrap_or(u32::MAX);
        let due = self.spread.due(turn);
        if due > now.mono {
            self.spread.look = Some(due);
            return;
        }
        if self.spread.look.is_some_and(|look| look > now.mono) {
            return;
        }
        self.spread.look = Some(now.mono + LOOK_EVERY);
        self.spread.held.retain(|_group, (_from, until)| *until > now.mono);
        let Some((group, to)) = self.uneven() else { return };
        tracing::info!(%group, %to, "hands a group to a node that leads fewer");
        let ticket = self.ticket();
        self.spread.moving = Some(ticket);
        self.effects.push_back(Effect::ChangeGroup(ticket, group, GroupChange::HandOver(to)));
    }

    fn uneven(&self) -> Option<(GroupId, NodeId)> {
        let mut sight = BTreeMap::new();
        for group in self.config.layout.groups() {
            let voters = self.members_desk.voters(group);
            if voters.is_empty() || !voters.iter().all(|voter| self.is_reachable(*voter)) {
                return None;
            }
            sight.insert(group, (self.leader(group)?, voters));
        }
        choose(self.config.node, &sight, &self.spread.held)
    }

    /// Whether a change of a group was one of this file's.
    pub(crate) fn handed_over(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: &Result<(), GroupSetback>,
    ) -> bool {
        if self.spread.moving != Some(ticket) {
            return false;
        }
        self.spread.moving = None;
        self.spread.unsettle(now);
        if let Err(setback) = result {
            tracing::info!(?setback, "a group was not handed over");
        }
        true
    }
}

/// A group that `own` leads, and the voter of it that leads fewest, where that is at least two
/// groups fewer.
fn choose(
    own: NodeId,
    sight: &BTreeMap<GroupId, (NodeId, Vec<NodeId>)>,
    held: &BTreeMap<GroupId, (NodeId, Time)>,
) -> Option<(GroupId, NodeId)> {
    let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (leader, _voters) in sight.values() {
        *counts.entry(*leader).or_default() += 1;
    }
    let count = |node: &NodeId| counts.get(node).copied().unwrap_or(0);
    let mine =
        sight.iter().filter(|(group, (leader, _))| *leader == own && !held.contains_key(group));
    let fewer = mine.filter_map(|(group, (_, voters))| {
        let to = voters.iter().copied().min_by_key(|voter| (count(voter), *voter))?;
        (count(&to) + 2 <= count(&own)).then_some((count(&to), *group, to))
    });
    // The system group, which has most to do, goes last.
    let best = fewer.min_by_key(|(count, group, _to)| (*count, std::cmp::Reverse(*group)));
    best.map(|(_count, group, to)| (group, to))
}

#[cfg(test)]
mod tests {
    use quorate_types::rng::Rng;

    use super::*;

    type Sight = BTreeMap<GroupId, (NodeId, Vec<NodeId>)>;

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// Groups led by these, all with the same voters.
    fn led(leaders: &[u64], voters: &[u64]) -> Sight {
        let groups = (0..).map(GroupId);
        groups.zip(leaders.iter().map(|leader| (NodeId(*leader), ids(voters)))).collect()
    }

    fn chosen(own: u64, sight: &Sight) -> Option<(u32, u64)> {
        let chosen = choose(NodeId(own), sight, &BTreeMap::new());
        chosen.map(|(group, to)| (group.0, to.0))
    }

    #[test]
    fn only_whoever_leads_at_least_two_more_gives_one_away() {
        let all_on_one = led(&[1, 1, 1], &[1, 2, 3]);
        assert_eq!(chosen(1, &all_on_one), Some((2, 2)), "the system group is not the first to go");
        assert_eq!(chosen(2, &all_on_one), None, "who leads none gives none");
        assert_eq!(chosen(1, &led(&[1, 1, 2], &[1, 2, 3])), Some((1, 3)));
        assert_eq!(chosen(1, &led(&[1, 3, 2], &[1, 2, 3])), None);
        assert_eq!(chosen(1, &led(&[1, 1, 2], &[1, 2])), None, "one more is no more");
        assert_eq!(chosen(1, &led(&[1, 1, 1, 1], &[1])), None, "nobody else votes");
    }

    #[test]
    fn a_group_that_was_put_somewhere_stays_there() {
        let sight = led(&[1, 1, 1], &[1, 2, 3]);
        let held = [0, 1, 2].map(|group| (GroupId(group), (NodeId(2), Time(1))));
        assert_eq!(
            choose(NodeId(1), &sight, &held[..2].iter().copied().collect()),
            Some((GroupId(2), NodeId(2)))
        );
        assert_eq!(choose(NodeId(1), &sight, &held.into_iter().collect()), None);
    }

    fn at(seconds: u64) -> Now {
        let mono = Time::ZERO + Duration::from_secs(seconds);
        Now { mono, wall: mono }
    }

    #[test]
    fn what_left_a_settled_leader_that_lived_is_held_until_that_one_goes() {
        let group = GroupId(1);
        let mut spread = Spread::default();
        spread.leads(at(0), group, NodeId(1), true);
        assert!(spread.held.is_empty(), "its first leader moved nothing");
        spread.leads(at(20), group, NodeId(2), false);
        assert!(spread.held.is_empty(), "its leader died");
        spread.leads(at(25), group, NodeId(1), true);
        assert!(spread.held.is_empty(), "it had not settled there");
        spread.leads(at(30), group, NodeId(1), true);
        spread.leads(at(35), group, NodeId(3), true);
        let held = |spread: &Spread| spread.held.get(&group).copied();
        let until = at(35).mono + HELD;
        assert_eq!(held(&spread), Some((NodeId(1), until)), "it led for ten seconds");
        spread.leads(at(36), group, NodeId(2), true);
        assert_eq!(held(&spread), Some((NodeId(3), at(36).mono + HELD)), "put elsewhere at once");
        spread.let_go(NodeId(1));
        assert_eq!(spread.held.len(), 1);
        spread.let_go(NodeId(3));
        assert!(spread.held.is_empty(), "who stopped did not mean it");
    }

    #[test]
    fn every_move_begins_the_quiet_anew_and_nodes_take_turns() {
        let mut spread = Spread::default();
        spread.unsettle(at(100));
        let turns = [0, 1, 2].map(|turn| spread.due(turn));
        assert_eq!(turns[0], at(100).mono + SETTLED);
        assert!(turns[0] < turns[1] && turns[1] < turns[2]);
        spread.unsettle(at(105));
        assert!(spread.due(0) > turns[2], "who comes later sees it and waits");
    }

    #[test]
    fn from_any_beginning_it_ends_even_and_at_rest() {
        for seed in 0..500 {
            let mut rng = Rng::new(seed);
            let nodes = 1 + rng.below(7);
            let groups = 1 + rng.below(17);
            let voters: Vec<u64> = (1..=nodes).collect();
            let leaders: Vec<u64> = (0..groups).map(|_| 1 + rng.below(nodes)).collect();
            let mut sight = led(&leaders, &voters);
            let mut moves = 0;
            while let Some((group, to)) =
                voters.iter().find_map(|own| choose(NodeId(*own), &sight, &BTreeMap::new()))
            {
                sight.entry(group).and_modify(|(leader, _)| *leader = to);
                moves += 1;
                assert!(moves <= groups, "seed {seed}: no group moves twice");
            }
            let count = |node: &u64| sight.values().filter(|(leader, _)| leader.0 == *node).count();
            let counts: Vec<usize> = voters.iter().map(count).collect();
            let (least, most) = (counts.iter().min(), counts.iter().max());
            assert!(most <= least.map(|least| least + 1).as_ref(), "seed {seed}: {counts:?}");
        }
    }
}
