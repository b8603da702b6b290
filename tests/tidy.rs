//! The law as a test: layering, one room a foreign library, sizes, banned names,
//! leftovers. What it forbids, it names with file and line.

#![expect(clippy::expect_used, reason = "a test that cannot look has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms each room may import.
const ARROWS: &[(&str, &[&str])] = &[
    ("host/core/types", &[]),
    ("host/core/policy", &["types"]),
    ("host/core/membership", &["types"]),
    ("host/core/ledger", &["types"]),
    ("host/core/dispatch", &["types", "policy"]),
    ("host/core/kernel", &["types", "policy", "membership", "ledger", "dispatch"]),
    ("host/adapters/transport", &["types"]),
    ("host/adapters/storage", &["types"]),
    ("host/adapters/raft", &["types", "ledger", "storage"]),
    ("host/adapters/wasm", &["types", "policy"]),
    ("host/drivers/crank", &["types", "policy", "ledger", "kernel", "dispatch", "storage", "raft"]),
    (
        "host/drivers/node",
        &[
            "types",
            "policy",
            "ledger",
            "kernel",
            "dispatch",
            "storage",
            "raft",
            "crank",
            "transport",
            "wasm",
        ],
    ),
    (
        "host/drivers/sim",
        &["types", "policy", "ledger", "kernel", "dispatch", "storage", "raft", "crank", "wasm"],
    ),
    ("host/api", &["types"]),
    ("host/client", &["types"]),
    ("host/cli", &["types", "api", "client", "node", "sim"]),
];

/// Foreign libraries, and the only rooms that may name them.
const FOREIGN: &[(&str, &[&str])] = &[
    ("openraft", &["raft"]),
    ("quorum-set", &["raft"]),
    ("openraft-rt", &["storage", "raft", "crank", "node", "sim"]),
    ("openraft-rt-tokio", &["node"]),
    ("openraft-rt-sim", &[]),
    ("libp2p", &["transport"]),
    ("libp2p-stream", &["transport"]),
    ("wasmtime", &["wasm"]),
    ("wasmparser", &["wasm"]),
    ("wit-component", &["wasm"]),
    ("axum", &["api"]),
    ("reqwest", &["client"]),
    ("clap", &["cli"]),
    ("anyhow", &["cli"]),
];

const LINES_MAX: usize = 500;
const BANNED: &[&str] =
    &["manager", "handler", "helper", "util", "utils", "common", "misc", "tracker", "processor"];
/// libp2p calls what serves a connection its handler, and its traits must be named.
const LIBP2P_ROOM: &str = "host/adapters/transport/";
const TOP: &[&str] = &["Cargo.toml", "host", "wit", "plugins", "tests", "benches", "README.md"];
/// Files that cargo, rustup and lawyers want at the top, beside the fixed ones and dot-files.
const TOP_BESIDE: &[&str] = &["Cargo.lock", "LICENSE", "rust-toolchain.toml", "docs", "target"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the root").to_owned()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder of ours") {
        let path = entry.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !matches!(name, "target" | ".git") {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    for dir in ["host", "plugins", "tests", "benches"] {
        sources(&root.join(dir), &mut found);
    }
    found.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("UTF-8");
        let name = path.strip_prefix(&root).expect("inside").display().to_string();
        (name, text)
    };
    found.into_iter().map(read).collect()
}

fn manifest(room: &str) -> toml::Table {
    let path = root().join(room).join("Cargo.toml");
    fs::read_to_string(path).expect("a room has a manifest").parse().expect("TOML")
}

fn dependencies(room: &str) -> BTreeSet<String> {
    let manifest = manifest(room);
    ["dependencies", "build-dependencies"]
        .into_iter()
        .filter_map(|section| manifest.get(section)?.as_table())
        .flat_map(|table| table.keys().cloned())
        .collect()
}

fn assert_none(what: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{what}:\n  {}", offences.join("\n  "));
}

#[test]
fn arrows_run_down_only() {
    let mut offences = Vec::new();
    for (room, allowed) in ARROWS {
        for name in dependencies(room) {
            if let Some(other) = name.strip_prefix("quorate-")
                && !allowed.contains(&other)
            {
                offences.push(format!("{room} imports {other}"));
            }
        }
    }
    assert_none("arrows that the design does not have", &offences);
}

#[test]
fn every_room_is_in_the_table() {
    let root = root();
    let mut offences = Vec::new();
    for shelf in ["host/core", "host/adapters", "host/drivers"] {
        for entry in fs::read_dir(root.join(shelf)).expect("a shelf") {
            let path = entry.expect("readable").path();
            let name = path.strip_prefix(&root).expect("inside").display().to_string();
            if path.join("Cargo.toml").exists() && !ARROWS.iter().any(|(room, _)| *room == name) {
                offences.push(name);
            }
        }
    }
    assert_none("rooms that the table does not know", &offences);
}

#[test]
fn a_foreign_library_has_one_room() {
    let mut offences = Vec::new();
    for (room, _allowed) in ARROWS {
        let short = room.rsplit('/').next().unwrap_or(room);
        for name in dependencies(room) {
            if let Some((_, rooms)) = FOREIGN.iter().find(|(library, _)| *library == name)
                && !rooms.contains(&short)
            {
                offences.push(format!("{room} names {name}"));
            }
        }
    }
    assert_none("foreign libraries outside their room", &offences);
}

#[test]
fn files_are_short() {
    let too_long = |(name, text): &(String, String)| {
        let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        let lines = text[..tests].lines().count();
        let is_test =
            name.contains("/tests/") || name.starts_with("tests/") || name.ends_with("tests.rs");
        (lines > LINES_MAX && !is_test).then(|| format!("{name}: {lines} lines"))
    };
    let offences: Vec<_> = all_sources().iter().filter_map(too_long).collect();
    assert_none("files of more than 500 lines without tests", &offences);
}

#[test]
fn names_say_what_a_thing_is() {
    let mut offences = Vec::new();
    for (name, text) in all_sources() {
        if name.starts_with(LIBP2P_ROOM) {
            continue;
        }
        let stem = name.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        if BANNED.contains(&stem) {
            offences.push(name.clone());
        }
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
            let Some("struct" | "enum" | "trait" | "type" | "mod") = words.next() else { continue };
            let ident = words.next().unwrap_or_default().to_lowercase();
            let ident: String =
                ident.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if BANNED.iter().any(|banned| ident.ends_with(banned)) || ident.ends_with("impl") {
                offences.push(format!("{name}:{number}: {ident}"));
            }
        }
    }
    assert_none("names that say nothing", &offences);
}

#[test]
fn nothing_is_left_over() {
    // Spelled apart, so that this file does not find itself.
    let leftovers = [
        concat!("#[ig", "nore"),
        concat!("tod", "o!("),
        concat!("unimpl", "emented!("),
        concat!("FIX", "ME"),
    ];
    let mut offences = Vec::new();
    for (name, text) in all_sources() {
        for (number, line) in (1..).zip(text.lines()) {
            if leftovers.iter().any(|leftover| line.contains(leftover)) {
                offences.push(format!("{name}:{number}: {}", line.trim()));
            }
        }
    }
    assert_none("leftovers", &offences);
}

#[test]
fn the_top_level_is_fixed() {
    let mut offences = Vec::new();
    for entry in fs::read_dir(root()).expect("the root") {
        let name = entry.expect("readable").file_name().to_string_lossy().into_owned();
        if !name.starts_with('.')
            && !TOP.contains(&name.as_str())
            && !TOP_BESIDE.contains(&name.as_str())
        {
            offences.push(name);
        }
    }
    assert_none("at the top level", &offences);
}
