//! Whether this node may take part from its data directory.
//!
//! A voter whose directory was emptied, swapped for a new one, or put back from a
//! copy has forgotten what it voted and acknowledged, and a second vote in one
//! term, or a missing entry behind an acknowledgement, loses what others were
//! promised. It cannot know that by itself. So each node remembers of every other
//! one which directory it votes from, in which *life* (counted durably at each
//! start) and how far its log was ([`Directories`]), and every node says *here I
//! am* to its peers, at once and then [`SAY_EVERY`]:
//!
//! * A directory that is new to a peer is entered durably. One that is not the
//!   first that came under this node id is refused.
//! * So is an older life, a log that ends before where it once ended, and another
//!   process of the same life: copies of a directory, whichever comes later, and
//!   disks that lost what they had synced. A newer life is accepted when the former
//!   has fallen silent, and refused while both speak.
//! * A node with a new directory begins to vote when enough others, [`witnesses`],
//!   hold it: so many that every quorum it ever stood in has one of them. With a
//!   directory that was admitted before it waits for nobody, but frames of its log
//!   go to and come from those alone who have accepted this life (`fence`).
//! * So is a directory of an earlier *era*: the cluster was begun anew since, from a
//!   backup or from a survivor, and what was promised before binds nobody now. A peer
//!   of a later era is not answered, since it is this node that it will refuse. A node
//!   that joins learns the era from the first that accepts it (`era`).
//! * A refusal ends the process, at its start or later.
//!
//! What this cannot see: a copy that meets only peers which the original did not
//! meet since the copy was made. Two of three nodes would have to be replaced or
//! cut off for that.

mod era;
mod fence;
#[cfg(test)]
mod tests;
mod word;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex as Table, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use quorate_storage::{Directories, DirectoryId, DiskError, Life, Verdict};
use quorate_types::quorum::majority;
use quorate_types::{Disk, Era, Gone, Lane, NodeId, Wire};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

pub(crate) use fence::{Fence, Porch};
use word::{Said, Word};

/// How often a peer that has not answered is told.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How often all are told where this node's log ends.
const SAY_EVERY: Duration = Duration::from_millis(200);
/// A process that was not heard for so long is gone: three words lost in a row.
const SILENT_AFTER: Duration = Duration::from_millis(650);
/// So many words of the former life after the first of the next: they overlap. One may have been
/// on its way.
const OVERLAPPING_WORDS: u32 = 2;
/// How often positions of others are written, at most.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// A node that was admitted before gives others so long to refuse it before it starts.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How often whoever reads the log is told what this node waits for.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Why a node may not take part.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AdmissionError {
    /// It voted from another directory before.
    #[error(
        "node {node} has voted from the directory {known}, as node {witness} remembers, and this \
         one is {own}: what it promised there is not known here, so it must not vote again. Put \
         the old directory back under `data_dir`, or give this node a new id: {}",
        rejoin(.node)
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
    /// Its directory is not what it was.
    #[error(
        "the data directory of node {node} is older than the node: this is its life {} with a log \
         up to {:#x}, and node {witness} has met life {} with a log up to {:#x}. It is an old copy, \
         or its disk lost what it had synced; votes and acknowledged writes may be missing, so it \
         must not take part. Put the newest directory back under `data_dir`, or give this node a \
         new id: {}",
        own.life, own.position, known.life, known.position, rejoin(.node)
    )]
    Behind {
        /// This node.
        node: NodeId,
        /// Who says so.
        witness: NodeId,
        /// What it remembers.
        known: Box<Life>,
        /// What this is.
        own: Box<Life>,
    },
    /// Another process goes on from a copy of its directory.
    #[error(
        "another process runs as node {node} from a copy of this data directory, as node {witness} \
         sees: one of them must not. Stop one for good, remove its copy, and if both shall run \
         give this one a new id: {}",
        rejoin(.node)
    )]
    Elsewhere {
        /// This node.
        node: NodeId,
        /// Who says so.
        witness: NodeId,
    },
    /// The cluster has begun another life without it.
    #[error(
        "the data directory of node {node} is of era {own} of the cluster, which was begun anew as \
         era {now} since, from a backup or from a survivor, as node {witness} says: what this node \
         holds is no part of it any more. Copy `data_dir` aside if something in it may be missed, \
         then empty it, add the node under a number that was never used, `quorate cluster member \
         add NEW@ADDRESS --peer PEER`, and start it with `joins = true` under [node]"
    )]
    EarlierEra {
        /// This node.
        node: NodeId,
        /// Who says so.
        witness: NodeId,
        /// That of its directory.
        own: Era,
        /// The witness's.
        now: Era,
    },
    /// That it was admitted could not be kept.
    #[error("that this node may vote could not be kept: {0}")]
    Disk(Arc<DiskError>),
}

fn rejoin(node: &NodeId) -> String {
    let old = node.0;
    format!(
        "empty `data_dir` and run `quorate cluster member replace {old} NEW@ADDRESS` at any other \
         node, with a number that was never used"
    )
}

/// How many other voters must hold a voter's directory before it votes: all but a majority less
/// one, so that each quorum which it stands in has one of them besides itself.
const fn witnesses(voters: usize) -> usize {
    // Alone it is its own quorum, and nobody remembers it.
    if voters <= 1 { 0 } else { voters + 1 - majority(voters) }
}

/// This node, as it presents itself.
pub(crate) struct Presence {
    pub(crate) node: NodeId,
    pub(crate) directory: DirectoryId,
    pub(crate) life: u64,
    pub(crate) boot: u64,
    /// Its directory's; none where it joins and has learned none.
    pub(crate) era: Option<Era>,
    /// Up to where its log is durable.
    pub(crate) position: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Presence {
    fn life(&self) -> Life {
        let position = (self.position)();
        Life { directory: self.directory, life: self.life, boot: self.boot, position }
    }
}

/// What was heard of a node.
struct Spoken {
    boot: u64,
    at: Instant,
    /// The boot of the next life that has presented itself, and words of this one since.
    next: Option<(u64, u32)>,
}

/// Answers others, and presents this node to them. Clones share it.
pub(crate) struct Desk<D, W>(Arc<Inner<D, W>>);

struct Inner<D, W> {
    own: Presence,
    directories: Mutex<Directories<D>>,
    wire: OnceLock<W>,
    /// Those who have accepted this life.
    accepted: watch::Sender<BTreeSet<NodeId>>,
    refused: OnceLock<AdmissionError>,
    /// Peers that are connected.
    up: Table<BTreeSet<NodeId>>,
    spoken: Table<BTreeMap<NodeId, Spoken>>,
    eras: Table<era::Eras>,
}

impl<D, W> Clone for Desk<D, W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

fn lock<T>(table: &Table<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<D: Disk, W: Wire> Desk<D, W> {
    pub(crate) fn new(own: Presence, directories: Directories<D>) -> Self {
        let eras = Table::new(era::Eras::new(own.era));
        Self(Arc::new(Inner {
            own,
            directories: Mutex::new(directories),
            wire: OnceLock::new(),
            accepted: watch::Sender::default(),
            refused: OnceLock::new(),
            up: Table::default(),
            spoken: Table::default(),
            eras,
        }))
    }

    /// The wire is there. Until then nobody is answered, and asks again. Called within a runtime.
    pub(crate) fn open(&self, wire: W) {
        assert!(self.0.wire.set(wire).is_ok(), "a node has one wire");
        tokio::spawn(present(Arc::downgrade(&self.0)));
    }

    /// Why this node must end, if a peer has refused it.
    pub(crate) fn failure(&self) -> Option<&AdmissionError> {
        self.0.refused.get()
    }

    pub(crate) fn is_accepted_by(&self, peer: NodeId) -> bool {
        self.0.accepted.borrow().contains(&peer)
    }

    /// Returns once this node may vote from its directory. A new one waits for as long as too few
    /// others answer.
    pub(crate) async fn admit(&self, voters: &BTreeSet<NodeId>) -> Result<(), AdmissionError> {
        let (node, own) = (self.0.own.node, self.0.own.life());
        let before = self.0.directories.lock().await.of(node);
        let is_known = before.is_some_and(|before| before.directory == own.directory);
        // With a quorum less itself it can do all that it ever will.
        let quorum = majority(voters.len().max(1)) - 1;
        let needed = if is_known { quorum } else { witnesses(voters.len()) };
        let patience = Instant::now() + ANSWER_WITHIN;
        let mut accepted = self.0.accepted.subscribe();
        let mut tell = tokio::time::interval(TELL_EVERY);
        // Its first tick is at once: a cluster whose nodes all start needs no remark.
        tell.tick().await;
        loop {
            if let Some(refused) = self.failure() {
                return Err(refused.clone());
            }
            let missing: Vec<NodeId> = {
                let accepted = accepted.borrow_and_update();
                if accepted.len() >= needed || (is_known && Instant::now() >= patience) {
                    break;
                }
                let missing = voters.iter().filter(|voter| !accepted.contains(voter));
                missing.filter(|voter| **voter != node).copied().collect()
            };
            for voter in &missing {
                self.0.say(*voter, Word::Here(self.0.own.life()));
            }
            tokio::select! {
                // An end is not possible while `self` holds the sender.
                _changed = accepted.changed() => {}
                () = tokio::time::sleep(ASK_EVERY) => {}
                _tick = tell.tick() => tracing::info!(
                    %node, directory = %own.directory, ?missing, needed,
                    "waits for other members before it votes from a new data directory"
                ),
            }
        }
        if !is_known {
            let settled = self.0.directories.lock().await.settle(node, own).await;
            settled.map_err(|error| AdmissionError::Disk(Arc::new(error)))?;
        }
        tracing::info!(%node, directory = %own.directory, life = own.life, "may vote from its data directory");
        Ok(())
    }

    fn peer_up(&self, peer: NodeId) {
        lock(&self.0.up).insert(peer);
        self.0.say(peer, Word::Here(self.0.own.life()));
    }

    /// A peer went; whether it had accepted this node.
    fn peer_gone(&self, peer: NodeId, gone: Gone) -> bool {
        lock(&self.0.up).remove(&peer);
        if gone == Gone::Refused {
            // Its process is not there any more, so its next one need not wait.
            lock(&self.0.spoken).remove(&peer);
        }
        self.0.accepted.send_if_modified(|accepted| accepted.remove(&peer))
    }

    /// Takes a word; whether its sender has accepted this node just now.
    async fn hear(&self, from: NodeId, Said { era, word }: Said) -> bool {
        match word {
            Word::Here(claim) => {
                if !self.meets(from, era, claim) {
                    return false;
                }
                if let Some((verdict, known)) = self.0.judge(from, claim).await {
                    self.0.say(from, Word::Heard { boot: claim.boot, verdict, known });
                }
                false
            }
            // Meant for another process under the same key.
            Word::Heard { boot, .. } if boot != self.0.own.boot => false,
            Word::Heard { verdict: Verdict::Sound, .. } => {
                if self.failure().is_some() || !self.learns(era).await {
                    return false;
                }
                self.0.accepted.send_if_modified(|accepted| accepted.insert(from))
            }
            Word::Heard { verdict: Verdict::OtherEra, .. } => {
                self.is_outlived(from, era);
                false
            }
            Word::Heard { verdict, known, .. } => {
                self.0.refuse(from, verdict, known);
                false
            }
        }
    }
}

impl<D: Disk, W: Wire> Inner<D, W> {
    /// What to say to a claim; nothing while it is not clear which of two lives goes on, or when
    /// it cannot be kept.
    async fn judge(&self, from: NodeId, claim: Life) -> Option<(Verdict, Life)> {
        let mut directories = self.directories.lock().await;
        let known = directories.of(from);
        if let Some(known) = known.filter(|_| directories.judge(from, &claim) == Verdict::Sound)
            && let Some(said) = self.overlap(from, &known, &claim)
        {
            return said.map(|verdict| (verdict, known));
        }
        match directories.settle(from, claim).await {
            Ok(Verdict::Sound) => Some((Verdict::Sound, claim)),
            Ok(verdict) => {
                let known = known.unwrap_or(claim);
                tracing::warn!(node = %from, ?verdict, ?known, ?claim, "a member must not vote");
                Some((verdict, known))
            }
            Err(error) => {
                tracing::error!(%error, "a voter's directory was not kept; it asks again");
                None
            }
        }
    }

    /// Notes who speaks. Where the next life presents itself: nothing if the former is silent, else
    /// what to say, which may be nothing yet.
    fn overlap(&self, from: NodeId, known: &Life, claim: &Life) -> Option<Option<Verdict>> {
        let now = Instant::now();
        let mut spoken = lock(&self.spoken);
        if claim.boot == known.boot {
            let next = spoken.get(&from).and_then(|spoken| spoken.next);
            let next = next.map(|(boot, words)| (boot, words + 1));
            spoken.insert(from, Spoken { boot: claim.boot, at: now, next });
            return None;
        }
        let former = spoken.get_mut(&from).filter(|spoken| spoken.boot == known.boot)?;
        if now >= former.at + SILENT_AFTER {
            spoken.remove(&from);
            return None;
        }
        let next = former.next.filter(|(boot, _)| *boot == claim.boot);
        let (_, words) = *former.next.insert(next.unwrap_or((claim.boot, 0)));
        Some((words >= OVERLAPPING_WORDS).then_some(Verdict::Elsewhere))
    }

    fn refuse(&self, witness: NodeId, verdict: Verdict, known: Life) {
        let (node, own) = (self.own.node, self.own.life());
        self.end(match verdict {
            Verdict::Sound | Verdict::OtherEra => return,
            Verdict::OtherDirectory => {
                let (known, own) = (known.directory, own.directory);
                AdmissionError::VotedElsewhere { node, witness, known, own }
            }
            Verdict::Behind => {
                let (known, own) = (Box::new(known), Box::new(own));
                AdmissionError::Behind { node, witness, known, own }
            }
            Verdict::Elsewhere => AdmissionError::Elsewhere { node, witness },
        });
    }

    /// This process must not go on.
    fn end(&self, error: AdmissionError) {
        if self.refused.set(error).is_ok() {
            // Whoever waits looks; and nothing of the log passes any more.
            self.accepted.send_modify(BTreeSet::clear);
        }
    }

    fn say(&self, to: NodeId, word: Word) {
        if let Some(wire) = self.wire.get()
            && let Err(error) =
                wire.send(to, Lane::Control, Said { era: lock(&self.eras).own(), word }.write())
        {
            tracing::trace!(%to, %error, "a word about directories was not taken");
        }
    }
}

/// Presents this node to its peers for as long as there is a desk.
async fn present<D: Disk, W: Wire>(desk: Weak<Inner<D, W>>) {
    let mut kept = Instant::now();
    loop {
        tokio::time::sleep(SAY_EVERY).await;
        let Some(desk) = desk.upgrade() else { return };
        let peers: Vec<NodeId> = lock(&desk.up).iter().copied().collect();
        let here = Word::Here(desk.own.life());
        peers.into_iter().for_each(|peer| desk.say(peer, here));
        if kept.elapsed() >= KEEP_EVERY {
            kept = Instant::now();
            if let Err(error) = desk.directories.lock().await.keep().await {
                tracing::warn!(%error, "where voters' logs end was not kept");
            }
        }
    }
}
