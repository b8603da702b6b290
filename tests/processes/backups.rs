//! A live cluster written to a file, and what the file is worth afterwards.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_cli::local::LocalCluster;
use quorate_client::Client;
use quorate_types::door::Consistency;
use quorate_types::kv::{KvWatch, Revision, Subject};
use quorate_types::problem::ProblemKind;
use quorate_types::{Payload, TaskId, TaskSpec, Token};
use serde_json::Value;
use stage::{WITHIN, client, lay_out_shards, quorate, until};

/// A running cluster of real processes.
struct Stage {
    dir: tempfile::TempDir,
    cluster: LocalCluster,
}

impl Stage {
    async fn of(nodes: u8, shards: u16) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut cluster = lay_out_shards(dir.path(), nodes, shards, Vec::new());
        cluster.start().expect("they start");
        cluster.wait_all_ready(WITHIN).await.expect("they are ready");
        Self { dir, cluster }
    }

    fn client(&self) -> Client {
        client(self.cluster.urls(), self.cluster.token())
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[track_caller]
    fn done(&self, verb: &str) -> String {
        let (code, said) = quorate(verb, &self.cluster.urls(), self.cluster.token());
        assert_eq!(code, Some(0), "{verb}: {said}");
        said
    }

    #[track_caller]
    fn refused(&self, verb: &str, code: i32, words: &[&str]) {
        let (exit, said) = quorate(verb, &self.cluster.urls(), self.cluster.token());
        assert_eq!(exit, Some(code), "{verb}: {said}");
        for word in words {
            assert!(said.contains(word), "{verb}: no `{word}` in: {said}");
        }
    }

    fn backup(&self, name: &str) -> PathBuf {
        let file = self.place(name);
        self.done(&format!("cluster backup {}", file.display()));
        file
    }
}

fn spec(number: usize) -> TaskSpec {
    let capabilities = vec!["nobody".to_owned()];
    let key = Some(format!("task-{number}"));
    TaskSpec { capabilities, idempotency_key: key, ..TaskSpec::default() }
}

/// Submits until told to stop.
async fn submit(client: Client, stop: Arc<AtomicBool>) -> Vec<TaskId> {
    let mut acked = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        acked.push(client.submit(spec(acked.len())).await.expect("it serves").id);
    }
    acked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_cluster_is_written_to_a_file_that_is_whole_or_refused() {
    let stage = Stage::of(3, 2).await;
    let client = stage.client();
    let stored = client.put_blob(vec![5; 3_000_000].into()).await.expect("kept");
    let input = Payload::Blob { digest: stored.sha256, size: stored.size };
    client.submit(TaskSpec { input, ..spec(1_000_000) }).await.expect("it serves");
    let stop = Arc::new(AtomicBool::new(false));
    let submitting = tokio::spawn(submit(stage.client(), Arc::clone(&stop)));
    let file = stage.backup("first");
    stop.store(true, Ordering::Relaxed);
    submitting.await.expect("it submits");

    let said = stage.done(&format!("storage verify {}", file.display()));
    for word in ["group g0", "group g1", "group g2", "all 3 of 2 shards", "1, each with"] {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
    // Only what is whole has a name, and a name is given once.
    let names = fs::read_dir(stage.dir.path()).expect("ours");
    let parts = names.filter(|name| {
        let name = name.as_ref().expect("readable").file_name();
        name.to_string_lossy().ends_with(".part")
    });
    assert_eq!(parts.count(), 0, "nothing is left of its making");
    let again = format!("cluster backup {}", file.display());
    stage.refused(&again, 4, &["not written over", "another file"]);

    let bare = stage.place("bare");
    stage.done(&format!("cluster backup {} --without-blobs", bare.display()));
    let said = stage.done(&format!("storage verify {}", bare.display()));
    assert!(said.contains("1 were left out"), "{said}");
    let size = |file: &Path| fs::metadata(file).expect("there").len();
    assert!(size(&bare) < 3_000_000 && size(&file) > 3_000_000);

    let whole = fs::read(&file).expect("there");
    fs::write(&file, &whole[..whole.len() / 2]).expect("ours");
    let verify = format!("storage verify {}", file.display());
    stage.refused(&verify, 7, &["was cut", "quorate cluster backup"]);
    let mut rotten = whole.clone();
    rotten[whole.len() / 2] ^= 1;
    fs::write(&file, rotten).expect("ours");
    stage.refused(&verify, 7, &["damaged at byte"]);
    fs::write(&file, "something else").expect("ours");
    stage.refused(&verify, 2, &["no backup of quorate's"]);
    stage.refused("storage verify /nowhere/at/all", 3, &[]);
}

const SPACE: &str = "default";
const KEYS: [&str; 4] = ["app/one", "other/one", "third/one", "fourth/one"];

/// Gives every key this value, and takes a lock: its fencing token, and the last revision.
async fn write(client: &Client, value: &str) -> (Token, Revision) {
    let link = client.connect_stream().await.expect("connected");
    let mut last = Revision::default();
    for key in KEYS {
        (last, _) = link.put(SPACE, key, value.into()).await.expect("put");
    }
    let guard = link.lock(SPACE, "app/lock", Duration::from_secs(5)).await.expect("free");
    let token = guard.token();
    guard.release().await.expect("given up");
    (token, last)
}

async fn assert_all_have(client: &Client, value: &str) {
    let link = client.connect_stream().await.expect("connected");
    for key in KEYS {
        let (found, _) = link.get(SPACE, key, Consistency::Linearizable).await.expect("read");
        assert_eq!(found.expect("kept").value, value.into(), "{key}");
    }
}

impl Stage {
    fn node_file(&self, node: u64) -> String {
        self.place(&format!("node-{node}/node.toml")).display().to_string()
    }

    fn data(&self, node: u64) -> PathBuf {
        self.place(&format!("node-{node}/data"))
    }

    fn restore(&self, node: u64, file: &Path, rest: &str) -> String {
        format!("cluster restore {} -f {} {rest}", file.display(), self.node_file(node))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_restored_where_it_was_and_no_number_comes_again() {
    let mut stage = Stage::of(3, 2).await;
    let client = stage.client();
    let stored = client.put_blob(vec![5; 300_000].into()).await.expect("kept");
    let input = Payload::Blob { digest: stored.sha256, size: stored.size };
    let mut acked = vec![client.submit(TaskSpec { input, ..spec(0) }).await.expect("served").id];
    for number in 1..50 {
        acked.push(client.submit(spec(number)).await.expect("it serves").id);
    }
    write(&client, "then").await;
    let file = stage.backup("then.backup");
    // What happens behind the backup is what a restore goes back on.
    let later = client.submit(spec(99)).await.expect("it serves").id;
    let (fence, seen) = write(&client, "later").await;

    stage.refused(&stage.restore(1, &file, ""), 4, &["in use by another process"]);
    stage.cluster.stop(WITHIN);
    let over = ["is not empty", "node n1 of `local`, era 0", "mv "];
    stage.refused(&stage.restore(1, &file, ""), 4, &over);
    for node in 1..=3 {
        fs::rename(stage.data(node), stage.data(node).with_extension("before")).expect("ours");
    }
    let other = stage.place("other.toml");
    let text = fs::read_to_string(stage.node_file(1)).expect("laid out");
    fs::write(&other, text.replace("shards = 2", "shards = 3")).expect("ours");
    let wrong = format!("cluster restore {} -f {}", file.display(), other.display());
    stage.refused(&wrong, 4, &["a cluster of 2 shards", "write `shards = 2`"]);
    let cut = stage.place("cut");
    let whole = fs::read(&file).expect("there");
    fs::write(&cut, &whole[..whole.len() - 100]).expect("ours");
    stage.refused(&stage.restore(1, &cut, ""), 7, &["was cut", "quorate cluster backup"]);
    let strange = "--era 4:000000000000000000000000000000ab";
    stage.refused(&stage.restore(1, &file, strange), 2, &["does not follow era 0"]);
    assert!(!stage.data(1).exists(), "what is refused leaves nothing");

    let said = stage.done(&stage.restore(1, &file, "-o json"));
    let begun: Value = serde_json::from_str(&said).expect("JSON");
    let era = begun["era"].as_str().expect("an era").to_owned();
    for node in [2, 3] {
        let said = stage.done(&stage.restore(node, &file, &format!("--era {era}")));
        assert!(said.contains(&era), "{said}");
        let verify = format!("storage verify {}", stage.data(node).display());
        assert!(stage.done(&verify).contains("1 with 300000 bytes"));
    }
    stage.cluster.start().expect("they start");
    stage.cluster.wait_all_ready(WITHIN).await.expect("they are ready");
    let client = stage.client();
    assert_all_have(&client, "then").await;
    for task in &acked {
        client.task(*task, Consistency::Linearizable).await.expect("it was acknowledged before");
    }
    let gone = client.task(later, Consistency::Linearizable).await.expect_err("it came later");
    assert_eq!(gone.kind(), Some(ProblemKind::NotFound));
    client.get_blob(stored.sha256).await.expect("restored with its task");
    // Whoever saw what came later holds no number that is given now.
    let link = client.connect_stream().await.expect("connected");
    let subject = Subject::Prefix("app/".to_owned());
    let watch = KvWatch { namespace: SPACE.to_owned(), subject, after: Some(seen) };
    let lost = link.watch(watch).await.next().await.expect("told").expect_err("it missed it");
    assert_eq!(lost.kind(), Some(ProblemKind::Compacted));
    let (now, revision) = write(&client, "now").await;
    assert!(now > fence && revision > seen);
    assert!(client.submit(spec(100)).await.expect("it serves").id.sequence() > later.sequence());
    stage.done("cluster status");

    // A member comes back with the directory of before.
    stage.cluster.kill_node(2).expect("it runs");
    fs::rename(stage.data(3), stage.data(3).with_extension("now")).expect("ours");
    fs::rename(stage.data(3).with_extension("before"), stage.data(3)).expect("ours");
    stage.cluster.start_node(2).expect("it starts");
    let log = stage.cluster.log_file(2).to_owned();
    until("it is refused", || {
        let said = fs::read_to_string(&log).expect("a log");
        let told = ["error: ", "is of era 0", &era, "cluster member add"];
        told.iter().all(|words| said.contains(words)).then_some(())
    });
    stage.cluster.kill_node(2).ok();
    fs::rename(stage.data(3), stage.data(3).with_extension("before")).expect("ours");
    fs::rename(stage.data(3).with_extension("now"), stage.data(3)).expect("ours");
    stage.cluster.start_node(2).expect("it starts");
    stage.cluster.wait_all_ready(WITHIN).await.expect("its own directory goes on");
    assert_all_have(&client, "now").await;
    stage.backup("now.backup");
}
