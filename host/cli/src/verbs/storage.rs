//! `quorate storage …`: a data directory whose node is stopped.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use quorate_node::FileDiskError;
use quorate_node::storage::{Check, InspectError, Inspection, inspect, verify};
use serde::Serialize;

use super::or_dash;
use crate::exit::{Exit, ended};
use crate::output::{Output, Table};

/// What can be done with a data directory.
#[derive(Debug, Subcommand)]
pub(crate) enum StorageVerb {
    /// Check every frame, block, blob and digest; exits 7 if something is damaged.
    #[command(after_help = "\
Examples:
  quorate storage verify ./cluster/node-1/data
  quorate storage verify ./data -o json")]
    Verify(DirArgs),
    /// Show segments, groups, votes, snapshots and sizes.
    #[command(after_help = "\
Examples:
  quorate storage inspect ./cluster/node-1/data
  quorate storage inspect ./data -o json")]
    Inspect(DirArgs),
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
        StorageVerb::Verify(DirArgs { dir }) => {
            let checks = runtime.block_on(verify(dir)).map_err(|error| refused(error, dir))?;
            let bad = checks.iter().filter(|check| !check.sound).count();
            let whole = Verified { sound: bad == 0, checks: &checks };
            output.many(&whole, &checks, checked)?;
            if bad == 0 {
                return Ok(());
            }
            let what = format!("{bad} of {} checks of {} failed", checks.len(), dir.display());
            Err(ended(
                Exit::CheckFailed,
                what,
                format!("quorate storage inspect {}", dir.display()),
            ))
        }
        StorageVerb::Inspect(DirArgs { dir }) => {
            let found = runtime.block_on(inspect(dir)).map_err(|error| refused(error, dir))?;
            output.one(&found, inspected)
        }
    }
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
