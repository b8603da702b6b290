//! A new cluster from a backup. Each of its nodes is restored from the same file, in
//! the same era, into an empty directory; its node file names the members, who are the
//! voters. Ids, keys and addresses may be those of the cluster before, or others.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use quorate_ledger::{FEATURE_LEVEL_KNOWN, RosterMember};
use quorate_storage::{BackupError, BackupItem, BackupReader, Blobs, DataDir};
use quorate_types::{Era, NodeId};

use super::new_mark;
use super::{Begun, LayOutError, Place, Plan, State, beside, clear, lay_out, members_of};
use crate::config::NodeConfig;
use crate::disk::{FileDisk, FileDiskError, sync_folder, sync_name};
use crate::storage::{BackedUp, look_at_backup, read_group};

/// Why nothing was restored. The data directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup cannot be read.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It can be read, and what is in it is not sound.
    #[error("{what} in the backup is not sound: {found}")]
    Unsound {
        /// What.
        what: String,
        /// In what way.
        found: String,
    },
    /// The cluster in it has another number of shards.
    #[error(
        "the backup is of a cluster of {backup} shards and the node file says {file}; that number \
         is fixed for good: write `shards = {backup}` under [cluster]"
    )]
    Shards {
        /// In the backup.
        backup: u16,
        /// In the node file.
        file: u16,
    },
    /// It speaks of what this program does not know.
    #[error(
        "the backup is of feature level {backup} and this program knows {known}; use a newer one"
    )]
    Level {
        /// In the backup.
        backup: u32,
        /// Here.
        known: u32,
    },
    /// The node is to join others.
    #[error(
        "the node file says `joins = true`, and a node that joins gets all from the others: start it \
         with an empty directory. Restored are the voters of the new cluster, each named by a \
         [[member]] in all of their files"
    )]
    Joins,
    /// The era that was named does not follow the backup's.
    #[error(
        "era {asked} does not follow era {backup} of the backup; give what the first `restore` \
         printed, or nothing"
    )]
    Era {
        /// Named.
        asked: Era,
        /// The backup's.
        backup: Era,
    },
    /// Something is there already.
    #[error(
        "the data directory `{}` is not empty: it holds {found}, and no backup is put over it, \
         since what was acknowledged after the backup would be lost unseen", dir.display()
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// What is in it.
        found: String,
    },
    /// The directory cannot be used.
    #[error(transparent)]
    Disk(#[from] FileDiskError),
    /// Something of it cannot be written.
    #[error(transparent)]
    LayOut(#[from] LayOutError),
}

/// Lays out this node's data directory from a backup. All nodes of one cluster are restored in one
/// era: the first draws it.
pub async fn restore(
    file: &Path,
    config: &NodeConfig,
    era: Option<Era>,
) -> Result<(Begun, BackedUp), RestoreError> {
    let found = look_at_backup(file)?;
    let era = check(&found, config, era)?;
    let dir = &config.node.data_dir;
    check_empty(dir).await?;
    let anew = beside(dir, "anew");
    let written = LayOutError::at(&anew);
    clear(&anew).map_err(|error| written(error.into()))?;
    let members = members_of(config);
    let (mut reader, head) = BackupReader::open(BufReader::new(open(file)?))?;
    let (mut states, mut next) = (Vec::new(), reader.next_item()?);
    while let Some(BackupItem::Group(group, body)) = next {
        let ledger = read_group(config.layout(), &group, &body);
        let what = format!("group {}", group.group);
        let ledger = ledger.map_err(|found| RestoreError::Unsound { what, found })?;
        let place = Place { group: group.group, last: group.index, term: group.term };
        states.push(State { place, ledger });
        next = reader.next_item()?;
    }
    let formers = formers_of(&states, &members);
    let groups = states.iter().map(|state| state.place).collect();
    let reason = format!("the cluster was restored from a backup of era {}", head.era);
    let plan = Plan { config, era, members, ids_given: NodeId(0), reason, formers };
    let disk = lay_out(&anew, &plan, states).await?;
    let store = Blobs::open(disk.clone()).await.map_err(|error| written(error.into()))?;
    // What follows the groups is blobs, of which one at a time is held.
    while let Some(item) = next {
        if let BackupItem::Blob(digest, content) = item {
            store.put(digest, content).await.map_err(|error| written(error.into()))?;
        }
        next = reader.next_item()?;
    }
    drop((store, disk));
    put_in_place(&anew, dir).map_err(|error| LayOutError::at(dir)(error.into()))?;
    let voters = plan.members.iter().map(|member| member.id).collect();
    let (node, cluster) = (config.id(), config.cluster.id.clone());
    Ok((Begun { node, cluster, era, voters, groups, dir: dir.clone(), aside: None }, found))
}

fn open(file: &Path) -> Result<File, BackupError> {
    Ok(File::open(file)?)
}

/// Whether it can be restored here; the era.
fn check(found: &BackedUp, config: &NodeConfig, era: Option<Era>) -> Result<Era, RestoreError> {
    let head = &found.head;
    if config.node.joins {
        return Err(RestoreError::Joins);
    }
    if head.feature_level > FEATURE_LEVEL_KNOWN {
        let (backup, known) = (head.feature_level, FEATURE_LEVEL_KNOWN);
        return Err(RestoreError::Level { backup, known });
    }
    if head.shards != config.cluster.shards {
        let (backup, file) = (head.shards, config.cluster.shards);
        return Err(RestoreError::Shards { backup, file });
    }
    if let Some(check) = found.unsound() {
        let (what, found) = (check.what.clone(), check.found.clone());
        return Err(RestoreError::Unsound { what, found });
    }
    match era {
        None => Ok(head.era.next(new_mark())),
        Some(era) if era == head.era.next(era.mark) && era.mark != 0 => Ok(era),
        Some(asked) => Err(RestoreError::Era { asked, backup: head.era }),
    }
}

async fn check_empty(dir: &Path) -> Result<(), RestoreError> {
    let names = match fs::read_dir(dir) {
        Ok(names) => names.filter_map(Result::ok).map(|name| name.file_name()).collect::<Vec<_>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LayOutError::at(dir)(error.into()).into()),
    };
    let Some(first) = names.first() else { return Ok(()) };
    let found = match FileDisk::open_to_read(dir) {
        Ok(disk) => match DataDir::read(&disk).await {
            Ok(Some(identity)) => {
                let era = identity.era.unwrap_or_default();
                format!("node {} of `{}`, era {era}", identity.node, identity.cluster)
            }
            Ok(None) | Err(_) => format!("`{}`", first.display()),
        },
        Err(in_use @ FileDiskError::InUse { .. }) => return Err(in_use.into()),
        Err(FileDiskError::Io { .. }) => format!("`{}`", first.display()),
    };
    Err(RestoreError::NotEmpty { dir: dir.to_owned(), found })
}

/// Members of the cluster before that are none of the new one.
fn formers_of(states: &[State], members: &[RosterMember]) -> Vec<RosterMember> {
    let before = states.iter().flat_map(|state| state.ledger.roster().members());
    let is_member = |former: &RosterMember| members.iter().any(|member| member.peer == former.peer);
    before.filter(|former| !is_member(former)).cloned().collect()
}

/// The directory gets its name, durable when this returns.
fn put_in_place(anew: &Path, dir: &Path) -> io::Result<()> {
    sync_folder(anew)?;
    // Takes the place of an empty directory, and of no other.
    fs::rename(anew, dir)?;
    sync_name(dir)
}
