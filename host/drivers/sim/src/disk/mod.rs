//! A disk that takes time, loses what was not synced, tears what it keeps, and fails.
//!
//! A power loss keeps of the writes since the last sync a prefix over all files with
//! a torn end, or any sectors of any of them; names are durable only after
//! `sync_dir`, and of the changes since then a prefix is kept. A write whose sync
//! failed is readable and never durable, as on Linux. Every handle of an earlier
//! life errs for ever.
//!
//! Damage to what was durable (rot, a misdirected write) spares the newest writes of
//! a file: that those are gone nothing could tell from a disk that never had them.

mod content;
mod platter;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::AsyncRuntime as _;
use quorate_types::{Disk, DiskFile, Faults, NodeId, Open};

use self::content::Content;
use self::platter::{Platter, within};
use crate::runtime::SimRuntime;
use crate::schedule::Failing;
use crate::world::{World, locked};

/// A stalled disk takes this long for each access.
const STALL: Duration = Duration::from_millis(700);

/// A node's directory. Clones share it.
#[derive(Clone)]
pub(crate) struct SimDisk {
    world: World,
    node: NodeId,
    platter: Arc<Mutex<Platter>>,
    life: u64,
    faults: Arc<Faults>,
}

impl SimDisk {
    pub(crate) fn new(
        world: World,
        node: NodeId,
        seed: u64,
        sync_us_max: u64,
        faults: &Faults,
    ) -> Self {
        let platter = Arc::new(Mutex::new(Platter::new(seed, sync_us_max)));
        Self { world, node, platter, life: 0, faults: Arc::new(faults.clone()) }
    }

    /// Whether a power loss now could lose something.
    pub(crate) fn is_unsynced(&self) -> bool {
        locked(&self.platter).contents.values().any(Content::is_unsynced)
    }

    /// Power loss; the disk of the next life.
    pub(crate) fn crash(&self) -> Self {
        let mut platter = locked(&self.platter);
        platter.crash();
        Self { life: platter.life, ..self.clone() }
    }

    /// It fails in this way from now on, until `mend`.
    pub(crate) fn fail(&self, how: Failing) {
        let ills = &mut locked(&self.platter).ills;
        match how {
            Failing::Stalls => ills.stall = STALL,
            Failing::Full => ills.full = true,
            Failing::Write => ills.fail_write = true,
            Failing::Sync => ills.fail_sync = true,
        }
    }

    /// Nothing is wrong with it any more, but for what it has lost.
    pub(crate) fn mend(&self) {
        let ills = &mut locked(&self.platter).ills;
        ills.stall = Duration::ZERO;
        (ills.full, ills.fail_write, ills.fail_sync) = (false, false, false);
        ills.misdirect = None;
    }

    /// Flips a bit that was durable; whether there was one.
    pub(crate) fn rot(&self, draw: u64) -> bool {
        locked(&self.platter).rot(draw)
    }

    /// Nothing is left on it. Its node has no power.
    pub(crate) fn wipe(&self) {
        locked(&self.platter).wipe();
    }

    /// The next write goes elsewhere.
    pub(crate) fn misdirect(&self, draw: u64) {
        let ills = &mut locked(&self.platter).ills;
        (ills.misdirect, ills.marred) = (Some(draw), true);
    }

    /// Whether bytes have changed on it by themselves, or will.
    pub(crate) fn is_marred(&self) -> bool {
        locked(&self.platter).ills.marred
    }

    /// Whether its node may stop: it has failed in this life, or has lost what it had.
    pub(crate) fn is_excuse(&self) -> bool {
        let ills = &locked(&self.platter).ills;
        ills.failed || ills.damaged
    }

    /// Whether it has failed in this life.
    pub(crate) fn has_failed(&self) -> bool {
        locked(&self.platter).ills.failed
    }

    /// Whether a planted fault forgets to sync this file.
    fn forgets(&self, path: &str) -> bool {
        let Faults { log_unsynced, snapshot_unsynced, blob_unsynced, .. } = *self.faults;
        (log_unsynced && path.starts_with("log/"))
            || (snapshot_unsynced && path.starts_with("snapshots/"))
            || (blob_unsynced && path.starts_with("blobs/"))
    }

    fn live(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let platter = locked(&self.platter);
        if platter.life == self.life {
            Ok(platter)
        } else {
            Err(io::Error::other("this life of the node has ended"))
        }
    }

    /// Something has changed; the judges look.
    fn tell(&self, kind: &str, sizes: (u64, u64)) {
        self.world.note(self.node, kind, sizes);
        self.world.look(self.node);
    }

    async fn take_time(&self, syncs: bool) -> io::Result<()> {
        let span = self.live()?.span(syncs);
        SimRuntime::sleep(span).await;
        self.live().map(drop)
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &str, how: Open) -> io::Result<SimFile> {
        let id = self.live()?.open(path, how)?;
        let unsynced = self.forgets(path);
        Ok(SimFile { disk: self.clone(), id, unsynced })
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        Ok(within(&self.live()?.names, dir).map(str::to_owned).collect())
    }

    async fn create_dir(&self, _dir: &str) -> io::Result<()> {
        self.live().map(drop)
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let id = self.live()?.rename(from, to)?;
        self.tell("renamed", (id, 0));
        Ok(())
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        let id = self.live()?.remove(path)?;
        self.tell("removed", (id, 0));
        Ok(())
    }

    async fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.take_time(true).await?;
        if !self.faults.names_unsynced {
            self.live()?.keep_names(dir);
        }
        self.tell("synced-dir", (0, 0));
        Ok(())
    }
}

/// An open file.
pub(crate) struct SimFile {
    disk: SimDisk,
    id: u64,
    /// A planted fault: nobody syncs it.
    unsynced: bool,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut Content, u64) -> T) -> io::Result<T> {
        let mut platter = self.disk.live()?;
        let number = platter.number();
        // A file without a name lives as long as it is open.
        Ok(act(platter.contents.entry(self.id).or_default(), number))
    }

    fn write(&self, offset: u64, data: Bytes) -> io::Result<()> {
        let (at, len) = (position(offset)?, wide(data.len()));
        {
            let mut platter = self.disk.live()?;
            if std::mem::take(&mut platter.ills.fail_write) {
                platter.ills.failed = true;
                return Err(io::Error::other("the disk has failed in a write"));
            }
            let end = at + data.len();
            let grows = platter.contents.get(&self.id).is_none_or(|content| end > content.len());
            platter.room(grows)?;
            let astray = platter.ills.misdirect.take();
            let number = platter.number();
            let content = platter.contents.entry(self.id).or_default();
            match astray {
                Some(draw) => content.misdirect(number, at, data, draw),
                None => content.change(number, at, data),
            }
        }
        self.disk.tell("written", (offset, len));
        Ok(())
    }

    /// Makes durable what was written before `number`.
    fn finish_sync(&self, number: u64) -> io::Result<()> {
        if self.unsynced {
            return Ok(());
        }
        if std::mem::take(&mut self.disk.live()?.ills.fail_sync) {
            self.with(|content, _| content.doom())?;
            self.disk.live()?.ills.failed = true;
            return Err(io::Error::other("the disk has failed in a sync"));
        }
        let (synced, len) = self.with(|content, _| (content.sync(number), content.len()))?;
        self.disk.tell("synced", (wide(synced), wide(len)));
        Ok(())
    }
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl DiskFile for SimFile {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let offset = position(offset)?;
        self.with(|content, _| content.read(offset, len))
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.disk.take_time(false).await?;
        self.write(offset, data)
    }

    async fn sync(&self) -> io::Result<()> {
        let before = self.with(|_, number| number)?;
        self.disk.take_time(true).await?;
        self.finish_sync(before)
    }

    async fn write_and_sync(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.write(offset, data)?;
        self.sync().await
    }

    async fn len(&self) -> io::Result<u64> {
        self.with(|content, _| wide(content.len()))
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let at = position(len)?;
        let grows = self.with(|content, _| at > content.len())?;
        self.disk.live()?.room(grows)?;
        self.with(|content, number| {
            let old_len = content.len();
            if at > old_len {
                content.change(number, old_len, Bytes::from(vec![0; at - old_len]));
            } else {
                content.cut(number, at);
            }
        })?;
        self.disk.tell("cut", (len, 0));
        Ok(())
    }
}
