//! Bad input: each is a clear error that names what, why and what to try; the node
//! lives on and no task is lost.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "../../host/adapters/wasm/tests/guests/mod.rs"]
mod guests;
mod stage;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use guests::PolicyGuest;
use quorate_cli::local::{LocalAgent, LocalCluster};
use quorate_client::{CallRequest, Client, ClientError, PolicySource};
use quorate_types::door::Consistency;
use quorate_types::limits::{BLOB_BYTES_MAX, CALL_BYTES_MAX, INLINE_BYTES_MAX};
use quorate_types::view::TaskView;
use quorate_types::{Payload, Retry, TaskSpec, TaskState, Timeouts};
use stage::{QUORATE, WITHIN, agent, client, lay_out};

/// An agent that answers with its name.
const ANSWERS: &str = "(call $inline (i32.const 64) (i32.const 6))";
const LOOPS: &str = "(loop $for_ever (br $for_ever)) (unreachable)";
const TRAPS: &str = "(unreachable)";
/// Takes memory for as long as there is some, and then goes on as if it had more.
const GROWS: &str = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (unreachable)";

/// Runs a command that must fail; its words.
#[track_caller]
fn refused(args: &[&str], code: i32) -> String {
    let output = Command::new(QUORATE).args(args).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

#[track_caller]
fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
}

fn node_file(dir: &Path) -> PathBuf {
    dir.join("node-1/node.toml")
}

#[track_caller]
fn node_run(dir: &Path) -> String {
    refused(&["node", "run", "-f", node_file(dir).to_str().expect("UTF-8")], 1)
}

fn edit(dir: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(node_file(dir)).expect("laid out");
    assert!(text.contains(from), "{text}");
    std::fs::write(node_file(dir), text.replace(from, to)).expect("writable");
}

/// An address in the node file, by the section that it stands in.
fn listen(dir: &Path, section: &str) -> String {
    let text = std::fs::read_to_string(node_file(dir)).expect("laid out");
    let table: toml::Table = text.parse().expect("TOML");
    table[section]["listen"].as_str().expect("an address").to_owned()
}

fn write(dir: &Path, name: &str, component: &[u8]) -> String {
    let path = dir.join(name);
    std::fs::write(&path, component).expect("writable");
    path.display().to_string()
}

#[test]
fn an_unknown_key_is_named_with_the_nearest() {
    let dir = tempfile::tempdir().expect("a folder");
    lay_out(dir.path(), 1, Vec::new());
    edit(dir.path(), "data_dir", "data_dri");
    assert_says(&node_run(dir.path()), &["node.data_dri", "node.data_dir`?"]);
}

#[test]
fn a_taken_port_is_named() {
    for section in ["api", "node"] {
        let dir = tempfile::tempdir().expect("a folder");
        lay_out(dir.path(), 1, Vec::new());
        let address = listen(dir.path(), section);
        let _taken = TcpListener::bind(&address).expect("free until now");
        assert_says(&node_run(dir.path()), &[&address, "choose another"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_process_node_or_cluster_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = lay_out(dir.path(), 1, Vec::new());
    cluster.start().expect("started");
    cluster.wait_all_ready(WITHIN).await.expect("ready");
    let (api, peers) = (listen(dir.path(), "api"), listen(dir.path(), "node"));
    edit(dir.path(), &api, "127.0.0.1:0");
    edit(dir.path(), &peers, "127.0.0.1:0");
    assert_says(&node_run(dir.path()), &["in use by another process", "data_dir"]);
    cluster.stop(WITHIN);

    edit(dir.path(), "id = 1\n", "id = 2\n");
    assert_says(&node_run(dir.path()), &["belongs to node `n1`", "node `n2`", "data_dir"]);
    edit(dir.path(), "id = 2\n", "id = 1\n");
    edit(dir.path(), "id = \"local\"", "id = \"elsewhere\"");
    assert_says(&node_run(dir.path()), &["cluster `local`", "cluster `elsewhere`"]);
}

#[test]
fn an_agent_that_cannot_be_hosted_is_named_with_the_reason() {
    let imports = guests::text(r#"(component (import "wasi:io/streams@0.2.3" (instance)))"#);
    for (component, words) in [
        (b"not a component".to_vec(), ["not a valid WebAssembly component", "build it again"]),
        (guests::text("(module)"), ["core WebAssembly module", "wasm-tools component new"]),
        (guests::text("(component)"), ["does not export `quorate:agent/working@", "build it"]),
        (imports, ["wasi:io/streams@0.2.3", "quorate:host"]),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let plugin = write(dir.path(), "bad.wasm", &component);
        lay_out(dir.path(), 1, vec![vec![agent("bad", &plugin, 1)]]);
        let said = node_run(dir.path());
        assert_says(&said, &["agent `bad` cannot be hosted"]);
        assert_says(&said, &words);
    }
    let dir = tempfile::tempdir().expect("a folder");
    lay_out(dir.path(), 1, vec![vec![agent("lost", "no-such-plugin", 1)]]);
    assert_says(&node_run(dir.path()), &["`no-such-plugin` is no built-in plugin"]);
}

#[test]
fn a_demo_without_a_corpus_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let empty = dir.path().to_str().expect("UTF-8");
    let said = refused(&["demo", "--headless", "--corpus", empty], 1);
    assert_says(&said, &["has no files"]);
    let missing = format!("{empty}/missing");
    let said = refused(&["demo", "--headless", "--corpus", &missing], 1);
    assert_says(&said, &["is not a folder"]);
}

/// A running node that hosts a good agent for `dig`, and bad ones for their misdeeds.
struct House {
    client: Client,
    cluster: LocalCluster,
    dir: tempfile::TempDir,
}

impl House {
    async fn open(bad: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut agents: Vec<LocalAgent> = Vec::new();
        for (name, handle) in [("dig", ANSWERS)].iter().chain(bad) {
            let component = guests::agent(&[], handle);
            let plugin = write(dir.path(), &format!("{name}.wasm"), &component);
            agents.push(agent(name, &plugin, 2));
        }
        let mut cluster = lay_out(dir.path(), 1, vec![agents]);
        for (name, _handle) in bad {
            // All of them say that they dig; what they are wanted for is their name.
            let to = format!("[[agent]]\nname = \"{name}\"\ncapabilities = [\"{name}\"]");
            edit(dir.path(), &format!("[[agent]]\nname = \"{name}\""), &to);
        }
        cluster.start().expect("started");
        cluster.wait_all_ready(WITHIN).await.expect("ready");
        let client = client(cluster.urls(), cluster.token());
        Self { client, cluster, dir }
    }

    /// A task until its end. A bad agent may run for half a second, and is not asked again.
    async fn task(&self, capability: &str) -> TaskView {
        let spec = TaskSpec {
            capabilities: vec![capability.to_owned()],
            timeouts: Timeouts { run_ms: Some(500), ..Timeouts::default() },
            retry: Retry { attempts_max: 1, ..Retry::default() },
            ..TaskSpec::default()
        };
        let submitted = self.client.submit(spec).await.expect("the node lives");
        let ended = tokio::time::timeout(WITHIN, self.client.wait(submitted.id)).await;
        ended.expect("no task is lost").expect("the node lives")
    }

    async fn works(&self) {
        let ended = self.task("dig").await;
        assert_eq!(ended.state, TaskState::Completed, "{ended:?}");
        let pid = self.cluster.pid(0).expect("it runs");
        assert!(Path::new(&format!("/proc/{pid}")).exists(), "the very process that was started");
    }

    async fn figure(&self, sample: &str) -> u64 {
        let page = self.client.metrics().await.expect("the node lives");
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_loops_grows_or_traps_fails_its_own_task_alone() {
    let house = House::open(&[("loop", LOOPS), ("grow", GROWS), ("trap", TRAPS)]).await;
    for (misdeed, words) in
        [("loop", "run timeout"), ("grow", "the agent trapped"), ("trap", "unreachable")]
    {
        let (ended, ()) = tokio::join!(house.task(misdeed), house.works());
        assert_eq!(ended.state, TaskState::DeadLetter, "{misdeed}");
        assert_says(ended.error.as_deref().unwrap_or_default(), &[words]);
        let mut call = CallRequest::new(misdeed, "x");
        call.deadline = std::time::Duration::from_secs(1);
        let refused = house.client.call(&call).await.expect_err("a typed end");
        let typed = matches!(&refused, ClientError::Refused(_) | ClientError::Timeout { .. });
        assert!(typed, "{misdeed}: {refused}");
        house.works().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_cannot_be_admitted_changes_nothing() {
    let house = House::open(&[]).await;
    let url = &house.cluster.urls()[0];
    let imports = guests::text(r#"(component (import "quorate:host/clock@0.1.0-dev" (instance)))"#);
    let at_first = PolicyGuest::named("round-robin").body("describe", TRAPS).component();
    let for_ever = PolicyGuest::named("round-robin").body("describe", LOOPS).component();
    for (name, component, words) in [
        ("none", b"not a component".to_vec(), "not a valid WebAssembly component"),
        ("core", guests::text("(module)"), "core WebAssembly module"),
        ("world", guests::text("(component)"), "does not export `quorate:balancer/balancing@"),
        ("imports", imports, "quorate:host/clock@0.1.0-dev"),
        ("traps", at_first, "describe"),
        ("loops", for_ever, "describe"),
    ] {
        let file = write(house.dir.path(), &format!("{name}.wasm"), &component);
        let said =
            refused(&["policy", "apply", &file, "--url", url, "--token", house.cluster.token()], 4);
        assert_says(&said, &["is not ready for the component", words]);
        let listed = house.client.policies(Consistency::Linearizable).await;
        assert_eq!(listed.expect("the node lives").policies, []);
        house.works().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_fails_at_work_is_answered_for_natively() {
    let house = House::open(&[]).await;
    for (misdeed, body, kind) in
        [("traps", TRAPS, "trap"), ("loops", LOOPS, "deadline"), ("grows", GROWS, "trap")]
    {
        let guest = PolicyGuest::named("round-robin").body("pick", body).body("pick-batch", body);
        let source = PolicySource::Component(guest.component().into(), misdeed.to_owned());
        house.client.apply_policy("balancer", source, false).await.expect("nothing shows yet");
        for _ in 0..3 {
            house.works().await;
        }
        let labels = format!("policy=\"{misdeed}\",kind=\"{kind}\"");
        let failures = format!("quorate_policy_failures_total{{{labels}}}");
        assert!(house.figure(&failures).await >= 1, "{failures}");
        let fallbacks = format!("quorate_policy_fallbacks_total{{policy=\"{misdeed}\"}}");
        assert!(house.figure(&fallbacks).await >= 3, "{fallbacks}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_with_the_limit() {
    let house = House::open(&[]).await;
    let url = house.cluster.urls()[0].clone();
    let http = reqwest::Client::new();
    let inline = serde_json::json!({
        "capabilities": ["dig"], "input": { "text": "x".repeat(INLINE_BYTES_MAX + 1) },
    });
    let component: u64 = 32 << 20;
    let json: u64 = 4 << 20;
    let zeroes = |bytes: u64| vec![b' '; usize::try_from(bytes + 1).expect("it fits in memory")];
    let call = u64::try_from(CALL_BYTES_MAX).expect("64 bits");
    for (method, path, kind, body, limit) in [
        ("PUT", "/v1/blobs", "application/octet-stream", zeroes(BLOB_BYTES_MAX), BLOB_BYTES_MAX),
        ("POST", "/v1/tasks", "application/json", zeroes(json), json),
        (
            "POST",
            "/v1/tasks",
            "application/json",
            inline.to_string().into_bytes(),
            u64::try_from(INLINE_BYTES_MAX).expect("64 bits"),
        ),
        ("POST", "/v1/call/dig", "text/plain", zeroes(call), call),
        (
            "POST",
            "/v1/policies/balancer?name=big",
            "application/wasm",
            zeroes(component),
            component,
        ),
    ] {
        let request = http
            .request(method.parse().expect("a method"), format!("{url}{path}"))
            .bearer_auth(house.cluster.token())
            .header(reqwest::header::CONTENT_TYPE, kind)
            .body(body);
        let answer = request.send().await.expect("an answer, not a broken connection");
        assert_eq!(answer.status(), 413, "{path}");
        let problem: serde_json::Value = answer.json().await.expect("a problem");
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains(&format!("the limit is {limit}")), "{path}: {detail}");
    }
    let payload = Payload::Inline(vec![b'x'; INLINE_BYTES_MAX].into());
    let spec =
        TaskSpec { capabilities: vec!["dig".to_owned()], input: payload, ..TaskSpec::default() };
    let largest = house.client.submit(spec).await.expect("the limit itself is allowed");
    let ended = house.client.wait(largest.id).await.expect("the node lives");
    assert_eq!(ended.state, TaskState::Completed);
}
