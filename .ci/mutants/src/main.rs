//! Mutation testing that a working day has time for.
//!
//! cargo-mutants names the mutants of a crate and would build the crate once for each,
//! a quarter of a minute a mutant and thousands of them. Here all of a crate's mutants
//! are built into one test binary, each behind a switch, and only the tests that come
//! by a switch are run with it on. What has no switch, since the compiler evaluates it,
//! is built one by one, as cargo-mutants would.
//!
//! `.ci/mutants/run [PACKAGE…]` makes the table of `docs/testing.md`; lists of what was
//! missed are left in `target/mutants/`. It changes nothing in the work tree.
//!
//! Known differences from cargo-mutants: an operator's sides keep their own precedence
//! when it is replaced, and a mutant that hangs a test counts as caught.

mod judge;
mod list;
mod tree;
mod weave;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::judge::{Fate, Tests};
use crate::list::Mutant;
use crate::tree::Tree;

const PACKAGES: [&str; 4] = ["quorate-types", "quorate-ledger", "quorate-storage", "quorate-raft"];

fn main() -> Result<()> {
    let root = std::env::current_dir()?;
    let (mut packages, mut jobs, mut alone) = (Vec::new(), 1, true);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--jobs" => jobs = args.next().context("--jobs N")?.parse()?,
            "--switched-only" => alone = false,
            package => packages.push(package.to_owned()),
        }
    }
    if packages.is_empty() {
        packages = PACKAGES.map(str::to_owned).to_vec();
    }
    let mut table = Vec::new();
    for package in &packages {
        table.push(judge_package(&root, package, jobs, alone)?);
    }
    println!("| crate | mutants | unviable | viable | caught | missed | caught % |");
    println!("|---|---|---|---|---|---|---|");
    for row in table {
        println!("{row}");
    }
    Ok(())
}

/// The folder of the package, from the workspace's root.
fn folder(mutants: &[Mutant]) -> Result<String> {
    let file = &mutants.first().context("no mutants")?.file;
    let (folder, _rest) = file.split_once("/src/").context("not in src/")?;
    Ok(folder.to_owned())
}

fn judge_package(root: &Path, package: &str, jobs: usize, alone: bool) -> Result<String> {
    let begun = Instant::now();
    let mutants = list::list(root, package)?;
    let woven = Tree::copy(root, "woven")?;
    let mut without = BTreeSet::new();
    let (built, inside) = woven.weave(package, &mutants, &mut without)?;
    let tests = Tests::survey(built)?;
    eprintln!(
        "{package}: {} mutants, {} switched, {} refused; {} s in, the tests take {:.1} s; \
         they come by {} of the mutants",
        mutants.len(),
        inside.len(),
        without.len(),
        begun.elapsed().as_secs(),
        tests.took().as_secs_f64(),
        tests.reached().len(),
    );
    let mut fates: BTreeMap<usize, Fate> =
        without.iter().map(|number| (*number, Fate::Unviable)).collect();
    fates.extend(judge_switched(&tests, &mutants, &inside, jobs)?);
    if alone {
        fates.extend(judge_alone(root, package, &mutants, &fates, &tests)?);
    }
    for file in mutants.iter().map(|mutant| &mutant.file).collect::<BTreeSet<_>>() {
        woven.restore(file)?;
    }
    report(root, package, &mutants, &fates, begun)
}

fn judge_switched(
    tests: &Tests,
    mutants: &[Mutant],
    inside: &BTreeSet<usize>,
    jobs: usize,
) -> Result<BTreeMap<usize, Fate>> {
    let queue: Vec<usize> = inside.iter().copied().collect();
    let next = AtomicUsize::new(0);
    let fates = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some(number) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                let fate = tests.judge(*number)?;
                if let (Fate::Missed(by), Some(mutant)) = (&fate, mutants.get(number - 1)) {
                    eprintln!("missed, {by} tests come by: {}", mutant.name);
                }
                fates.lock().expect("no judge panics").insert(*number, fate);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no judge panics"))
    })?;
    Ok(fates.into_inner().expect("no judge panics"))
}

/// Builds what has no switch one by one.
fn judge_alone(
    root: &Path,
    package: &str,
    mutants: &[Mutant],
    fates: &BTreeMap<usize, Fate>,
    tests: &Tests,
) -> Result<BTreeMap<usize, Fate>> {
    let tree = Tree::copy(root, "alone")?;
    let mut alone = BTreeMap::new();
    for (number, mutant) in (1..).zip(mutants).filter(|(number, _)| !fates.contains_key(number)) {
        let source = tree.original(&mutant.file)?;
        let fate = if weave::in_let_chain(&source, mutant)? {
            Fate::Unviable
        } else {
            tree.write(&mutant.file, replaced(&source, mutant).as_bytes())?;
            let fate = match tree.build(package)? {
                Ok(built) => tests.judge_alone(&built)?,
                Err(_refused) => Fate::Unviable,
            };
            tree.restore(&mutant.file)?;
            fate
        };
        eprintln!("{package}: {fate:?}: {}", mutant.name);
        alone.insert(number, fate);
    }
    Ok(alone)
}

/// The source with the mutant in the place of what it replaces.
fn replaced(source: &str, mutant: &Mutant) -> String {
    let mut out = String::new();
    for (line, text) in (1..).zip(source.split_inclusive('\n')) {
        for (column, letter) in (1..).zip(text.chars()) {
            let here = list::Place { line, column };
            if here == mutant.span.start {
                out.push(' ');
                out.push_str(&mutant.replacement);
                out.push(' ');
            }
            if here < mutant.span.start || here >= mutant.span.end {
                out.push(letter);
            }
        }
    }
    out
}

fn report(
    root: &Path,
    package: &str,
    mutants: &[Mutant],
    fates: &BTreeMap<usize, Fate>,
    begun: Instant,
) -> Result<String> {
    let (mut unviable, mut caught, mut missed, mut unjudged) = (0, 0, 0, 0);
    let mut missed_lines = String::new();
    let mut lines = String::new();
    for (number, mutant) in (1..).zip(mutants) {
        let fate = fates.get(&number);
        writeln!(lines, "{fate:?} {}", mutant.name)?;
        match fate {
            Some(Fate::Unviable) => unviable += 1,
            Some(Fate::Caught(_) | Fate::Hung(_)) => caught += 1,
            Some(Fate::Missed(by)) => {
                missed += 1;
                writeln!(missed_lines, "{} [{by} tests come by]", mutant.name)?;
            }
            None => unjudged += 1,
        }
    }
    let dir = root.join("target/mutants");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join(format!("{package}.missed")), missed_lines)?;
    std::fs::write(dir.join(format!("{package}.fates")), lines)?;
    let viable = caught + missed;
    let percent = 100.0 * f64::from(caught) / f64::from(viable.max(1));
    let row = format!(
        "| {package} | {} | {unviable} | {viable} | {caught} | {missed} | {percent:.1} |",
        mutants.len()
    );
    let seconds = begun.elapsed().as_secs();
    eprintln!("{row} ({unjudged} not judged, {seconds} s)");
    Ok(row)
}
