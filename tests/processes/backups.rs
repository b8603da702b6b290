//! A live cluster written to a file, and what the file is worth afterwards.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_cli::local::LocalCluster;
use quorate_client::Client;
use quorate_types::{Payload, TaskId, TaskSpec};
use stage::{WITHIN, client, lay_out_shards, quorate};

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
