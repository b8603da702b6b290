//! The binary as a user meets it: what it prints, and how it ends. The cluster
//! behind it is the toy of the HTTP door's scenarios.

#![expect(clippy::expect_used, reason = "a scenario that cannot go on must stop")]

#[expect(dead_code, reason = "the toy serves other tests with more")]
#[path = "../../api/tests/scenarios/toy/mod.rs"]
mod toy;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_api::{ApiOptions, serve};
use quorate_client::{Client, ClientOptions};
use quorate_types::http::Register;
use quorate_types::limits::INLINE_BYTES_MAX;
use quorate_types::{Digest, Payload, Refusal, TaskState};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

use toy::Toy;

const TOKEN: &str = "open sesame";

/// A cluster, and a shell beside it.
struct Shell {
    toy: Toy,
    url: String,
    folder: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    #[track_caller]
    fn is(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    #[track_caller]
    fn says(self, words: &str) -> Self {
        assert!(self.err.contains(words), "no `{words}` in {self:?}");
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect("one JSON document")
    }
}

impl Shell {
    async fn open() -> Self {
        let toy = Toy::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let component = ("load-aware".to_owned(), Bytes::from("a component"));
        let builtins = BTreeMap::from([component]);
        let options = ApiOptions { builtins, ..ApiOptions::new(TOKEN) };
        tokio::spawn(serve(listener, Arc::new(toy.clone()), options, std::future::pending()));
        Self { toy, url, folder: tempfile::tempdir().expect("a folder") }
    }

    /// A command that knows nothing but an empty home.
    fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.args(arguments).env_clear().env("HOME", self.folder.path());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(arguments);
        command.env("QUORATE_URL", &self.url).env("QUORATE_TOKEN", TOKEN);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        end(self.command(arguments)).await
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.display().to_string()
    }

    /// An outside worker that answers every task with its input, until the test ends.
    async fn employ(&self, capability: &str) {
        let options = ClientOptions::new([self.url.clone()], Some(TOKEN.to_owned()));
        let client = Client::new(options).expect("a sound address");
        let register = Register {
            namespace: "default".to_owned(),
            name: "echo".to_owned(),
            capabilities: vec![capability.to_owned()],
            slots: 4,
        };
        let me = client.register(&register).await.expect("registered");
        tokio::spawn(async move {
            loop {
                let wait = Duration::from_secs(60);
                let taken = client.take(me.id, me.incarnation, &[], 4, wait).await;
                for grant in taken.expect("work or an orderly end") {
                    let (task, token) = (grant.lease.task, grant.lease.token);
                    client.complete(task, token, grant.spec.input).await.expect("completed");
                }
            }
        });
    }
}

async fn end(mut command: Command) -> Ended {
    let run = tokio::time::timeout(Duration::from_secs(60), command.output());
    let output = run.await.expect("it ends").expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended {
        code: output.status.code().expect("no signal"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

#[tokio::test]
async fn a_task_goes_from_the_shell_to_a_worker_and_back() {
    let shell = Shell::open().await;
    shell.employ("echo").await;
    let submit = ["task", "submit", "--capability", "echo", "--input", "hello", "--wait"];
    let waited = shell.run(&submit).await.is(0);
    let last = waited.out.lines().last().expect("a last state");
    assert_eq!(last, "t0000000000000001 completed hello");
    let got = shell.run(&["task", "get", "t0000000000000001", "-o", "json"]).await.is(0).json();
    assert_eq!((&got["state"], &got["result"]["text"]), (&json!("completed"), &json!("hello")));
    let shown = shell.run(&["task", "get", "t0000000000000001"]).await.is(0);
    assert!(shown.out.lines().any(|line| line == "result        hello"), "{}", shown.out);
    let agents = shell.run(&["agent", "ls", "--capability", "echo"]).await.is(0);
    assert_eq!(agents.out.lines().count(), 2, "a head and a row: {}", agents.out);
}

#[tokio::test]
async fn a_task_that_does_not_complete_ends_its_watch_with_1() {
    let shell = Shell::open().await;
    let id = shell.run(&["task", "submit", "-c", "nobody", "-l", "a=b"]).await.is(0).out;
    let id = id.trim();
    let why = shell.run(&["task", "why", id, "-o", "json"]).await.is(0).json();
    assert_eq!(why["waits"], "no agent has offered a slot");
    let cancelled = shell.run(&["task", "cancel", id, "-o", "json"]).await.is(0).json();
    assert_eq!(cancelled, json!({ "id": id, "cancelled": true }));
    let watched = shell.run(&["task", "watch", id]).await.is(1);
    watched.says("ended as cancelled").says(&format!("next: quorate task why {id}"));
}

#[tokio::test]
async fn each_kind_of_failure_has_its_code_and_a_next_command() {
    let shell = Shell::open().await;
    shell.run(&["task", "get", "t00000000000000ff"]).await.is(3).says("next: see what there is");
    let keyed = |input| ["task", "submit", "-c", "x", "--key", "k", "--input", input];
    shell.run(&keyed("a")).await.is(0);
    shell.run(&keyed("a")).await.is(0);
    shell.run(&keyed("b")).await.is(4).says("key `k` belongs to another body");
    let wrong = ["agent", "ls", "--token", "wrong"];
    shell.run(&wrong).await.is(5).says("QUORATE_TOKEN");
    let usage = shell.run(&["task", "submit", "--input", "x"]).await.is(2);
    usage.says("--capability");
    shell.run(&["task", "get", "7"]).await.is(2).says("`7` is not a TaskId");
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", nobody.local_addr().expect("bound"));
    drop(nobody);
    let unreachable = ["cluster", "status", "--url", &url, "--timeout", "1"];
    shell.run(&unreachable).await.is(6).says("cannot reach").says("quorate dev");
    shell.toy.refuse(Refusal::Agent("it trapped".to_owned()));
    shell.run(&["call", "echo", "--input", "x"]).await.is(1).says("it trapped");
    end(shell.bare(&["agent", "ls"])).await.is(2).says("no cluster is named").says("quorate dev");
}

#[tokio::test]
async fn the_context_file_names_the_cluster_and_others_get_no_token() {
    let shell = Shell::open().await;
    let context = json!({ "urls": [shell.url], "token": TOKEN }).to_string();
    let path = shell.file("context.json", context.as_bytes());
    let with = |arguments: &[&str]| {
        let mut command = shell.bare(arguments);
        command.env("QUORATE_CONTEXT", &path);
        end(command)
    };
    with(&["agent", "ls"]).await.is(0);
    with(&["agent", "ls", "--url", &shell.url]).await.is(0);
    let other = shell.url.replace("127.0.0.1", "localhost");
    with(&["agent", "ls", "--url", &other]).await.is(5);
    let state = shell.folder.path().join(".local/state/quorate");
    std::fs::create_dir_all(&state).expect("a folder");
    std::fs::rename(Path::new(&path), state.join("context.json")).expect("moved");
    end(shell.bare(&["agent", "ls"])).await.is(0);
}

#[tokio::test]
async fn large_input_becomes_a_blob_before_its_task() {
    let shell = Shell::open().await;
    let content = vec![b'x'; INLINE_BYTES_MAX + 1];
    let path = shell.file("large", &content);
    shell.run(&["task", "submit", "-c", "index", "--file", &path]).await.is(0);
    let inside = shell.toy.inside();
    let input = inside.tasks.values().next().map(|task| task.spec.input.clone());
    let digest = Digest::of(&content);
    assert_eq!(input, Some(Payload::Blob { digest, size: content.len() as u64 }));
    assert_eq!(inside.blobs[&digest], content);
}

#[tokio::test]
async fn a_spec_file_says_it_all_and_its_mistakes_are_told() {
    let shell = Shell::open().await;
    let spec = json!({ "capabilities": ["index"], "priority": 9, "queue": "q" }).to_string();
    let path = shell.file("task.json", spec.as_bytes());
    shell.run(&["task", "submit", "--spec", &path]).await.is(0);
    let task = shell.toy.inside().tasks.values().next().cloned().expect("submitted");
    assert_eq!((task.spec.priority, task.spec.queue.as_str()), (9, "q"));
    let wrong = shell.file("wrong.json", b"{\"prioritty\": 9}");
    shell.run(&["task", "submit", "--spec", &wrong]).await.is(2).says("prioritty");
}

#[tokio::test]
async fn lists_are_tables_for_people_and_json_for_programs() {
    let shell = Shell::open().await;
    for queue in ["a", "b", "a"] {
        shell.run(&["task", "submit", "-c", "x", "--queue", queue]).await.is(0);
    }
    let table = shell.run(&["task", "ls"]).await.is(0).says("3 queued");
    let heads: Vec<&str> = table.out.lines().next().expect("heads").split_whitespace().collect();
    assert_eq!(heads, ["ID", "STATE", "QUEUE", "CAPABILITIES", "ATTEMPTS", "AGENT"]);
    let page = shell.run(&["task", "ls", "--limit", "2", "-o", "json"]).await.is(0).json();
    assert_eq!(page["tasks"].as_array().map(Vec::len), Some(2));
    let cursor = page["cursor"].as_str().expect("there is more").to_owned();
    let rest = shell.run(&["task", "ls", "--cursor", &cursor, "-o", "jsonl"]).await.is(0);
    let lines: Vec<Value> =
        rest.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["id"], "t0000000000000003");
}

#[tokio::test]
async fn every_verb_answers_in_json_where_it_is_asked_to() {
    let shell = Shell::open().await;
    shell.employ("echo").await;
    let submitted = ["task", "submit", "-c", "echo", "-i", "x", "--key", "one"];
    let id = shell.run(&submitted).await.is(0).out.trim().to_owned();
    shell.run(&["task", "watch", &id]).await.is(0);
    let last = "0000000000000001".to_owned();
    assert_eq!(id, format!("t{last}"));
    for (arguments, key) in [
        (&submitted[..], "id"),
        (&["task", "submit", "-c", "echo", "--wait"], "state"),
        (&["task", "ls", "--stale"], "tasks"),
        (&["task", "get", &id, "--stale"], "stale"),
        (&["task", "why", &id, "--stale"], "stale"),
        (&["task", "watch", &id], "state"),
        (&["task", "cancel", &id], "id"),
        (&["call", "echo", "-i", "x"], "reply"),
        (&["call", "letters", "-i", "ab", "--stream"], "chunk"),
        (&["agent", "ls", "--stale"], "stale"),
        (&["policy", "apply", "load-aware"], "epoch"),
        (&["policy", "ls", "--stale"], "stale"),
        (&["cluster", "status"], "nodes"),
        (&["member", "ls"], "members"),
        (&["agent", "rm", "a1"], "id"),
    ] {
        let ended = shell.run(&[arguments, &["-o", "json"]].concat()).await;
        let documents: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_str(&ended.out).into_iter().collect();
        let documents =
            documents.unwrap_or_else(|error| panic!("{arguments:?}: {error}: {ended:?}"));
        assert!(!documents.is_empty(), "{arguments:?}: {ended:?}");
        for document in documents {
            assert!(document.get(key).is_some(), "no `{key}` for {arguments:?} in {document}");
        }
    }
}

#[tokio::test]
async fn a_reply_is_printed_as_it_is() {
    let shell = Shell::open().await;
    let whole = shell.run(&["call", "echo", "--input", "hello"]).await.is(0);
    assert_eq!(whole.out, "hello", "no byte more");
    let streamed = shell.run(&["call", "letters", "--input", "abc", "--stream"]).await.is(0);
    assert_eq!(streamed.out, "abc");
    let json = shell.run(&["call", "echo", "rust", "--input", "x", "-o", "json"]).await.is(0);
    assert_eq!((&json.json()["reply"]["text"], &json.json()["agent"]), (&json!("x"), &json!(3)));
    let calls = shell.toy.inside().calls.clone();
    assert_eq!(calls[2].capabilities, ["echo", "rust"]);
    let deadline_ms = calls[0].deadline_ms;
    assert!((9_000..=10_000).contains(&deadline_ms), "--timeout by default: {deadline_ms}");
}

#[tokio::test]
async fn policies_come_by_name_and_by_file() {
    let shell = Shell::open().await;
    shell.run(&["policy", "apply", "load-aware"]).await.is(0);
    shell.run(&["policy", "apply", "load-awar"]).await.is(3).says("did you mean `load-aware`?");
    let file = shell.file("mine.wasm", b"my component");
    let applied = shell.run(&["policy", "apply", &file, "-o", "json"]).await.is(0).json();
    assert_eq!((&applied["name"], &applied["epoch"]), (&json!("mine"), &json!(2)));
    let gone = shell.run(&["policy", "apply", "./none.wasm"]).await.is(1);
    gone.says("cannot read ./none.wasm");
    let listed = shell.run(&["policy", "ls", "-o", "json"]).await.is(0).json();
    assert_eq!(listed["policies"][0]["digest"], Digest::of(b"my component").to_string());
    shell.run(&["cluster", "status"]).await.is(0);
    shell.run(&["member", "ls"]).await.is(0);
}

#[tokio::test]
async fn events_are_printed_as_they_come() {
    let shell = Shell::open().await;
    let mut command = shell.command(&["events", "-o", "jsonl", "--after", "0-0.0"]);
    let mut running = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(running.stdout.take().expect("piped")).lines();
    for n in 1..3 {
        shell.run(&["task", "submit", "-c", "x"]).await.is(0);
        let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
        let line = line.expect("in time").expect("read").expect("a line");
        let event: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(event["task"], format!("t{n:016x}"));
        assert_eq!(event["state"], TaskState::Queued.to_string());
    }
    running.kill().await.expect("killed");
}

#[tokio::test]
async fn the_faulty_program_wants_its_fault_first() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-faulty"));
    command.args(["agent", "ls"]).env_clear();
    end(command).await.is(2).says("--fault drop-completion=N");
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-faulty"));
    command.args(["--fault", "drop-completion=3", "--version"]).env_clear();
    assert!(end(command).await.is(0).out.starts_with("quorate "));
}
