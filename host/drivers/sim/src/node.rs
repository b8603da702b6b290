//! A node and its lives: put together as `quorate-node` does it, on other parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use openraft_rt::AsyncRuntime as _;
use openraft_rt_sim::SimRuntime;
use quorate_crank::{BlobExchange, Crank, Groups, Handle, Mailbox, Parts, Post};
use quorate_dispatch::NativeSource;
use quorate_kernel::{Kernel, KernelConfig, LEASE_TERM, LocalAgent, MemberInfo};
use quorate_ledger::Ledger;
use quorate_raft::{Observer, Raft, RaftOptions};
use quorate_storage::{Blobs, DataDir, DirectoryId, Identity, Log, LogOptions, Snapshots};
use quorate_types::rng::Rng;
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::{CapabilitySet, EventKind, Faults, GroupId, Index, Layout, NodeId, Term};

use crate::disk::SimDisk;
use crate::guests::SimGuests;
use crate::knobs::Knobs;
use crate::law::Law;
use crate::wire::{Mesh, SimWire};
use crate::world::{GROUP, World, locked, wall};

/// A node's door.
pub(crate) type SimHandle = Handle<SimRuntime, SimDisk, SimWire>;

/// The doors of all nodes that live, each with the number of its life. Clones share them.
pub(crate) type Doors = Arc<Mutex<BTreeMap<NodeId, (u64, SimHandle)>>>;

/// What every agent can do.
pub(crate) const CAPABILITY: &str = "work";

/// Small, so that a run rolls and recycles segments; far larger than a record.
const SEGMENT_BYTES: u32 = 256 << 10;
const SLOTS: u32 = 8;

/// What a cluster's nodes share.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) mesh: Mesh,
    pub(crate) doors: Doors,
    pub(crate) faults: Faults,
    pub(crate) knobs: Knobs,
    pub(crate) voters: BTreeSet<NodeId>,
}

/// A node over all its lives.
pub(crate) struct SimNode {
    pub(crate) id: NodeId,
    site: Site,
    disk: SimDisk,
    rng: Rng,
    life: Option<Life>,
    lives: u64,
}

struct Life {
    handle: SimHandle,
    over: Arc<AtomicBool>,
}

impl SimNode {
    pub(crate) fn new(site: Site, id: NodeId, mut rng: Rng) -> Self {
        let sync_us_max = site.knobs.sync_us_max;
        let disk = SimDisk::new(site.world.clone(), id, rng.next_u64(), sync_us_max);
        Self { id, site, disk, rng, life: None, lives: 0 }
    }

    pub(crate) fn lives(&self) -> bool {
        self.life.is_some()
    }

    pub(crate) fn disk(&self) -> &SimDisk {
        &self.disk
    }

    pub(crate) fn handle(&self) -> Option<&SimHandle> {
        self.life.as_ref().map(|life| &life.handle)
    }

    pub(crate) fn leads(&self) -> bool {
        self.handle().is_some_and(|handle| handle.groups().statuses().iter().any(|status| status.leads))
    }

    /// Begins a life on whatever the disk holds.
    pub(crate) async fn boot(&mut self) {
        match self.begin().await {
            Ok(life) => self.life = Some(life),
            Err(reason) => {
                let what = format!("{} does not start: {reason}", self.id);
                self.site.world.complain(Law::Recovery, what);
            }
        }
    }

    async fn begin(&mut self) -> Result<Life, String> {
        let Site { world, mesh, doors, faults, knobs, voters } = self.site.clone();
        let (id, disk) = (self.id, self.disk.clone());
        let byte = u8::try_from(id.0).map_err(|error| error.to_string())?;
        let directory = DirectoryId([byte; 16]);
        let identity =
            Identity { cluster: "sim".to_owned(), node: id, peer: format!("peer-{id}"), directory };
        DataDir::open_or_create(&disk, identity).await.map_err(|error| told(&error))?;
        let options = LogOptions { directory, segment_bytes: SEGMENT_BYTES };
        let (log, _recovered) =
            Log::open(disk.clone(), options, &faults).await.map_err(|error| told(&error))?;
        world.opened(id, log.clone());
        let snapshots = Snapshots::open(disk.clone()).await.map_err(|error| told(&error))?;
        let store = Blobs::open(disk).await.map_err(|error| told(&error))?;

        let over = Arc::new(AtomicBool::new(false));
        let mailbox = Mailbox::default();
        let tap =
            Tap { world: world.clone(), id, over: Arc::clone(&over), mailbox: mailbox.clone() };
        let post = Post::new(mailbox.clone());
        let wire = mesh.wire(id);
        let members = voters.len();
        let config = self.kernel_config(&voters);
        let mut options = RaftOptions::new(id, GROUP, voters);
        (options.faults, options.compaction) = (faults, knobs.compaction);
        let raft = Raft::start(options, log, snapshots, wire.clone(), Arc::new(tap))
            .await
            .map_err(|error| told(&error))?;
        world.began(id, raft.status().term);
        let blobs = BlobExchange::new(id, members, store, wire.clone());
        let groups = Groups::new(Layout::ONE, vec![raft]);
        post.open(groups.clone(), blobs.clone());
        let guests = Arc::new(SimGuests::new(
            world,
            Arc::clone(&over),
            blobs.clone(),
            self.rng.next_u64(),
            knobs.fault_ppm,
        ));
        let parts = Parts { mailbox, groups, blobs, wire, guests, wall: Arc::new(wall) };
        let handle = Crank::start(parts, |now| Kernel::new(config, Box::new(NativeSource), now));
        mesh.attach(id, post).await;
        self.lives += 1;
        locked(&doors).insert(id, (self.lives, handle.clone()));
        Ok(Life { handle, over })
    }

    fn kernel_config(&mut self, voters: &BTreeSet<NodeId>) -> KernelConfig {
        let member = |id: &NodeId| MemberInfo {
            name: format!("{id}"),
            peer: format!("peer-{id}"),
            address: format!("sim/{id}"),
        };
        let agent = LocalAgent {
            name: format!("worker-{}", self.id),
            namespace: NAMESPACE_DEFAULT.to_owned(),
            capabilities: CapabilitySet::from(vec![CAPABILITY.to_owned()]),
            slots: SLOTS,
        };
        KernelConfig {
            node: self.id,
            layout: Layout::ONE,
            members: voters.iter().map(|id| (*id, member(id))).collect(),
            api: None,
            boot: self.rng.next_u64(),
            seed: self.rng.next_u64(),
            agents: vec![agent],
            lease_term: LEASE_TERM,
        }
    }

    /// Power loss. What runs on of this life reaches neither disk nor wire nor judge.
    pub(crate) fn crash(&mut self) {
        let Some(life) = self.life.take() else { return };
        life.over.store(true, Ordering::Relaxed);
        locked(&self.site.doors).remove(&self.id);
        self.disk = self.disk.crash();
        self.site.mesh.detach(self.id);
        self.site.world.ended(self.id);
        drop(SimRuntime::spawn(async move { life.handle.stop().await }));
    }
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Hears what the log says to the crank, for as long as its life is not over.
struct Tap {
    world: World,
    id: NodeId,
    over: Arc<AtomicBool>,
    mailbox: Mailbox,
}

impl Tap {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Observer for Tap {
    fn applied(&self, group: GroupId, index: Index, events: &[EventKind], view: &Arc<Ledger>) {
        if !self.is_over() {
            self.world.applied(self.id, index, events, view);
            self.mailbox.applied(group, index, events, view);
        }
    }

    fn restored(&self, group: GroupId, index: Index, view: &Arc<Ledger>) {
        if !self.is_over() {
            self.world.restored(self.id, index, view);
            self.mailbox.restored(group, index, view);
        }
    }

    fn leadership(&self, group: GroupId, leader: Option<NodeId>, term: Term) {
        if !self.is_over() {
            self.world.leadership(self.id, leader, term);
            self.mailbox.leadership(group, leader, term);
        }
    }

    fn failed(&self, group: GroupId, reason: String) {
        if !self.is_over() {
            let what = format!("the log of {} has stopped: {reason}", self.id);
            self.world.complain(Law::Stopped, what);
            self.mailbox.failed(group, reason);
        }
    }
}
