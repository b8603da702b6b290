//! Start and stop of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openraft_rt_tokio::TokioRuntime;
use quorate_crank::{
    BlobExchange, Contacts, Crank, Groups, Handle, Listener, Mailbox, Origin, Parts, Post, Usher,
};
use quorate_kernel::{Kernel, KernelConfig, LEASE_TERM, LocalAgent, MemberInfo};
use quorate_raft::{AllowList, Raft, RaftOptions};
use quorate_storage::Log;
use quorate_transport::{PeerAddress, Transport, TransportOptions};
use quorate_types::{Digest, Door, Faults, NodeId, Time};
use quorate_wasm::{
    AgentHost, AgentLimits, CompileCache, Grants, PolicyHost, PolicyLimits, builtin,
};

use crate::admission::{AdmissionError, Desk, Fence, Porch, Presence};
use crate::agents::{Components, Environment, HostedAgent};
use crate::config::{AgentSection, NodeConfig};
use crate::disk::FileDisk;
use crate::figures::Rooms;
use crate::home::Home;
use crate::kept::Kept;
use crate::policies::Policies;
use crate::repair::{Counter, Pharmacy};
use crate::roster::{contacts_of, dial};
use crate::secrets::{entropy, read_key};

/// The policy that answers before any is activated; compiled at start.
const POLICY_FIRST: &str = "peak-ewma";
/// A log that is closed writes and syncs what it has taken: milliseconds, unless its disk is stuck.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Why a node did not start. Each names the failed act and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file of the node's cannot be used.
    #[error("cannot use `{}`: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The data directory cannot be used.
    #[error("cannot use the data directory `{}`", dir.display())]
    DataDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node may not vote from its data directory.
    #[error("cannot vote from the data directory `{}`", dir.display())]
    Admission {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: AdmissionError,
    },
    /// The transport did not start.
    #[error("cannot take part in the cluster's network")]
    Transport(#[source] quorate_transport::StartError),
    /// The log did not start.
    #[error("cannot open the log")]
    Raft(#[source] quorate_raft::StartError),
    /// The node's own thread did not start, or fell.
    #[error("cannot run the node's thread")]
    Thread(#[source] std::io::Error),
    /// The component engines did not start.
    #[error("cannot start the component engines: {0}")]
    Engine(String),
    /// An agent is not fit to be hosted.
    #[error("agent `{agent}` cannot be hosted: {reason}")]
    Agent {
        /// Its name.
        agent: String,
        /// Why.
        reason: String,
    },
}

type Door0 = Handle<TokioRuntime, FileDisk, Transport>;

/// A running node.
pub struct Node {
    handle: Door0,
    disk: FileDisk,
    desk: Desk<FileDisk, Transport>,
    log: Log<TokioRuntime, FileDisk>,
    transport: Transport,
    /// The door that agents go through, for as long as the node runs.
    _agents_door: Arc<dyn Door>,
    /// Keeps the guests' threads.
    _guests: GuestThreads,
    home: Home,
}

/// What of a node begins on its own thread.
struct Begun {
    handle: Door0,
    disk: FileDisk,
    desk: Desk<FileDisk, Transport>,
    log: Log<TokioRuntime, FileDisk>,
    transport: Transport,
    agents_door: Arc<dyn Door>,
    guests: GuestThreads,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// The balancers that ship with every node: (name, component).
pub fn builtin_balancers() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    builtin::all()
        .iter()
        .filter(|found| found.world == builtin::World::Balancer)
        .map(|found| (found.name, found.bytes))
}

impl Node {
    /// Starts the node that this file describes. Must be called on a tokio runtime.
    pub async fn start(config: &NodeConfig, faults: &Faults) -> Result<Self, StartError> {
        let home = Home::start().map_err(StartError::Thread)?;
        let (config, faults) = (config.clone(), faults.clone());
        let beginning = home.run(async move { Begun::begin(&config, &faults).await });
        let begun = beginning.await.map_err(StartError::Thread)??;
        let Begun { handle, disk, desk, log, transport, agents_door, guests } = begun;
        let (_agents_door, _guests) = (agents_door, guests);
        Ok(Self { handle, disk, desk, log, transport, _agents_door, _guests, home })
    }

    /// The node as its doors see it.
    pub fn door(&self) -> Arc<dyn Door> {
        Arc::new(self.handle.clone())
    }

    /// Why the node must not go on, if that is so: its disk, its log or its peers say it. The
    /// process should end.
    pub fn failure(&self) -> Option<String> {
        let refused = || self.desk.failure().map(ToString::to_string);
        self.disk.failure().or_else(|| self.handle.failure()).or_else(refused)
    }

    /// Stops in order: whoever waits is told, leadership is handed over, the log is closed, and
    /// only then do peers lose this node.
    pub async fn stop(self) {
        self.handle.stop().await;
        match tokio::time::timeout(CLOSE_WITHIN, self.log.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the log was not closed in order"),
            Err(_elapsed) => tracing::error!("the log did not close in time"),
        }
        self.transport.shutdown().await;
        self.home.leave().await;
    }
}

impl Begun {
    async fn begin(config: &NodeConfig, faults: &Faults) -> Result<Self, StartError> {
        let key = read_key(&config.node.key_file)?;
        let dir = &config.node.data_dir;
        let Kept { directory, era, life, disk, directories, log, snapshots, blobs } =
            Kept::open(config, &key, faults).await?;
        let environment = Environment::default();
        let threads = GuestThreads::start()?;
        let components = components(config, dir, environment.clone(), &threads)?;
        let kernel_config = kernel_config(config, &components);

        let mailbox = Mailbox::default();
        let post = Post::new(mailbox.clone());
        let ends = log.clone();
        let presence = Presence {
            node: config.id(),
            directory,
            life,
            boot: u64::from_le_bytes(entropy()),
            era,
            position: Box::new(move || ends.counts().position),
        };
        let desk = Desk::new(presence, directories);
        let pharmacy = Pharmacy::new(log.clone(), snapshots.clone());
        let inside = Counter { pharmacy: pharmacy.clone(), inside: post.clone() };
        let porch = Porch { desk: desk.clone(), inside };
        let transport = transport_options(config, key);
        let contacts = Contacts::new(config.id(), contacts_of(&transport.peers));
        let usher = Usher { contacts: contacts.clone(), inside: porch };
        let transport =
            Transport::start_here(transport, usher).await.map_err(StartError::Transport)?;
        desk.open(transport.clone());
        let dialled = dial(transport.clone(), crate::anew::formers(dir));
        contacts.open::<TokioRuntime, _>(transport.clone(), dialled, disk.clone()).await;
        let listed: BTreeSet<NodeId> =
            config.members.iter().map(|member| NodeId(member.id)).collect();
        let admitted = desk.admit(&listed).await;
        if let Err(source) = admitted {
            transport.shutdown().await;
            return Err(StartError::Admission { dir: dir.clone(), source });
        }
        let founders = if config.node.joins { BTreeSet::new() } else { listed };
        let (layout, allow_list) = (config.layout(), AllowList::default());
        let mut rafts = Vec::new();
        for group in layout.groups() {
            let mut options = RaftOptions::new(config.id(), group, founders.clone());
            options.layout = layout;
            options.allow_list = allow_list.clone();
            options.profile = config.raft.profile.into();
            options.faults = faults.clone();
            let (log, snapshots) = (log.clone(), snapshots.clone());
            let (contacts, inside) = (contacts.clone(), mailbox.clone());
            let observer = Arc::new(Listener { contacts, inside });
            let fence = Fence::new(desk.clone(), transport.clone());
            let raft = Raft::start(options, log, snapshots, fence, observer);
            rafts.push(raft.await.map_err(StartError::Raft)?);
        }
        let groups = Groups::new(layout, rafts);
        let blobs = BlobExchange::new(config.id(), config.members.len(), blobs, transport.clone());
        let counted = blobs.clone();
        contacts.count_for(move |members| counted.set_members(members));
        post.open(groups.clone(), blobs.clone());
        let asked = groups.clone();
        let voters = move |group| asked.get(group).map(|raft| raft.status().voters);
        pharmacy.open(transport.clone(), move |group| voters(group).unwrap_or_default());
        let (policies, agents) = (components.policies.clone(), Arc::clone(&components.host));
        let parts = Parts {
            mailbox,
            groups,
            blobs,
            wire: transport.clone(),
            guests: Arc::new(components),
            wall: Arc::new(wall_clock),
        };
        let guests = policies.clone();
        let handle = Crank::start(parts, |now| Kernel::new(kernel_config, Box::new(guests), now));
        let rooms = Rooms {
            transport: transport.clone(),
            log: log.clone(),
            groups: handle.groups().clone(),
            policies,
            agents,
        };
        let (cluster, node, known) = (config.cluster.id.clone(), config.id(), desk.clone());
        handle.name_origin(Box::new(move || Origin {
            cluster: cluster.clone(),
            era: known.era(),
            node,
        }));
        handle.add_figures(Box::new(move |page| rooms.write(page)));
        let agents_door: Arc<dyn Door> = Arc::new(handle.clone());
        environment.open(&agents_door);
        Ok(Self { handle, disk, desk, log, transport, agents_door, guests: threads })
    }
}

/// Threads for agents, beside the node's own: work is computation, and a heartbeat
/// must not wait for it.
struct GuestThreads(Option<tokio::runtime::Runtime>);

impl GuestThreads {
    fn start() -> Result<Self, StartError> {
        tokio::runtime::Builder::new_multi_thread()
            .thread_name("quorate-guest")
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
            .map_err(|error| StartError::Engine(error.to_string()))
    }

    fn handle(&self) -> Result<tokio::runtime::Handle, StartError> {
        let runtime = self.0.as_ref().ok_or_else(|| StartError::Engine("stopped".to_owned()))?;
        Ok(runtime.handle().clone())
    }
}

impl Drop for GuestThreads {
    fn drop(&mut self) {
        // A runtime must not wait for its threads inside another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

pub(crate) fn transport_options(config: &NodeConfig, key: [u8; 32]) -> TransportOptions {
    let peers = config
        .members
        .iter()
        .map(|member| {
            let peer = PeerAddress { peer_id: member.peer.clone(), address: member.address };
            (NodeId(member.id), peer)
        })
        .collect::<BTreeMap<_, _>>();
    TransportOptions::new(key, config.id(), config.node.listen, peers)
}

fn components(
    config: &NodeConfig,
    dir: &Path,
    environment: Environment,
    threads: &GuestThreads,
) -> Result<Components, StartError> {
    let engine = |error: &dyn std::fmt::Display| StartError::Engine(error.to_string());
    let cache = CompileCache::open(&dir.join("compiled")).map_err(|error| engine(&error))?;
    let cache = Some(Arc::new(cache));
    let policies = PolicyHost::new(PolicyLimits::hot(), cache.clone())
        .map(Policies::new)
        .map_err(|error| engine(&error))?;
    let first =
        builtin::find(POLICY_FIRST).ok_or_else(|| engine(&"no first policy is built in"))?;
    policies
        .admit(Digest::default(), &bytes::Bytes::from_static(first.bytes))
        .map_err(|reason| engine(&reason))?;
    let host = AgentHost::new(AgentLimits::hot(), cache).map_err(|error| engine(&error))?;
    let mut agents = Vec::new();
    for section in &config.agents {
        agents.push(hosted(&host, section)?);
    }
    let host = Arc::new(host);
    Ok(Components { agents, policies, host, environment, threads: threads.handle()? })
}

fn hosted(host: &AgentHost, section: &AgentSection) -> Result<HostedAgent, StartError> {
    let bad = |reason: String| StartError::Agent { agent: section.name.clone(), reason };
    let component = match builtin::find(&section.plugin) {
        Some(found) => host.admit(found.bytes, Grants::ALL),
        None => {
            let bytes = std::fs::read(&section.plugin).map_err(|error| {
                bad(format!(
                    "`{}` is no built-in plugin and no readable file: {error}",
                    section.plugin
                ))
            })?;
            host.admit(&bytes, Grants::ALL)
        }
    };
    let component = component.map_err(|error| bad(error.to_string()))?;
    Ok(HostedAgent::new(component, section.slots, u64::from_le_bytes(entropy())))
}

fn kernel_config(config: &NodeConfig, components: &Components) -> KernelConfig {
    let members = config
        .members
        .iter()
        .map(|member| {
            let info = MemberInfo {
                name: member.name.clone(),
                peer: member.peer.clone(),
                address: member.address.to_string(),
            };
            (NodeId(member.id), info)
        })
        .collect();
    let agents = config
        .agents
        .iter()
        .zip(&components.agents)
        .map(|(section, hosted)| LocalAgent {
            name: section.name.clone(),
            namespace: section.namespace.clone(),
            capabilities: section.capabilities.clone().unwrap_or_else(|| hosted.capabilities()),
            slots: section.slots,
        })
        .collect();
    KernelConfig {
        node: config.id(),
        layout: config.layout(),
        members,
        api: Some(format!("http://{}", config.api.listen)),
        boot: u64::from_le_bytes(entropy()),
        seed: u64::from_le_bytes(entropy()),
        agents,
        lease_term: LEASE_TERM,
        raises_when_founding: true,
        spreads_leaders: true,
    }
}
