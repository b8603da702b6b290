//! Who is of which era. Nodes of one era meet as admission says; of two eras with
//! one behind the other, the earlier one is refused and told so, for good; of two
//! that parted from one before, neither is, and they have nothing to say to each
//! other.

use std::collections::BTreeSet;

use quorate_storage::{DataDir, Life, Verdict};
use quorate_types::{Disk, Era, NodeId, Wire};

use super::word::Word;
use super::{AdmissionError, Desk, lock};

/// The eras of this node and of those whom it has met.
pub(super) struct Eras {
    own: Option<Era>,
    /// Peers of another one.
    others: BTreeSet<NodeId>,
}

impl Eras {
    pub(super) fn new(own: Option<Era>) -> Self {
        Self { own, others: BTreeSet::new() }
    }

    pub(super) fn own(&self) -> Option<Era> {
        self.own
    }

    /// Notes a peer's; both where they are two, and whether that was not known.
    fn meet(&mut self, peer: NodeId, theirs: Option<Era>) -> Option<(Era, Era, bool)> {
        match (self.own, theirs) {
            (Some(own), Some(theirs)) if own != theirs => {
                Some((own, theirs, self.others.insert(peer)))
            }
            // One that joins has learned none yet.
            (_, _) => {
                self.others.remove(&peer);
                None
            }
        }
    }
}

impl<D: Disk, W: Wire> Desk<D, W> {
    /// The era of this node's directory; the first where it has learned none yet.
    pub(crate) fn era(&self) -> Era {
        lock(&self.0.eras).own().unwrap_or_default()
    }

    pub(super) fn is_of_other_era(&self, peer: NodeId) -> bool {
        lock(&self.0.eras).others.contains(&peer)
    }

    /// Whether a peer that presents itself is of this era; one of an earlier is told.
    pub(super) fn meets(&self, from: NodeId, era: Option<Era>, claim: Life) -> bool {
        let Some((own, theirs, is_news)) = lock(&self.0.eras).meet(from, era) else { return true };
        self.0.accepted.send_if_modified(|accepted| accepted.remove(&from));
        let parted = theirs.number == own.number;
        if is_news && parted {
            tracing::error!(
                peer = %from, %theirs, %own,
                "a member goes on in another era that began from the same one: the cluster was \
                 begun anew twice. Decide which one counts, stop the nodes of the other for good"
            );
        } else if is_news {
            tracing::warn!(peer = %from, %theirs, %own, "a member is of another era of the cluster");
        }
        if theirs.number < own.number {
            let (boot, verdict) = (claim.boot, Verdict::OtherEra);
            self.0.say(from, Word::Heard { boot, verdict, known: claim });
        }
        false
    }

    /// Whether this node is of the era of one who has accepted it. One that joins learns it.
    pub(super) async fn learns(&self, era: Option<Era>) -> bool {
        let own = lock(&self.0.eras).own();
        match (own, era) {
            (Some(own), Some(era)) => own == era,
            (Some(_), None) | (None, None) => true,
            (None, Some(era)) => {
                let directories = self.0.directories.lock().await;
                if let Err(error) = DataDir::learn_era(directories.disk(), era).await {
                    tracing::error!(%error, %era, "the cluster's era was not kept; it is asked again");
                    return false;
                }
                tracing::info!(%era, "this node joins the cluster in its era");
                lock(&self.0.eras).own = Some(era);
                true
            }
        }
    }

    /// A peer says that it is of a later era.
    pub(super) fn is_outlived(&self, witness: NodeId, era: Option<Era>) {
        let own = lock(&self.0.eras).own();
        if let (Some(own), Some(now)) = (own, era)
            && own.number < now.number
        {
            let node = self.0.own.node;
            self.0.end(AdmissionError::EarlierEra { node, witness, own, now });
        }
    }
}
