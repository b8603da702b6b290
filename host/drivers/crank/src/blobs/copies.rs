//! Copies that went with who kept them are made again.
//!
//! What was acknowledged is on two *keepers*, the voters of the system group: a node
//! loses its vote before it leaves for good, and those that follow without one come
//! and go. When a keeper is one no more, and when a node begins, each node looks at
//! every blob that it has: who else keeps it is asked, and what too few keep is
//! offered until enough do. A keeper that leaves does so as well, for as long as it
//! is there. The blobs of a node that nobody has yet taken are asked for again every
//! [`AGAIN`].

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft_rt::AsyncRuntime;
use quorate_types::{Digest, Disk, NodeId, Refusal, Wire};

use super::{ANSWER_WITHIN, Answer, BlobExchange, Frame, Shared};

/// What could not be spread is tried again after this span.
const AGAIN: Duration = Duration::from_millis(500);
/// Who asks whether a node may leave waits so long at a time,
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// looking this often.
const LEAVE_POLL: Duration = Duration::from_millis(10);
/// Beyond every blob's end: who has it says how long it is and sends nothing of it.
const BEYOND: u64 = u64::MAX;

/// Who keeps content, as this node knows.
#[derive(Debug, Default)]
pub(super) struct Keepers {
    /// Empty before the log has told.
    pub(super) nodes: BTreeSet<NodeId>,
    /// Counts changes that may have cost copies: an older walk ends.
    round: u64,
    /// The last round whose walk has found all safe.
    safe: u64,
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> BlobExchange<RT, D, W> {
    /// These keep content from now on. What too few of them have is spread, in the background.
    pub(crate) fn set_keepers(&self, nodes: BTreeSet<NodeId>) {
        let round = {
            let keepers = &mut self.lock().keepers;
            let lost = keepers.nodes.is_empty() || !keepers.nodes.is_subset(&nodes);
            keepers.nodes = nodes;
            if !lost {
                return;
            }
            keepers.round += 1;
            keepers.round
        };
        drop(RT::spawn(walk(Arc::downgrade(&self.0), round)));
    }

    /// Returns when all content that this node has is kept by enough others, who keep theirs without
    /// it: then it may be removed.
    pub(crate) async fn leave(&self) -> Result<(), Refusal> {
        let is_over = || {
            let keepers = &self.lock().keepers;
            !keepers.nodes.is_empty()
                && !keepers.nodes.contains(&self.0.node)
                && keepers.safe == keepers.round
        };
        let mut waited = Duration::ZERO;
        while !is_over() {
            if waited >= LEAVE_WITHIN {
                let what = "not all of it has been copied yet; try again";
                return Err(Refusal::Conflict(what.to_owned()));
            }
            waited += LEAVE_POLL;
            RT::sleep(LEAVE_POLL).await;
        }
        Ok(())
    }

    /// The node ends: nothing is spread any more.
    pub(crate) fn end_walks(&self) {
        self.lock().keepers.round += 1;
    }

    /// Makes sure that enough keepers have it; whether they do, as far as could be asked.
    async fn spread(&self, digest: Digest) -> bool {
        let wanted = self.copies_wanted();
        let mut copies = usize::from(self.keeps(self.0.node));
        let mut lack = Vec::new();
        for peer in self.keepers_for(digest) {
            if copies >= wanted {
                return true;
            }
            let ask = |id| Frame::Get { id, digest, offset: BEYOND };
            match self.ask(peer, ANSWER_WITHIN, ask).await {
                Answer::Part { .. } => copies += 1,
                Answer::Absent | Answer::Stored | Answer::Refused(_) => lack.push(peer),
            }
        }
        if copies >= wanted {
            return true;
        }
        let content = match self.here(digest).await {
            Ok(Some(content)) => content,
            // Dropped meanwhile.
            Ok(None) => return true,
            Err(error) => {
                tracing::warn!(%digest, %error, "content that too few have cannot be read");
                return true;
            }
        };
        for peer in lack {
            if copies >= wanted {
                break;
            }
            if let Answer::Stored = self.offer(peer, digest, &content).await {
                tracing::debug!(%peer, %digest, "another copy was made");
                copies += 1;
            }
        }
        copies >= wanted
    }
}

/// Looks at every blob of a node, and then at those that too few have, until all are safe, another
/// round begins, or the node is gone.
async fn walk<RT: AsyncRuntime, D: Disk, W: Wire>(node: Weak<Shared<RT, D, W>>, round: u64) {
    let current = || {
        let exchange = BlobExchange(node.upgrade()?);
        let is_current = exchange.lock().keepers.round == round;
        is_current.then_some(exchange)
    };
    let mut short = Vec::new();
    for folder in 0..=u8::MAX {
        let Some(exchange) = current() else { return };
        match exchange.0.store.list_folder(folder).await {
            Ok(blobs) => short.extend(spread_all(&current, blobs).await),
            Err(error) => tracing::warn!(folder, %error, "a folder of blobs cannot be listed"),
        }
    }
    while !short.is_empty() {
        RT::sleep(AGAIN).await;
        short = spread_all(&current, short).await;
    }
    if let Some(exchange) = current() {
        exchange.lock().keepers.safe = round;
    }
}

/// Of these blobs, those that too few have afterwards.
async fn spread_all<RT: AsyncRuntime, D: Disk, W: Wire>(
    current: &impl Fn() -> Option<BlobExchange<RT, D, W>>,
    blobs: Vec<Digest>,
) -> Vec<Digest> {
    let mut short = Vec::new();
    for blob in blobs {
        let Some(exchange) = current() else { return Vec::new() };
        if !exchange.spread(blob).await {
            short.push(blob);
        }
    }
    short
}
