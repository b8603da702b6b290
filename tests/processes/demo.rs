//! The demo as a test: the same program on a small made-up corpus, and the same
//! with a planted bug, which it must find.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::{Command, Output};

use quorate_types::rng::Rng;
use serde_json::Value;

const FILES: u32 = 400;

/// Files of words, most small and a few large.
fn corpus(dir: &Path) {
    let mut rng = Rng::new(7);
    for file in 0..FILES {
        let words = if file % 20 == 0 { 20_000 } else { 200 + rng.below(800) };
        let mut text = String::new();
        for _ in 0..words {
            // Few words are frequent and many are rare, as in code.
            let spread = 1 << (4 + rng.below(8));
            text += &format!("fn_{:x} ", rng.below(spread));
        }
        std::fs::write(dir.join(format!("{file}.rs")), text).expect("a temporary folder");
    }
}

fn demo(program: &str, faults: &[&str], options: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a temporary folder");
    corpus(dir.path());
    Command::new(program)
        .args(faults)
        .args(["demo", "--headless", "-o", "json"])
        .args(options)
        .arg("--corpus")
        .arg(dir.path())
        .output()
        .expect("the program starts")
}

fn summary(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no summary ({error}); it said: {said}"))
}

fn number(summary: &Value, key: &str) -> u64 {
    summary[key].as_u64().unwrap_or_else(|| panic!("`{key}` is no number in {summary}"))
}

#[test]
fn a_killed_leader_and_a_swapped_policy_lose_nothing() {
    loses_nothing(&[]);
}

#[test]
fn nor_do_they_where_shards_share_the_tasks() {
    loses_nothing(&["--shards", "2"]);
}

fn loses_nothing(options: &[&str]) {
    let output = demo(env!("CARGO_BIN_EXE_quorate"), &[], options);
    let summary = summary(&output);
    eprintln!("{summary}");
    for zero in ["lost", "applied_twice", "failed_calls", "mismatches"] {
        assert_eq!(number(&summary, zero), 0, "{zero} in {summary}");
    }
    assert_eq!(number(&summary, "submitted"), u64::from(FILES));
    assert_eq!(number(&summary, "completed"), u64::from(FILES));
    assert_eq!(number(&summary, "leader_kills"), 1);
    assert_eq!(number(&summary, "policy_swaps"), 1);
    assert!(number(&summary, "requeued") > 0, "{summary}");
    assert!(number(&summary, "leases_at_kill") >= 10, "{summary}");
    assert!(number(&summary, "calls_at_kill") >= 32, "{summary}");
    assert!(number(&summary, "calls_at_swap") >= 32, "{summary}");
    assert!(number(&summary, "queries_compared") >= 1000, "{summary}");
    assert!(output.status.success(), "{summary}");
}

#[test]
fn a_completion_that_is_dropped_is_found() {
    let output =
        demo(env!("CARGO_BIN_EXE_quorate-faulty"), &["--fault", "drop-completion=40"], &[]);
    let summary = summary(&output);
    assert_eq!(number(&summary, "lost"), 1, "{summary}");
    assert_eq!(output.status.code(), Some(1), "{summary}");
}

#[test]
fn a_completion_that_happens_twice_is_found() {
    let output =
        demo(env!("CARGO_BIN_EXE_quorate-faulty"), &["--fault", "double-completion=40"], &[]);
    let summary = summary(&output);
    assert_eq!(number(&summary, "applied_twice"), 1, "{summary}");
    assert_eq!(output.status.code(), Some(1), "{summary}");
}
