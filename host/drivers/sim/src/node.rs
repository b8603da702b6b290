//! A node and its lives: put together as `quorate-node` does it, on other parts.
//!
//! A life begins as a task of its node, so that power can go while it begins, and
//! everything in it inherits the node: its clock, and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft_rt::AsyncRuntime as _;
use quorate_crank::{
    BlobExchange, Contact, Contacts, Crank, Groups, Handle, Listener, Mailbox, Parts, Post, Usher,
};
use quorate_dispatch::NativeSource;
use quorate_kernel::{Kernel, KernelConfig, LEASE_TERM, LocalAgent, MemberInfo};
use quorate_ledger::Ledger;
use quorate_raft::{AllowList, Observer, Raft, RaftOptions};
use quorate_storage::{Blobs, DataDir, DirectoryId, Identity, Log, LogOptions, Snapshots};
use quorate_types::rng::Rng;
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::{CapabilitySet, Door as _, EventKind, Faults, GroupId, Index, NodeId, Term};

use crate::disk::SimDisk;
use crate::guests::SimGuests;
use crate::knobs::Knobs;
use crate::law::Law;
use crate::runtime::{self, SimRuntime};
use crate::wire::{Mesh, SimWire};
use crate::world::{World, locked};

/// A node's door.
pub(crate) type SimHandle = Handle<SimRuntime, SimDisk, SimWire>;

/// The doors of all nodes that live, each with the number of its life. Clones share them.
pub(crate) type Doors = Arc<Mutex<BTreeMap<NodeId, (u64, SimHandle)>>>;

/// What every agent can do.
pub(crate) const CAPABILITY: &str = "work";

/// Small, so that a run rolls and recycles segments; far larger than a record.
const SEGMENT_BYTES: u32 = 256 << 10;
const SLOTS: u32 = 8;
/// How often a node that joins is asked whether it is ready.
const READY_STEP: Duration = Duration::from_millis(50);

/// What a cluster's nodes share.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) mesh: Mesh,
    pub(crate) doors: Doors,
    /// The doors of those too to whom nobody is sent.
    pub(crate) back_doors: Doors,
    pub(crate) faults: Faults,
    pub(crate) knobs: Knobs,
    /// The voters that the cluster begins with.
    pub(crate) founders: BTreeSet<NodeId>,
}

/// A node over all its lives.
pub(crate) struct SimNode {
    pub(crate) id: NodeId,
    site: Site,
    /// The members that its file names, itself included.
    file: BTreeSet<NodeId>,
    disk: SimDisk,
    rng: Rng,
    /// Whether the present life is over; none where there is no power.
    life: Option<Arc<AtomicBool>>,
    lives: u64,
    /// Whether nobody is sent to its door.
    closed: Arc<AtomicBool>,
    fate: Arc<Mutex<Fate>>,
}

/// How a life that is not over goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    /// It did not begin, or its log has stopped; its disk had failed.
    Stopped,
    /// It refuses what its disk holds, which is not what was written.
    Ruined,
}

impl SimNode {
    /// One that the cluster begins with.
    pub(crate) fn new(site: Site, id: NodeId, rng: Rng) -> Self {
        let file = site.founders.clone();
        Self::with_file(site, id, rng, file)
    }

    /// One that joins the cluster, which has these members then.
    pub(crate) fn joining(
        site: Site,
        id: NodeId,
        mut rng: Rng,
        mut members: BTreeSet<NodeId>,
    ) -> Self {
        runtime::set_clock(id, site.knobs.clock(&mut rng));
        members.insert(id);
        Self::with_file(site, id, rng, members)
    }

    fn with_file(site: Site, id: NodeId, mut rng: Rng, file: BTreeSet<NodeId>) -> Self {
        let (world, sync_us_max) = (site.world.clone(), site.knobs.sync_us_max);
        let disk = SimDisk::new(world, id, rng.next_u64(), sync_us_max, &site.faults);
        let fate = Arc::new(Mutex::new(Fate::Well));
        Self { id, site, file, disk, rng, life: None, lives: 0, closed: Arc::default(), fate }
    }

    /// Whether it has power; its door opens a while later.
    pub(crate) fn lives(&self) -> bool {
        self.life.is_some()
    }

    pub(crate) fn disk(&self) -> &SimDisk {
        &self.disk
    }

    pub(crate) fn handle(&self) -> Option<SimHandle> {
        locked(&self.site.back_doors).get(&self.id).map(|(_, handle)| handle.clone())
    }

    pub(crate) fn leads(&self, group: GroupId) -> bool {
        let leads = |handle: SimHandle| handle.groups().get(group)?.status().leads.then_some(());
        self.handle().and_then(leads).is_some()
    }

    /// Whether a failure of its disk has stopped it.
    pub(crate) fn has_stopped(&self) -> bool {
        *locked(&self.fate) == Fate::Stopped
    }

    /// Whether it refuses to start on what its disk has made of its data.
    pub(crate) fn is_ruined(&self) -> bool {
        *locked(&self.fate) == Fate::Ruined
    }

    /// Its disk is emptied while it has no power. It must not vote under its id again, which its
    /// peers would not let it (`node`'s admission): it does not come back.
    pub(crate) fn wipe(&mut self) {
        self.disk.wipe();
        if !self.site.faults.wiped_returns {
            *locked(&self.fate) = Fate::Ruined;
        }
    }

    /// Whether it has lost for good what it had, or may have.
    pub(crate) fn has_lost(&self) -> bool {
        self.is_ruined() || self.disk.is_marred()
    }

    /// Nobody is sent to its door any more.
    pub(crate) fn close_door(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        drop(locked(&self.site.doors).remove(&self.id));
    }

    /// As before.
    pub(crate) fn open_door(&mut self) {
        self.closed.store(false, Ordering::Relaxed);
        if let Some((life, handle)) = locked(&self.site.back_doors).get(&self.id) {
            locked(&self.site.doors).insert(self.id, (*life, handle.clone()));
        }
    }

    /// Begins a life on whatever the disk holds.
    pub(crate) fn boot(&mut self) {
        let over = Arc::new(AtomicBool::new(false));
        self.life = Some(Arc::clone(&over));
        self.lives += 1;
        let birth = Birth {
            id: self.id,
            site: self.site.clone(),
            file: self.file.clone(),
            closed: Arc::clone(&self.closed),
            disk: self.disk.clone(),
            rng: self.rng.fork(),
            over,
            life: self.lives,
        };
        *locked(&self.fate) = Fate::Well;
        let fate = Arc::clone(&self.fate);
        drop(runtime::spawn_at(self.id, async move {
            let (id, world, disk) = (birth.id, birth.site.world.clone(), birth.disk.clone());
            let Err(reason) = birth.begin(Arc::clone(&fate)).await else { return };
            world.set_calm(false);
            if !disk.is_excuse() {
                world.complain(Law::Recovery, format!("{id} does not start: {reason}"));
            } else if disk.has_failed() {
                *locked(&fate) = Fate::Stopped;
            } else {
                world.fault(&format!("{id} is ruined: {reason}"), 0);
                *locked(&fate) = Fate::Ruined;
            }
        }));
    }

    /// Power loss: nothing of this life runs on, or reaches disk, wire or judge.
    pub(crate) fn crash(&mut self) {
        let Some(over) = self.life.take() else { return };
        over.store(true, Ordering::Relaxed);
        let door = locked(&self.site.doors).remove(&self.id);
        self.disk = self.disk.crash();
        self.site.mesh.detach(self.id);
        self.site.world.ended(self.id);
        runtime::kill(self.id);
        drop((door, locked(&self.site.back_doors).remove(&self.id)));
    }
}

/// What a life begins with.
struct Birth {
    id: NodeId,
    site: Site,
    file: BTreeSet<NodeId>,
    closed: Arc<AtomicBool>,
    disk: SimDisk,
    rng: Rng,
    over: Arc<AtomicBool>,
    life: u64,
}

impl Birth {
    async fn begin(mut self, fate: Arc<Mutex<Fate>>) -> Result<(), String> {
        let Site { world, mesh, doors, back_doors, faults, knobs, founders } = self.site.clone();
        let (id, disk, over) = (self.id, self.disk.clone(), Arc::clone(&self.over));
        let byte = u8::try_from(id.0).map_err(|error| error.to_string())?;
        let directory = DirectoryId([byte; 16]);
        let identity = Identity {
            cluster: "sim".to_owned(),
            node: id,
            peer: peer_of(id),
            directory,
            era: Some(quorate_types::Era::FIRST),
        };
        DataDir::open_or_create(&disk, identity).await.map_err(|error| told(&error))?;
        let options = LogOptions { directory, segment_bytes: SEGMENT_BYTES };
        let (log, _recovered) =
            Log::open(disk.clone(), options, &faults).await.map_err(|error| told(&error))?;
        world.opened(id, knobs.layout, &log);
        let snapshots = Snapshots::open(disk.clone()).await.map_err(|error| told(&error))?;
        let store = Blobs::open(disk).await.map_err(|error| told(&error))?;

        let joins = !founders.contains(&id);
        let mailbox = Mailbox::default();
        let contacts = Contacts::new(id, self.file.iter().map(|id| (*id, contact(*id))).collect());
        let inside = Listener { contacts: contacts.clone(), inside: mailbox.clone() };
        let tap = Tap {
            inside,
            world: world.clone(),
            id,
            over: Arc::clone(&over),
            disk: self.disk.clone(),
            fate,
        };
        let post = Post::new(mailbox.clone());
        let wire = mesh.wire(id);
        mesh.set_peers(id, self.file.clone());
        let dialled = mesh.clone();
        let dial = move |list: BTreeMap<NodeId, Contact>| {
            dialled.set_peers(id, list.into_keys().collect());
        };
        let kept = self.disk.clone();
        contacts.open::<SimRuntime, _>(wire.clone(), Box::new(dial), kept).await;
        let members = self.file.len();
        let config = self.kernel_config();
        let founders = if joins { BTreeSet::new() } else { founders };
        let (tap, allow_list) = (Arc::new(tap), AllowList::default());
        let mut rafts = Vec::new();
        for group in knobs.layout.groups() {
            let mut options = RaftOptions::new(id, group, founders.clone());
            (options.faults, options.compaction) = (faults.clone(), knobs.compaction);
            (options.layout, options.profile) = (knobs.layout, knobs.profile);
            options.allow_list = allow_list.clone();
            let (log, snapshots) = (log.clone(), snapshots.clone());
            let raft = Raft::start(options, log, snapshots, wire.clone(), tap.clone())
                .await
                .map_err(|error| told(&error))?;
            world.began(id, group, raft.status().term);
            rafts.push(raft);
        }
        let blobs = BlobExchange::new(id, members, store, wire.clone());
        let counted = blobs.clone();
        contacts.count_for(move |members| counted.set_members(members));
        let groups = Groups::new(knobs.layout, rafts);
        post.open(groups.clone(), blobs.clone());
        let (seed, fault_ppm) = (self.rng.next_u64(), knobs.fault_ppm);
        let guests = Arc::new(SimGuests::new(world, over, blobs.clone(), seed, fault_ppm));
        let wall = Arc::new(move || runtime::wall(id));
        let parts = Parts { mailbox, groups, blobs, wire, guests, wall };
        let handle = Crank::start(parts, |now| Kernel::new(config, Box::new(NativeSource), now));
        mesh.attach(id, Usher { contacts, inside: post });
        locked(&back_doors).insert(id, (self.life, handle.clone()));
        // Whoever sends people to doors asks first whether the node is ready.
        while joins && handle.ready().is_err() {
            SimRuntime::sleep(READY_STEP).await;
        }
        if !self.closed.load(Ordering::Relaxed) {
            locked(&doors).insert(id, (self.life, handle));
        }
        Ok(())
    }

    fn kernel_config(&mut self) -> KernelConfig {
        let member = |id: &NodeId| MemberInfo {
            name: format!("{id}"),
            peer: peer_of(*id),
            address: address_of(*id).to_string(),
        };
        let agent = LocalAgent {
            name: format!("worker-{}", self.id),
            namespace: NAMESPACE_DEFAULT.to_owned(),
            capabilities: CapabilitySet::from(vec![CAPABILITY.to_owned()]),
            slots: SLOTS,
        };
        KernelConfig {
            node: self.id,
            layout: self.site.knobs.layout,
            members: self.file.iter().map(|id| (*id, member(id))).collect(),
            api: None,
            boot: self.rng.next_u64(),
            seed: self.rng.next_u64(),
            agents: vec![agent],
            lease_term: LEASE_TERM,
            raises_when_founding: false,
            spreads_leaders: false,
        }
    }
}

fn contact(id: NodeId) -> Contact {
    Contact { peer: peer_of(id), address: address_of(id).to_string() }
}

/// The peer id of its key.
pub(crate) fn peer_of(id: NodeId) -> String {
    format!("peer-{id}")
}

/// Where it listens; nobody dials it.
pub(crate) fn address_of(id: NodeId) -> SocketAddr {
    let [.., high, low] = id.0.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 4_000))
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
    inside: Listener<SimWire>,
    world: World,
    id: NodeId,
    over: Arc<AtomicBool>,
    disk: SimDisk,
    fate: Arc<Mutex<Fate>>,
}

impl Tap {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Observer for Tap {
    fn applied(&self, group: GroupId, index: Index, events: &[EventKind], view: &Arc<Ledger>) {
        if !self.is_over() {
            self.world.applied(self.id, (group, index), events, view);
            self.inside.applied(group, index, events, view);
        }
    }

    fn restored(&self, group: GroupId, index: Index, view: &Arc<Ledger>) {
        if !self.is_over() {
            self.world.restored(self.id, group, index, view);
            self.inside.restored(group, index, view);
        }
    }

    fn leadership(&self, group: GroupId, leader: Option<NodeId>, term: Term) {
        if !self.is_over() {
            // What a failing disk did not take may be seen here, and was told to nobody.
            if !self.disk.has_failed() {
                self.world.leadership(self.id, group, leader, term);
            }
            self.inside.leadership(group, leader, term);
        }
    }

    fn membership(&self, group: GroupId, voters: &[NodeId], learners: &[NodeId]) {
        if !self.is_over() {
            let id = self.id;
            self.world.tell(|| {
                format!("{id} of g{group} has voters {voters:?} and learners {learners:?}")
            });
            self.inside.membership(group, voters, learners);
        }
    }

    fn failed(&self, group: GroupId, reason: String) {
        if !self.is_over() {
            let what = format!("the log of {} has stopped for group {group}: {reason}", self.id);
            if self.disk.is_excuse() {
                self.world.fault(&what, 0);
            } else {
                self.world.complain(Law::Stopped, what);
            }
            self.world.set_calm(false);
            *locked(&self.fate) = Fate::Stopped;
            self.inside.failed(group, reason);
        }
    }
}
