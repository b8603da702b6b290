//! `quorate storage …`: a data directory whose node is stopped.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use quorate_node::storage::{Check, InspectError, Inspection, inspect, look_at_backup, verify};
use quorate_node::{BackupError, FileDiskError};
use serde::Serialize;

use super::or_dash;
use crate::exit::{Exit, ended};
use crate::output::{Output, Table};

/// What can be done with a data directory.
#[derive(Debug, Subcommand)]
pub(crate) enum StorageVerb {
    /// Check every frame, block, blob and digest of a data directory or of a backup; exits 7 if
    /// something is damaged.
    #[command(after_help = "\
Examples:
  quorate storage verify ./cluster/node-1/data
  quorate storage verify ./data -o json
  quorate storage verify tuesday.backup")]
    Verify(PlaceArgs),
    /// Show segments, groups, votes, snapshots and sizes.
    #[command(after_help = "\
Examples:
  quorate storage inspect ./cluster/node-1/data
  quorate storage inspect ./data -o json")]
    Inspect(DirArgs),
}

/// Which directory, or which backup.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// A node's `data_dir`, whose node is stopped, or a backup file. It is only read.
    #[arg(value_name = "DIR|FILE")]
    place: PathBuf,
}

/// Which directory.
#[derive(Debug, Args)]
pub(crate) struct DirArgs {
    /// A node's `data_dir`; the node must be stopped. It is only read.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Serialize)]
struct Verified<'a> {
    sound: bool,
    checks: &'a [Check],
}

/// Runs one verb to its end.
pub(crate) fn run(verb: &StorageVerb, output: Output) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().context("cannot start a runtime")?;
    match verb {
        StorageVerb::Verify(PlaceArgs { place }) if place.is_file() => {
            let found = look_at_backup(place).map_err(|error| unread(error, place))?;
            let next = "take another: quorate cluster backup FILE".to_owned();
            tell(output, &found.checks, place, next)
        }
        StorageVerb::Verify(PlaceArgs { place: dir }) => {
            let checks = runtime.block_on(verify(dir)).map_err(|error| refused(error, dir))?;
            tell(output, &checks, dir, format!("quorate storage inspect {}", dir.display()))
        }
        StorageVerb::Inspect(DirArgs { dir }) => {
            let found = runtime.block_on(inspect(dir)).map_err(|error| refused(error, dir))?;
            output.one(&found, inspected)
        }
    }
}

fn tell(output: Output, checks: &[Check], place: &Path, next: String) -> anyhow::Result<()> {
    let bad = checks.iter().filter(|check| !check.sound).count();
    let whole = Verified { sound: bad == 0, checks };
    output.many(&whole, checks, checked)?;
    if bad == 0 {
        return Ok(());
    }
    let what = format!("{bad} of {} checks of {} failed", checks.len(), place.display());
    Err(ended(Exit::CheckFailed, what, next))
}

/// How a backup that cannot be read as one ends, and what to try.
pub(super) fn of_backup(error: &BackupError) -> (Exit, &'static str) {
    match error {
        BackupError::Io(_) => (Exit::NotFound, "name a file that can be read"),
        BackupError::Strange => (Exit::Usage, "name what `quorate cluster backup FILE` wrote"),
        BackupError::Format { .. } => (Exit::Conflict, "quorate --version"),
        BackupError::Cut { .. } | BackupError::Damaged { .. } => {
            (Exit::CheckFailed, "take another: quorate cluster backup FILE")
        }
    }
}

fn unread(error: BackupError, file: &Path) -> anyhow::Error {
    let (exit, next) = of_backup(&error);
    let what = format!("{:#}", anyhow::Error::from(error).context(format!("{}", file.display())));
    ended(exit, what, next)
}

fn refused(error: InspectError, dir: &Path) -> anyhow::Error {
    let (exit, next) = match &error {
        InspectError::Disk(FileDiskError::InUse { .. }) => {
            (Exit::Conflict, "stop the node first: it has the directory open")
        }
        InspectError::Disk(FileDiskError::Io { .. }) | InspectError::NoIdentity(_) => {
            (Exit::NotFound, "name a node's `data_dir`, as its node file has it")
        }
        InspectError::Read(_) => (Exit::Failed, ""),
    };
    let what = format!("{:#}", anyhow::Error::from(error).context(format!("{}", dir.display())));
    ended(exit, what, next)
}

fn checked(checks: &[Check]) -> Table {
    let mut table = Table::with_heads(&["CHECK", "RESULT", "FOUND"]);
    for check in checks {
        let result = if check.sound { "sound" } else { "DAMAGED" };
        table.row([check.what.clone(), result.to_owned(), check.found.clone()]);
    }
    table
}

fn inspected(found: &Inspection) -> Table {
    let mut table = Table::of_fields();
    table.field("cluster", &found.cluster);
    table.field("node", found.node);
    table.field("peer", &found.peer);
    table.field("directory", &found.directory);
    table.field("lives", found.lives);
    let ended = found.closed_in_order.map(|closed| if closed { "in order" } else { "by a crash" });
    table.field("last ended", or_dash(ended));
    for group in &found.groups {
        let vote = group.term.zip(group.voted_for);
        let vote = or_dash(vote.map(|(term, node)| format!("{node} in term {term}")));
        let words = format!(
            "{} entries up to {}, purged up to {}, committed {}, vote {vote}",
            group.entries,
            or_dash(group.last),
            or_dash(group.purged),
            or_dash(group.committed),
        );
        table.field(&format!("group {}", group.group), words);
    }
    for segment in &found.segments {
        let entries = segment.entries.iter().map(|(group, range)| {
            format!(", {group} {}-{} ({})", range.first, range.last, range.count)
        });
        let words = format!(
            "{}, {} of {} bytes, {} frames{}",
            segment.state,
            segment.used,
            segment.bytes,
            segment.frames,
            entries.collect::<String>(),
        );
        table.field(&format!("segment {}", segment.number), words);
    }
    for snapshot in &found.snapshots {
        let words =
            format!("at {} of term {}, {} bytes", snapshot.index, snapshot.term, snapshot.bytes);
        table.field(&format!("snapshot {}", snapshot.group), words);
    }
    table.field("blobs", found.blobs);
    if let Some(damage) = &found.damage {
        table.note(format!("damaged: {damage}"));
    }
    table
}
