//! A cluster on this machine: real node processes on loopback, each with its own
//! key, data directory and node file. `dev`, `demo` and the tests of real processes
//! stand on it.
//!
//! A node process is tied to this one by its standard input: when this process
//! ends, however it ends, the pipe closes and the node stops by itself.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use quorate_client::{Client, ClientOptions};
use quorate_types::rng::Rng;

use crate::launch::Launch;

/// Ports for nodes are taken below the range from which the system gives ports to
/// outgoing connections, so that none of those takes a node's while it is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// An agent to be hosted.
#[derive(Clone, Debug)]
pub struct LocalAgent {
    /// Its name.
    pub name: String,
    /// A built-in plugin or a path.
    pub plugin: String,
    /// Its slots.
    pub slots: u32,
}

/// What a local cluster is made of.
#[derive(Clone, Debug)]
pub struct Layout {
    /// How many nodes.
    pub nodes: u8,
    /// How many shards share the tasks and keys.
    pub shards: u16,
    /// Where they keep their data; a temporary directory, removed at the end, by default.
    pub dir: Option<PathBuf>,
    /// The first node's HTTP port; the others' follow. Free ones by default.
    pub first_api_port: Option<u16>,
    /// Agents, by node.
    pub agents: Vec<Vec<LocalAgent>>,
}

/// A node process, or the place of one.
#[derive(Debug)]
struct Place {
    file: PathBuf,
    log: PathBuf,
    api: SocketAddr,
    child: Option<Child>,
}

/// A cluster. Dropping it kills what still runs and removes a temporary directory.
#[derive(Debug)]
pub struct LocalCluster {
    launch: Launch,
    token: String,
    places: Vec<Place>,
    dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl LocalCluster {
    /// Writes keys and node files, where there are none yet. Starts nothing.
    pub fn lay_out(layout: &Layout, launch: Launch) -> anyhow::Result<Self> {
        let temporary = match &layout.dir {
            Some(_given) => None,
            None => Some(tempfile::Builder::new().prefix("quorate-").tempdir()?),
        };
        let dir = match (&layout.dir, &temporary) {
            (Some(dir), _) => dir.clone(),
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => unreachable!("one of them is there"),
        };
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let token = secret(&dir.join("token"))?;
        let members = members(layout, &dir)?;
        let mut places = Vec::new();
        for (at, member) in members.iter().enumerate() {
            let agents = layout.agents.get(at).map_or(&[][..], Vec::as_slice);
            let folder = dir.join(format!("node-{}", member.id));
            let file = folder.join("node.toml");
            if !file.exists() {
                fs::write(&file, node_file(member, layout.shards, &members, agents))?;
            }
            let log = folder.join("log.jsonl");
            places.push(Place { file, log, api: member.api, child: None });
        }
        Ok(Self { launch, token, places, dir, _temporary: temporary })
    }

    /// Starts every node that does not run.
    pub fn start(&mut self) -> anyhow::Result<()> {
        (0..self.places.len()).try_for_each(|at| self.start_node(at))
    }

    /// Starts one node, by its place from 0.
    pub fn start_node(&mut self, at: usize) -> anyhow::Result<()> {
        let mut command = self.launch.again()?;
        let place = &mut self.places[at];
        let log = fs::OpenOptions::new().create(true).append(true).open(&place.log)?;
        command
            .args(["node", "run", "--tied", "-f"])
            .arg(&place.file)
            .env_remove("QUORATE_URL")
            .env_remove("QUORATE_TOKEN")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // An interrupt at the terminal is for this process, which then stops its nodes.
            .process_group(0);
        let child = command.spawn().context("cannot start a node process")?;
        place.child = Some(child);
        Ok(())
    }

    /// Kills one node (SIGKILL) and waits until it is gone. Gives the moment of the kill.
    pub fn kill_node(&mut self, at: usize) -> anyhow::Result<Instant> {
        let mut child = self.places[at].child.take().context("the node does not run")?;
        let killed = Instant::now();
        child.kill()?;
        child.wait()?;
        Ok(killed)
    }

    /// Asks every node to stop, and does not wait.
    pub fn ask_to_stop(&mut self) {
        for place in &mut self.places {
            if let Some(child) = &mut place.child {
                // The tie: a node stops in order when its standard input closes.
                drop(child.stdin.take());
            }
        }
    }

    /// Whether no node runs any more.
    pub fn has_ended(&mut self) -> bool {
        let mut children = self.places.iter_mut().filter_map(|place| place.child.as_mut());
        children.all(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// How one node's process ended; none while it runs.
    pub fn ended(&mut self, at: usize) -> Option<ExitStatus> {
        self.places[at].child.as_mut()?.try_wait().ok()?
    }

    /// Asks every node to stop, and waits; what does not stop in time is killed.
    pub fn stop(&mut self, within: Duration) {
        self.ask_to_stop();
        let deadline = Instant::now() + within;
        for place in &mut self.places {
            let Some(mut child) = place.child.take() else { continue };
            while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
            end(&mut child);
        }
    }

    /// The process id of a running node.
    pub fn pid(&self, at: usize) -> Option<u32> {
        self.places[at].child.as_ref().map(Child::id)
    }

    /// The HTTP doors, by place.
    pub fn urls(&self) -> Vec<String> {
        self.places.iter().map(|place| format!("http://{}", place.api)).collect()
    }

    /// The token of its doors.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Where everything lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a node writes its log lines.
    pub fn log_file(&self, at: usize) -> &Path {
        &self.places[at].log
    }

    /// Waits until one node serves: it knows a leader and has caught up. A node that
    /// ended instead is an error with the end of its log.
    pub async fn wait_ready(&mut self, at: usize, within: Duration) -> anyhow::Result<()> {
        let urls = [self.urls()[at].clone()];
        let client = Client::new(ClientOptions::new(urls, Some(self.token.clone())))?;
        let deadline = Instant::now() + within;
        loop {
            if client.ready().await.is_ok() {
                return Ok(());
            }
            if let Some(child) = &mut self.places[at].child
                && let Some(status) = child.try_wait()?
            {
                let said = last_lines(&self.places[at].log);
                anyhow::bail!("node {} ended with {status}:\n{said}", at + 1);
            }
            ensure!(
                Instant::now() < deadline,
                "node {} was not ready within {} s; its log is {}",
                at + 1,
                within.as_secs(),
                self.places[at].log.display()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every node serves.
    pub async fn wait_all_ready(&mut self, within: Duration) -> anyhow::Result<()> {
        for at in 0..self.places.len() {
            self.wait_ready(at, within).await?;
        }
        Ok(())
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        for place in &mut self.places {
            if let Some(mut child) = place.child.take() {
                end(&mut child);
            }
        }
    }
}

fn end(child: &mut Child) {
    // Both fail only where the process is gone already, which is what is wanted.
    child.kill().ok();
    child.wait().ok();
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

struct Member {
    id: u64,
    peer: String,
    listen: SocketAddr,
    api: SocketAddr,
}

fn members(layout: &Layout, dir: &Path) -> anyhow::Result<Vec<Member>> {
    let mut ports = Ports::new(dir)?;
    let mut members = Vec::new();
    for at in 0..layout.nodes {
        let id = u64::from(at) + 1;
        let folder = dir.join(format!("node-{id}"));
        fs::create_dir_all(&folder)?;
        let key = key(&folder.join("key"))?;
        let peer = quorate_node::peer_id_of(&key).context("the key file holds no key")?;
        let file = folder.join("node.toml");
        let (listen, api) = if file.exists() {
            let config = quorate_node::NodeConfig::read(&file)?;
            (config.node.listen, config.api.listen)
        } else {
            let api = match layout.first_api_port {
                Some(first) => ports.exactly(first.saturating_add(u16::from(at)))?,
                None => ports.free()?,
            };
            (ports.free()?, api)
        };
        members.push(Member { id, peer, listen, api });
    }
    Ok(members)
}

fn node_file(node: &Member, shards: u16, members: &[Member], agents: &[LocalAgent]) -> String {
    let Member { id, listen, api, .. } = node;
    let mut text = format!(
        "# Written by quorate; edit at will.\n\
         [cluster]\nid = \"local\"\nshards = {shards}\n\n\
         [node]\nid = {id}\ndata_dir = \"data\"\nkey_file = \"key\"\nlisten = \"{listen}\"\n\n\
         [api]\nlisten = \"{api}\"\ntoken_file = \"../token\"\n\n"
    );
    for Member { id, peer, listen, .. } in members {
        text += &format!(
            "[[member]]\nid = {id}\nname = \"node-{id}\"\npeer = \"{peer}\"\naddress = \"{listen}\"\n\n"
        );
    }
    for LocalAgent { name, plugin, slots } in agents {
        text +=
            &format!("[[agent]]\nname = \"{name}\"\nplugin = \"{plugin}\"\nslots = {slots}\n\n");
    }
    text
}

pub(crate) fn key(file: &Path) -> anyhow::Result<String> {
    if !file.exists() {
        write_secret(file, &quorate_node::new_key())?;
    }
    Ok(fs::read_to_string(file)?)
}

fn secret(file: &Path) -> anyhow::Result<String> {
    key(file)
}

fn write_secret(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut open = options.write(true).create_new(true).mode(0o600).open(file)?;
    open.write_all(text.as_bytes())?;
    Ok(())
}

/// Ports that were free a moment ago.
struct Ports {
    rng: Rng,
    given: BTreeSet<u16>,
}

impl Ports {
    fn new(dir: &Path) -> anyhow::Result<Self> {
        // Two clusters made at one moment begin at different ports.
        let seed = quorate_types::Digest::of(
            format!("{} {}", dir.display(), quorate_node::new_key()).as_bytes(),
        );
        let seed = u64::from_le_bytes(seed.0[..8].try_into().context("a digest has 32 bytes")?);
        Ok(Self { rng: Rng::new(seed), given: BTreeSet::new() })
    }

    fn free(&mut self) -> anyhow::Result<SocketAddr> {
        for _ in 0..1000 {
            let width = u64::from(PORTS.end - PORTS.start);
            let port = PORTS.start + u16::try_from(self.rng.below(width)).unwrap_or(0);
            if let Ok(address) = self.exactly(port) {
                return Ok(address);
            }
        }
        anyhow::bail!("no free port was found between {} and {}", PORTS.start, PORTS.end)
    }

    fn exactly(&mut self, port: u16) -> anyhow::Result<SocketAddr> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        ensure!(self.given.insert(port), "port {port} is wanted twice");
        TcpListener::bind(address).with_context(|| {
            format!("port {port} is taken; name another with --port, or leave it out")
        })?;
        Ok(address)
    }
}
