//! What `/metrics` says of a real node in this process.

#![expect(clippy::expect_used, reason = "a scenario that cannot go on must stop")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use quorate_node::{Node, NodeConfig, new_key, peer_id_of};
use quorate_types::door::Consistency;
use quorate_types::view::CallSpec;
use quorate_types::{Faults, Reply, Request, Submission, TaskSpec};

fn secret(file: &Path, text: &str) {
    std::fs::write(file, text).expect("writable");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("ours");
}

/// A node that is a cluster by itself and hosts a searching agent.
async fn start(dir: &Path) -> Node {
    if !dir.join("key").exists() {
        secret(&dir.join("key"), &new_key());
        secret(&dir.join("token"), "0123456789abcdef");
    }
    let key = std::fs::read_to_string(dir.join("key")).expect("written");
    let text = format!(
        r#"
        cluster = {{ id = "c" }}
        api = {{ listen = "127.0.0.1:0", token_file = "token" }}
        [node]
        id = 1
        data_dir = "data"
        key_file = "key"
        listen = "127.0.0.1:0"
        [[member]]
        id = 1
        name = "one"
        peer = "{}"
        address = "127.0.0.1:1"
        [[agent]]
        name = "searcher"
        plugin = "code-searcher"
        "#,
        peer_id_of(&key).expect("a key")
    );
    let file = dir.join("node.toml");
    std::fs::write(&file, text).expect("writable");
    let config = NodeConfig::read(&file).expect("sound");
    let node = Node::start(&config, &Faults::none()).await.expect("started");
    let ready = async {
        while node.door().ready().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready).await.expect("ready");
    node
}

/// Samples by name and labels; every one must belong to a family with help and type.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let mut kinds = BTreeMap::new();
    let mut helped = Vec::new();
    let mut samples = BTreeMap::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a text");
            assert!(help.ends_with('.'), "{help}");
            assert!(!helped.contains(&name.to_owned()), "{name} has its family twice");
            helped.push(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            assert_eq!(helped.last().map(String::as_str), Some(name), "help comes first");
            kinds.insert(name.to_owned(), kind.to_owned());
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a sample and its value");
            let name = sample.split('{').next().expect("a name");
            let kind = kinds.get(name).unwrap_or_else(|| panic!("`{line}` has no family"));
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            samples.insert(sample.to_owned(), value.parse().expect("a number"));
        }
    }
    samples
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_room_counts_and_the_page_keeps_its_conventions() {
    let dir = tempfile::tempdir().expect("a folder");
    let node = start(dir.path()).await;
    let door = node.door();
    let before = samples(&door.metrics());
    let spec = TaskSpec { capabilities: vec!["nobody".to_owned()], ..TaskSpec::default() };
    let submit = Request::Submit(vec![Submission { spec, nonce: (1, 1, 1) }]);
    let Ok(Reply::Submitted(answers)) = door.ask(submit, 10_000).await else {
        panic!("it leads by itself")
    };
    let id = answers[0].as_ref().expect("nothing is wrong with it").id;
    door.ask(Request::Task(id, Consistency::Linearizable), 10_000).await.expect("it is there");
    let call = CallSpec {
        namespace: "default".to_owned(),
        capabilities: vec!["code-search".to_owned()],
        content_type: String::new(),
        body: bytes::Bytes::from_static(b"no query"),
        deadline_ms: 10_000,
        idempotent: true,
        trace: quorate_types::TraceId(1),
    };
    let ended = door.call(call).next().await.expect("an end");
    assert!(ended.is_err(), "the agent refuses what is no query");

    let after = samples(&door.metrics());
    let grew = |name: &str| after[name] - before[name];
    assert!(grew("quorate_log_syncs_total") >= 1.0, "a submit is fsynced");
    assert!(grew("quorate_log_written_bytes_total") > 0.0);
    assert!(grew("quorate_raft_committed_index{group=\"g0\"}") >= 1.0);
    assert!(grew("quorate_calls_total") == 1.0);
    for sample in [
        "quorate_policy_failures_total{policy=\"peak-ewma\",kind=\"deadline\"}",
        "quorate_policy_fallbacks_total{policy=\"peak-ewma\"}",
        "quorate_transport_frames_sent_total{lane=\"append\"}",
        "quorate_transport_frames_dropped_total{lane=\"call\",reason=\"full\"}",
        "quorate_transport_redials_total",
        "quorate_transport_strangers_refused_total",
    ] {
        assert_eq!(after[sample], 0.0, "{sample}");
    }
    let compiled = |samples: &BTreeMap<String, f64>, engine: &str, from: &str| {
        let engine = format!("engine=\"{engine}\",from=\"{from}\"");
        samples[&format!("quorate_component_compiles_total{{{engine}}}")]
    };
    assert_eq!(compiled(&after, "policy", "compiler"), 1.0, "the first policy");
    assert_eq!(compiled(&after, "agent", "compiler"), 1.0, "the searcher");
    // Whoever has a door keeps the data directory in use.
    drop(door);
    node.stop().await;

    let again = start(dir.path()).await;
    let warm = samples(&again.door().metrics());
    for engine in ["policy", "agent"] {
        assert_eq!(compiled(&warm, engine, "disk"), 1.0, "{engine}: sealed by the life before");
        assert_eq!(compiled(&warm, engine, "compiler"), 0.0, "{engine}");
    }
    again.stop().await;
}
