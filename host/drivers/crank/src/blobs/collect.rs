//! Content that nobody needs any more goes, on each node by itself.
//!
//! The store is walked folder by folder. What no record of this node's view refers
//! to is a *suspect*, from when it was first seen so; storing it again clears it. A
//! suspect of `GRACE` is named to the kernel, which asks the leader, and what the
//! leader knows of no use for either is dropped, unless it was cleared meanwhile.
//!
//! An upload precedes the task that refers to it, and an agent's output its
//! completion. So long as that follows within `GRACE`, nothing acknowledged is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant, Select2};
use quorate_kernel::io::Input;
use quorate_types::{Digest, Disk, Wire};

use super::BlobExchange;
use crate::crank::Parts;

/// From a blob's upload, or from the end of its last use, until it may go.
pub(super) const GRACE: Duration = Duration::from_secs(3600);
/// One folder of 256 is looked at this often: the whole store in seventeen minutes.
const STEP: Duration = Duration::from_secs(4);
/// Blobs named to the kernel at once: 8 KiB of digests. What is beyond waits for the next walk.
pub(super) const RIPE_MAX: usize = 256;
/// Whoever stores what is being dropped looks again after this span.
const DROPPING_POLL: Duration = Duration::from_millis(1);

/// Blobs here that seem unused. As many as there is garbage, at 40 B each.
#[derive(Debug)]
pub(super) struct Suspects<I> {
    since: BTreeMap<Digest, I>,
    /// Those that are being removed at this moment.
    dropping: BTreeSet<Digest>,
}

impl<I> Default for Suspects<I> {
    fn default() -> Self {
        Self { since: BTreeMap::new(), dropping: BTreeSet::new() }
    }
}

impl<I: Instant> Suspects<I> {
    /// The unused blobs of one folder, as just seen; gives those that have been so for long.
    fn seen(&mut self, now: I, folder: u8, unused: &BTreeSet<Digest>) -> Vec<Digest> {
        let (mut first, mut last) = ([0; 32], [u8::MAX; 32]);
        (first[0], last[0]) = (folder, folder);
        let known = self.since.range(Digest(first)..=Digest(last));
        let cleared: Vec<Digest> =
            known.map(|(blob, _since)| *blob).filter(|blob| !unused.contains(blob)).collect();
        for blob in cleared {
            self.since.remove(&blob);
        }
        for blob in unused {
            self.since.entry(*blob).or_insert(now);
        }
        unused.iter().copied().filter(|blob| self.is_ripe(now, blob)).take(RIPE_MAX).collect()
    }

    fn is_ripe(&self, now: I, blob: &Digest) -> bool {
        self.since.get(blob).is_some_and(|since| now.saturating_duration_since(*since) >= GRACE)
    }

    /// It is about to be stored; false while it is being dropped.
    fn clear(&mut self, blob: &Digest) -> bool {
        self.since.remove(blob);
        !self.dropping.contains(blob)
    }
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> BlobExchange<RT, D, W> {
    /// Looks at one folder of the store: which of its blobs have seemed unused for `GRACE`.
    pub(crate) async fn ripe(&self, folder: u8, refers: impl Fn(&Digest) -> bool) -> Vec<Digest> {
        let here = match self.0.store.list_folder(folder).await {
            Ok(here) => here,
            Err(error) => {
                tracing::warn!(folder, %error, "a folder of blobs cannot be listed");
                return Vec::new();
            }
        };
        let unused: BTreeSet<Digest> = here.into_iter().filter(|blob| !refers(blob)).collect();
        self.lock().suspects.seen(<RT::Instant as Instant>::now(), folder, &unused)
    }

    /// Drops those that are still suspects of `GRACE`: what was stored again meanwhile is none.
    pub(crate) async fn drop_unused(&self, blobs: Vec<Digest>) {
        for blob in blobs {
            let now = <RT::Instant as Instant>::now();
            {
                let suspects = &mut self.lock().suspects;
                if !suspects.is_ripe(now, &blob) {
                    continue;
                }
                suspects.since.remove(&blob);
                suspects.dropping.insert(blob);
            }
            match self.0.store.remove(blob).await {
                Ok(_was_here) => tracing::debug!(node = %self.0.node, %blob, "unused; dropped"),
                Err(error) => tracing::warn!(%blob, %error, "a blob cannot be dropped"),
            }
            self.lock().suspects.dropping.remove(&blob);
        }
    }

    /// Clears a blob of suspicion, before it is stored.
    pub(super) async fn clear(&self, blob: Digest) {
        while !self.lock().suspects.clear(&blob) {
            RT::sleep(DROPPING_POLL).await;
        }
    }
}

/// Walks the store until the kernel's loop, which holds the other end of `ended`, is gone: at
/// once, since what it has of the node keeps the data directory in use.
pub(crate) async fn walk<RT: AsyncRuntime, D: Disk, W: Wire>(
    parts: Parts<RT, D, W>,
    mut ended: impl Future + Send + Unpin,
) {
    let mut folder = 0_u8;
    loop {
        let step = RT::select2(&mut ended, RT::sleep(STEP)).await;
        let inputs = &parts.mailbox.inputs;
        if matches!(step, Select2::First(_)) || inputs.is_closed() {
            break;
        }
        let view = parts.groups.views();
        let ripe = parts.blobs.ripe(folder, |blob| view.refers_to(blob)).await;
        folder = folder.wrapping_add(1);
        if !ripe.is_empty() && inputs.push(Input::Unused(ripe)).is_err() {
            tracing::debug!("the kernel's mailbox is full; unused blobs stay until the next walk");
        }
    }
}

#[cfg(test)]
mod tests;
