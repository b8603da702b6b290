//! What the demo indexes: a seeded sample of real files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use quorate_types::rng::Rng;

/// Fewer are done before a leader can be killed and a policy swapped amid them.
pub(crate) const FILES_MIN: usize = 300;
/// At most so many files.
pub(crate) const FILES_MAX: usize = 4_000;
/// At most so many bytes.
const BYTES_MAX: usize = 100_000_000;
/// A larger file is left out: one of them would be a tenth of the corpus.
const FILE_BYTES_MAX: u64 = 10_000_000;

/// The files, by id from 0.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// Their contents.
    pub(crate) files: Vec<Bytes>,
    /// Where they were found.
    pub(crate) root: PathBuf,
}

impl Corpus {
    /// A sample of the files under `dir`, or of the Rust sources that cargo has downloaded.
    pub(crate) fn read(dir: Option<&Path>, seed: u64) -> anyhow::Result<Self> {
        let (root, rust_only) = match dir {
            Some(dir) => (dir.to_owned(), false),
            None => (cargo_sources()?, true),
        };
        ensure!(
            root.is_dir(),
            "the corpus {} is not a folder; name one with --corpus DIR",
            root.display()
        );
        let mut paths = Vec::new();
        walk(&root, rust_only, &mut paths)
            .with_context(|| format!("cannot read the corpus {}", root.display()))?;
        // Folders list in no order of their own; the sample must depend on the seed alone.
        paths.sort_unstable();
        shuffle(&mut paths, &mut Rng::new(seed));
        let mut files = Vec::new();
        let mut bytes = 0;
        for path in &paths {
            if files.len() == FILES_MAX || bytes >= BYTES_MAX {
                break;
            }
            let content =
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            if bytes + content.len() <= BYTES_MAX {
                bytes += content.len();
                files.push(content.into());
            }
        }
        ensure!(
            !files.is_empty(),
            "the corpus {} has no files; name a folder that has with --corpus DIR",
            root.display()
        );
        ensure!(
            files.len() >= FILES_MIN,
            "the corpus {} has {} files, and {FILES_MIN} are needed for work to be under way when \
             the leader is killed and the policy swapped; name a larger folder with --corpus DIR",
            root.display(),
            files.len()
        );
        Ok(Self { files, root })
    }

    /// Bytes in all files.
    pub(crate) fn bytes(&self) -> usize {
        self.files.iter().map(Bytes::len).sum()
    }
}

fn cargo_sources() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let sources = home.map(|home| home.join("registry").join("src"));
    match sources {
        Some(sources) if sources.is_dir() => Ok(sources),
        Some(sources) => bail!(
            "cargo has no downloaded sources in {}; name a folder with --corpus DIR",
            sources.display()
        ),
        None => bail!("neither CARGO_HOME nor HOME is set; name a folder with --corpus DIR"),
    }
}

fn walk(dir: &Path, rust_only: bool, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A link is not followed: it may lead out of the corpus, or back into it.
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() {
            walk(&path, rust_only, paths)?;
        } else if kind.is_file() {
            let wanted = !rust_only || path.extension().is_some_and(|ending| ending == "rs");
            let size = entry.metadata()?.len();
            if wanted && size > 0 && size <= FILE_BYTES_MAX {
                paths.push(path);
            }
        }
    }
    Ok(())
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for at in (1..items.len()).rev() {
        let bound = u64::try_from(at + 1).unwrap_or(u64::MAX);
        let other = usize::try_from(rng.below(bound)).unwrap_or(at);
        items.swap(at, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_corpus_and_none_at_all_are_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let said = Corpus::read(Some(dir.path()), 1).expect_err("empty").to_string();
        assert!(said.contains("has no files"), "{said}");
        fs::write(dir.path().join("only.rs"), "one").expect("writable");
        let said = Corpus::read(Some(dir.path()), 1).expect_err("small").to_string();
        assert!(said.contains("has 1 files, and 300 are needed"), "{said}");
        let missing = dir.path().join("missing");
        let said = Corpus::read(Some(&missing), 1).expect_err("missing").to_string();
        assert!(said.contains("is not a folder"), "{said}");
    }

    #[test]
    fn a_seed_draws_one_sample() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in 0..FILES_MIN {
            fs::write(dir.path().join(name.to_string()), name.to_string()).expect("writable");
        }
        let read = |seed| Corpus::read(Some(dir.path()), seed).expect("readable").files;
        assert_eq!(read(7), read(7));
        assert_ne!(read(7), read(8));
    }
}
