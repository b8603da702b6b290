//! How a node begins and ends: in order when it is told to, at once when it is told
//! twice, and not at all where it would vote without its memory.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod stage;

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use quorate_types::TaskSpec;
use stage::{Program, WITHIN, client, lay_out, said, until};

fn node_file(dir: &Path) -> String {
    dir.join("node-1/node.toml").display().to_string()
}

/// Starts the one node of a laid-out cluster; its URL.
fn run_node(dir: &Path) -> (Program, String) {
    let file = node_file(dir);
    let arguments = ["node", "run", "-f", &file, "-o", "json"];
    let mut node = Program::start(&arguments, dir.join("log.jsonl"), &[]);
    let url = node.first_json()["api"].as_str().expect("an address").to_owned();
    (node, url)
}

#[test]
fn a_node_that_is_told_to_stop_closes_its_log_and_ends_with_0() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = lay_out(dir.path(), 1, Vec::new());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let opened = || {
        let opened = said(&dir.path().join("log.jsonl"), "data directory opened");
        opened.last().map(|line| line["fields"]["closed_in_order"].clone())
    };
    for (signal, before) in [("TERM", false), ("INT", true), ("KILL", true), ("TERM", false)] {
        let (mut node, url) = run_node(dir.path());
        // A node that is ready has written to its log.
        let ready = async || client([url.clone()], cluster.token()).ready().await;
        until("it is ready", || runtime.block_on(ready()).ok());
        assert_eq!(opened(), Some(before.into()), "after the end before SIG{signal}");
        node.signal(signal);
        let status = node.end();
        assert_eq!(status.code(), (signal != "KILL").then_some(0), "SIG{signal}: {status}");
    }
}

#[test]
fn a_second_signal_does_not_wait_for_requests_under_way() {
    let dir = tempfile::tempdir().expect("a folder");
    let cluster = lay_out(dir.path(), 1, Vec::new());
    let (mut node, url) = run_node(dir.path());
    let address = url.strip_prefix("http://").expect("plain HTTP");
    let mut slow = TcpStream::connect(address).expect("it serves");
    let head = format!(
        "PUT /v1/blobs HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-length: 10\r\n\r\nhalf",
        cluster.token()
    );
    slow.write_all(head.as_bytes()).expect("taken");
    // An answer on a later connection: the one that came before has been accepted by then.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(client([url.clone()], cluster.token()).metrics()).expect("it serves");
    node.signal("TERM");
    let connected = || TcpStream::connect(address).ok();
    until("the door closes", || connected().is_none().then_some(()));
    node.signal("TERM");
    let status = node.end();
    let log = std::fs::read_to_string(dir.path().join("log.jsonl")).expect("written");
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("told twice to stop"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_lost_its_directory_is_refused_and_the_others_serve() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = lay_out(dir.path(), 3, Vec::new());
    cluster.start().expect("started");
    cluster.wait_all_ready(WITHIN).await.expect("ready");
    cluster.kill_node(1).expect("it ran");
    let data = dir.path().join("node-2/data");
    let kept = dir.path().join("node-2/kept");
    std::fs::rename(&data, &kept).expect("moved away");

    cluster.start_node(1).expect("it starts");
    let refused = cluster.wait_ready(1, WITHIN).await.expect_err("it must not vote").to_string();
    for words in ["node n2 has voted from the directory", "remembers", "Put the old directory back"]
    {
        assert!(refused.contains(words), "no `{words}` in: {refused}");
    }
    let others = client([cluster.urls()[0].clone(), cluster.urls()[2].clone()], cluster.token());
    let spec = TaskSpec { capabilities: vec!["echo".to_owned()], ..TaskSpec::default() };
    others.submit(spec).await.expect("a majority serves");

    // Only one node may have a directory at a time: the refused process is gone by now.
    std::fs::remove_dir_all(&data).expect("the new one");
    std::fs::rename(&kept, &data).expect("put back");
    cluster.start_node(1).expect("it starts");
    cluster.wait_ready(1, WITHIN).await.expect("with its memory it is welcome");
    cluster.stop(Duration::from_secs(10));
}

#[test]
fn dev_leaves_neither_processes_nor_directories_behind() {
    for signal in ["INT", "TERM"] {
        let dir = tempfile::tempdir().expect("a folder");
        let temporary = dir.path().join("tmp");
        std::fs::create_dir(&temporary).expect("writable");
        let context = dir.path().join("context.json");
        let variables = [
            ("TMPDIR", temporary.to_str().expect("UTF-8")),
            ("QUORATE_CONTEXT", context.to_str().expect("UTF-8")),
        ];
        let log = dir.path().join("dev.log");
        let mut dev = Program::start(&["dev", "-o", "json"], log, &variables);
        let up = dev.first_json();
        let urls = up["urls"].as_array().expect("doors").clone();
        assert_eq!(urls.len(), 3);
        assert!(Path::new(up["data"].as_str().expect("a folder")).starts_with(&temporary));
        dev.signal(signal);
        assert_eq!(dev.end().code(), Some(0), "SIG{signal}");
        for url in &urls {
            let address = url.as_str().and_then(|url| url.strip_prefix("http://")).expect("HTTP");
            assert!(TcpStream::connect(address).is_err(), "{address} still answers");
        }
        let left = std::fs::read_dir(&temporary).expect("readable").count();
        assert_eq!(left, 0, "directories after SIG{signal}");
    }
}

#[test]
fn an_interrupted_demo_leaves_neither_processes_nor_directories_behind() {
    for signal in ["INT", "TERM"] {
        let dir = tempfile::tempdir().expect("a folder");
        let (temporary, corpus) = (dir.path().join("tmp"), dir.path().join("corpus"));
        std::fs::create_dir(&temporary).expect("writable");
        std::fs::create_dir(&corpus).expect("writable");
        for file in 0..400 {
            let text = format!("fn f{file}() {{}} ").repeat(2_000);
            std::fs::write(corpus.join(format!("{file}.rs")), text).expect("writable");
        }
        let log = dir.path().join("demo.log");
        let arguments =
            ["demo", "--headless", "-o", "json", "--corpus", corpus.to_str().expect("UTF-8")];
        let variables = [("TMPDIR", temporary.to_str().expect("UTF-8"))];
        let mut demo = Program::start(&arguments, log.clone(), &variables);
        let up = || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.contains("nodes are up").then_some(())
        };
        until("the nodes are up", up);
        let node_files: Vec<_> = std::fs::read_dir(&temporary)
            .expect("readable")
            .flat_map(|cluster| std::fs::read_dir(cluster.expect("an entry").path()))
            .flatten()
            .map(|node| node.expect("an entry").path().join("node.toml"))
            .filter(|file| file.exists())
            .collect();
        assert_eq!(node_files.len(), 3);
        let doors: Vec<_> = node_files
            .iter()
            .map(|file| quorate_node::NodeConfig::read(file).expect("as written").api.listen)
            .collect();
        demo.signal(signal);
        assert_eq!(demo.end().code(), Some(1), "SIG{signal}");
        for door in doors {
            assert!(TcpStream::connect(door).is_err(), "{door} still answers");
        }
        let left = std::fs::read_dir(&temporary).expect("readable").count();
        assert_eq!(left, 0, "directories after SIG{signal}");
    }
}
