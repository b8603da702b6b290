//! A data directory in which another era of the cluster begins: from a backup
//! ([`restore`]), or from what a survivor of a lost quorum has ([`recover`]).
//!
//! It holds each group's state as a snapshot behind a leap (`quorate_ledger`'s
//! `Rebirth`), a log that is purged up to there, and a vote in a term that nobody of
//! the era before can have reached. Each of the new voters begins from the same place,
//! and they elect a leader as after any restart. The directory is made beside its
//! place, under a name of its own, and gets its name when all of it is on disk.
//!
//! Who belonged to the era before and does no more is kept in the file `formers`, one
//! `NODE PEER ADDRESS` a line: such a node may connect, so that admission can tell it.

pub mod recover;
pub mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use openraft_rt_tokio::TokioRuntime;
use quorate_ledger::{LEAP, Ledger, Rebirth, RosterMember};
use quorate_raft::{committed_mark, founding_membership, vote_for_itself};
use quorate_storage::{
    DataDir, Directories, DirectoryId, Identity, Life, Log, LogOptions, SnapshotMeta, Snapshots,
};
use quorate_transport::PeerAddress;
use quorate_types::{Era, Faults, GroupId, Index, NodeId, Term};
use serde::Serialize;

use crate::config::NodeConfig;
use crate::disk::FileDisk;
use crate::node::StartError;
use crate::secrets::{entropy, read_key};

const FORMERS: &str = "formers";

/// A group, where its log ended in the era before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The group.
    pub group: GroupId,
    /// Its last entry.
    pub last: Index,
    /// That entry's term.
    pub term: Term,
}

/// What was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Begun {
    /// The node whose directory it is.
    pub node: NodeId,
    /// The cluster's id.
    pub cluster: String,
    /// The era.
    pub era: Era,
    /// Its voters.
    pub voters: Vec<NodeId>,
    /// What it began from.
    pub groups: Vec<Place>,
    /// The directory.
    pub dir: PathBuf,
    /// Where the one before lies now.
    pub aside: Option<PathBuf>,
}

/// A state to begin from.
pub(crate) struct State {
    pub(crate) place: Place,
    pub(crate) ledger: Ledger,
}

/// How the era begins on one node.
pub(crate) struct Plan<'a> {
    pub(crate) config: &'a NodeConfig,
    pub(crate) era: Era,
    pub(crate) members: Vec<RosterMember>,
    pub(crate) ids_given: NodeId,
    pub(crate) reason: String,
    pub(crate) formers: Vec<RosterMember>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why a directory could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayOutError {
    /// The node's key.
    #[error(transparent)]
    Key(#[from] Box<StartError>),
    /// Something could not be written.
    #[error("cannot write `{}`", place.display())]
    Write {
        /// Where.
        place: PathBuf,
        /// Why.
        #[source]
        source: Failure,
    },
}

impl LayOutError {
    fn at(place: &Path) -> impl Fn(Failure) -> Self + '_ {
        |source| Self::Write { place: place.to_owned(), source }
    }
}

/// Writes all of a directory at `root`, which is not there yet, but its blobs.
pub(crate) async fn lay_out(
    root: &Path,
    plan: &Plan<'_>,
    states: Vec<State>,
) -> Result<FileDisk, LayOutError> {
    let key = read_key(&plan.config.node.key_file).map_err(Box::new)?;
    let peer = quorate_transport::peer_id_of(&key);
    write(root, plan, peer, states).await.map_err(LayOutError::at(root))
}

async fn write(
    root: &Path,
    plan: &Plan<'_>,
    peer: String,
    states: Vec<State>,
) -> Result<FileDisk, Failure> {
    let disk = FileDisk::open(root)?;
    let (node, directory) = (plan.config.id(), DirectoryId(entropy()));
    let (cluster, era) = (plan.config.cluster.id.clone(), Some(plan.era));
    let identity = Identity { cluster, node, peer, directory, era };
    DataDir::open_or_create(&disk, identity).await?;
    let snapshots = Snapshots::open(disk.clone()).await?;
    let options = LogOptions::new(directory);
    let (log, _empty) =
        Log::<TokioRuntime, _>::open(disk.clone(), options, &Faults::none()).await?;
    for state in states {
        begin_group(plan, &log, &snapshots, state).await?;
    }
    log.close().await?;
    if plan.members.len() == 1 {
        // It votes at once: whoever could remember another directory is of the era before.
        let own = Life { directory, life: 0, boot: 0, position: 0 };
        Directories::open(disk.clone()).await?.settle(node, own).await?;
    }
    keep_formers(root, &plan.formers)?;
    Ok(disk)
}

async fn begin_group(
    plan: &Plan<'_>,
    log: &Log<TokioRuntime, FileDisk>,
    snapshots: &Snapshots<FileDisk>,
    State { place, ledger }: State,
) -> Result<(), Failure> {
    let Place { group, last, term } = place;
    let rebirth = Rebirth {
        members: plan.members.clone(),
        ids_given: plan.ids_given,
        reason: plan.reason.clone(),
    };
    let ledger = ledger.reborn(last, &rebirth);
    let (index, term) = (ledger.index(), Term(term.0 + LEAP));
    let voters: BTreeSet<NodeId> = plan.members.iter().map(|member| member.id).collect();
    let membership = founding_membership(&voters, index, term);
    snapshots.write(group, SnapshotMeta { index, term, membership }, ledger.snapshot()).await?;
    // Closing the log waits until all of it is durable, and tells what failed.
    log.save_vote(group, vote_for_itself(term, plan.config.id()), |_later| {})?;
    log.purge_upto(group, index, term, |_later| {})?;
    if let Some(mark) = committed_mark(index, term) {
        log.save_committed(group, mark)?;
    }
    Ok(())
}

/// The members that the node file names.
fn members_of(config: &NodeConfig) -> Vec<RosterMember> {
    let member = |member: &crate::config::MemberSection| RosterMember {
        id: NodeId(member.id),
        name: member.name.clone(),
        peer: member.peer.clone(),
        address: member.address.to_string(),
    };
    config.members.iter().map(member).collect()
}

fn keep_formers(root: &Path, formers: &[RosterMember]) -> io::Result<()> {
    let line = |former: &RosterMember| {
        let RosterMember { id, peer, address, .. } = former;
        format!("{id} {peer} {address}\n")
    };
    let path = root.join(FORMERS);
    fs::write(&path, formers.iter().map(line).collect::<String>())?;
    File::open(&path)?.sync_all()
}

/// Members of the era before, as a data directory remembers them. Where they cannot be read such a
/// node is a stranger, which is no less safe.
pub(crate) fn formers(root: &Path) -> BTreeMap<NodeId, PeerAddress> {
    let text = fs::read_to_string(root.join(FORMERS)).unwrap_or_default();
    let former = |line: &str| {
        let mut words = line.split(' ');
        let node = words.next()?.parse().ok()?;
        let peer_id = words.next()?.to_owned();
        let address = words.next()?.parse().ok()?;
        Some((node, PeerAddress { peer_id, address }))
    };
    text.lines().filter_map(former).collect()
}

/// A name beside a directory's.
fn beside(dir: &Path, ending: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    dir.with_file_name(name)
}

/// Removes what an attempt that was interrupted has left.
fn clear(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A mark that no era had.
fn new_mark() -> u128 {
    u128::from_le_bytes(entropy()).max(1)
}
