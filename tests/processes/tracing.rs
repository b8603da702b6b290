//! One trace id from the door over the log and the routing decision to the component,
//! found in the log lines of real nodes.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "../../host/adapters/wasm/tests/guests/mod.rs"]
mod guests;
mod stage;

use std::path::PathBuf;

use quorate_client::Client;
use quorate_types::NodeId;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use stage::{Program, agent, client, lay_out, log_lines, until};

const TASK_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALL_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// An agent that says who it is, in its log and as its answer.
const SAYS_WHO: &str = "(call $log (i32.const 1) (i32.const 64) (i32.const 6))
    (call $inline (i32.const 64) (i32.const 6))";

/// A running cluster of three whose nodes log everything.
struct Traced {
    logs: Vec<PathBuf>,
    urls: Vec<String>,
    token: String,
    _dev: Program,
    _dir: tempfile::TempDir,
}

impl Traced {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let plugin = dir.path().join("digger.wasm");
        std::fs::write(&plugin, guests::agent(&["log"], SAYS_WHO)).expect("writable");
        // Only the third node hosts an agent, so that routing leads to another node.
        let digger = agent("digger", plugin.to_str().expect("UTF-8"), 4);
        let laid = lay_out(dir.path(), 3, vec![Vec::new(), Vec::new(), vec![digger]]);
        let (token, data) = (laid.token().to_owned(), dir.path().display().to_string());
        let context = dir.path().join("context.json").display().to_string();
        let variables = [("QUORATE_LOG", "info,quorate=debug"), ("QUORATE_CONTEXT", &context)];
        let arguments = ["dev", "--nodes", "3", "--data", &data, "-o", "json"];
        let mut dev = Program::start(&arguments, dir.path().join("dev.log"), &variables);
        dev.first_json();
        let logs = (0..3).map(|at| laid.log_file(at).to_owned()).collect();
        Self { logs, urls: laid.urls(), token, _dev: dev, _dir: dir }
    }

    /// Asks a node by HTTP with a `traceparent` of one's own.
    async fn post(&self, node: usize, path: &str, trace: &str, body: Value) -> reqwest::Response {
        let response = reqwest::Client::new()
            .post(format!("{}{path}", self.urls[node]))
            .bearer_auth(&self.token)
            .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        assert!(response.status().is_success(), "{}", response.status());
        response
    }

    /// Waits until a node has logged a line with this trace from this target, and such a message.
    #[track_caller]
    fn heard(&self, node: usize, trace: &str, target: &str, message: &str) -> Value {
        until(&format!("node {node} logs `{message}` of {target} under {trace}"), || {
            log_lines(&self.logs[node]).into_iter().find(|line| {
                line["target"].as_str().is_some_and(|found| found.starts_with(target))
                    && line["fields"]["message"] == message
                    && traces(line).contains(&trace)
            })
        })
    }
}

/// The trace ids of a line: its own, and those of the spans that it is in.
fn traces(line: &Value) -> Vec<&str> {
    let spans = line["spans"].as_array().into_iter().flatten();
    let places = spans.chain([&line["fields"], &line["span"]]);
    places.filter_map(|place| place["trace"].as_str()).collect()
}

async fn leader(client: &Client) -> usize {
    let nodes = client.cluster().await.expect("all are up");
    let NodeId(leader) = nodes[0].groups[0].leader.expect("all are ready");
    usize::try_from(leader - 1).expect("few nodes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_and_a_call_have_one_trace_from_the_door_to_the_component() {
    let cluster = Traced::start();
    let everyone = client(cluster.urls.clone(), &cluster.token);
    let leads = leader(&everyone).await;
    let (first, hosts) = (if leads == 0 { 1 } else { 0 }, 2);

    let spec = json!({ "capabilities": ["dig"], "idempotency_key": "one" });
    cluster.post(first, "/v1/tasks", TASK_TRACE, spec).await;
    cluster.heard(first, TASK_TRACE, "quorate_api", "answered");
    let placed = cluster.heard(leads, TASK_TRACE, "quorate_kernel", "task placed");
    assert_eq!(placed["fields"]["policy"], "peak-ewma");
    cluster.heard(leads, TASK_TRACE, "quorate_kernel", "submission proposed");
    for node in 0..3 {
        cluster.heard(node, TASK_TRACE, "quorate_crank", "applied");
    }
    cluster.heard(hosts, TASK_TRACE, "quorate_wasm", "work begins");
    cluster.heard(hosts, TASK_TRACE, "quorate::agent", "digger");
    cluster.heard(hosts, TASK_TRACE, "quorate_wasm", "work ended");

    let said = cluster.post(first, "/v1/call/dig", CALL_TRACE, json!({})).await;
    assert_eq!(said.text().await.expect("whole"), "digger");
    cluster.heard(first, CALL_TRACE, "quorate_api", "answered");
    let routed = cluster.heard(first, CALL_TRACE, "quorate_dispatch", "call routed");
    assert_eq!(routed["fields"]["node"], "n3");
    cluster.heard(hosts, CALL_TRACE, "quorate_wasm", "work begins");
    cluster.heard(hosts, CALL_TRACE, "quorate::agent", "digger");
    for node in 0..3 {
        let logged = log_lines(&cluster.logs[node]);
        let both =
            logged.iter().find(|line| traces(line).iter().any(|trace| *trace != traces(line)[0]));
        assert_eq!(both, None, "no line belongs to two traces");
    }
}
