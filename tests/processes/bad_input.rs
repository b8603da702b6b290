//! Bad input: each is a clear error that names what, why and what to try.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use quorate_cli::Launch;
use quorate_cli::local::{Layout, LocalAgent, LocalCluster};

fn layout(dir: &Path, agents: Vec<Vec<LocalAgent>>) {
    let layout = Layout { nodes: 1, dir: Some(dir.to_owned()), first_api_port: None, agents };
    drop(
        LocalCluster::lay_out(&layout, Launch::of(env!("CARGO_BIN_EXE_quorate")))
            .expect("laid out"),
    );
}

/// Runs a command that must fail; its words.
fn refused(args: &[&str], code: i32) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_quorate")).args(args).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

fn node_run(dir: &Path) -> String {
    let file = dir.join("node-1/node.toml");
    refused(&["node", "run", "-f", file.to_str().expect("UTF-8")], 1)
}

fn edit(dir: &Path, from: &str, to: &str) {
    let file = dir.join("node-1/node.toml");
    let text = std::fs::read_to_string(&file).expect("laid out");
    assert!(text.contains(from), "{text}");
    std::fs::write(file, text.replace(from, to)).expect("writable");
}

#[test]
fn an_unknown_key_is_named_with_the_nearest() {
    let dir = tempfile::tempdir().expect("a folder");
    layout(dir.path(), Vec::new());
    edit(dir.path(), "data_dir", "data_dri");
    let said = node_run(dir.path());
    assert!(said.contains("node.data_dri") && said.contains("node.data_dir`?"), "{said}");
}

#[test]
fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    layout(dir.path(), Vec::new());
    let text = std::fs::read_to_string(dir.path().join("node-1/node.toml")).expect("laid out");
    let api = text.split("[api]\nlisten = \"").nth(1).and_then(|rest| rest.split('"').next());
    let api = api.expect("an address");
    let _taken = TcpListener::bind(api).expect("free until now");
    let said = node_run(dir.path());
    assert!(said.contains(api) && said.contains("another port"), "{said}");
}

#[test]
fn another_nodes_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    layout(dir.path(), Vec::new());
    let data = dir.path().join("node-1/data");
    let mut cluster = LocalCluster::lay_out(
        &Layout {
            nodes: 1,
            dir: Some(dir.path().to_owned()),
            first_api_port: None,
            agents: Vec::new(),
        },
        Launch::of(env!("CARGO_BIN_EXE_quorate")),
    )
    .expect("laid out");
    cluster.start().expect("started");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ready = cluster.wait_all_ready(std::time::Duration::from_secs(30));
    runtime.block_on(ready).expect("ready");
    let said = node_run(dir.path());
    assert!(said.contains("in use") || said.contains("cannot be used"), "{said}");
    cluster.stop(std::time::Duration::from_secs(10));

    edit(dir.path(), "id = \"local\"", "id = \"elsewhere\"");
    let said = node_run(dir.path());
    assert!(
        said.contains("local") && said.contains("elsewhere"),
        "{said} about {}",
        data.display()
    );
}

#[test]
fn a_component_that_is_none_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let plugin = dir.path().join("none.wasm");
    std::fs::write(&plugin, b"not a component").expect("writable");
    let agent =
        LocalAgent { name: "none".to_owned(), plugin: plugin.display().to_string(), slots: 1 };
    layout(dir.path(), vec![vec![agent]]);
    let said = node_run(dir.path());
    assert!(said.contains("agent `none` cannot be hosted"), "{said}");
}

#[test]
fn a_demo_without_a_corpus_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let empty = dir.path().to_str().expect("UTF-8");
    let said = refused(&["demo", "--headless", "--corpus", empty], 1);
    assert!(said.contains("has no files"), "{said}");
    let missing = format!("{empty}/missing");
    let said = refused(&["demo", "--headless", "--corpus", &missing], 1);
    assert!(said.contains("is not a folder"), "{said}");
}
