//! The nodes of a cluster, those that come later and those that went included.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use quorate_types::NodeId;
use quorate_types::quorum::majority;

use crate::node::{SimHandle, SimNode};
use crate::world::locked;

/// Who there is. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Fleet(Arc<Mutex<Crew>>);

#[derive(Default)]
struct Crew {
    nodes: Vec<SimNode>,
    /// Sets of voters that are in force, or may be: each keeps a majority that has lost nothing.
    sets: Vec<BTreeSet<NodeId>>,
}

impl Fleet {
    /// A cluster begins with these, each with a vote.
    pub(crate) fn new(nodes: Vec<SimNode>) -> Self {
        let sets = vec![nodes.iter().map(|node| node.id).collect()];
        Self(Arc::new(Mutex::new(Crew { nodes, sets })))
    }

    /// One more.
    pub(crate) fn add(&self, node: SimNode) {
        locked(&self.0).nodes.push(node);
    }

    /// Its power goes for good.
    pub(crate) fn remove(&self, id: NodeId) {
        let mut crew = locked(&self.0);
        if let Some(place) = crew.nodes.iter().position(|node| node.id == id) {
            crew.nodes.remove(place).crash();
        }
    }

    /// All of them, in the order in which they came.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        locked(&self.0).nodes.iter().map(|node| node.id).collect()
    }

    /// Those of which this holds.
    pub(crate) fn those(&self, of: impl Fn(&SimNode) -> bool) -> BTreeSet<NodeId> {
        locked(&self.0).nodes.iter().filter(|node| of(node)).map(|node| node.id).collect()
    }

    /// Does something with one of them, if it is there.
    pub(crate) fn on<T>(&self, id: NodeId, act: impl FnOnce(&mut SimNode) -> T) -> Option<T> {
        locked(&self.0).nodes.iter_mut().find(|node| node.id == id).map(act)
    }

    /// Does something with each.
    pub(crate) fn each(&self, act: impl FnMut(&mut SimNode)) {
        locked(&self.0).nodes.iter_mut().for_each(act);
    }

    /// The doors that are open.
    pub(crate) fn doors(&self) -> Vec<(NodeId, Option<SimHandle>)> {
        locked(&self.0).nodes.iter().map(|node| (node.id, node.handle())).collect()
    }

    /// From now on, or soon, these sets have a say, and no others.
    pub(crate) fn set_voters(&self, sets: Vec<BTreeSet<NodeId>>) {
        locked(&self.0).sets = sets;
    }

    /// Whether a node may lose for good what it had: what a minority loses a majority keeps.
    pub(crate) fn may_lose(&self, id: NodeId) -> bool {
        let crew = locked(&self.0);
        let is_lost = |other: &NodeId| {
            let node = crew.nodes.iter().find(|node| node.id == *other);
            *other == id || node.is_none_or(SimNode::has_lost)
        };
        crew.sets.iter().all(|set| {
            let lost = set.iter().filter(|other| is_lost(other)).count();
            lost == 0 || lost <= set.len() - majority(set.len())
        })
    }
}
