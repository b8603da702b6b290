//! Blobs that no record refers to. A node sees by its own view which of its blobs
//! seem unused; that view may be old, so before one goes the node waits until it has
//! applied every task that was acknowledged before it asked itself.

use std::time::Duration;

use quorate_types::Digest;

use crate::asks::{Origin, Own, Target};
use crate::frame::{Done, Errand, Setback};
use crate::io::{Effect, Now};
use crate::kernel::Kernel;

/// Without an answer within this span the blobs stay; they are found again at the next look.
const WITHIN: Duration = Duration::from_secs(10);

impl Kernel {
    /// Blobs of this node that have seemed unused for long enough.
    pub(crate) fn ask_unused(&mut self, now: Now, blobs: Vec<Digest>) {
        let errand = Errand::Unused(blobs);
        let here = Target::Node(self.config.node);
        self.begin(now, Origin::Own(Own::Collect), here, errand, WITHIN);
    }

    /// Which of them no record refers to, once this node's view is recent enough.
    pub(crate) fn read_unused(&self, blobs: &[Digest]) -> Done {
        let unused = blobs.iter().filter(|blob| !self.view.refers_to(blob));
        Done::Unused(unused.copied().collect())
    }

    pub(crate) fn unused_answered(&mut self, result: Result<Done, Setback>) {
        match result {
            Ok(Done::Unused(blobs)) => {
                if !blobs.is_empty() {
                    self.effects.push_back(Effect::DropBlobs(blobs));
                }
            }
            other @ (Ok(Done::Door(_) | Done::NodeUp(_) | Done::Barrier(_)) | Err(_)) => {
                tracing::debug!(?other, "nobody says which blobs are unused; they stay");
            }
        }
    }
}
