//! A damaged log is fetched anew from the other voters, before this node takes part.
//!
//! `quorate_storage`'s `Salvage` says why that is sound, and what must be known
//! first: **every** other voter answers how it stands in each group; then the log of
//! the one that is furthest is copied, with its snapshot where it was cut, and the
//! vote is raised to the highest term that anyone knows. Until then this node has no
//! log, so it votes for nobody and acknowledges nothing.
//!
//! Everybody answers such questions at any time ([`Pharmacy`]). Frames have a head of
//! their own on the lane `Blob`, which carries bulk; a question without an answer is
//! asked again. Where a log changes while it is copied (its owner truncates) the copy
//! begins anew.

mod copy;
mod pharmacy;

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use openraft_rt_tokio::TokioRuntime;
use quorate_raft::{log_vote, vote_for_itself};
use quorate_storage::{
    Anew, DiskError, LogOptions, OpenError, RewriteError, Salvage, SnapshotError, Snapshots,
};
use quorate_types::limits::FRAME_BYTES_MAX;
use quorate_types::{Disk, GroupId, Inbox, Index, Lane, NodeId, Term, Wire, WireEvent, cbor};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use copy::Copying;
pub(crate) use pharmacy::{Counter, Pharmacy};

/// Names frames of this room and their version.
const HEAD: [u8; 4] = *b"fix1";
/// Bytes of entries or of a snapshot in one answer: a quarter of a frame.
const PIECE_BYTES: usize = 1 << 20;
/// A question without an answer is asked again after so long.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How often whoever reads the log is told what this node waits for.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Answers that wait: one a peer and question, and a few that were asked for twice.
const ANSWERS_MAX: usize = 64;

const _: () = assert!(4 * PIECE_BYTES <= FRAME_BYTES_MAX);

/// Why a log is not written anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RepairError {
    /// The others cannot help, or there are none.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What was fetched could not be kept.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// A snapshot that was fetched could not be kept.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Nobody can be asked.
    #[error("cannot ask the other members for what is damaged here")]
    Transport(#[from] quorate_transport::StartError),
}

/// How a voter stands in a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Standing {
    group: GroupId,
    /// The term of its vote.
    term: Term,
    last: Option<(Index, Term)>,
    purged: Option<(Index, Term)>,
    /// Who votes, as it knows.
    voters: Vec<NodeId>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    index: Index,
    term: Term,
    payload: Bytes,
}

/// A part of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Piece {
    index: Index,
    term: Term,
    membership: Bytes,
    total: u64,
    offset: u64,
    bytes: Bytes,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Word {
    /// How do you stand?
    Ask,
    /// So.
    Stand(Vec<Standing>),
    /// Your entries behind this one, please.
    WantEntries { group: GroupId, after: Option<(Index, Term)> },
    /// Some of them, none where there are no more; nothing where `after` is not in this log.
    Entries { group: GroupId, after: Option<(Index, Term)>, found: Option<Vec<Entry>> },
    /// Your newest snapshot from this byte on, please.
    WantSnapshot { group: GroupId, offset: u64 },
    /// A part of it; nothing where there is none.
    Snapshot { group: GroupId, offset: u64, found: Option<Piece> },
}

impl Word {
    fn write(&self) -> Bytes {
        [&HEAD[..], &cbor::encode(self)].concat().into()
    }

    fn read(frame: &[u8]) -> Option<Self> {
        cbor::decode(frame.strip_prefix(&HEAD)?, FRAME_BYTES_MAX).ok()
    }
}

/// Hears answers.
pub(crate) struct Ear(mpsc::Sender<(NodeId, Word)>);

impl Inbox for Ear {
    async fn deliver(&self, event: WireEvent) {
        if let WireEvent::Frame { from, lane: Lane::Blob, frame } = event
            && let Some(word) = Word::read(&frame)
            && self.0.send((from, word)).await.is_err()
        {
            tracing::debug!(%from, "an answer came after the end");
        }
    }
}

/// An ear, and what it hears.
fn ear() -> (Ear, mpsc::Receiver<(NodeId, Word)>) {
    let (hears, heard) = mpsc::channel(ANSWERS_MAX);
    (Ear(hears), heard)
}

/// A node whose log is damaged, asking.
pub(crate) struct Patient<D, W> {
    node: NodeId,
    disk: D,
    options: LogOptions,
    snapshots: Snapshots<D>,
    wire: W,
    heard: mpsc::Receiver<(NodeId, Word)>,
}

impl<D: Disk, W: Wire> Patient<D, W> {
    /// Writes the log anew. Waits for as long as another voter does not answer.
    async fn repair(
        &mut self,
        salvage: &Salvage,
        listed: &BTreeSet<NodeId>,
    ) -> Result<(), RepairError> {
        let answers = self.ask_all(listed).await;
        let of_others = answers.values().flatten().map(|standing| standing.group);
        let groups: BTreeSet<GroupId> = of_others.chain(salvage.groups.keys().copied()).collect();
        let mut anew = BTreeMap::new();
        for group in groups {
            anew.insert(group, self.group(salvage, &answers, group).await?);
        }
        let runtime = PhantomData::<TokioRuntime>;
        Ok(salvage.rewrite(runtime, &self.disk, &self.options, anew).await?)
    }

    async fn group(
        &mut self,
        salvage: &Salvage,
        answers: &BTreeMap<NodeId, Vec<Standing>>,
        group: GroupId,
    ) -> Result<Anew, RepairError> {
        let standings = || {
            answers.iter().flat_map(|(node, standings)| {
                standings.iter().filter(|one| one.group == group).map(|one| (*node, one))
            })
        };
        let remains = salvage.groups.get(&group).cloned().unwrap_or_default();
        let own =
            remains.votes.iter().filter_map(|vote| log_vote(vote).ok().map(|(term, ..)| term));
        let known = standings().map(|(_, one)| one.term.max(term_of(one.last)));
        let term = known.chain(own).fold(remains.term, Term::max);
        let best = standings().max_by_key(|(_, one)| one.last.map(|(index, term)| (term, index)));
        let mut anew = match best {
            Some((node, _)) => Copying { patient: self, from: node, group }.run().await?,
            None => Anew::default(),
        };
        tracing::info!(%group, %term, from = ?best.map(|(node, _)| node), entries = anew.records.len(), "fetched anew");
        anew.vote = Some(vote_for_itself(term, self.node));
        Ok(anew)
    }

    /// Asks until every other voter has answered: those in the node file, and those of whom the
    /// answers speak.
    async fn ask_all(&mut self, listed: &BTreeSet<NodeId>) -> BTreeMap<NodeId, Vec<Standing>> {
        let mut answers: BTreeMap<NodeId, Vec<Standing>> = BTreeMap::new();
        let mut tell = tokio::time::interval(TELL_EVERY);
        loop {
            let voters = answers.values().flatten().flat_map(|one| one.voters.iter().copied());
            let mut missing: BTreeSet<NodeId> = listed.iter().copied().chain(voters).collect();
            missing.retain(|voter| *voter != self.node && !answers.contains_key(voter));
            if missing.is_empty() {
                return answers;
            }
            for voter in &missing {
                self.say(*voter, &Word::Ask);
            }
            tokio::select! {
                Some((from, word)) = self.heard.recv() => {
                    if let Word::Stand(standings) = word {
                        answers.insert(from, standings);
                    }
                }
                () = tokio::time::sleep(ASK_EVERY) => {}
                _tick = tell.tick() => tracing::warn!(
                    node = %self.node, ?missing,
                    "waits for every other voter, to fetch a damaged log anew"
                ),
            }
        }
    }

    fn say(&self, to: NodeId, word: &Word) {
        if let Err(error) = self.wire.send(to, Lane::Blob, word.write()) {
            tracing::debug!(%to, %error, "a question was not taken");
        }
    }
}

fn term_of(place: Option<(Index, Term)>) -> Term {
    place.map_or(Term(0), |(_, term)| term)
}

/// Fetches the damaged log of this node anew, by a transport of its own that ends with it.
pub(crate) async fn run<D: Disk>(
    transport: quorate_transport::TransportOptions,
    voters: &BTreeSet<NodeId>,
    disk: D,
    options: LogOptions,
    snapshots: Snapshots<D>,
    damage: OpenError,
) -> Result<(), RepairError> {
    let node = transport.node;
    let salvage = Salvage::of(&disk, &options, damage).await??;
    if voters.iter().all(|voter| *voter == node) {
        return Err(salvage.damage.into());
    }
    tracing::error!(damage = %salvage.damage, "the log is damaged; it is fetched anew from the other voters");
    let (ear, heard) = ear();
    let wire = quorate_transport::Transport::start(transport, ear)?;
    let mut patient = Patient { node, disk, options, snapshots, wire: wire.clone(), heard };
    let repaired = patient.repair(&salvage, voters).await;
    wire.shutdown().await;
    repaired
}

#[cfg(test)]
mod tests;
