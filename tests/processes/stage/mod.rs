//! What tests of real processes share: a laid-out cluster whose programs are started
//! by hand, signals, and the log lines that a node leaves.

#![allow(dead_code, reason = "each test uses its own part of the stage")]

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use quorate_cli::Launch;
use quorate_cli::local::{Layout, LocalAgent, LocalCluster};
use quorate_client::{Client, ClientOptions};
use serde_json::Value;

/// Longer than anything here takes; only a test that has failed waits so long.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// The program under test.
pub(crate) const QUORATE: &str = env!("CARGO_BIN_EXE_quorate");

/// Keys, tokens and node files for this many nodes; starts nothing.
pub(crate) fn lay_out(dir: &Path, nodes: u8, agents: Vec<Vec<LocalAgent>>) -> LocalCluster {
    lay_out_shards(dir, nodes, 1, agents)
}

/// The same, whose tasks and keys are shared among so many shards.
pub(crate) fn lay_out_shards(
    dir: &Path,
    nodes: u8,
    shards: u16,
    agents: Vec<Vec<LocalAgent>>,
) -> LocalCluster {
    let dir = Some(dir.to_owned());
    let layout = Layout { nodes, shards, dir, first_api_port: None, agents };
    LocalCluster::lay_out(&layout, Launch::of(QUORATE)).expect("laid out")
}

/// Runs a verb, against this cluster where it asks one: its exit code, and all that it said.
pub(crate) fn quorate(verb: &str, urls: &[String], token: &str) -> (Option<i32>, String) {
    let output = Command::new(QUORATE)
        .args(verb.split_whitespace())
        .args(["--timeout", "60"])
        .env("QUORATE_URL", urls.join(","))
        .env("QUORATE_TOKEN", token)
        .output()
        .expect("it starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// An agent of this component.
pub(crate) fn agent(name: &str, plugin: &str, slots: u32) -> LocalAgent {
    LocalAgent { name: name.to_owned(), plugin: plugin.to_owned(), slots }
}

/// A client of one of its nodes, or of all.
pub(crate) fn client(urls: impl IntoIterator<Item = String>, token: &str) -> Client {
    Client::new(ClientOptions::new(urls, Some(token.to_owned()))).expect("sound addresses")
}

/// A program that a test speaks to by signals. Dropped, it is killed.
pub(crate) struct Program {
    child: Child,
    /// What it writes to standard error.
    pub(crate) log: PathBuf,
}

impl Program {
    /// Starts `quorate` with these arguments.
    pub(crate) fn start(arguments: &[&str], log: PathBuf, variables: &[(&str, &str)]) -> Self {
        Self::start_program(QUORATE, arguments, log, variables)
    }

    /// Starts another program than `quorate`.
    pub(crate) fn start_program(
        program: &str,
        arguments: &[&str],
        log: PathBuf,
        variables: &[(&str, &str)],
    ) -> Self {
        let errors = File::options().create(true).append(true).open(&log).expect("writable");
        let child = Command::new(program)
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("it starts");
        Self { child, log }
    }

    /// The first line that it prints.
    pub(crate) fn first_line(&mut self) -> String {
        let mut line = String::new();
        let out = self.child.stdout.take().expect("piped, and read once");
        BufReader::new(out).read_line(&mut line).expect("readable");
        line
    }

    /// The first line that it prints, which is JSON.
    pub(crate) fn first_json(&mut self) -> Value {
        let line = self.first_line();
        let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("`{line}` from {}", log()))
    }

    /// Sends a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("`kill` is there");
        assert!(sent.success(), "SIG{name} to {pid}");
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        until("the program ends", || self.child.try_wait().expect("a child"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Looks again until there is something to see.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: not within {WITHIN:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The lines of a node's log that are JSON.
pub(crate) fn log_lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The lines with this message.
pub(crate) fn said(file: &Path, message: &str) -> Vec<Value> {
    let mut lines = log_lines(file);
    lines.retain(|line| line["fields"]["message"] == message);
    lines
}
