//! A node's groups: one Raft instance each, over one log.

use std::sync::Arc;

use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use quorate_ledger::{Ledger, Views};
use quorate_raft::{GroupStatus, Raft, group_of};
use quorate_types::{Disk, Gone, GroupId, Lane, Layout, NodeId};

/// The groups of a node, by number. Clones are the same groups.
pub struct Groups<RT: AsyncRuntime, D: Disk> {
    layout: Layout,
    rafts: Arc<Vec<Raft<RT, D>>>,
}

impl<RT: AsyncRuntime, D: Disk> Clone for Groups<RT, D> {
    fn clone(&self) -> Self {
        Self { layout: self.layout, rafts: Arc::clone(&self.rafts) }
    }
}

impl<RT: AsyncRuntime, D: Disk> Groups<RT, D> {
    /// One Raft instance for each group of the layout, in order.
    pub fn new(layout: Layout, rafts: Vec<Raft<RT, D>>) -> Self {
        assert_eq!(rafts.len(), layout.groups().count(), "one for each group");
        Self { layout, rafts: Arc::new(rafts) }
    }

    /// How the groups share the work.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// A group; none where it is not of the layout.
    pub fn get(&self, group: GroupId) -> Option<&Raft<RT, D>> {
        self.rafts.get(usize::try_from(group.0).ok()?)
    }

    /// All of them, the system group first.
    pub fn iter(&self) -> impl Iterator<Item = &Raft<RT, D>> {
        self.rafts.iter()
    }

    /// The newest applied state of each.
    pub fn views(&self) -> Views {
        let mut views = Views::new(self.layout);
        for (group, raft) in self.layout.groups().zip(self.iter()) {
            views.set(group, raft.view());
        }
        views
    }

    /// A group's newest applied state. The group is of the layout.
    pub fn view(&self, group: GroupId) -> Arc<Ledger> {
        let Some(raft) = self.get(group) else { unreachable!("{group} is not of the layout") };
        raft.view()
    }

    /// How each stands on this node.
    pub fn statuses(&self) -> Vec<GroupStatus> {
        self.iter().map(Raft::status).collect()
    }

    /// Takes a frame of the lanes append, vote or snapshot to its group.
    pub async fn deliver(&self, from: NodeId, lane: Lane, frame: Bytes) {
        match group_of(&frame).and_then(|group| self.get(group)) {
            Some(raft) => raft.deliver(from, lane, frame).await,
            None => tracing::warn!(%from, ?lane, "a frame of no group of this cluster is dropped"),
        }
    }

    pub(crate) fn peer_up(&self, peer: NodeId) {
        self.iter().for_each(|raft| raft.peer_up(peer));
    }

    pub(crate) fn peer_gone(&self, peer: NodeId, gone: Gone) {
        self.iter().for_each(|raft| raft.peer_gone(peer, gone));
    }

    /// Ends all of them in order, at once.
    pub async fn shutdown(&self) {
        futures::future::join_all(self.iter().map(Raft::shutdown)).await;
    }
}
