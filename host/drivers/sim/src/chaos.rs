//! What befalls a cluster: power losses of one node or of all, at any moment or
//! just while something is not yet on the disk; cuts both ways and one way.

use std::time::Duration;

use openraft_rt::{AsyncRuntime as _, Instant as _};
use openraft_rt_sim::{SimInstant, SimRuntime};
use quorate_types::NodeId;
use quorate_types::rng::Rng;

use crate::node::{SimNode, Site};

/// Unsynced writes are waited for so long; a quiet node has none.
const AMBUSH: Duration = Duration::from_millis(300);
const AMBUSH_STEP: Duration = Duration::from_micros(100);

enum Relief {
    Boot(usize),
    Heal,
}

/// Plays a seed's faults until `until` has passed or a judge has complained.
pub(crate) struct Chaos {
    site: Site,
    nodes: Vec<SimNode>,
    rng: Rng,
    due: Vec<(SimInstant, Relief)>,
}

impl Chaos {
    pub(crate) fn new(site: Site, nodes: Vec<SimNode>, rng: Rng) -> Self {
        Self { site, nodes, rng, due: Vec::new() }
    }

    pub(crate) async fn play(&mut self, until: Duration) {
        let end = SimInstant::now() + until;
        let gap_ms = self.site.knobs.gap_ms;
        let mut next = self.after(200, gap_ms);
        while SimInstant::now() < end && !self.site.world.has_complaints() {
            let relief = self.due.iter().map(|(at, _)| *at).min();
            let wake = relief.map_or(next, |at| at.min(next)).min(end);
            SimRuntime::sleep_until(wake).await;
            self.relieve().await;
            if SimInstant::now() >= next {
                self.strike().await;
                next = self.after(50, 2 * gap_ms);
            }
        }
    }

    /// Everything is put right again.
    pub(crate) async fn heal(&mut self) {
        self.site.mesh.clear_up();
        self.site.mesh.heal().await;
        for node in &mut self.nodes {
            if !node.lives() {
                node.boot().await;
            }
        }
    }

    pub(crate) fn nodes(&self) -> &[SimNode] {
        &self.nodes
    }

    pub(crate) fn end(&mut self) {
        self.nodes.iter_mut().for_each(SimNode::crash);
    }

    fn after(&mut self, least_ms: u64, spread_ms: u64) -> SimInstant {
        SimInstant::now() + Duration::from_millis(least_ms + self.rng.below(spread_ms))
    }

    async fn relieve(&mut self) {
        let now = SimInstant::now();
        while let Some(at) = self.due.iter().position(|(at, _)| *at <= now) {
            match self.due.remove(at).1 {
                Relief::Heal => self.site.mesh.heal().await,
                Relief::Boot(place) => {
                    if let Some(node) = self.nodes.get_mut(place)
                        && !node.lives()
                    {
                        node.boot().await;
                    }
                }
            }
        }
    }

    async fn strike(&mut self) {
        let any = self.any();
        let leader = self.nodes.iter().position(SimNode::leads).unwrap_or(any);
        match self.rng.below(10) {
            0 => self.crash(any, 2_000),
            1 => self.crash(leader, 2_000),
            2 | 3 => {
                self.ambush(leader).await;
                self.crash(leader, 60);
            }
            4 => {
                self.ambush(any).await;
                self.crash(any, 60);
            }
            5 | 6 => {
                self.ambush(leader).await;
                for place in 0..self.nodes.len() {
                    self.crash(place, 100);
                }
            }
            7 => self.isolate(any),
            8 => self.isolate(leader),
            _ => self.deafen(any),
        }
    }

    fn any(&mut self) -> usize {
        let count = u64::try_from(self.nodes.len()).unwrap_or(1);
        usize::try_from(self.rng.below(count)).unwrap_or(0)
    }

    /// Waits until the node has written what it has not synced, and then a moment.
    async fn ambush(&mut self, place: usize) {
        let end = SimInstant::now() + AMBUSH;
        while self.nodes.get(place).is_some_and(|node| !node.disk().is_unsynced()) {
            if SimInstant::now() >= end {
                return;
            }
            SimRuntime::sleep(AMBUSH_STEP).await;
        }
        let moment_us = self.rng.below(self.site.knobs.sync_us_max);
        SimRuntime::sleep(Duration::from_micros(moment_us)).await;
    }

    fn crash(&mut self, place: usize, down_ms_max: u64) {
        let back = self.after(5, down_ms_max);
        let Some(node) = self.nodes.get_mut(place) else { return };
        if node.lives() {
            self.site.world.fault(&format!("{} loses power", node.id), 1);
            node.crash();
            self.due.push((back, Relief::Boot(place)));
        }
    }

    fn isolate(&mut self, place: usize) {
        let Some((node, others)) = self.split(place) else { return };
        let pairs: Vec<_> =
            others.iter().flat_map(|other| [(node, *other), (*other, node)]).collect();
        self.site.world.fault(&format!("{node} is cut off"), 1);
        self.site.mesh.cut(&pairs);
        let back = self.after(100, 5_000);
        self.due.push((back, Relief::Heal));
    }

    fn deafen(&mut self, place: usize) {
        let Some((node, others)) = self.split(place) else { return };
        let pairs: Vec<_> = others.iter().map(|other| (*other, node)).collect();
        self.site.world.fault(&format!("{node} hears nobody"), 1);
        self.site.mesh.cut(&pairs);
        let back = self.after(100, 5_000);
        self.due.push((back, Relief::Heal));
    }

    fn split(&self, place: usize) -> Option<(NodeId, Vec<NodeId>)> {
        let node = self.nodes.get(place)?.id;
        let others = self.nodes.iter().map(|node| node.id).filter(|id| *id != node).collect();
        Some((node, others))
    }
}
