//! A cluster of real nodes, each in a namespace of its own, one with its data on a file
//! system whose power can be cut and one with it on a small one.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use quorate_cli::Launch;
use quorate_cli::local::{Layout, LocalCluster};
use quorate_client::{Client, ClientOptions};
use quorate_node::NodeConfig;
use quorate_types::NodeId;
use quorate_types::view::NodeView;

use crate::air::{Air, address};
use crate::doors::Doors;
use crate::mounts::{Mount, text};
use crate::plan::Plan;
use crate::space::Space;
use crate::stage::{QUORATE, WITHIN, quorate};

/// A log, two snapshots and what lies between.
const IMAGE_MEBIBYTES: u64 = 600;
/// Small enough to be filled at once, and beyond what a log keeps.
const SMALL_MEBIBYTES: u64 = 600;
/// What one waits for a node to answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// The cluster with its surroundings.
pub(crate) struct Town {
    pub(crate) cluster: LocalCluster,
    _doors: Doors,
    pub(crate) air: Air,
    pub(crate) client: Client,
    pub(crate) nodes: usize,
    /// The nodes' numbers, by place: whoever is replaced gets another.
    ids: Vec<NodeId>,
    files: Vec<PathBuf>,
    /// The data of the last node but one.
    pub(crate) image: Mount,
    /// That of the last.
    pub(crate) small: Mount,
}

impl Town {
    /// Lays it out and starts it; what the machine lacks is said.
    pub(crate) async fn found(dir: &Path, plan: &Plan) -> Result<Self, String> {
        let nodes = plan.nodes;
        let air = Air::new(usize::from(nodes), plan.seed)?;
        let (image, small) = (Mount::ext4(IMAGE_MEBIBYTES)?, Mount::tmpfs(SMALL_MEBIBYTES)?);
        let launch = Launch::of(inside(dir, plan.fault.as_deref()));
        let layout = Layout {
            nodes,
            shards: 1,
            dir: Some(dir.to_owned()),
            first_api_port: None,
            agents: Vec::new(),
        };
        let mut cluster = LocalCluster::lay_out(&layout, launch).expect("laid out");
        let nodes = usize::from(nodes);
        let files: Vec<PathBuf> =
            (1..=nodes).map(|id| dir.join(format!("node-{id}/node.toml"))).collect();
        let served = settle(&files);
        move_data(&files[nodes - 2], &image.point);
        move_data(&files[nodes - 1], &small.point);
        let doors = Doors::open(air.spaces(), &served).expect("free a moment ago");
        cluster.start().expect("started");
        cluster.wait_all_ready(WITHIN).await.expect("ready");
        let mut options = ClientOptions::new(cluster.urls(), Some(cluster.token().to_owned()));
        options.timeout = PATIENCE;
        let client = Client::new(options).expect("a client");
        let ids = (1..=layout.nodes).map(|id| NodeId(u64::from(id))).collect();
        Ok(Self { cluster, _doors: doors, air, client, nodes, ids, files, image, small })
    }

    /// The node that leads, by its place, as all that answer say and more than half of all nodes.
    pub(crate) async fn leader(&self) -> Option<usize> {
        let views = self.client.cluster().await.ok()?;
        let leaders: Vec<NodeId> =
            views.iter().filter_map(|view| view.groups.first()?.leader).collect();
        let first = *leaders.first()?;
        let agreed = 2 * leaders.len() > self.nodes && leaders.iter().all(|one| *one == first);
        if agreed { self.ids.iter().position(|id| *id == first) } else { None }
    }

    /// What all nodes say of themselves; none while one is missing.
    pub(crate) async fn all(&self) -> Option<Vec<NodeView>> {
        let views = self.client.cluster().await.ok()?;
        (views.len() == self.nodes).then_some(views)
    }

    /// How a node ended, if it has.
    pub(crate) fn ended(&mut self, at: usize) -> Option<ExitStatus> {
        self.cluster.ended(at)
    }

    /// The process of a node that runs.
    pub(crate) fn pid(&self, at: usize) -> u32 {
        self.cluster.pid(at).expect("it runs")
    }

    /// The number of the node at this place.
    pub(crate) fn id(&self, at: usize) -> NodeId {
        self.ids[at]
    }

    /// Where each node's data lies.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let config = |file: &PathBuf| NodeConfig::read(file).expect("as written");
        self.files.iter().map(|file| config(file).node.data_dir).collect()
    }

    /// Puts a new node in the place of one that is refused for good: its key, number and directory
    /// are new, and so is its port, as an address belongs to one member.
    pub(crate) async fn replace(&mut self, at: usize) -> Result<(), String> {
        self.cluster.kill_node(at).ok();
        let old = self.ids[at];
        let new = NodeId(self.ids.iter().map(|id| id.0).max().unwrap_or(0) + 1);
        self.ids[at] = new;
        std::fs::remove_dir_all(&self.directories()[at]).expect("ours");
        let key = self.files[at].with_file_name("key");
        std::fs::write(&key, quorate_node::new_key()).expect("ours, and of mode 0600 already");
        let mut members: Vec<Member> = self.ids.iter().zip(&self.files).map(member).collect();
        let port = members[at].address.port() + 1;
        members[at].address.set_port(port);
        let (peer, address) = (&members[at].peer, members[at].address);
        rewrite(&self.files[at], at, &members);
        self.cluster.start_node(at).expect("it starts");
        let verb = format!("cluster member replace {} {}@{address} --peer {peer}", old.0, new.0);
        let (code, said) = self.quorate(verb).await;
        if code == Some(0) { Ok(()) } else { Err(format!("{old} was not replaced: {said}")) }
    }

    /// Runs a verb against the whole cluster.
    pub(crate) async fn quorate(&self, verb: String) -> (Option<i32>, String) {
        let (urls, token) = (self.cluster.urls(), self.cluster.token().to_owned());
        let ran = tokio::task::spawn_blocking(move || quorate(&verb, &urls, &token));
        ran.await.expect("no panic")
    }

    /// Waits until every node serves.
    pub(crate) async fn whole(&mut self) -> Result<(), String> {
        let ready = self.cluster.wait_all_ready(WITHIN).await;
        ready.map_err(|error| format!("{error:#}"))
    }
}

/// A program that is `quorate`, or has a bug, in the namespace of the node whose file it is given.
fn inside(dir: &Path, fault: Option<&str>) -> PathBuf {
    let quorate = fault.map_or_else(
        || format!("'{QUORATE}'"),
        |fault| format!("'{}' --fault {fault}", env!("CARGO_BIN_EXE_quorate-faulty")),
    );
    let program = dir.join("quorate-inside");
    let script = format!(
        "#!/bin/sh\nnode=\"${{*##*/node-}}\"\nexec nsenter --net=\"/run/netns/{}${{node%%/*}}\" \
         {quorate} \"$@\"\n",
        Space::prefix()
    );
    std::fs::write(&program, script).expect("writable");
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&program, mode).expect("ours");
    program
}

/// Moves each node's peer address from loopback to its own; gives where they serve HTTP.
fn settle(files: &[PathBuf]) -> Vec<SocketAddr> {
    let configs: Vec<NodeConfig> =
        files.iter().map(|file| NodeConfig::read(file).expect("laid out")).collect();
    for file in files {
        let mut text = std::fs::read_to_string(file).expect("laid out");
        for (node, config) in configs.iter().enumerate() {
            let old = config.node.listen;
            let new = SocketAddr::new(address(node).into(), old.port());
            text = text.replace(&format!("\"{old}\""), &format!("\"{new}\""));
        }
        std::fs::write(file, text).expect("writable");
    }
    configs.iter().map(|config| config.api.listen).collect()
}

fn move_data(file: &Path, mount: &Path) {
    let words = std::fs::read_to_string(file).expect("laid out");
    let data = format!("data_dir = \"{}\"", text(&mount.join("data")));
    std::fs::write(file, words.replace("data_dir = \"data\"", &data)).expect("writable");
}

/// A member as node files name it.
struct Member {
    id: NodeId,
    peer: String,
    address: SocketAddr,
}

fn member((id, file): (&NodeId, &PathBuf)) -> Member {
    let config = NodeConfig::read(file).expect("as written");
    let key = std::fs::read_to_string(config.node.key_file).expect("laid out");
    let peer = quorate_node::peer_id_of(&key).expect("a key");
    Member { id: *id, peer, address: config.node.listen }
}

/// Makes a node's file that of a newcomer.
fn rewrite(file: &Path, at: usize, members: &[Member]) {
    let text = std::fs::read_to_string(file).expect("laid out");
    let mut table: toml::Table = text.parse().expect("laid out");
    let number = |id: NodeId| toml::Value::Integer(i64::try_from(id.0).expect("few"));
    let node = table["node"].as_table_mut().expect("a section");
    node.insert("id".to_owned(), number(members[at].id));
    node.insert("joins".to_owned(), true.into());
    node.insert("listen".to_owned(), members[at].address.to_string().into());
    let members = members.iter().map(|member| {
        toml::Value::Table(toml::Table::from_iter([
            ("id".to_owned(), number(member.id)),
            ("name".to_owned(), format!("node-{}", member.id.0).into()),
            ("peer".to_owned(), member.peer.clone().into()),
            ("address".to_owned(), member.address.to_string().into()),
        ]))
    });
    table.insert("member".to_owned(), toml::Value::Array(members.collect()));
    std::fs::write(file, table.to_string()).expect("writable");
}
