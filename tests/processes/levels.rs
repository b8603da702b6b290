//! Programs of two versions in one cluster, and the level that they agree on.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod stage;

use std::fs;

use quorate_client::Client;
use quorate_types::door::Consistency;
use quorate_types::{TaskId, TaskSpec};
use stage::{Program, WITHIN, client, lay_out, quorate, until};

/// A program that knows only the first level.
const OLDER: &str = env!("CARGO_BIN_EXE_quorate-faulty");

async fn submit(client: &Client, count: usize, acked: &mut Vec<TaskId>) {
    for _ in 0..count {
        acked.push(client.submit(TaskSpec::default()).await.expect("it serves").id);
    }
}

async fn assert_kept(client: &Client, acked: &[TaskId]) {
    for task in acked {
        client.task(*task, Consistency::Linearizable).await.expect("it was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_is_raised_when_every_member_knows_it_and_older_programs_stay_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = lay_out(dir.path(), 3, Vec::new());
    let third = dir.path().join("node-3/node.toml").display().to_string();
    let log = dir.path().join("older.jsonl");
    let older = || {
        let arguments = ["--fault", "feature-level=1", "node", "run", "-f", &third];
        Program::start_program(OLDER, &arguments, log.clone(), &[])
    };
    cluster.start_node(0).expect("it starts");
    cluster.start_node(1).expect("it starts");
    let running = older();
    cluster.wait_all_ready(WITHIN).await.expect("ready");
    let (urls, token) = (cluster.urls(), cluster.token().to_owned());
    let ask = |verb: &str| quorate(&format!("cluster {verb}"), &urls, &token);
    let done = |verb: &str| {
        let (code, said) = ask(verb);
        assert_eq!(code, Some(0), "{verb}: {said}");
        said
    };
    let client = client(urls.clone(), &token);
    let mut acked = Vec::new();
    submit(&client, 20, &mut acked).await;
    let shown = |said: &str, row: &str| {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        said.lines().any(|line| words(line) == row)
    };
    let said = done("feature-level show");
    assert!(shown(&said, "n1 1 2") && shown(&said, "n3 1 1"), "{said}");
    let (code, said) = ask("feature-level raise");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("n3 runs a program that knows feature level 1 at most"), "{said}");
    done("status");

    // It is updated in place, and the cluster agrees.
    drop(running);
    let (code, said) = ask("feature-level raise --to 2");
    assert_eq!(code, Some(4), "one that is silent may know anything: {said}");
    assert!(said.contains("n3 did not answer"), "{said}");
    cluster.start_node(2).expect("it starts");
    cluster.wait_all_ready(WITHIN).await.expect("ready");
    until("all are heard", || (ask("feature-level raise").0 == Some(0)).then_some(()));
    submit(&client, 20, &mut acked).await;
    until("all have applied it", || {
        let said = done("feature-level show");
        ["n1 2 2", "n2 2 2", "n3 2 2"].iter().all(|row| shown(&said, row)).then_some(())
    });
    done("voters set 1,2,3");
    let (code, said) = ask("feature-level raise --to 1");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("never lowered"), "{said}");

    // The older program does not go on from what it cannot read, and spoils nothing.
    cluster.kill_node(2).expect("it runs");
    let status = older().end();
    assert_eq!(status.code(), Some(1), "{}", fs::read_to_string(&log).unwrap_or_default());
    let said = fs::read_to_string(&log).expect("a log");
    for words in ["error: ", "feature level 2", "this program knows 1", "quorate --version"] {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    cluster.start_node(2).expect("it starts");
    cluster.wait_all_ready(WITHIN).await.expect("ready");
    assert_kept(&client, &acked).await;
    done("status");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_begins_at_the_highest_level_that_all_know() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = lay_out(dir.path(), 3, Vec::new());
    cluster.start().expect("they start");
    cluster.wait_all_ready(WITHIN).await.expect("ready");
    let (urls, token) = (cluster.urls(), cluster.token().to_owned());
    until("all have applied it", || {
        let (_code, said) = quorate("cluster feature-level show -o json", &urls, &token);
        (said.matches("\"feature_level\": 2").count() == 3).then_some(())
    });
}
