//! Runs the tests against mutants. A test that comes by no switch of a mutant cannot
//! tell it, so only those that do are run, the quickest first, until one fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::tree::Built;

/// Time that every test gets beside five times what it takes without a mutant.
const GRACE: Duration = Duration::from_secs(4);

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The compiler refuses it.
    Unviable,
    /// This test failed.
    Caught(String),
    /// This test never ended.
    Hung(String),
    /// No test failed; so many came by it.
    Missed(usize),
}

/// A test without a mutant.
struct Sound {
    name: String,
    took: Duration,
}

/// A package's tests, and which mutants each comes by.
pub struct Tests {
    built: Built,
    tests: Vec<Sound>,
    by_mutant: BTreeMap<usize, Vec<usize>>,
}

enum End {
    Passed,
    Failed,
    Hung,
}

impl Built {
    fn run(&self, test: &str, envs: &[(&str, String)], limit: Duration) -> Result<End> {
        let mut child = Command::new(&self.binary)
            .args([test, "--exact", "--quiet"])
            .current_dir(&self.package_dir)
            .envs(envs.iter().map(|(name, value)| (name, value)))
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run a test")?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(if status.success() { End::Passed } else { End::Failed });
            }
            if begun.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                return Ok(End::Hung);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The names of the tests.
    fn names(&self) -> Result<Vec<String>> {
        let told = Command::new(&self.binary)
            .args(["--list", "--format", "terse"])
            .current_dir(&self.package_dir)
            .output()?;
        let lines = String::from_utf8(told.stdout)?;
        Ok(lines
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .map(str::to_owned)
            .collect())
    }
}

impl Tests {
    /// Runs every test alone and without a mutant; all must pass.
    pub fn survey(built: Built) -> Result<Self> {
        let seen = built.binary.with_extension("seen");
        let mut tests = Vec::new();
        let mut by_mutant = BTreeMap::<usize, Vec<usize>>::new();
        for name in built.names()? {
            let _absent = fs::remove_file(&seen);
            let begun = Instant::now();
            let envs = [("MUTANTS_SEEN", seen.display().to_string())];
            let end = built.run(&name, &envs, Duration::from_secs(600))?;
            ensure!(matches!(end, End::Passed), "{name} fails without a mutant");
            for number in fs::read_to_string(&seen).unwrap_or_default().lines() {
                by_mutant.entry(number.parse()?).or_default().push(tests.len());
            }
            tests.push(Sound { name, took: begun.elapsed() });
        }
        for by in by_mutant.values_mut() {
            by.sort_by_key(|test| tests[*test].took);
        }
        Ok(Self { built, tests, by_mutant })
    }

    /// How long all tests take one after the other.
    pub fn took(&self) -> Duration {
        self.tests.iter().map(|test| test.took).sum()
    }

    /// The fate of a mutant that is in the binary.
    pub fn judge(&self, number: usize) -> Result<Fate> {
        let by = self.by_mutant.get(&number).map_or(&[][..], Vec::as_slice);
        self.judge_by(by.iter().map(|test| &self.tests[*test]), &self.built, number)
    }

    /// The fate of a mutant that is a binary of its own.
    pub fn judge_alone(&self, built: &Built) -> Result<Fate> {
        let mut tests: Vec<_> = self.tests.iter().collect();
        tests.sort_by_key(|test| test.took);
        self.judge_by(tests.into_iter(), built, 0)
    }

    fn judge_by<'a>(
        &'a self,
        tests: impl Iterator<Item = &'a Sound>,
        built: &Built,
        number: usize,
    ) -> Result<Fate> {
        let mut passed = 0;
        for test in tests {
            let envs = [("MUTANT", number.to_string())];
            match built.run(&test.name, &envs, test.took * 5 + GRACE)? {
                End::Passed => passed += 1,
                End::Failed => return Ok(Fate::Caught(test.name.clone())),
                End::Hung => return Ok(Fate::Hung(test.name.clone())),
            }
        }
        Ok(Fate::Missed(passed))
    }

    /// Mutants that some test comes by.
    pub fn reached(&self) -> BTreeSet<usize> {
        self.by_mutant.keys().copied().collect()
    }
}
