//! `quorate cluster backup FILE`

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use quorate_node::storage::{BackedUp, look_at_backup};
use quorate_node::sync_name;

use super::Session;
use crate::cluster_args::BackupArgs;
use crate::exit::{Exit, ended};
use crate::output::Table;

impl Session<'_> {
    pub(super) async fn backup(&self, args: &BackupArgs) -> anyhow::Result<()> {
        let file = &args.file;
        if file.exists() {
            let what = format!("{} is there already and is not written over", file.display());
            return Err(ended(Exit::Conflict, what, "name another file, or move that one away"));
        }
        let part = Part::create(file)?;
        let mut stream = self.client.backup(!args.without_blobs).await?;
        while let Some(piece) = stream.next().await? {
            (&part.open).write_all(&piece).with_context(|| part.failed("write"))?;
        }
        part.open.sync_all().with_context(|| part.failed("sync"))?;
        // What was sent is read again from the disk, before it gets its name.
        let found = look_at_backup(&part.path)
            .with_context(|| format!("what came from {:?} is no whole backup", self.client))?;
        if let Some(check) = found.unsound() {
            let what = format!("{} in the backup is not sound: {}", check.what, check.found);
            return Err(ended(Exit::CheckFailed, what, "quorate cluster status"));
        }
        part.show(file)?;
        self.output.one(&found, |found| backed_up(file, found))?;
        if found.head.blobs && !found.missing.is_empty() {
            let what = format!(
                "no node had {} blobs that records refer to; {} is whole without them",
                found.missing.len(),
                file.display()
            );
            return Err(ended(Exit::CheckFailed, what, "quorate member ls"));
        }
        Ok(())
    }
}

/// What is in a backup.
pub(super) fn backed_up(file: &Path, found: &BackedUp) -> Table {
    let mut table = Table::of_fields();
    table.field("file", file.display());
    table.field("cluster", &found.head.cluster);
    table.field("era", found.head.era);
    table.field("shards", found.head.shards);
    table.field("feature level", found.head.feature_level);
    for group in &found.groups {
        let words = format!(
            "at {} of term {}, {} bytes, state digest {}",
            group.index,
            group.term,
            group.bytes,
            group.digest.short()
        );
        table.field(&format!("group {}", group.group), words);
    }
    let left_out = if found.head.blobs { "" } else { " (left out)" };
    table.field("blobs", format!("{}{left_out}", found.blobs));
    table.field("digest", found.digest);
    table
}

/// A file that has not got its name yet. Dropped before that, it is removed.
struct Part {
    path: PathBuf,
    open: File,
    shown: bool,
}

impl Part {
    fn create(file: &Path) -> anyhow::Result<Self> {
        let mut name = file.file_name().context("a backup needs a file name")?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = file.with_file_name(name);
        // It holds what tenants submitted.
        let mut options = OpenOptions::new();
        let open = options.write(true).create_new(true).mode(0o600).open(&path);
        let open = open.with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, open, shown: false })
    }

    fn failed(&self, act: &str) -> String {
        format!("cannot {act} {}", self.path.display())
    }

    /// Gives it its name, durable when this returns; what has got that name meanwhile stays.
    fn show(mut self, file: &Path) -> anyhow::Result<()> {
        std::fs::hard_link(&self.path, file)
            .with_context(|| format!("cannot name the backup {}", file.display()))?;
        std::fs::remove_file(&self.path).with_context(|| self.failed("remove"))?;
        self.shown = true;
        sync_name(file).with_context(|| format!("cannot sync the name of {}", file.display()))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.shown
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, file = %self.path.display(), "what is left of a backup stays");
        }
    }
}
