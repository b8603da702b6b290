//! What is left of a cluster whose quorum is lost for good goes on from one survivor,
//! alone, in another era.
//!
//! Everything in the survivor's log counts, also what it does not know to be
//! committed: what was acknowledged is on a quorum, and so perhaps on this node alone
//! of those that are left. What it does not have is lost, and nobody can tell what that
//! was; so the survivor with the longest log is the one to take, and none of the others
//! may take part again. Its directory is not changed: the new one is made beside it
//! and takes its name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use quorate_ledger::{ApplyError, Ledger, RestoreError, RosterMember};
use quorate_raft::{LogEntry, log_committed, log_entry, snapshot_voters};
use quorate_storage::{DataDir, Identity, LogOptions, LogSurvey, Snapshots};
use quorate_types::{Era, Faults, GroupId, Index, NodeId};
use serde::Serialize;

use super::{Begun, FORMERS, Failure, LayOutError, Place, Plan, State};
use super::{beside, clear, lay_out, members_of, new_mark};
use crate::config::NodeConfig;
use crate::disk::{FileDisk, FileDiskError, sync_folder, sync_name};

/// Why nothing was recovered. The data directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The directory cannot be used, or a node has it open.
    #[error(transparent)]
    Disk(#[from] FileDiskError),
    /// It is of another node or cluster than the file says.
    #[error("`{}` is the directory of {found}, and the node file is of {wanted}", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose the file is.
        wanted: String,
    },
    /// There is nothing in it to go on from.
    #[error("`{}` holds no log of group {group}: it never took part", dir.display())]
    Nothing {
        /// The directory.
        dir: PathBuf,
        /// Of this group.
        group: GroupId,
    },
    /// Something in it cannot be read.
    #[error("`{}` is not sound, so nothing goes on from it", dir.display())]
    Unsound {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        source: Failure,
    },
    /// No quorum is lost.
    #[error("node {node} is the only voter of every group and can go on as it is: start it")]
    Alone {
        /// The node.
        node: NodeId,
    },
    /// The new directory cannot be written.
    #[error(transparent)]
    LayOut(#[from] LayOutError),
}

/// How a survivor stands in one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Where its log ends.
    #[serde(flatten)]
    pub place: Place,
    /// Up to where it knows that its log is committed.
    pub committed: Index,
    /// Who votes, by its log.
    pub voters: Vec<NodeId>,
}

/// How a survivor stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Survivor {
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: String,
    /// Its era.
    pub era: Era,
    /// Each group.
    pub groups: Vec<Standing>,
    /// Its directory.
    pub dir: PathBuf,
}

struct Found {
    survivor: Survivor,
    states: Vec<State>,
}

/// How the survivor stands whose node file this is. Changes nothing.
pub async fn survey(config: &NodeConfig) -> Result<Survivor, RecoverError> {
    Ok(find(config).await?.survivor)
}

/// Begins another era of the cluster from what this node has, with it as the only voter.
pub async fn recover(config: &NodeConfig) -> Result<Begun, RecoverError> {
    let dir = &config.node.data_dir;
    let anew = beside(dir, "anew");
    if let Some(begun) = finish(config, &anew, dir).await? {
        return Ok(begun);
    }
    let Found { survivor, states } = find(config).await?;
    let node = survivor.node;
    if survivor.groups.iter().all(|group| group.voters == [node]) {
        return Err(RecoverError::Alone { node });
    }
    let era = survivor.era.next(new_mark());
    let plan = plan(config, era, &states);
    let groups = states.iter().map(|state| state.place).collect();
    let written = |error: io::Error| LayOutError::at(&anew)(error.into());
    clear(&anew).map_err(written)?;
    drop(lay_out(&anew, &plan, states).await?);
    link_blobs(&dir.join("blobs"), &anew.join("blobs")).map_err(written)?;
    let aside = beside(dir, &format!("era-{}", survivor.era.number));
    let placed = put_in_place(&anew, dir, &aside);
    placed.map_err(|error| LayOutError::at(dir)(error.into()))?;
    let (cluster, dir, aside) = (survivor.cluster, dir.clone(), Some(aside));
    Ok(Begun { node, cluster, era, voters: vec![node], groups, dir, aside })
}

/// A node that stands for itself; all others belonged to the cluster before.
fn plan<'a>(config: &'a NodeConfig, era: Era, states: &[State]) -> Plan<'a> {
    let node = config.id();
    let system = states.iter().find(|state| state.place.group == GroupId::SYSTEM);
    let roster = system.map(|state| state.ledger.roster());
    let listed: Vec<RosterMember> = match roster.filter(|roster| roster.begun()) {
        Some(roster) => roster.members().cloned().collect(),
        None => members_of(config),
    };
    let given = roster.map_or(NodeId(0), |roster| NodeId(roster.next_id().0 - 1));
    let (own, formers): (Vec<_>, Vec<_>) = listed.into_iter().partition(|one| one.id == node);
    // It may have moved since.
    let own = members_of(config).into_iter().find(|one| one.id == node).or(own.into_iter().next());
    let reason = format!("the cluster lost its quorum and goes on from node {node}");
    Plan { config, era, members: own.into_iter().collect(), ids_given: given, reason, formers }
}

async fn find(config: &NodeConfig) -> Result<Found, RecoverError> {
    let dir = &config.node.data_dir;
    let unsound = |source: Failure| RecoverError::Unsound { dir: dir.clone(), source };
    let disk = FileDisk::open_to_read(dir)?;
    let identity = DataDir::read(&disk).await.map_err(|error| unsound(error.into()))?;
    let identity = identity.ok_or_else(|| unsound("it has no identity".into()))?;
    let Identity { cluster, node, directory, era, .. } = identity;
    if (&cluster, node) != (&config.cluster.id, config.id()) {
        let found = format!("node {node} of `{cluster}`");
        let wanted = format!("node {} of `{}`", config.id(), config.cluster.id);
        return Err(RecoverError::Foreign { dir: dir.clone(), found, wanted });
    }
    let log = LogSurvey::take(&disk, &LogOptions::new(directory)).await;
    let log = log.map_err(|error| unsound(error.into()))?;
    if let Err(damage) = log.recovered {
        return Err(unsound(damage.into()));
    }
    let snapshots = Snapshots::as_they_lie(disk.clone());
    let (mut standings, mut states) = (Vec::new(), Vec::new());
    for group in config.layout().groups() {
        let (standing, state) = replay(config, &log, &snapshots, group).await.map_err(unsound)?;
        if standing.place.last == Index(0) {
            return Err(RecoverError::Nothing { dir: dir.clone(), group });
        }
        standings.push(standing);
        states.push(state);
    }
    let (era, dir) = (era.unwrap_or_default(), dir.clone());
    let survivor = Survivor { node, cluster, era, groups: standings, dir };
    Ok(Found { survivor, states })
}

/// A group's state with all of its log applied.
async fn replay(
    config: &NodeConfig,
    log: &LogSurvey,
    snapshots: &Snapshots<FileDisk>,
    group: GroupId,
) -> Result<(Standing, State), Failure> {
    let mut ledger = Ledger::of(config.layout(), group, &Faults::none());
    let mut place = Place { group, last: Index(0), term: quorate_types::Term(0) };
    let (mut voters, mut committed) = (Vec::new(), Index(0));
    if let Some((meta, body)) = snapshots.latest(group).await? {
        ledger = Ledger::restore(ledger, &body).map_err(|error: RestoreError| error)?;
        (place.last, place.term, committed) = (meta.index, meta.term, meta.index);
        voters = snapshot_voters(&meta.membership)?;
    }
    if let Ok(recovered) = &log.recovered
        && let Some(found) = recovered.groups.get(&group)
    {
        if found.purged.is_some_and(|(purged, _)| purged > place.last) {
            return Err(
                format!("group {group}: its log was cut and no snapshot is before it").into()
            );
        }
        let mark = found.committed.as_ref().map(|mark| log_committed(mark)).transpose()?;
        committed = committed.max(mark.unwrap_or_default());
    }
    let begin = place.last;
    for record in log.records(group).into_iter().filter(|record| record.index > begin) {
        let index = record.index;
        match log_entry(record.payload)? {
            LogEntry::Command(command) => {
                ledger.apply(index, &command).map_err(|error: ApplyError| {
                    format!("group {group}: entry {index} cannot be applied: {error}")
                })?;
            }
            LogEntry::Blank => {}
            LogEntry::Voters(sets) => {
                voters = sets.concat();
                voters.sort_unstable();
                voters.dedup();
            }
        }
        (place.last, place.term) = (index, record.term);
    }
    Ok((Standing { place, committed, voters }, State { place, ledger }))
}

/// The blobs of one directory under the same names in another. A blob is never written again in
/// its place, so that both may have the same file.
fn link_blobs(from: &Path, to: &Path) -> io::Result<()> {
    let names = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names?,
    };
    fs::create_dir_all(to)?;
    for name in names {
        let name = name?;
        let (source, target) = (name.path(), to.join(name.file_name()));
        if name.file_type()?.is_dir() {
            link_blobs(&source, &target)?;
        } else if fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    sync_folder(to)
}

/// The old directory goes aside and the new one takes its name; durable when this returns.
fn put_in_place(anew: &Path, dir: &Path, aside: &Path) -> io::Result<()> {
    sync_folder(anew)?;
    fs::rename(dir, aside)?;
    fs::rename(anew, dir)?;
    sync_name(dir)
}

/// Goes on where an earlier attempt was interrupted between the two names.
async fn finish(
    config: &NodeConfig,
    anew: &Path,
    dir: &Path,
) -> Result<Option<Begun>, RecoverError> {
    // `formers` is the last file of a new directory.
    if dir.exists() || !anew.join(FORMERS).exists() {
        return Ok(None);
    }
    let placed = fs::rename(anew, dir).and_then(|()| sync_name(dir));
    placed.map_err(|error| LayOutError::at(dir)(error.into()))?;
    let Survivor { node, cluster, era, groups, dir } = survey(config).await?;
    let groups = groups.into_iter().map(|group| group.place).collect();
    let aside = era.number.checked_sub(1).map(|number| beside(&dir, &format!("era-{number}")));
    Ok(Some(Begun { node, cluster, era, voters: vec![node], groups, dir, aside }))
}
