//! A backup file, for people: what is in it, and whether it is sound. Every frame is
//! checked, the whole against its own digest, each group's state against the digest
//! that it states and against one from scratch, every blob through its name, and that
//! no blob is missing that a record refers to.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use bytes::Bytes;
use quorate_ledger::Ledger;
use quorate_storage::{BackupError, BackupGroup, BackupHead, BackupItem, BackupReader};
use quorate_types::{Digest, Faults, Layout};
use serde::Serialize;

use super::Check;

/// What the check of blobs is called.
const BLOBS: &str = "blobs";

/// What was found in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackedUp {
    /// Whose it is.
    #[serde(flatten)]
    pub head: BackupHead,
    /// Its groups.
    pub groups: Vec<BackupGroup>,
    /// Blobs in it.
    pub blobs: u64,
    /// Blobs that records refer to and that are not in it.
    pub missing: Vec<Digest>,
    /// The SHA-256 of all but its last frame, which names it.
    pub digest: Digest,
    /// Each thing that was checked.
    pub checks: Vec<Check>,
}

impl BackedUp {
    /// What keeps it from being restored: the first check that failed, unless it is only that no
    /// node had some blob, which is missed no more in a cluster that was restored.
    pub fn unsound(&self) -> Option<&Check> {
        self.checks.iter().find(|check| !check.sound && check.what != BLOBS)
    }
}

/// Reads a backup from its begin to its end.
pub fn look_at_backup(file: &Path) -> Result<BackedUp, BackupError> {
    let (mut reader, head) = BackupReader::open(BufReader::new(File::open(file)?))?;
    let layout = Layout::new(head.shards).unwrap_or(Layout::ONE);
    let (mut groups, mut checks) = (Vec::new(), Vec::new());
    let (mut wanted, mut there) = (BTreeSet::new(), 0);
    let mut digest = Digest::default();
    while let Some(item) = reader.next_item()? {
        match item {
            BackupItem::Group(group, body) => {
                let read = read_group(layout, &group, &body);
                if let Ok(ledger) = &read {
                    wanted.extend(ledger.blobs());
                }
                let found = read.map(|_ledger| {
                    format!(
                        "at {} of term {}, state digest {}",
                        group.index, group.term, group.digest
                    )
                });
                checks.push(Check::of(format!("group {}", group.group), found));
                groups.push(group);
            }
            BackupItem::Blob(blob, _content) => {
                there += 1;
                wanted.remove(&blob);
            }
            BackupItem::Absent(_) => {}
            BackupItem::End(totals) => digest = totals.digest,
        }
    }
    checks.push(Check::of("groups", complete(layout, &groups)));
    checks.push(Check::of(BLOBS, blobs(&head, there, &wanted)));
    let missing = wanted.into_iter().collect();
    Ok(BackedUp { head, groups, blobs: there, missing, digest, checks })
}

/// The state in a group's snapshot, which must have the digest that both it and the backup state.
pub(crate) fn read_group(
    layout: Layout,
    group: &BackupGroup,
    body: &Bytes,
) -> Result<Ledger, String> {
    let empty = Ledger::of(layout, group.group, &Faults::none());
    let ledger = Ledger::restore(empty, body).map_err(|error| error.to_string())?;
    let anew = ledger.recompute_digest();
    if anew != group.digest || ledger.digest() != anew {
        return Err(format!("its digest is stated as {} and computed as {anew}", group.digest));
    }
    if ledger.index() > group.index {
        return Err(format!("its state is at {}, beyond {}", ledger.index(), group.index));
    }
    Ok(ledger)
}

fn complete(layout: Layout, groups: &[BackupGroup]) -> Result<String, String> {
    let found: Vec<_> = groups.iter().map(|group| group.group).collect();
    let due: Vec<_> = layout.groups().collect();
    if found == due {
        return Ok(format!("all {} of {} shards", due.len(), layout.shards_count()));
    }
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    Err(format!("{} groups are due and these are there: {}", due.len(), shown.join(", ")))
}

fn blobs(head: &BackupHead, there: u64, missing: &BTreeSet<Digest>) -> Result<String, String> {
    match (head.blobs, missing.first()) {
        (_, None) => Ok(format!("{there}, each with the content of its name")),
        (false, Some(_)) => Ok(format!("{} were left out", missing.len())),
        (true, Some(first)) => Err(format!(
            "{} that records refer to are missing, {first} first: no node had them",
            missing.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{Era, NodeId, Time};

    use super::*;

    fn found(checks: Vec<Check>) -> BackedUp {
        let head = BackupHead {
            cluster: "harbour".to_owned(),
            era: Era::FIRST,
            shards: 1,
            feature_level: 1,
            node: NodeId(1),
            taken: Time(7),
            blobs: true,
        };
        let (missing, digest) = (vec![Digest::of(b"lost")], Digest::default());
        BackedUp { head, groups: Vec::new(), blobs: 0, missing, digest, checks }
    }

    #[test]
    fn a_state_that_is_not_sound_is_told_also_where_a_blob_is_missing() {
        let lost = || Check::of(BLOBS, Err::<String, _>("one is missing"));
        assert_eq!(found(vec![lost()]).unsound(), None);
        let state = || Check::of("group g0", Err::<String, _>("another digest"));
        assert_eq!(found(vec![lost(), state()]).unsound(), Some(&state()));
    }
}
