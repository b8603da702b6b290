//! Which mutants there are. cargo-mutants says, by its rules and the exclusions of
//! `.cargo/mutants.toml`; here they only get numbers.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// One change of the program, as `cargo mutants --list --json` tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct Mutant {
    /// File, place and change, for people.
    pub name: String,
    /// The file, from the workspace's root.
    pub file: String,
    /// The function that it is in, if it is in one.
    pub function: Option<Function>,
    /// What is replaced.
    pub span: Span,
    /// By what.
    pub replacement: String,
    /// The kind of change.
    pub genre: Genre,
}

/// A function.
#[derive(Clone, Debug, Deserialize)]
pub struct Function {
    /// With its arrow; empty for the unit type.
    pub return_type: String,
}

/// From the first character to the one after the last.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Span {
    /// The first.
    pub start: Place,
    /// The one after the last.
    pub end: Place,
}

/// Counted from 1, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl From<proc_macro2::LineColumn> for Place {
    fn from(place: proc_macro2::LineColumn) -> Self {
        Self { line: place.line, column: place.column + 1 }
    }
}

/// The kinds of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Genre {
    /// A function gives a fixed value at once.
    FnValue,
    /// One operator stands in place of another.
    BinaryOperator,
    /// An operator is left out.
    UnaryOperator,
    /// An arm is left to the catch-all.
    MatchArm,
    /// A guard is always or never true.
    MatchArmGuard,
    /// A field is left to the base of a literal.
    StructField,
}

/// The mutants of a package, in order; a mutant's number is its place here, from 1.
pub fn list(root: &Path, package: &str) -> Result<Vec<Mutant>> {
    let told = Command::new("cargo")
        .args(["mutants", "--list", "--json", "-p", package])
        .current_dir(root)
        .output()
        .context("cannot run cargo mutants")?;
    let words = String::from_utf8_lossy(&told.stderr);
    ensure!(told.status.success(), "cargo mutants --list failed: {words}");
    serde_json::from_slice(&told.stdout).context("cannot read the list of mutants")
}
