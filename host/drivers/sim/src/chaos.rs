//! Plays a schedule: strikes when a fault is due and puts right what it did.
//!
//! Who was hit by rot or a misdirected write may refuse to start, and then stays
//! down: to answer nothing is legal for a minority, to answer wrongly is not.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft_rt::AsyncRuntime as _;
use quorate_types::member::{MemberRequest, NewLeader};
use quorate_types::{Door as _, GroupId, NodeId, Request};

use crate::fleet::Fleet;
use crate::node::{SimNode, Site};
use crate::runtime::{self, SimRuntime, elapsed};
use crate::schedule::{Act, Blow, Failing, Shape, Whom};

/// Unsynced writes are waited for so long; a quiet node has none.
const AMBUSH: Duration = Duration::from_millis(300);
const AMBUSH_STEP: Duration = Duration::from_micros(100);
/// Between the power's return and the first step of a node.
const BOOT: Duration = Duration::from_millis(5);

/// A leadership is asked to move within this span.
const HAND_OVER_WITHIN_MS: u64 = 2_000;

/// What puts right what a fault did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relief {
    Boot(NodeId),
    Heal,
    Thaw(NodeId),
    Near,
    /// The disk is whole again; a node that stopped over it begins anew.
    Mend(NodeId),
}

/// A cluster, and what befalls it.
pub(crate) struct Chaos {
    site: Site,
    fleet: Fleet,
    due: Vec<(Duration, Relief)>,
    /// That of the fault that strikes.
    number: usize,
}

impl Chaos {
    pub(crate) fn new(site: Site, fleet: Fleet) -> Self {
        Self { site, fleet, due: Vec::new(), number: 0 }
    }

    /// Plays these until `until` has passed since the run's start or a judge has complained.
    pub(crate) async fn play(&mut self, blows: &[(usize, Blow)], until: Duration) {
        let mut blows = blows.iter().copied().peekable();
        loop {
            let relief = self.due.iter().map(|(at, _)| *at).min();
            let next = blows.peek().map(|(_, blow)| blow.at);
            let wake = [relief, next].into_iter().flatten().min().unwrap_or(until).min(until);
            runtime::sleep_until(wake).await;
            if wake >= until || self.site.world.has_complaints() {
                return;
            }
            self.relieve();
            self.look_around();
            while let Some((number, blow)) = blows.next_if(|(_, blow)| blow.at <= elapsed()) {
                self.number = number;
                self.site.world.set_calm(false);
                self.strike(blow).await;
            }
        }
    }

    /// Whether all is well: nothing is due to be put right, and everybody is there.
    fn look_around(&self) {
        let is_unwell = |node: &SimNode| !node.lives() || node.has_stopped() || node.is_ruined();
        self.site.world.set_calm(self.due.is_empty() && self.fleet.those(is_unwell).is_empty());
    }

    /// Everything is put right again.
    pub(crate) fn heal(&mut self) {
        self.due.clear();
        self.site.mesh.clear_up();
        self.site.mesh.heal();
        for node in self.fleet.ids() {
            self.put_right(Relief::Thaw(node));
            self.put_right(Relief::Mend(node));
            self.put_right(Relief::Boot(node));
        }
    }

    pub(crate) fn end(&mut self) {
        self.fleet.each(SimNode::crash);
    }

    fn relieve(&mut self) {
        let now = elapsed();
        while let Some(at) = self.due.iter().position(|(at, _)| *at <= now) {
            let (_, relief) = self.due.remove(at);
            self.put_right(relief);
        }
    }

    fn put_right(&mut self, relief: Relief) {
        match relief {
            Relief::Heal => self.site.mesh.heal(),
            Relief::Near => self.site.mesh.bring_near(),
            Relief::Boot(id) => {
                self.fleet.on(id, |node| {
                    if !node.lives() && !node.is_ruined() {
                        node.boot();
                    }
                });
            }
            Relief::Thaw(id) => {
                runtime::thaw(id);
                self.site.mesh.release(id);
            }
            Relief::Mend(id) => {
                let stopped = self.fleet.on(id, |node| {
                    node.disk().mend();
                    let stopped = node.lives() && node.has_stopped();
                    if stopped {
                        node.crash();
                    }
                    stopped
                });
                if stopped == Some(true) {
                    self.due.push((elapsed() + BOOT, Relief::Boot(id)));
                }
            }
        }
    }

    /// Of the groups each fault means one, in turn.
    fn group(&self) -> GroupId {
        let mut groups = self.site.knobs.layout.groups().cycle();
        groups.nth(self.number).unwrap_or(GroupId::SYSTEM)
    }

    /// Whom a fault strikes: of all that are there now.
    pub(crate) fn whom(&self, whom: Whom) -> NodeId {
        let (Whom::Place(place) | Whom::Leader(place)) = whom;
        let ids = self.fleet.ids();
        let drawn = ids.get(place % ids.len().max(1)).copied().unwrap_or(NodeId(0));
        let leaders = || self.fleet.those(|node| node.leads(self.group()));
        match whom {
            Whom::Place(_) => drawn,
            Whom::Leader(_) => leaders().first().copied().unwrap_or(drawn),
        }
    }

    async fn strike(&mut self, blow: Blow) {
        let Blow { act, lasts, .. } = blow;
        match act {
            Act::Crash { whom, ambush } => {
                let node = self.whom(whom);
                if let Some(moment) = ambush {
                    self.ambush(node, moment).await;
                }
                self.crash(node, &blow);
            }
            Act::Blackout { ambush } => {
                let leader = self.whom(Whom::Leader(0));
                self.ambush(leader, ambush).await;
                for node in self.fleet.ids() {
                    self.crash(node, &blow);
                }
            }
            Act::Cut(whom, shape) => {
                let node = self.whom(whom);
                let ways = self.ways(node, shape);
                self.note(&blow, node);
                self.site.mesh.cut(&ways);
                self.due.push((elapsed() + lasts, Relief::Heal));
            }
            Act::Freeze(whom) => {
                let node = self.whom(whom);
                self.note(&blow, node);
                runtime::freeze(node);
                self.site.mesh.hold(node);
                self.due.push((elapsed() + lasts, Relief::Thaw(node)));
            }
            Act::Slow(whom, by) => {
                let node = self.whom(whom);
                let ways = self.ways(node, Shape::Isolated);
                self.note(&blow, node);
                self.site.mesh.slow(&ways, by);
                self.due.push((elapsed() + lasts, Relief::Near));
            }
            Act::Jump(whom, by_ms) => {
                let node = self.whom(whom);
                self.note(&blow, node);
                runtime::jump(node, by_ms.saturating_mul(1_000));
            }
            Act::HandOver { whom, to } => self.hand_over(self.whom(whom), to, &blow),
            Act::Disk(whom, how) => self.fail_disk(self.whom(whom), how, &blow),
            Act::Misdirect(whom, draw) => {
                let node = self.whom(whom);
                if self.fleet.may_lose(node) {
                    self.note(&blow, node);
                    self.fleet.on(node, |node| node.disk().misdirect(draw));
                }
            }
            Act::Wipe(whom) => {
                let node = self.whom(whom);
                if self.fleet.may_lose(node) {
                    self.crash(node, &blow);
                    self.fleet.on(node, SimNode::wipe);
                }
            }
            Act::Rot(whom, draw) => {
                let node = self.whom(whom);
                if self.fleet.may_lose(node) {
                    self.crash(node, &blow);
                    self.fleet.on(node, |node| node.disk().rot(draw));
                }
            }
        }
    }

    fn note(&self, blow: &Blow, node: NodeId) {
        self.site.world.fault(&format!("fault {} at {node}: {blow}", self.number), 1);
    }

    /// A leadership is to move, at whoever's word; whether it does is not promised.
    fn hand_over(&self, node: NodeId, to: Option<usize>, blow: &Blow) {
        let Some(handle) = self.fleet.on(node, |node| node.handle()).flatten() else { return };
        self.note(blow, node);
        let to = to.map(|to| self.whom(Whom::Place(to)));
        let lead = MemberRequest::Lead(NewLeader { group: self.group(), to });
        let asked = handle.ask(Request::Membership(lead), HAND_OVER_WITHIN_MS);
        drop(runtime::spawn_at(node, asked));
    }

    fn fail_disk(&mut self, node: NodeId, how: Failing, blow: &Blow) {
        self.note(blow, node);
        self.fleet.on(node, |node| node.disk().fail(how));
        self.due.push((elapsed() + blow.lasts, Relief::Mend(node)));
    }

    /// Waits until the node has written what it has not synced, and then a moment.
    async fn ambush(&self, node: NodeId, moment: Duration) {
        let end = elapsed() + AMBUSH;
        while self.fleet.on(node, |node| node.disk().is_unsynced()) == Some(false) {
            if elapsed() >= end {
                return;
            }
            SimRuntime::sleep(AMBUSH_STEP).await;
        }
        SimRuntime::sleep(moment).await;
    }

    fn crash(&mut self, node: NodeId, blow: &Blow) {
        if self.fleet.on(node, |node| node.lives()) != Some(true) {
            return;
        }
        self.note(blow, node);
        self.fleet.on(node, SimNode::crash);
        self.due.push((elapsed() + blow.lasts, Relief::Boot(node)));
    }

    /// The ways that a cut of this shape at this node takes.
    pub(crate) fn ways(&self, node: NodeId, shape: Shape) -> Vec<(NodeId, NodeId)> {
        let ids = self.fleet.ids();
        let Some(place) = ids.iter().position(|id| *id == node) else { return Vec::new() };
        let next = ids.get((place + 1) % ids.len()).copied().unwrap_or(node);
        let others: Vec<NodeId> = ids.into_iter().filter(|id| *id != node).collect();
        let half: BTreeSet<NodeId> = others.iter().copied().take(others.len() / 2).collect();
        let all = |(from, to): (NodeId, NodeId)| match shape {
            Shape::Isolated => from == node || to == node,
            Shape::Deaf => to == node,
            Shape::Mute => from == node,
            Shape::Pair => (from, to) == (node, next) || (from, to) == (next, node),
            Shape::Bridge => {
                from != node && to != node && half.contains(&from) != half.contains(&to)
            }
            Shape::Star => from != node && to != node,
        };
        let ids: Vec<NodeId> = others.into_iter().chain([node]).collect();
        let pairs = ids.iter().flat_map(|from| ids.iter().map(|to| (*from, *to)));
        pairs.filter(|(from, to)| from != to).filter(|way| all(*way)).collect()
    }
}
