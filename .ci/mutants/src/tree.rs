//! A copy of the workspace to change, and its test binary. The compiler's own word
//! decides which mutants are viable: those that it refuses are taken out, until none is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::list::{Mutant, Place};
use crate::weave::{SWITCHBOARD, regions, weave};

/// Lints that would refuse a mutant which cargo-mutants would run.
const LINTS: &str = "#![allow(warnings, arithmetic_overflow, unconditional_panic, clippy::all)]\n";

/// A copy of the files that git knows, with what is not committed yet.
pub struct Tree {
    origin: PathBuf,
    root: PathBuf,
    target: PathBuf,
}

/// A package's unit tests, built.
pub struct Built {
    /// The test binary.
    pub binary: PathBuf,
    /// Where cargo would run it.
    pub package_dir: PathBuf,
}

impl Tree {
    /// Copies the workspace at `origin` into its target folder, under this name.
    pub fn copy(origin: &Path, name: &str) -> Result<Self> {
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => origin.join("target"),
        };
        let tree =
            Self { origin: origin.to_owned(), root: target.join("mutants").join(name), target };
        let files = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(origin)
            .output()
            .context("cannot run git")?;
        ensure!(files.status.success(), "git ls-files failed");
        for file in String::from_utf8(files.stdout)?.split_terminator('\0') {
            if origin.join(file).is_file() {
                tree.restore(file)?;
            }
        }
        Ok(tree)
    }

    /// A file as it is at the origin.
    pub fn original(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.origin.join(file)).with_context(|| format!("cannot read {file}"))
    }

    /// Gives a file its original content again; untouched where it has it.
    pub fn restore(&self, file: &str) -> Result<()> {
        self.write(file, &fs::read(self.origin.join(file))?)
    }

    /// Gives a file this content.
    pub fn write(&self, file: &str, content: &[u8]) -> Result<()> {
        let path = self.root.join(file);
        if fs::read(&path).is_ok_and(|there| there == content) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Builds the package's unit tests; the compiler's errors where it refuses.
    pub fn build(&self, package: &str) -> Result<Result<Built, Vec<Value>>> {
        let output = Command::new("cargo")
            .args([
                "test",
                "--offline",
                "--lib",
                "--no-run",
                "--message-format",
                "json",
                "-p",
                package,
            ])
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_INCREMENTAL", "0")
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo test")?;
        let mut errors = Vec::new();
        let mut built = None;
        for line in output.stdout.split(|byte| *byte == b'\n') {
            let Ok(message) = serde_json::from_slice::<Value>(line) else { continue };
            if message["message"]["level"] == "error" {
                errors.push(message["message"].clone());
            }
            if let (Some(binary), Some(manifest), true) = (
                message["executable"].as_str(),
                message["manifest_path"].as_str(),
                message["profile"]["test"] == true,
            ) {
                let package_dir = Path::new(manifest).parent().unwrap_or(&self.root).to_owned();
                built = Some(Built { binary: PathBuf::from(binary), package_dir });
            }
        }
        match built {
            Some(built) if output.status.success() => Ok(Ok(built)),
            _ => Ok(Err(errors)),
        }
    }

    /// Puts all mutants but those of `without` into the package, and builds it. Those that
    /// were put in and refused by the compiler join `without`; gives those that are in.
    pub fn weave(
        &self,
        package: &str,
        mutants: &[Mutant],
        without: &mut BTreeSet<usize>,
    ) -> Result<(Built, BTreeSet<usize>)> {
        let root_file = format!("{}/src/lib.rs", crate::folder(mutants)?);
        loop {
            let mut files =
                BTreeMap::<&str, Vec<(usize, &Mutant)>>::from([(&*root_file, Vec::new())]);
            for (number, mutant) in (1..).zip(mutants) {
                let file = files.entry(&mutant.file).or_default();
                if !without.contains(&number) {
                    file.push((number, mutant));
                }
            }
            let mut inside = BTreeSet::new();
            let mut places = BTreeMap::new();
            for (file, here) in files {
                let mut woven =
                    weave(&self.original(file)?, &here).with_context(|| file.to_owned())?;
                if file == root_file {
                    woven.source = format!("{LINTS}{}{SWITCHBOARD}", woven.source);
                }
                self.write(file, woven.source.as_bytes())?;
                places.insert(
                    file.to_owned(),
                    regions(&woven.source).with_context(|| file.to_owned())?,
                );
                inside.extend(woven.numbers);
            }
            let errors = match self.build(package)? {
                Ok(built) => return Ok((built, inside)),
                Err(errors) => errors,
            };
            let before = without.len();
            for error in &errors {
                without.extend(blamed(error, &places));
            }
            eprintln!("{package}: the compiler refuses {} more", without.len() - before);
            if without.len() == before {
                for error in errors {
                    eprintln!("{}", error["rendered"].as_str().unwrap_or("(no words)"));
                }
                bail!("{package}: errors that no mutant is to blame for");
            }
        }
    }
}

/// The innermost mutants that an error points to, by its main spans, or by others where
/// those point to none.
fn blamed(error: &Value, places: &BTreeMap<String, Vec<(usize, Place, Place)>>) -> BTreeSet<usize> {
    let mut blamed = [BTreeSet::new(), BTreeSet::new()];
    let children = error["children"].as_array().into_iter().flatten();
    for told in children.chain([error]) {
        for span in told["spans"].as_array().into_iter().flatten() {
            let place = |line: &str, column: &str| {
                let number = |name: &str| usize::try_from(span[name].as_u64()?).ok();
                Some(Place { line: number(line)?, column: number(column)? })
            };
            let file = span["file_name"].as_str().unwrap_or_default();
            let (Some(regions), Some(start)) =
                (places.get(file), place("line_start", "column_start"))
            else {
                continue;
            };
            let inner = regions
                .iter()
                .filter(|(_, from, to)| *from <= start && start < *to)
                .max_by_key(|(_, from, _)| *from);
            let main = usize::from(!(span["is_primary"] == true && told == error));
            blamed[main].extend(inner.map(|(number, ..)| *number));
        }
    }
    let [main, other] = blamed;
    if main.is_empty() { other } else { main }
}
