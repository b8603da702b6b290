//! Whether this node may vote from its data directory.
//!
//! A voter whose directory was emptied, swapped for a new one or never copied has
//! forgotten what it voted and acknowledged, and a second vote in one term, or a
//! missing entry behind an acknowledgement, loses what others were promised. It
//! cannot know that by itself. So each node keeps for good which directory every
//! other one first came with ([`Directories`]), and a node with a directory that
//! was not admitted yet asks before its log starts:
//!
//! * Whoever is asked enters the directory durably if the asker is new to it, and
//!   answers with the one it holds. Another one than the asker's is a refusal.
//! * The asker begins to vote when enough others, [`witnesses`], hold its
//!   directory: so many that every quorum it ever stood in has one of them.
//!
//! The first start of a cluster therefore waits for that many of its voters (all
//! three of three); every later start of a node asks nobody. Words are short frames
//! on the lane `Control` with a head of their own: the kernel's begin with CBOR.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use quorate_storage::{Directories, DirectoryId, DiskError};
use quorate_types::quorum::majority;
use quorate_types::{Disk, Inbox, Lane, NodeId, Wire, WireEvent};
use tokio::sync::{Mutex, watch};

/// Words may be lost, and peers come when they come.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How often whoever reads the log is told what this node waits for.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Names frames of this room and their version. CBOR reads its first byte as a text of four bytes.
const HEAD: [u8; 4] = *b"dir1";
const FRAME_BYTES: usize = HEAD.len() + 1 + 16;

/// Why a node may not vote.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// It voted from another directory before.
    #[error(
        "node {node} has voted from the directory {known}, as node {witness} remembers, and this \
         one is {own}: what it promised there is not known here, so it must not vote again. Put \
         the old directory back under `data_dir`, or leave this node stopped: the others serve as \
         long as a majority of the members runs"
    )]
    VotedElsewhere {
        /// This node.
        node: NodeId,
        /// Who says so.
        witness: NodeId,
        /// The directory that it voted from.
        known: DirectoryId,
        /// The one that it has now.
        own: DirectoryId,
    },
    /// That it was admitted could not be kept.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// How many other voters must hold a voter's directory before it votes: all but a majority less
/// one, so that each quorum which it stands in has one of them besides itself.
const fn witnesses(voters: usize) -> usize {
    // Alone it is its own quorum, and nobody remembers it.
    if voters <= 1 { 0 } else { voters + 1 - majority(voters) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// This is my directory: may I vote from it?
    Ask(DirectoryId),
    /// This is the directory that you vote from.
    Known(DirectoryId),
}

impl Word {
    fn write(self) -> Bytes {
        let (kind, directory) = match self {
            Self::Ask(directory) => (b'?', directory),
            Self::Known(directory) => (b'!', directory),
        };
        [&HEAD[..], &[kind], &directory.0].concat().into()
    }

    fn read(frame: &[u8]) -> Option<Self> {
        let (kind, directory) = frame.strip_prefix(&HEAD)?.split_first()?;
        let directory = DirectoryId(directory.try_into().ok()?);
        match kind {
            b'?' => Some(Self::Ask(directory)),
            b'!' => Some(Self::Known(directory)),
            _unknown => None,
        }
    }
}

/// Answers others, and asks them for this node. Clones share it.
pub(crate) struct Desk<D, W>(Arc<Inner<D, W>>);

struct Inner<D, W> {
    directories: Mutex<Directories<D>>,
    wire: OnceLock<W>,
    /// Which directory each of the others holds this node to vote from.
    held: watch::Sender<BTreeMap<NodeId, DirectoryId>>,
}

impl<D, W> Clone for Desk<D, W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Disk, W: Wire> Desk<D, W> {
    pub(crate) fn new(directories: Directories<D>) -> Self {
        let held = watch::Sender::default();
        Self(Arc::new(Inner { directories: Mutex::new(directories), wire: OnceLock::new(), held }))
    }

    /// The wire is there. Until then nobody is answered, and asks again.
    pub(crate) fn open(&self, wire: W) {
        assert!(self.0.wire.set(wire).is_ok(), "a node has one wire");
    }

    /// Returns once this node may vote from `own`; waits for as long as too few others answer.
    pub(crate) async fn admit(
        &self,
        node: NodeId,
        own: DirectoryId,
        voters: &BTreeSet<NodeId>,
    ) -> Result<(), AdmissionError> {
        if self.0.directories.lock().await.of(node) == Some(own) {
            return Ok(());
        }
        let needed = witnesses(voters.len());
        let mut held = self.0.held.subscribe();
        let mut tell = tokio::time::interval(TELL_EVERY);
        // Its first tick is at once: a cluster whose nodes all start needs no remark.
        tell.tick().await;
        loop {
            let missing: Vec<NodeId> = {
                let held = held.borrow_and_update();
                if let Some((witness, known)) = held.iter().find(|(_, known)| **known != own) {
                    let (witness, known) = (*witness, *known);
                    return Err(AdmissionError::VotedElsewhere { node, witness, known, own });
                }
                if held.len() >= needed {
                    break;
                }
                let others = voters.iter().filter(|voter| **voter != node);
                others.filter(|voter| !held.contains_key(voter)).copied().collect()
            };
            for voter in &missing {
                self.say(*voter, Word::Ask(own));
            }
            tokio::select! {
                // An end is not possible while `self` holds the sender.
                _changed = held.changed() => {}
                () = tokio::time::sleep(ASK_EVERY) => {}
                _tick = tell.tick() => tracing::info!(
                    %node, directory = %own, ?missing, needed,
                    "waits for other members before it votes from a new data directory"
                ),
            }
        }
        self.0.directories.lock().await.settle(node, own).await?;
        tracing::info!(%node, directory = %own, "may vote from its data directory");
        Ok(())
    }

    async fn hear(&self, from: NodeId, word: Word) {
        match word {
            Word::Ask(claimed) => {
                match self.0.directories.lock().await.settle(from, claimed).await {
                    Ok(known) => {
                        if known != claimed {
                            tracing::warn!(
                                node = %from, %known, %claimed,
                                "a member came back with another data directory and must not vote"
                            );
                        }
                        self.say(from, Word::Known(known));
                    }
                    // It asks again; the log on the same disk will have failed by then.
                    Err(error) => tracing::error!(%error, "a voter's directory was not kept"),
                }
            }
            Word::Known(directory) => {
                self.0.held.send_modify(|held| {
                    held.insert(from, directory);
                });
            }
        }
    }

    fn say(&self, to: NodeId, word: Word) {
        if let Some(wire) = self.0.wire.get()
            && let Err(error) = wire.send(to, Lane::Control, word.write())
        {
            tracing::debug!(%to, %error, "a word about directories was not taken");
        }
    }
}

/// Takes this room's words out of what arrives, and passes the rest on.
pub(crate) struct Porch<I, D, W> {
    pub(crate) desk: Desk<D, W>,
    pub(crate) inside: I,
}

impl<I: Inbox, D: Disk, W: Wire> Inbox for Porch<I, D, W> {
    async fn deliver(&self, event: WireEvent) {
        if let WireEvent::Frame { from, lane: Lane::Control, frame } = &event
            && frame.len() == FRAME_BYTES
            && let Some(word) = Word::read(frame)
        {
            return self.desk.hear(*from, word).await;
        }
        self.inside.deliver(event).await;
    }
}

#[cfg(test)]
mod tests;
