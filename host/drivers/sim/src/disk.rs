//! A disk that takes time, loses what was not synced and tears the last write it keeps.
//!
//! A power loss keeps a random prefix of the writes since the last sync, over all
//! files in their order; the one after it may be torn at a sector. Names are
//! durable only after `sync_dir`. Every handle of an earlier life errs for ever.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::AsyncRuntime as _;
use openraft_rt_sim::SimRuntime;
use quorate_types::rng::Rng;
use quorate_types::{Disk, DiskFile, NodeId, Open};

use crate::world::{World, locked};

/// What a disk writes at once or not at all, bytes.
const SECTOR: usize = 512;

/// A change since the last sync, and how to undo it.
struct Change {
    number: u64,
    offset: usize,
    old: Vec<u8>,
    old_len: usize,
    new: Bytes,
    cuts: bool,
}

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    pending: Vec<Change>,
}

type Names = BTreeMap<String, u64>;

struct Platter {
    life: u64,
    names: Names,
    durable: Names,
    contents: BTreeMap<u64, Content>,
    next: u64,
    rng: Rng,
    sync_us_max: u64,
}

/// A node's directory. Clones share it.
#[derive(Clone)]
pub(crate) struct SimDisk {
    world: World,
    node: NodeId,
    platter: Arc<Mutex<Platter>>,
    life: u64,
}

impl SimDisk {
    pub(crate) fn new(world: World, node: NodeId, seed: u64, sync_us_max: u64) -> Self {
        let platter = Platter {
            life: 0,
            names: Names::new(),
            durable: Names::new(),
            contents: BTreeMap::new(),
            next: 0,
            rng: Rng::new(seed),
            sync_us_max,
        };
        Self { world, node, platter: Arc::new(Mutex::new(platter)), life: 0 }
    }

    /// Whether a power loss now could lose something.
    pub(crate) fn is_unsynced(&self) -> bool {
        locked(&self.platter).contents.values().any(|content| !content.pending.is_empty())
    }

    /// Power loss; the disk of the next life.
    pub(crate) fn crash(&self) -> Self {
        let mut platter = locked(&self.platter);
        let platter = &mut *platter;
        platter.life += 1;
        platter.names = platter.durable.clone();
        let mut numbers: Vec<u64> = platter
            .contents
            .values()
            .flat_map(|content| content.pending.iter().map(|change| change.number))
            .collect();
        numbers.sort_unstable();
        let kept = platter.rng.below(u64::try_from(numbers.len()).unwrap_or(0) + 1);
        let first_lost = usize::try_from(kept).ok().and_then(|at| numbers.get(at)).copied();
        let tear = platter.rng.below(1 << 20);
        for content in platter.contents.values_mut() {
            content.lose(first_lost.unwrap_or(u64::MAX), tear);
        }
        Self { life: platter.life, ..self.clone() }
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

    async fn take_time(&self, is_sync: bool) -> io::Result<()> {
        let span_us = {
            let mut platter = self.live()?;
            let most = if is_sync { platter.sync_us_max } else { 100 };
            50 + platter.rng.below(most)
        };
        SimRuntime::sleep(Duration::from_micros(span_us)).await;
        self.live().map(drop)
    }
}

impl Content {
    fn change(&mut self, number: u64, offset: usize, new: Bytes) {
        let old_len = self.now.len();
        let end = old_len.min(offset + new.len());
        let old = self.now.get(offset..end).map_or_else(Vec::new, <[u8]>::to_vec);
        put(&mut self.now, offset, &new);
        self.pending.push(Change { number, offset, old, old_len, new, cuts: false });
    }

    fn cut(&mut self, number: u64, len: usize) {
        let old_len = self.now.len();
        let old = self.now.split_off(len);
        self.pending.push(Change {
            number,
            offset: len,
            old,
            old_len,
            new: Bytes::new(),
            cuts: true,
        });
    }

    /// Keeps changes before `first_lost`, and of that one a torn part.
    fn lose(&mut self, first_lost: u64, tear: u64) {
        let pending = std::mem::take(&mut self.pending);
        for change in pending.iter().rev() {
            self.now.resize(change.old_len, 0);
            put(&mut self.now, change.offset, &change.old);
        }
        for change in &pending {
            if change.number < first_lost {
                if change.cuts {
                    self.now.truncate(change.offset);
                } else {
                    put(&mut self.now, change.offset, &change.new);
                }
            } else if change.number == first_lost {
                let part = torn(change, tear);
                put(&mut self.now, change.offset, &change.new[..part]);
            }
        }
    }
}

/// How much of a torn write reached the disk: whole sectors from its start.
fn torn(change: &Change, tear: u64) -> usize {
    let sectors = change.new.len() / SECTOR + 1;
    let drawn = usize::try_from(tear).unwrap_or(0) % (sectors + 1);
    if drawn == 0 {
        return 0;
    }
    let boundary = (change.offset / SECTOR + drawn) * SECTOR;
    (boundary - change.offset).min(change.new.len())
}

fn put(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    if new.is_empty() {
        return;
    }
    let end = offset + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(new);
}

/// What lies directly in `dir`, by its name there.
fn within<'a>(names: &'a Names, dir: &str) -> impl Iterator<Item = (&'a str, &'a String, u64)> {
    let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
    names
        .range::<str, _>((Bound::Included(prefix.clone().as_str()), Bound::Unbounded))
        .map_while(move |(path, id)| Some((path.strip_prefix(prefix.as_str())?, path, *id)))
        .filter(|(rest, _, _)| !rest.contains('/'))
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &str, how: Open) -> io::Result<SimFile> {
        let mut platter = self.live()?;
        let id = match (platter.names.get(path).copied(), how) {
            (Some(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, Open::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (Some(id), Open::Existing | Open::Any) => id,
            (None, Open::New | Open::Any) => {
                platter.next += 1;
                let id = platter.next;
                platter.names.insert(path.to_owned(), id);
                platter.contents.insert(id, Content::default());
                id
            }
        };
        Ok(SimFile { disk: self.clone(), id })
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let platter = self.live()?;
        Ok(within(&platter.names, dir).map(|(rest, _, _)| rest.to_owned()).collect())
    }

    async fn create_dir(&self, _dir: &str) -> io::Result<()> {
        self.live().map(drop)
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let id = {
            let mut platter = self.live()?;
            let id = platter.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            platter.names.insert(to.to_owned(), id);
            id
        };
        self.tell("renamed", (id, 0));
        Ok(())
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        let removed = self.live()?.names.remove(path);
        let id = removed.ok_or(io::ErrorKind::NotFound)?;
        self.tell("removed", (id, 0));
        Ok(())
    }

    async fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.take_time(true).await?;
        self.keep_names(dir)?;
        self.tell("synced-dir", (0, 0));
        Ok(())
    }
}

impl SimDisk {
    /// The names in a directory are as durable as the disk.
    fn keep_names(&self, dir: &str) -> io::Result<()> {
        let mut platter = self.live()?;
        let here: Names =
            within(&platter.names, dir).map(|(_, path, id)| (path.clone(), id)).collect();
        let gone: Vec<String> =
            within(&platter.durable, dir).map(|(_, path, _)| path.clone()).collect();
        for path in gone {
            platter.durable.remove(&path);
        }
        platter.durable.extend(here);
        let platter = &mut *platter;
        let (names, durable) = (&platter.names, &platter.durable);
        platter.contents.retain(|id, _| {
            names.values().any(|named| named == id) || durable.values().any(|named| named == id)
        });
        Ok(())
    }
}

/// An open file.
pub(crate) struct SimFile {
    disk: SimDisk,
    id: u64,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut Content, u64) -> T) -> io::Result<T> {
        let mut platter = self.disk.live()?;
        platter.next += 1;
        let number = platter.next;
        // A file without a name lives as long as it is open.
        Ok(act(platter.contents.entry(self.id).or_default(), number))
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
        self.with(|content, _| {
            let start = offset.min(content.now.len());
            let end = start.saturating_add(len).min(content.now.len());
            Bytes::copy_from_slice(&content.now[start..end])
        })
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.disk.take_time(false).await?;
        let (at, len) = (position(offset)?, wide(data.len()));
        self.with(|content, number| content.change(number, at, data))?;
        self.disk.tell("written", (offset, len));
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        let before = self.with(|_, number| number)?;
        self.disk.take_time(true).await?;
        let (synced, len) = self.with(|content, _| {
            let pending = content.pending.len();
            content.pending.retain(|change| change.number > before);
            (pending - content.pending.len(), content.now.len())
        })?;
        self.disk.tell("synced", (wide(synced), wide(len)));
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        self.with(|content, _| wide(content.now.len()))
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let at = position(len)?;
        self.with(|content, number| {
            let old_len = content.now.len();
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
