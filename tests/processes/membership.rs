//! A cluster of real processes that grows, shrinks and replaces its dead while it
//! takes tasks; and what it may not become.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod stage;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quorate_cli::local::LocalCluster;
use quorate_client::Client;
use quorate_types::door::Consistency;
use quorate_types::{NodeId, TaskId, TaskSpec};
use serde_json::Value;
use stage::{Program, QUORATE, WITHIN, client, lay_out_shards, said, until};

/// A laid-out cluster, the nodes that joined it, and a client of all of them.
struct Stage {
    dir: tempfile::TempDir,
    cluster: LocalCluster,
    joined: Vec<Program>,
    urls: Vec<String>,
    shards: u16,
}

/// What a new node is, and how it is called in a verb.
struct Newcomer {
    file: PathBuf,
    place: String,
    peer: String,
    url: String,
}

impl Stage {
    async fn of(nodes: u8) -> Self {
        Self::of_shards(nodes, 1).await
    }

    async fn of_shards(nodes: u8, shards: u16) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut cluster = lay_out_shards(dir.path(), nodes, shards, Vec::new());
        cluster.start().expect("they start");
        cluster.wait_all_ready(WITHIN).await.expect("they are ready");
        let urls = cluster.urls();
        Self { dir, cluster, joined: Vec::new(), urls, shards }
    }

    fn client(&self) -> Client {
        client(self.urls.clone(), self.cluster.token())
    }

    /// Runs a verb against the whole cluster: its exit code, and all that it said.
    fn quorate(&self, verb: &str) -> (Option<i32>, String) {
        let output = Command::new(QUORATE)
            .args(verb.split_whitespace())
            .args(["-o", "json", "--timeout", "60"])
            .env("QUORATE_URL", self.urls.join(","))
            .env("QUORATE_TOKEN", self.cluster.token())
            .output()
            .expect("it starts");
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    }

    #[track_caller]
    fn done(&self, verb: &str) -> String {
        let (code, said) = self.quorate(verb);
        assert_eq!(code, Some(0), "{verb}: {said}");
        said
    }

    #[track_caller]
    fn refused(&self, verb: &str, code: i32, words: &[&str]) {
        let (exit, said) = self.quorate(verb);
        assert_eq!(exit, Some(code), "{verb}: {said}");
        for word in words {
            assert!(said.contains(word), "{verb}: no `{word}` in: {said}");
        }
    }

    /// Writes the file of a node that knows one member, besides itself.
    fn newcomer(&self, id: u64, knows: u64) -> Newcomer {
        let folder = self.dir.path().join(format!("node-{id}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let said = self.done(&format!("node key {}", folder.join("key").display()));
        let key: Value = serde_json::from_str(&said).expect("JSON");
        let peer = key["peer"].as_str().expect("a peer id").to_owned();
        let ([listen, api], shards) = ([(); 2].map(|()| free_port()), self.shards);
        let known = std::fs::read_to_string(self.dir.path().join("node-1/node.toml"));
        let known = known.expect("laid out");
        let seed = known
            .split("[[member]]")
            .skip(1)
            .find(|part| part.contains(&format!("id = {knows}\n")));
        let seed = seed.expect("a member").trim_end();
        let text = format!(
            "[cluster]\nid = \"local\"\nshards = {shards}\n[node]\nid = {id}\njoins = true\ndata_dir = \"data\"\n\
             key_file = \"key\"\nlisten = \"{listen}\"\n[api]\nlisten = \"{api}\"\n\
             token_file = \"../token\"\n[[member]]\nid = {id}\nname = \"node-{id}\"\n\
             peer = \"{peer}\"\naddress = \"{listen}\"\n[[member]]{seed}\n"
        );
        let file = folder.join("node.toml");
        std::fs::write(&file, text).expect("writable");
        Newcomer { file, place: format!("{id}@{listen}"), peer, url: format!("http://{api}") }
    }

    fn start(&mut self, new: &Newcomer) {
        let file = new.file.display().to_string();
        let arguments = ["node", "run", "-f", &file, "-o", "json"];
        let log = new.file.with_file_name("log.jsonl");
        self.joined.push(Program::start(&arguments, log, &[]));
        self.urls.push(new.url.clone());
    }

    /// Adds a node to the cluster and starts it.
    fn join(&mut self, id: u64) {
        let new = self.newcomer(id, 1);
        self.done(&format!("cluster member add {} --peer {}", new.place, new.peer));
        self.start(&new);
    }

    /// Adds these nodes, and has them vote beside all that were before.
    async fn grow(&mut self, new: &[u64]) {
        new.iter().for_each(|id| self.join(*id));
        let all: Vec<u64> = (1..=*new.last().expect("some")).collect();
        let named = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        self.done(&format!("cluster voters set {named}"));
        self.until_voters(&all, &all).await;
    }

    async fn until(&self, what: &str, mut look: impl AsyncFnMut(&Client) -> bool) {
        let client = self.client();
        let deadline = Instant::now() + WITHIN;
        while !look(&client).await {
            assert!(Instant::now() < deadline, "{what}: {}", self.quorate("cluster status").1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Every one of these nodes says that these vote, and is in the leader's state.
    async fn until_voters(&self, nodes: &[u64], voters: &[u64]) {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        let (nodes, voters) = (ids(nodes), ids(voters));
        self.until("the voters", async |client| {
            let Ok(views) = client.cluster().await else { return false };
            nodes.iter().all(|node| {
                let view = views.iter().find(|view| view.node == *node);
                view.is_some_and(|view| view.groups.iter().all(|group| group.voters == voters))
            })
        })
        .await;
    }
}

fn free_port() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// What whoever submits is told, and tells.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    acked: AtomicUsize,
}

/// Submits until told to stop; the tasks that were acknowledged, and the longest wait for one.
async fn submit(client: Client, load: Arc<Load>) -> (Vec<TaskId>, Duration) {
    let (mut acked, mut longest) = (Vec::new(), Duration::ZERO);
    while !load.stop.load(Ordering::Relaxed) {
        let number = acked.len();
        let key = Some(format!("task-{number}"));
        let spec = TaskSpec { idempotency_key: key, ..TaskSpec::default() };
        let since = Instant::now();
        acked.push(client.submit(spec).await.expect("some node serves").id);
        load.acked.store(acked.len(), Ordering::Relaxed);
        longest = longest.max(since.elapsed());
    }
    (acked, longest)
}

async fn kept(client: &Client, acked: &[TaskId]) {
    for task in acked {
        let kept = client.task(*task, Consistency::Linearizable).await;
        kept.unwrap_or_else(|error| panic!("the acknowledged {task} is gone: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_to_seven_and_shrinks_to_three_under_load() {
    let mut stage = Stage::of(3).await;
    let load = Arc::new(Load::default());
    let submitting = tokio::spawn(submit(stage.client(), Arc::clone(&load)));
    stage.grow(&[4, 5]).await;
    stage.grow(&[6, 7]).await;
    stage.done("cluster leader transfer --to 7");
    stage.done("cluster leader transfer --to 2");
    // The leader is among those that leave: it hands over and follows.
    stage.done("cluster voters set 1,3,5");
    stage.until_voters(&[1, 2, 3, 4, 5, 6, 7], &[1, 3, 5]).await;
    for node in [2, 4, 6, 7] {
        stage.done(&format!("cluster member remove {node}"));
    }
    stage.until_voters(&[1, 3, 5], &[1, 3, 5]).await;
    load.stop.store(true, Ordering::Relaxed);
    let (acked, longest) = submitting.await.expect("it submits");
    println!("{} tasks acknowledged, the longest wait {longest:?}", acked.len());
    assert!(acked.len() > 100, "{} tasks", acked.len());
    let client = client(stage.cluster.urls().into_iter().take(1), stage.cluster.token());
    kept(&client, &acked).await;
    let members = client.members().await.expect("it answers");
    assert_eq!(members.iter().map(|member| member.node.0).collect::<Vec<_>>(), [1, 3, 5]);
    // Who was removed is a stranger now, and says so.
    let log = stage.dir.path().join("node-1/log.jsonl");
    stage.until("strangers", async |_| !said(&log, STRANGER).is_empty()).await;
}

const STRANGER: &str = "refused a peer that is not in the allow-list";

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_is_replaced_and_a_new_one_survives_its_restart() {
    let mut stage = Stage::of(3).await;
    let load = Arc::new(Load::default());
    let submitting = tokio::spawn(submit(stage.client(), Arc::clone(&load)));
    stage.cluster.kill_node(1).expect("it runs");
    let new = stage.newcomer(4, 3);
    stage.start(&new);
    stage.done(&format!("cluster member replace 2 {} --peer {}", new.place, new.peer));
    stage.until_voters(&[1, 3, 4], &[1, 3, 4]).await;
    // It votes: with another one down, nothing is acknowledged without it.
    stage.cluster.kill_node(0).expect("it runs");
    let before = load.acked.load(Ordering::Relaxed);
    // The one that was under way may have been acknowledged by the three.
    let more = async |_: &Client| load.acked.load(Ordering::Relaxed) > before + 1;
    stage.until("an acknowledgement of the two that are left", more).await;
    load.stop.store(true, Ordering::Relaxed);
    let (acked, longest) = submitting.await.expect("it submits");
    println!("{} tasks acknowledged, the longest wait {longest:?}", acked.len());
    // Everybody starts again, each from its own old file.
    stage.joined.clear();
    stage.cluster.kill_node(2).expect("it runs");
    stage.urls.truncate(3);
    stage.start(&new);
    stage.cluster.start_node(2).expect("it starts");
    stage.until("a leader", async |client| client.ready().await.is_ok()).await;
    kept(&stage.client(), &acked).await;
    stage.refused(&format!("cluster member add {} --peer {}", "2@127.0.0.1:1", new.peer), 4, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_lost_its_quorum_goes_on_from_a_survivor() {
    let mut stage = Stage::of_shards(3, 2).await;
    let file = stage.dir.path().join("node-1/node.toml").display().to_string();
    let recover = format!("cluster recover -f {file}");
    stage.refused(&recover, 4, &["in use by another process"]);
    let client = stage.client();
    client.put_blob(vec![3; 100_000].into()).await.expect("kept");
    let mut acked = Vec::new();
    for number in 0..200 {
        let key = Some(format!("task-{number}"));
        let spec = TaskSpec { idempotency_key: key, ..TaskSpec::default() };
        acked.push(client.submit(spec).await.expect("it serves").id);
    }
    // What the survivor holds is all that was acknowledged.
    stage
        .until("one state", async |client| {
            let Ok(views) = client.cluster().await else { return false };
            let states = |view: &quorate_types::view::NodeView| {
                view.groups.iter().map(|group| group.applied_index).collect::<Vec<_>>()
            };
            views.len() == 3 && views.iter().all(|view| states(view) == states(&views[0]))
        })
        .await;
    for at in 0..3 {
        stage.cluster.kill_node(at).expect("it runs");
    }
    let data = |node: u64| stage.dir.path().join(format!("node-{node}/data"));
    std::fs::remove_dir_all(data(2)).expect("ours");
    // The third is not destroyed, as it should be: it comes back later.
    let stands = ["g0", "g1", "g2", "n1,n2,n3", "nothing was done", "--accept-loss"];
    let (code, said) = stage::quorate(&recover, &[], "");
    assert_eq!(code, Some(4), "{said}");
    for word in stands {
        assert!(said.contains(word), "no `{word}` in {said}");
    }
    let begun = stage.done(&format!("{recover} --accept-loss"));
    assert!(begun.contains("No other node of the era before may vote again"), "{begun}");
    assert!(data(1).with_extension("era-0").join("identity").exists(), "the old one lies aside");
    stage.refused(&format!("{recover} --accept-loss"), 4, &["only voter", "quorate node run"]);

    stage.urls.truncate(1);
    stage.cluster.start_node(0).expect("it starts");
    stage.cluster.wait_ready(0, WITHIN).await.expect("it serves alone");
    kept(&stage.client(), &acked).await;
    let more = stage.client().submit(TaskSpec::default()).await.expect("it serves").id;
    assert!(acked.iter().all(|task| *task != more), "ids are given once");
    acked.push(more);
    stage.refused("cluster member add 3@127.0.0.1:1 --peer x", 2, &[]);
    let known = stage.newcomer(3, 1);
    stage.refused(
        &format!("cluster member add {} --peer {}", known.place, known.peer),
        4,
        &["given before", "n4"],
    );
    stage.join(4);
    stage.join(5);
    stage.done("cluster voters set 1,4,5");
    stage.until_voters(&[1, 4, 5], &[1, 4, 5]).await;

    // One of the era before comes back, and is told.
    stage.cluster.start_node(2).expect("it starts");
    let log = stage.cluster.log_file(2).to_owned();
    until("it is refused", || {
        let said = std::fs::read_to_string(&log).expect("a log");
        let told = ["error: ", "is of era 0", "begun anew as era 1:", "cluster member add"];
        told.iter().all(|words| said.contains(words)).then_some(())
    });
    stage.cluster.kill_node(2).ok();
    // The new voters have everything: without the survivor they serve it.
    stage.cluster.kill_node(0).expect("it runs");
    kept(&stage.client(), &acked).await;
    stage.client().submit(TaskSpec::default()).await.expect("they serve");
    stage.joined.clear();
}

/// How many groups each of the first three nodes leads, as it says itself.
async fn led(client: &Client) -> Vec<usize> {
    let views = client.cluster().await.unwrap_or_default();
    let count = |view: &quorate_types::view::NodeView| {
        view.groups.iter().filter(|group| group.leader == Some(view.node)).count()
    };
    views.iter().map(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_of_several_groups_spread_over_the_nodes_by_themselves() {
    let mut stage = Stage::of_shards(3, 2).await;
    let load = Arc::new(Load::default());
    let submitting = tokio::spawn(submit(stage.client(), Arc::clone(&load)));
    let even = async |client: &Client| led(client).await == [1, 1, 1];
    stage.until("one each", even).await;
    // One dies, another takes what it led, and it gets a group again when it is back.
    stage.cluster.kill_node(1).expect("it runs");
    let taken = async |client: &Client| led(client).await.iter().sum::<usize>() == 3;
    stage.until("three led by two", taken).await;
    stage.cluster.start_node(1).expect("it starts");
    stage.until("one each", even).await;
    load.stop.store(true, Ordering::Relaxed);
    let (acked, longest) = submitting.await.expect("it submits");
    println!("{} tasks acknowledged, the longest wait {longest:?}", acked.len());
    kept(&stage.client(), &acked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_where_shards_have_leaders_of_their_own() {
    let mut stage = Stage::of_shards(3, 2).await;
    // Each group is led by another node.
    for (group, leader) in [(0, 1), (1, 2), (2, 3)] {
        stage.done(&format!("cluster leader transfer --group {group} --to {leader}"));
    }
    let load = Arc::new(Load::default());
    let submitting = tokio::spawn(submit(stage.client(), Arc::clone(&load)));
    stage.grow(&[4, 5]).await;
    stage.refused("cluster member remove 2", 4, &["votes in group", "set the voters without it"]);
    // One shard alone still has it.
    stage.done("cluster voters set 1,3,4 --group 0");
    stage.done("cluster voters set 1,3,4 --group 1");
    stage.refused("cluster member remove 2", 4, &["votes in group g2"]);
    stage.done("cluster voters set 1,3,4 --group 2");
    stage.done("cluster member remove 2");
    stage.cluster.kill_node(1).expect("it ran");
    // And one is replaced, dead, in every group.
    stage.cluster.kill_node(2).expect("it runs");
    let new = stage.newcomer(6, 1);
    stage.start(&new);
    stage.done(&format!("cluster member replace 3 {} --peer {}", new.place, new.peer));
    stage.until_voters(&[1, 4, 6], &[1, 4, 6]).await;
    load.stop.store(true, Ordering::Relaxed);
    let (acked, longest) = submitting.await.expect("it submits");
    println!("{} tasks acknowledged, the longest wait {longest:?}", acked.len());
    assert!(acked.len() > 50, "{} tasks", acked.len());
    // The new voters are a quorum of every group that has everything.
    stage.cluster.kill_node(0).expect("it runs");
    kept(&stage.client(), &acked).await;
    stage.joined.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_may_not_become_is_refused_with_the_next_step() {
    let mut stage = Stage::of(3).await;
    stage.refused("cluster voters set 1,2", 2, &["odd number"]);
    stage.refused("cluster voters set 1,2,9", 4, &["n9 is not a member"]);
    stage.refused("cluster member remove 3", 4, &["votes in group", "set the voters without it"]);
    stage.refused("cluster member remove 9", 3, &["n9"]);
    stage.refused("cluster member add 4@nowhere --peer x", 2, &["IP:PORT"]);
    stage.refused("cluster member add 4@127.0.0.1:9 --peer 12D3KooW", 2, &["quorate node key"]);
    let new = stage.newcomer(4, 1);
    stage.refused(
        &format!("cluster member add 3@127.0.0.1:9 --peer {}", new.peer),
        4,
        &["another key is another node", "n4"],
    );
    stage.done(&format!("cluster member add {} --peer {}", new.place, new.peer));
    stage.done(&format!("cluster member add {} --peer {}", new.place, new.peer));
    stage.refused("cluster voters set 1,2,3,4", 2, &["odd number"]);
    stage.refused("cluster leader transfer --to 4", 4, &["not a voter"]);
    // The last voter cannot go, however one asks.
    stage.done("cluster voters set 1");
    stage.refused("cluster member remove 1", 4, &["votes in group"]);
    stage.done("cluster voters set 1,2,3");
    // An id is given once.
    stage.done("cluster member remove 4");
    stage.refused(
        &format!("cluster member add {} --peer {}", new.place, new.peer),
        4,
        &["given before", "n5"],
    );
    // A member that does not answer is shown.
    stage.cluster.kill_node(2).expect("it runs");
    stage.until("its silence is shown", async |_| shows_silence(&stage)).await;
    let (code, said) = stage.quorate("cluster status");
    assert_eq!(code, Some(0), "{said}");
    stage.joined.clear();
}

fn shows_silence(stage: &Stage) -> bool {
    let output = Command::new(QUORATE)
        .args(["cluster", "status", "-o", "table"])
        .env("QUORATE_URL", stage.urls[0].clone())
        .env("QUORATE_TOKEN", stage.cluster.token())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.lines().any(|line| line.starts_with("n3") && line.contains("no answer"))
}

#[test]
fn a_key_is_made_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("key");
    let print = |file: &Path| {
        let output = Command::new(QUORATE).args(["node", "key"]).arg(file).output();
        String::from_utf8(output.expect("it starts").stdout).expect("text")
    };
    let first = print(&file);
    assert!(first.starts_with("12D3KooW"), "{first}");
    assert_eq!(print(&file), first);
}
