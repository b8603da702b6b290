//! Whether what lies in a data directory is what was put there.

use std::path::Path;

use quorate_ledger::Ledger;
use quorate_raft::{LogEntry, log_committed, log_entry, log_vote};
use quorate_storage::{
    BlobError, Blobs, DataDir, Directories, Identity, LogOptions, LogSurvey, RecoveredGroup,
    SnapshotFile, Snapshots, lives,
};
use quorate_types::{Digest, Faults, GroupId, Index, Layout};
use serde::Serialize;

use super::{InspectError, read_error};
use crate::disk::FileDisk;

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub what: String,
    /// Whether it is sound.
    pub sound: bool,
    /// What was found: figures, or what is wrong and what to do.
    pub found: String,
}

impl Check {
    pub(super) fn of<E: std::fmt::Display>(
        what: impl Into<String>,
        result: Result<String, E>,
    ) -> Self {
        let what = what.into();
        match result {
            Ok(found) => Self { what, sound: true, found },
            Err(error) => Self { what, sound: false, found: error.to_string() },
        }
    }
}

/// Checks all of a data directory. What cannot be read at all is a check that failed, unless it
/// is the directory itself.
pub async fn verify(root: &Path) -> Result<Vec<Check>, InspectError> {
    let disk = FileDisk::open_to_read(root)?;
    let mut checks = Vec::new();
    let identity = match DataDir::read(&disk).await {
        Ok(Some(identity)) => identity,
        Ok(None) => return Err(InspectError::NoIdentity(root.display().to_string())),
        // Without the directory's id no frame of its log can be told from another's.
        Err(error) => return Ok(vec![Check::of("identity", Err(error))]),
    };
    let Identity { cluster, node, directory, .. } = &identity;
    let found = format!("{node} of `{cluster}`, directory {directory}");
    checks.push(Check::of("identity", Ok::<_, InspectError>(found)));
    checks.push(Check::of("life", lives(&disk).await.map(|lives| format!("{lives} so far"))));
    let others = Directories::open(disk.clone()).await;
    checks.push(Check::of("directories", others.map(|_sound| "of peers".to_owned())));
    let log = LogSurvey::take(&disk, &LogOptions::new(*directory)).await.map_err(read_error)?;
    checks.push(check_log(&log));
    let files = Snapshots::as_they_lie(disk.clone()).list().await.map_err(read_error)?;
    let layout = layout_of(&log, &files);
    let ledgers = check_snapshots(&disk, &files, layout, &mut checks).await?;
    check_groups(&log, layout, ledgers, &mut checks);
    checks.push(check_blobs(&disk).await?);
    Ok(checks)
}

fn check_log(log: &LogSurvey) -> Check {
    let frames: u64 = log.segments.iter().map(|segment| segment.frames).sum();
    let found = |found: &quorate_storage::Recovered| {
        let torn = match found.torn_bytes {
            0 => String::new(),
            bytes => format!(", {bytes} bytes of an unfinished write behind them"),
        };
        format!("{frames} frames in {} segments{torn}", log.segments.len())
    };
    Check::of("log", log.recovered.as_ref().map(found))
}

/// How the groups share the work, by those that have left something: every group of a cluster
/// begins with it, and shards are numbered from 1.
fn layout_of(log: &LogSurvey, snapshots: &[SnapshotFile]) -> Layout {
    let written = log.segments.iter().flat_map(|segment| segment.entries.keys());
    let found = log.recovered.iter().flat_map(|found| found.groups.keys());
    let groups = written.chain(found).copied().chain(snapshots.iter().map(|file| file.group));
    let shards = groups.max().and_then(|last| u16::try_from(last.0).ok());
    shards.and_then(Layout::new).unwrap_or(Layout::ONE)
}

/// Checks every snapshot; the newest sound ledger of each group.
async fn check_snapshots(
    disk: &FileDisk,
    files: &[SnapshotFile],
    layout: Layout,
    checks: &mut Vec<Check>,
) -> Result<Vec<(GroupId, Index, Ledger)>, InspectError> {
    let snapshots = Snapshots::as_they_lie(disk.clone());
    let mut ledgers = Vec::new();
    for file in files {
        let what = format!("snapshot {} at {}", file.group, file.index);
        let body = match snapshots.read_file(file).await {
            Ok(Some((_meta, body))) => body,
            // Removed in this moment; but nobody is there to do so.
            Ok(None) => continue,
            Err(error) => {
                checks.push(Check::of(what, Err(error)));
                continue;
            }
        };
        // Refuses a body without the digest that it states.
        let empty = Ledger::of(layout, file.group, &Faults::none());
        let ledger = Ledger::restore(empty, &body);
        checks.push(Check::of(what, ledger.as_ref().map(digest_of)));
        if let Ok(ledger) = ledger {
            ledgers.push((file.group, file.index, ledger));
        }
    }
    Ok(ledgers)
}

fn digest_of(ledger: &Ledger) -> String {
    format!("state digest {}", ledger.digest())
}

fn check_groups(
    log: &LogSurvey,
    layout: Layout,
    ledgers: Vec<(GroupId, Index, Ledger)>,
    checks: &mut Vec<Check>,
) {
    let Ok(recovered) = &log.recovered else { return };
    for (group, found) in &recovered.groups {
        let newest = ledgers.iter().filter(|(of, ..)| of == group).max_by_key(|(_, at, _)| *at);
        let begin = match newest {
            Some((_, at, ledger)) => Some((*at, ledger.clone())),
            None if found.purged.is_none() => {
                Some((Index(0), Ledger::of(layout, *group, &Faults::none())))
            }
            None => None,
        };
        let what = format!("group {group}");
        let checked = match begin {
            Some((at, ledger)) => replay(log, *group, found, at, ledger),
            None => Err("its log was cut and there is no sound snapshot before it".to_owned()),
        };
        checks.push(Check::of(what, checked));
    }
}

/// Applies what is known to be committed behind a snapshot.
fn replay(
    log: &LogSurvey,
    group: GroupId,
    found: &RecoveredGroup,
    snapshot: Index,
    mut ledger: Ledger,
) -> Result<String, String> {
    if let Some((purged, _)) = found.purged.filter(|(purged, _)| *purged > snapshot) {
        return Err(format!("its log begins after {purged} and its snapshot ends at {snapshot}"));
    }
    let term = found.vote.as_ref().map(|vote| log_vote(vote)).transpose()?;
    let committed = found.committed.as_ref().map(|mark| log_committed(mark)).transpose()?;
    let committed = committed.unwrap_or(snapshot);
    let mut applied = snapshot;
    for record in log.records(group).into_iter().filter(|record| record.index > snapshot) {
        if term.is_none_or(|(term, ..)| record.term > term) {
            return Err(format!("entry {} is of a term that it never voted in", record.index));
        }
        let index = record.index;
        let entry = log_entry(record.payload).map_err(|error| format!("entry {index}: {error}"))?;
        if index > committed {
            continue;
        }
        if let LogEntry::Command(command) = entry {
            ledger.apply(index, &command).map_err(|error| format!("entry {index}: {error}"))?;
        }
        applied = index;
    }
    let (kept, anew): (Digest, Digest) = (ledger.digest(), ledger.recompute_digest());
    if kept != anew {
        return Err(format!("at {applied} the digest kept is {kept} and computed anew {anew}"));
    }
    Ok(format!("{} entries; {} at {applied}", found.entries, digest_of(&ledger)))
}

async fn check_blobs(disk: &FileDisk) -> Result<Check, InspectError> {
    let blobs = Blobs::as_they_lie(disk.clone());
    let (mut count, mut bytes, mut bad) = (0_u64, 0_usize, Vec::new());
    for digest in blobs.list().await.map_err(read_error)? {
        match blobs.get(digest).await {
            Ok(content) => {
                count += 1;
                bytes += content.map_or(0, |content| content.len());
            }
            Err(error @ (BlobError::Mismatch { .. } | BlobError::TooLarge { .. })) => {
                bad.push(error.to_string());
            }
            Err(error @ BlobError::Disk(_)) => return Err(read_error(error)),
        }
    }
    let found = match bad.is_empty() {
        true => Ok(format!("{count} with {bytes} bytes")),
        false => Err(format!(
            "{}. Remove the file: the node fetches it again from a peer that has it",
            bad.join("; ")
        )),
    };
    Ok(Check::of("blobs", found))
}
