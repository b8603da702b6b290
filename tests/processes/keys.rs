//! Keys, locks and elections on real processes: what a shell sees, what a kill of
//! the leader leaves, and how fast a lock goes on when its holder is killed.

#![expect(clippy::expect_used, reason = "a scenario that cannot go on must stop")]

mod history;
mod stage;

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use history::caller::Caller;
use history::judge::{Judged, judge};
use history::meter::Meter;
use history::recorder::{Asker, Load, Recorder};
use quorate_cli::local::LocalCluster;
use quorate_types::Time;
use quorate_types::door::Consistency;
use quorate_types::history::{Asked, End, History};
use serde_json::Value;
use stage::{Program, QUORATE, WITHIN, client, lay_out, until};

const SPACE: &str = "default";

async fn started(dir: &std::path::Path) -> LocalCluster {
    let mut cluster = lay_out(dir, 3, Vec::new());
    cluster.start().expect("started");
    cluster.wait_all_ready(WITHIN).await.expect("ready");
    cluster
}

/// Runs `quorate` against a cluster.
fn quorate(cluster: &LocalCluster, arguments: &[&str]) -> Output {
    let url = cluster.urls().join(",");
    let mut command = Command::new(QUORATE);
    command.args(["--url", &url, "--token", cluster.token()]).args(arguments);
    command.output().expect("it runs")
}

fn said(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {errors}", output.status);
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_puts_reads_guards_and_lists() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = started(dir.path()).await;
    let run = |arguments: &[&str]| quorate(&cluster, arguments);
    said(&run(&["kv", "put", "app/a", "one", "--if-absent"]));
    assert_eq!(said(&run(&["kv", "get", "app/a"])), "one");
    assert_eq!(code(&run(&["kv", "put", "app/a", "two", "--if-version", "7"])), Some(4));
    assert_eq!(code(&run(&["kv", "get", "app/none"])), Some(3));
    assert_eq!(code(&run(&["kv", "ls", "app"])), Some(2), "not within one first segment");
    let listed = said(&run(&["kv", "ls", "app/", "-o", "jsonl"]));
    let record: Value = serde_json::from_str(&listed).expect("one line of JSON");
    assert_eq!((&record["key"], &record["version"]), (&"app/a".into(), &1.into()));
    let txn = dir.path().join("txn.json");
    let text = r#"{"compare": [{"key": "app/a", "is": {"version": 1}}],
        "then": [{"put": {"key": "app/b", "value": {"text": "x"}}}]}"#;
    std::fs::write(&txn, text).expect("written");
    let done = said(&run(&["kv", "txn", txn.to_str().expect("text"), "-o", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&done).expect("JSON")["held"], true);
    let deleted = said(&run(&["kv", "del", "app/", "--prefix", "-o", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&deleted).expect("JSON")["deleted"]["count"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_under_a_lock_with_a_token_that_grows() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = started(dir.path()).await;
    let under = |script: &str| quorate(&cluster, &["lock", "app/lock", "--", "sh", "-c", script]);
    let token =
        || -> u64 { said(&under("echo $QUORATE_FENCING_TOKEN")).trim().parse().expect("a number") };
    let first = token();
    assert_eq!(code(&under("exit 7")), Some(7), "it ends as its command does");
    assert!(token() > first);

    // The first holder is killed without a word while another waits.
    let url = cluster.urls().join(",");
    let arguments =
        ["--url", &url, "--token", cluster.token(), "lock", "app/lock", "--ttl", "60", "--"];
    let script = |script| [&arguments[..], &["sh", "-c", script]].concat();
    let log = dir.path().join("holder");
    let mut holder = Program::start(&script("echo held; exec sleep 60"), log, &[]);
    assert_eq!(holder.first_line(), "held\n");
    let log = dir.path().join("waiter");
    let mut waiter = Program::start(&script("echo held"), log, &[]);
    until("the waiter waits", || {
        let listed = said(&quorate(&cluster, &["lock", "ls", "-o", "jsonl"]));
        let seat: Value = serde_json::from_str(listed.lines().next()?).ok()?;
        (seat["waiting"].as_array()?.len() == 1).then_some(())
    });
    let killed = Instant::now();
    holder.signal("KILL");
    assert_eq!(waiter.first_line(), "held\n");
    assert!(killed.elapsed() < Duration::from_secs(20), "by its reset and not by its term");
    assert!(waiter.end().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_put_is_done_once_though_the_leader_is_killed() {
    const PUTS: u64 = 300;
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = started(dir.path()).await;
    let client = client(cluster.urls(), cluster.token());
    let leader = client.cluster().await.expect("told")[0].groups[0].leader.expect("elected");
    let place = usize::try_from(leader.0).expect("small") - 1;
    let link = client.connect_stream().await.expect("connected");
    let mut putting = tokio::task::JoinSet::new();
    for client in 0..4 {
        let link = link.clone();
        putting.spawn(async move {
            for put in 0..PUTS / 4 {
                let value = format!("{client}/{put}");
                link.put(SPACE, "app/a", value.as_str().into()).await.expect("acknowledged");
            }
        });
    }
    let (half, _) = tokio::join!(
        async {
            loop {
                let read = link.get(SPACE, "app/a", Consistency::Stale).await.expect("read").0;
                if read.is_some_and(|record| record.version >= PUTS / 4) {
                    break cluster.kill_node(place).expect("killed");
                }
            }
        },
        async { while putting.join_next().await.is_some_and(|one| one.is_ok()) {} }
    );
    assert!(half.elapsed() < WITHIN);
    let (found, _) = link.get(SPACE, "app/a", Consistency::Linearizable).await.expect("read");
    assert_eq!(found.expect("there").version, PUTS, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_were_told_has_one_order_though_leaders_die() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = started(dir.path()).await;
    let client = client(cluster.urls(), cluster.token());
    let span = Duration::from_secs(6);
    let recorder = Recorder::new(Arc::new(Meter::new(span)));
    let load = Load { clients: 8, keys: 4, turn: span / 3, deletes: true, seed: 7 };
    let mut askers = Vec::new();
    for number in 0..4 {
        askers.push(Asker::Stream(client.connect_stream().await.expect("connected")));
        let within = Duration::from_secs(2);
        askers.push(Asker::Http(Caller::new(&cluster.urls(), cluster.token(), number, within)));
    }
    let running = recorder.start(askers, load);
    for _kill in 0..2 {
        tokio::time::sleep(span / 4).await;
        let views = client.cluster().await.expect("told");
        let leader = views.iter().flat_map(|view| &view.groups).find_map(|one| one.leader);
        let place = usize::try_from(leader.expect("elected").0).expect("small") - 1;
        cluster.kill_node(place).expect("killed");
        cluster.start_node(place).expect("started again");
        cluster.wait_ready(place, WITHIN).await.expect("ready");
    }
    tokio::time::sleep(span.saturating_sub(recorder.begun.elapsed())).await;
    let judged = judge(&recorder.stop(running).await);
    assert!(judged.acknowledged > 100, "little was done: {judged:?}");
    assert!(judged.refuted.is_empty() && judged.given_up.is_empty(), "{judged:?}");
}

/// What clients were told, one after the other.
fn told(answers: &[(Asked, End)]) -> Judged {
    let mut history = History::default();
    for (at, (asked, end)) in (0..).zip(answers) {
        let place = history.call(1, "app/a", asked.clone(), Time(2 * at));
        history.end(place, end.clone(), Time(2 * at + 1));
    }
    judge(&history)
}

#[test]
fn a_judge_sees_a_lost_write_a_stale_read_and_a_put_done_twice() {
    let put = |value: &str, version| (Asked::Put(value.to_owned()), End::Put(version));
    let read = |value: &str, version| (Asked::Get, End::Found(Some((value.to_owned(), version))));
    let cas = |version, end| (Asked::PutIf { version, value: "c".to_owned() }, end);
    let unknown = (Asked::Put("u".to_owned()), End::Unknown);
    let nothing = (Asked::Get, End::Found(None));
    let sound = [
        vec![put("a", 1), put("b", 2), read("b", 2), cas(2, End::Put(3)), cas(2, End::Mismatch)],
        vec![unknown.clone(), put("a", 2), cas(0, End::Unknown), read("a", 2)],
        vec![unknown.clone(), put("a", 1), read("u", 2)],
        vec![put("a", 1), (Asked::Delete, End::Deleted(true)), nothing.clone(), put("b", 1)],
    ];
    for history in sound {
        assert_eq!(told(&history).refuted, Vec::<String>::new());
    }
    let broken = [
        vec![put("a", 1), nothing],
        vec![put("a", 1), put("b", 2), read("a", 1)],
        vec![put("a", 1), put("b", 3)],
        vec![put("a", 1), cas(2, End::Put(3))],
        vec![put("a", 1), cas(1, End::Mismatch)],
        vec![put("a", 1), (Asked::Delete, End::Deleted(false))],
        vec![put("a", 1), unknown, read("u", 3)],
    ];
    for history in broken {
        assert_eq!(told(&history).refuted.len(), 1, "{history:?}");
    }
}
