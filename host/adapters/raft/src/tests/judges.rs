//! What must hold at every moment, whatever happens: each judge notes what it
//! sees and complains of what must not be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use openraft_rt::{AsyncRuntime, Watch, WatchSender};
use quorate_ledger::Ledger;
use quorate_types::{Digest, EventKind, GroupId, Index, NodeId, Term};

use crate::observer::Observer;
use crate::types::locked;

/// Over all nodes and all their lives.
#[derive(Default)]
pub(super) struct Judges {
    complaints: Vec<String>,
    leaders: BTreeMap<Term, NodeId>,
    digests: BTreeMap<Index, Digest>,
}

impl Judges {
    /// Raft paper, figure 3: at most one leader a term.
    fn leader(&mut self, term: Term, leader: NodeId) {
        let first = *self.leaders.entry(term).or_insert(leader);
        if first != leader {
            self.complaints.push(format!("{first} and {leader} both lead term {term}"));
        }
    }

    /// Equal prefixes make equal states.
    fn state(&mut self, node: NodeId, view: &Ledger) {
        let (index, digest) = (view.index(), view.digest());
        let first = *self.digests.entry(index).or_insert(digest);
        if first != digest {
            self.complaints.push(format!("{node} has another state at {index}"));
        }
    }

    pub(super) fn complain(&mut self, what: String) {
        self.complaints.push(what);
    }

    pub(super) fn complaints(&self) -> &[String] {
        &self.complaints
    }
}

/// What one life of a node was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) applied: Index,
    pub(super) restored: Vec<Index>,
    pub(super) leadership: Vec<(Option<NodeId>, Term)>,
    pub(super) failed: Vec<String>,
    pub(super) events: usize,
}

/// One life's observer.
pub(super) struct Witness<RT: AsyncRuntime> {
    pub(super) node: NodeId,
    pub(super) told: Mutex<Told>,
    pub(super) judges: Arc<Mutex<Judges>>,
    /// Rung at every change, for whoever waits for one.
    pub(super) bell: Mutex<<RT::Watch as Watch>::Sender<u64>>,
}

impl<RT: AsyncRuntime> Witness<RT> {
    fn ring(&self) {
        locked(&self.bell).send_if_modified(|rung| {
            *rung += 1;
            true
        });
    }
}

impl<RT: AsyncRuntime> Observer for Witness<RT> {
    fn applied(&self, _group: GroupId, index: Index, events: &[EventKind], view: &Arc<Ledger>) {
        let mut told = locked(&self.told);
        let mut judges = locked(&self.judges);
        if index <= told.applied {
            judges.complain(format!("{} was told {index} after {}", self.node, told.applied));
        }
        told.applied = index;
        told.events += events.len();
        judges.state(self.node, view);
        drop((told, judges));
        self.ring();
    }

    fn restored(&self, _group: GroupId, index: Index, view: &Arc<Ledger>) {
        let mut told = locked(&self.told);
        told.applied = index;
        told.restored.push(index);
        locked(&self.judges).state(self.node, view);
        drop(told);
        self.ring();
    }

    fn leadership(&self, _group: GroupId, leader: Option<NodeId>, term: Term) {
        locked(&self.told).leadership.push((leader, term));
        if let Some(leader) = leader {
            locked(&self.judges).leader(term, leader);
        }
        self.ring();
    }

    fn failed(&self, _group: GroupId, reason: String) {
        locked(&self.told).failed.push(reason);
        self.ring();
    }
}
