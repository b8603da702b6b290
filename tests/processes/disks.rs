//! Disks that fail under real nodes: the power goes, syncs fail or lie, there is no
//! space, bits rot, a directory is put back from a copy. What was acknowledged is
//! there afterwards, or the node refuses by name.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod mounts;
mod stage;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mounts::{Mount, Tampered, need, signal};
use quorate_cli::Launch;
use quorate_cli::local::{Layout, LocalCluster};
use quorate_client::{Client, ClientError, ClientOptions};
use quorate_types::door::Consistency;
use quorate_types::problem::ProblemKind;
use quorate_types::{Payload, TaskId, TaskSpec};
use stage::{QUORATE, WITHIN, lay_out, lay_out_shards, log_lines, until};

/// How often the power goes, where it is not 3 times. The program under test does not read it.
const POWER_CUTS: &str = "QUORATE_POWER_CUTS";

fn cluster(dir: &Path, nodes: u8, program: &Path) -> LocalCluster {
    let dir = Some(dir.to_owned());
    let agents = Vec::new();
    let layout = Layout { nodes, shards: 1, dir, first_api_port: None, agents };
    LocalCluster::lay_out(&layout, Launch::of(program)).expect("laid out")
}

fn client(cluster: &LocalCluster) -> Client {
    let mut options = ClientOptions::new(cluster.urls(), Some(cluster.token().to_owned()));
    options.timeout = Duration::from_secs(3);
    Client::new(options).expect("a client")
}

fn spec(bytes: usize) -> TaskSpec {
    let input = Payload::Inline(vec![b'x'; bytes].into());
    TaskSpec { capabilities: vec!["nobody".to_owned()], input, ..TaskSpec::default() }
}

/// Submits for as long as it is told to, and what was acknowledged.
async fn submit_for(client: &Client, span: Duration, acked: &mut Vec<TaskId>) {
    let until = Instant::now() + span;
    while Instant::now() < until {
        let answers = client.submit_many((0..16).map(|_| spec(200)).collect()).await;
        for answer in answers.expect("it serves") {
            acked.push(answer.expect("nothing is wrong with the task").id);
        }
    }
}

async fn assert_all_there(client: &Client, acked: &[TaskId]) {
    for task in acked {
        let read = client.task(*task, Consistency::Linearizable).await;
        assert!(read.is_ok(), "{task} was acknowledged: {:?}", read.err());
    }
}

async fn ready(cluster: &mut LocalCluster) {
    cluster.wait_all_ready(WITHIN).await.expect("ready");
}

/// Runs `quorate storage …`; its exit code and words.
fn storage(verb: &str, dir: &Path) -> (Option<i32>, String) {
    let dir = dir.to_str().expect("UTF-8");
    let output = Command::new(QUORATE).args(["storage", verb, dir]).output().expect("it starts");
    let words = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&words).into_owned())
}

/// Whether a node's log has an error line with all these words.
fn complained(log: &Path, words: &[&str]) -> bool {
    let lines = fs::read_to_string(log).unwrap_or_default();
    lines.lines().any(|line| words.iter().all(|word| line.contains(word)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_tasks_survive_power_cuts_of_all_nodes_at_once() {
    let cuts: u32 = std::env::var(POWER_CUTS).map_or(3, |cuts| cuts.parse().expect("a number"));
    let Some(mut mount) = need("a loop mount", Mount::ext4(600)) else { return };
    let mut acked = Vec::new();
    for cut in 1..=cuts {
        let mut cluster = cluster(&mount.point, 3, Path::new(QUORATE));
        // Keys and node files are the operator's; their disk is not under test.
        mount.sync();
        cluster.start().expect("started");
        ready(&mut cluster).await;
        let client = client(&cluster);
        assert_all_there(&client, &acked).await;
        let before = acked.len();
        submit_for(&client, Duration::from_millis(700), &mut acked).await;
        assert!(acked.len() > before + 50, "cut {cut}: too little was acknowledged");
        // A witness that the power really goes: it is written and not synced.
        fs::write(mount.point.join("witness"), format!("{cut}")).expect("writable");
        for at in 0..3 {
            signal(cluster.pid(at).expect("it runs"), "STOP");
        }
        let copy = mount.copy_image();
        drop(cluster);
        mount.come_back_as(copy);
        let witness = fs::read_to_string(mount.point.join("witness")).unwrap_or_default();
        assert_ne!(witness, cut.to_string(), "what was not synced must be gone");
    }
    let mut cluster = cluster(&mount.point, 3, Path::new(QUORATE));
    cluster.start().expect("started");
    ready(&mut cluster).await;
    assert_all_there(&client(&cluster), &acked).await;
    cluster.stop(WITHIN);
    for node in 1..=3 {
        let (code, said) = storage("verify", &mount.point.join(format!("node-{node}/data")));
        assert_eq!(code, Some(0), "{said}");
    }
    println!("{} tasks acknowledged, {cuts} power cuts, none lost", acked.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_node_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(tampered) = need("strace", Tampered::new(dir.path(), QUORATE)) else { return };
    let mut cluster = cluster(dir.path(), 1, &tampered.program);
    // Late enough that it has begun to serve.
    tampered.inject(1, "fsync,fdatasync:error=EIO:when=60+");
    cluster.start().expect("started");
    ready(&mut cluster).await;
    let client = client(&cluster);
    let mut acked = Vec::new();
    while let Ok(submitted) = client.submit(spec(100)).await {
        acked.push(submitted.id);
    }
    assert!(!acked.is_empty(), "it served before");
    until("the node ends by itself", || cluster.has_ended().then_some(()));
    let said = fs::read_to_string(cluster.log_file(0)).expect("a log");
    assert!(said.contains("error: the node cannot go on: a sync in"), "{said}");
    tampered.leave_alone(1);
    drop(cluster);
    let mut cluster = self::cluster(dir.path(), 1, Path::new(QUORATE));
    cluster.start().expect("started");
    ready(&mut cluster).await;
    assert_all_there(&self::client(&cluster), &acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_lied_about_syncs_is_found_out_by_its_peers() {
    let Some(mut mount) = need("a loop mount", Mount::ext4(300)) else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let Some(tampered) = need("strace", Tampered::new(dir.path(), QUORATE)) else { return };
    let mut cluster = cluster(dir.path(), 3, &tampered.program);
    let file = dir.path().join("node-3/node.toml");
    let text = fs::read_to_string(&file).expect("laid out");
    let data = format!("data_dir = \"{}\"", mount.point.join("data").display());
    fs::write(&file, text.replace("data_dir = \"data\"", &data)).expect("writable");
    cluster.start().expect("started");
    ready(&mut cluster).await;
    let client = client(&cluster);
    let mut acked = Vec::new();
    submit_for(&client, Duration::from_millis(300), &mut acked).await;
    // Its next life begins honestly; from then on nothing is synced that it says is.
    cluster.kill_node(2).expect("it ran");
    tampered.inject(3, "fsync,fdatasync:retval=0:when=40+");
    cluster.start_node(2).expect("started");
    ready(&mut cluster).await;
    submit_for(&client, Duration::from_millis(1_500), &mut acked).await;
    signal(cluster.pid(2).expect("it runs"), "STOP");
    let copy = mount.copy_image();
    signal(cluster.pid(2).expect("it runs"), "KILL");
    cluster.kill_node(2).ok();
    mount.come_back_as(copy);
    tampered.leave_alone(3);
    cluster.start_node(2).expect("started");
    let log = cluster.log_file(2).to_owned();
    until("its peers refuse it", || {
        complained(&log, &["error: ", "older than the node", "cluster member replace 3"])
            .then_some(())
    });
    assert_all_there(&client, &acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_by_name_and_serves_again_when_freed() {
    let Some(mount) = need("a tmpfs", Mount::tmpfs(100)) else { return };
    let mut cluster = cluster(&mount.point, 1, Path::new(QUORATE));
    cluster.start().expect("started");
    ready(&mut cluster).await;
    let client = client(&cluster);
    let mut acked = vec![client.submit(spec(10)).await.expect("it serves").id];
    let ballast = mount.point.join("ballast");
    let file = fs::File::create(&ballast).expect("writable");
    let full = std::io::copy(&mut std::io::repeat(7), &mut &file).expect_err("a full disk");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    drop(file);
    let refused = loop {
        match client.submit_many((0..8).map(|_| spec(60_000)).collect()).await {
            Ok(answers) => {
                let ids = answers.into_iter().map(|answer| answer.expect("nothing is wrong").id);
                acked.extend(ids);
            }
            Err(error) => break error,
        }
        assert!(acked.len() < 1_000, "there is no room for so many");
    };
    let ClientError::Refused(problem) = &refused else { panic!("not a refusal: {refused}") };
    assert_eq!(problem.kind, ProblemKind::Busy, "{refused}");
    assert!(problem.detail.contains("disk is full"), "{refused}");
    let blob = client.put_blob(vec![1; 1 << 20].into()).await.expect_err("no room");
    assert!(blob.to_string().contains("the disk of n1 is full"), "{blob}");
    assert_all_there(&client, &acked).await;
    fs::remove_file(&ballast).expect("ours");
    let deadline = Instant::now() + Duration::from_secs(10);
    let submitted = loop {
        match client.submit(spec(60_000)).await {
            Ok(submitted) => break submitted,
            Err(error) => assert!(Instant::now() < deadline, "it was freed: {error}"),
        }
    };
    acked.push(submitted.id);
    client.put_blob(vec![1; 1 << 20].into()).await.expect("there is room");
    cluster.kill_node(0).expect("it never ended");
    cluster.start_node(0).expect("started");
    ready(&mut cluster).await;
    assert_all_there(&client, &acked).await;
}

fn copy_tree(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("`cp` is there");
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_a_directory_is_refused_and_the_newest_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = cluster(dir.path(), 3, Path::new(QUORATE));
    cluster.start().expect("started");
    ready(&mut cluster).await;
    let client = client(&cluster);
    let mut acked = Vec::new();
    submit_for(&client, Duration::from_millis(200), &mut acked).await;
    // An image of a directory in use, as a snapshot of a machine is.
    let (data, copy) = (dir.path().join("node-2/data"), dir.path().join("copy"));
    signal(cluster.pid(1).expect("it runs"), "STOP");
    copy_tree(&data, &copy);
    signal(cluster.pid(1).expect("it runs"), "CONT");
    submit_for(&client, Duration::from_millis(800), &mut acked).await;
    // Others have heard where its log ends.
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.kill_node(1).expect("it ran");
    let newest = dir.path().join("newest");
    fs::rename(&data, &newest).expect("ours");
    fs::rename(&copy, &data).expect("ours");
    cluster.start_node(1).expect("started");
    let log = cluster.log_file(1).to_owned();
    until("its peers refuse it", || {
        complained(&log, &["error: ", "older than the node", "cluster member replace 2"])
            .then_some(())
    });
    cluster.kill_node(1).ok();
    fs::remove_dir_all(&data).expect("ours");
    fs::rename(&newest, &data).expect("ours");
    cluster.start_node(1).expect("started");
    ready(&mut cluster).await;
    assert_all_there(&client, &acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_is_refused_at_the_start_and_named_by_verify() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = lay_out(dir.path(), 1, Vec::new());
    cluster.start().expect("started");
    ready(&mut cluster).await;
    let data = dir.path().join("node-1/data");
    let (code, said) = storage("verify", &data);
    assert_eq!(code, Some(4), "a node has it open: {said}");
    assert!(said.contains("in use by another process"), "{said}");
    let mut acked = Vec::new();
    submit_for(&client(&cluster), Duration::from_millis(300), &mut acked).await;
    client(&cluster).put_blob(vec![1; 100_000].into()).await.expect("kept");
    cluster.stop(WITHIN);
    let (code, said) = storage("verify", &data);
    assert_eq!(code, Some(0), "{said}");
    for word in ["log", "group g0", "state digest", "blobs", "1 with 100000 bytes"] {
        assert!(said.contains(word), "no `{word}` in {said}");
    }
    let (code, said) = storage("inspect", &data);
    assert_eq!(code, Some(0), "{said}");
    for word in ["in order", "n1 in term", "segment 1", "live", "lives"] {
        assert!(said.contains(word), "no `{word}` in {said}");
    }
    let segment = data.join("log/00000000000000000001.wal");
    let mut bytes = fs::read(&segment).expect("there");
    bytes[4_000] ^= 0x20;
    fs::write(&segment, &bytes).expect("writable");
    let (code, said) = storage("verify", &data);
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("log/00000000000000000001.wal` is damaged at byte"), "{said}");
    let before = fs::read(&segment).expect("there");
    cluster.start().expect("started");
    until("it refuses", || cluster.has_ended().then_some(()));
    let log = cluster.log_file(0).to_owned();
    assert!(complained(&log, &["is damaged at byte", "quorate cluster member replace"]));
    assert_eq!(fs::read(&segment).expect("there"), before, "it is left as it is");
    assert_eq!(storage("verify", &dir.path().join("nowhere")).0, Some(3));
    assert!(!log_lines(&log).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_within_one_nodes_log_is_repaired_from_its_peers() {
    rot_is_repaired(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_is_a_log_that_several_groups_share() {
    rot_is_repaired(2).await;
}

async fn rot_is_repaired(shards: u16) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = lay_out_shards(dir.path(), 3, shards, Vec::new());
    cluster.start().expect("started");
    ready(&mut cluster).await;
    let client = client(&cluster);
    let mut acked = Vec::new();
    submit_for(&client, Duration::from_millis(400), &mut acked).await;
    cluster.kill_node(1).expect("it ran");
    let data = dir.path().join("node-2/data");
    let segment = data.join("log/00000000000000000001.wal");
    let mut bytes = fs::read(&segment).expect("there");
    bytes[5_000..5_600].iter_mut().for_each(|byte| *byte = !*byte);
    fs::write(&segment, &bytes).expect("writable");
    assert_eq!(storage("verify", &data).0, Some(7), "it is damaged");
    // Without every other voter it waits, and changes nothing.
    cluster.kill_node(2).expect("it ran");
    cluster.start_node(1).expect("started");
    let log = cluster.log_file(1).to_owned();
    until("it waits for the other", || {
        complained(&log, &["waits for every other voter"]).then_some(())
    });
    assert_eq!(fs::read(&segment).expect("there"), bytes, "nothing is changed until then");
    cluster.start_node(2).expect("started");
    // The one that was left alone had no quorum; now there is one, then all.
    ready(&mut cluster).await;
    submit_for(&client, Duration::from_millis(200), &mut acked).await;
    assert_all_there(&client, &acked).await;
    // The repaired node and one other are a quorum that has everything.
    cluster.kill_node(0).expect("it ran");
    assert_all_there(&client, &acked).await;
    cluster.stop(WITHIN);
    let (code, said) = storage("verify", &data);
    assert_eq!(code, Some(0), "{said}");
    // The system group has none of the work where there are shards, and is there all the same.
    let groups = said.lines().filter(|line| line.starts_with("group g")).count();
    assert_eq!(groups, if shards == 1 { 1 } else { usize::from(shards) + 1 }, "{said}");
    assert!(complained(&log, &["written anew from other voters"]), "it says what it did");
}
