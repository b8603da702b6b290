//! Plays a schedule: strikes when a fault is due and puts right what it did.
//!
//! Who was hit by rot or a misdirected write may refuse to start, and then stays
//! down: to answer nothing is legal for a minority, to answer wrongly is not.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft_rt::AsyncRuntime as _;
use quorate_types::member::{MemberRequest, NewLeader};
use quorate_types::{Door as _, GroupId, NodeId, Request};

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
    Boot(usize),
    Heal,
    Thaw(usize),
    Near,
    /// The disk is whole again; a node that stopped over it begins anew.
    Mend(usize),
}

/// A cluster, and what befalls it.
pub(crate) struct Chaos {
    site: Site,
    nodes: Vec<SimNode>,
    due: Vec<(Duration, Relief)>,
    /// That of the fault that strikes.
    number: usize,
}

impl Chaos {
    pub(crate) fn new(site: Site, nodes: Vec<SimNode>) -> Self {
        Self { site, nodes, due: Vec::new(), number: 0 }
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
        let is_well = |node: &SimNode| node.lives() && !node.has_stopped() && !node.is_ruined();
        self.site.world.set_calm(self.due.is_empty() && self.nodes.iter().all(is_well));
    }

    /// Everything is put right again.
    pub(crate) fn heal(&mut self) {
        self.due.clear();
        self.site.mesh.clear_up();
        self.site.mesh.heal();
        for place in 0..self.nodes.len() {
            self.put_right(Relief::Thaw(place));
            self.put_right(Relief::Mend(place));
            self.put_right(Relief::Boot(place));
        }
    }

    pub(crate) fn nodes(&self) -> &[SimNode] {
        &self.nodes
    }

    pub(crate) fn end(&mut self) {
        self.nodes.iter_mut().for_each(SimNode::crash);
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
            Relief::Boot(place) => {
                if let Some(node) = self.nodes.get_mut(place)
                    && !node.lives()
                    && !node.is_ruined()
                {
                    node.boot();
                }
            }
            Relief::Thaw(place) => {
                if let Some(node) = self.nodes.get(place) {
                    runtime::thaw(node.id);
                    self.site.mesh.release(node.id);
                }
            }
            Relief::Mend(place) => {
                let Some(node) = self.nodes.get_mut(place) else { return };
                node.disk().mend();
                if node.lives() && node.has_stopped() {
                    node.crash();
                    self.due.push((elapsed() + BOOT, Relief::Boot(place)));
                }
            }
        }
    }

    /// Of the groups each fault means one, in turn.
    fn group(&self) -> GroupId {
        let mut groups = self.site.knobs.layout.groups().cycle();
        groups.nth(self.number).unwrap_or(GroupId::SYSTEM)
    }

    pub(crate) fn place(&self, whom: Whom) -> usize {
        let group = self.group();
        match whom {
            Whom::Place(place) => place % self.nodes.len().max(1),
            Whom::Leader(place) => {
                self.nodes.iter().position(|node| node.leads(group)).unwrap_or(place)
            }
        }
    }

    async fn strike(&mut self, blow: Blow) {
        let Blow { act, lasts, .. } = blow;
        match act {
            Act::Crash { whom, ambush } => {
                let place = self.place(whom);
                if let Some(moment) = ambush {
                    self.ambush(place, moment).await;
                }
                self.crash(place, &blow);
            }
            Act::Blackout { ambush } => {
                let leader = self.place(Whom::Leader(0));
                self.ambush(leader, ambush).await;
                for place in 0..self.nodes.len() {
                    self.crash(place, &blow);
                }
            }
            Act::Cut(whom, shape) => {
                let place = self.place(whom);
                let ways = self.ways(place, shape);
                self.note(&blow, place);
                self.site.mesh.cut(&ways);
                self.due.push((elapsed() + lasts, Relief::Heal));
            }
            Act::Freeze(whom) => {
                let place = self.place(whom);
                let Some(node) = self.nodes.get(place).map(|node| node.id) else { return };
                self.note(&blow, place);
                runtime::freeze(node);
                self.site.mesh.hold(node);
                self.due.push((elapsed() + lasts, Relief::Thaw(place)));
            }
            Act::Slow(whom, by) => {
                let place = self.place(whom);
                let ways = self.ways(place, Shape::Isolated);
                self.note(&blow, place);
                self.site.mesh.slow(&ways, by);
                self.due.push((elapsed() + lasts, Relief::Near));
            }
            Act::Jump(whom, by_ms) => {
                let place = self.place(whom);
                let Some(node) = self.nodes.get(place).map(|node| node.id) else { return };
                self.note(&blow, place);
                runtime::jump(node, by_ms.saturating_mul(1_000));
            }
            Act::HandOver { whom, to } => self.hand_over(self.place(whom), to, &blow),
            Act::Disk(whom, how) => self.fail_disk(self.place(whom), how, &blow),
            Act::Misdirect(whom, draw) => {
                let place = self.place(whom);
                self.note(&blow, place);
                if let Some(node) = self.nodes.get(place) {
                    node.disk().misdirect(draw);
                }
            }
            Act::Rot(whom, draw) => {
                let place = self.place(whom);
                self.crash(place, &blow);
                if let Some(node) = self.nodes.get(place) {
                    node.disk().rot(draw);
                }
            }
        }
    }

    fn note(&self, blow: &Blow, place: usize) {
        self.site.world.fault(&format!("fault {} at n{}: {blow}", self.number, place + 1), 1);
    }

    /// A leadership is to move, at whoever's word; whether it does is not promised.
    fn hand_over(&self, place: usize, to: Option<usize>, blow: &Blow) {
        let Some(node) = self.nodes.get(place) else { return };
        let Some(handle) = node.handle() else { return };
        self.note(blow, place);
        let to = to.and_then(|to| self.nodes.get(to % self.nodes.len())).map(|node| node.id);
        let lead = MemberRequest::Lead(NewLeader { group: self.group(), to });
        let asked = handle.ask(Request::Membership(lead), HAND_OVER_WITHIN_MS);
        drop(runtime::spawn_at(node.id, asked));
    }

    fn fail_disk(&mut self, place: usize, how: Failing, blow: &Blow) {
        let Some(node) = self.nodes.get(place) else { return };
        self.note(blow, place);
        node.disk().fail(how);
        self.due.push((elapsed() + blow.lasts, Relief::Mend(place)));
    }

    /// Waits until the node has written what it has not synced, and then a moment.
    async fn ambush(&self, place: usize, moment: Duration) {
        let end = elapsed() + AMBUSH;
        while self.nodes.get(place).is_some_and(|node| !node.disk().is_unsynced()) {
            if elapsed() >= end {
                return;
            }
            SimRuntime::sleep(AMBUSH_STEP).await;
        }
        SimRuntime::sleep(moment).await;
    }

    fn crash(&mut self, place: usize, blow: &Blow) {
        if self.nodes.get(place).is_none_or(|node| !node.lives()) {
            return;
        }
        self.note(blow, place);
        if let Some(node) = self.nodes.get_mut(place) {
            node.crash();
        }
        self.due.push((elapsed() + blow.lasts, Relief::Boot(place)));
    }

    /// The ways that a cut of this shape at this node takes.
    pub(crate) fn ways(&self, place: usize, shape: Shape) -> Vec<(NodeId, NodeId)> {
        let ids: Vec<NodeId> = self.nodes.iter().map(|node| node.id).collect();
        let Some(node) = ids.get(place).copied() else { return Vec::new() };
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
