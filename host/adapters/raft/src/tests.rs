//! Whole groups in one process: the same scenarios on tokio and under a seed.

mod cluster;
mod full_disk;
mod judges;
mod load;
mod members;
mod mesh;
mod scenarios;
mod seeds;
mod slow_disk;
mod suite;

use std::sync::Arc;

use quorate_ledger::Ledger;
use quorate_types::{EventKind, GroupId, Index, NodeId, Term};

use crate::observer::Observer;

/// Hears nothing.
pub(crate) struct Deaf;

impl Observer for Deaf {
    fn applied(&self, _: GroupId, _: Index, _: &[EventKind], _: &Arc<Ledger>) {}
    fn leadership(&self, _: GroupId, _: Option<NodeId>, _: Term) {}
    fn failed(&self, _: GroupId, _: String) {}
}
