//! A disk in memory for tests: every write is pending until its file is synced
//! and every name until its folder is, and `crash` drops what is pending.
//!
//! Deterministic and immediate: no call waits, and chance is the caller's. A
//! crash fences all handles of the life before it; only the disk that `crash`
//! returns can be used.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_types::{Disk, DiskFile, Open};

/// What a disk writes at once or not at all, bytes.
const SECTOR: usize = 512;

/// A change since the file was last synced, and how to undo it.
struct Change {
    offset: usize,
    old: Vec<u8>,
    old_len: usize,
    new: Bytes,
}

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    pending: Vec<Change>,
}

type Names = BTreeMap<String, Arc<Mutex<Content>>>;

#[derive(Default)]
struct State {
    life: u64,
    names: Names,
    durable: Names,
    writes: u64,
    syncs: u64,
    syncs_left: Option<u64>,
    space_left: Option<usize>,
}

/// A node's directory in memory. Clones share it.
#[derive(Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    life: u64,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryDisk").field("life", &self.life).finish_non_exhaustive()
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self { state: Arc::default(), life: 0 }
    }

    /// Power loss: what was not synced is gone, and with it every handle of this life.
    pub fn crash(&self) -> Self {
        self.crash_keeping(|| false)
    }

    /// Power loss in which each 512-byte sector of an unsynced write reached the disk if `keep`
    /// says so, asked in the order of the writes. Unsynced names are gone.
    pub fn crash_keeping(&self, mut keep: impl FnMut() -> bool) -> Self {
        let mut state = lock(&self.state);
        state.life += 1;
        state.names = state.durable.clone();
        for content in state.names.values() {
            let mut content = lock(content);
            let pending = std::mem::take(&mut content.pending);
            for change in pending.iter().rev() {
                undo(&mut content.now, change);
            }
            for change in &pending {
                for (at, piece) in sectors(change) {
                    if keep() {
                        put(&mut content.now, at, piece);
                    }
                }
            }
        }
        state.syncs_left = None;
        state.space_left = None;
        Self { state: Arc::clone(&self.state), life: state.life }
    }

    /// The process is killed, the machine goes on: handles are fenced, what was written stays, and
    /// what was not synced is still pending.
    pub fn kill(&self) -> Self {
        let mut state = lock(&self.state);
        state.life += 1;
        state.syncs_left = None;
        state.space_left = None;
        Self { state: Arc::clone(&self.state), life: state.life }
    }

    /// Syncs so far, `sync_dir` not counted.
    pub fn syncs(&self) -> u64 {
        lock(&self.state).syncs
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        lock(&self.state).writes
    }

    /// Lets `count` more syncs succeed; those after fail until a crash.
    pub fn fail_syncs_after(&self, count: u64) {
        lock(&self.state).syncs_left = Some(count);
    }

    /// Lets files grow by `bytes` more; then the disk is full. What is overwritten needs no space.
    pub fn fill_after(&self, bytes: usize) {
        lock(&self.state).space_left = Some(bytes);
    }

    /// There is space again.
    pub fn free_up(&self) {
        lock(&self.state).space_left = None;
    }

    /// The file's content as a reader sees it now.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let content = lock(&self.state).names.get(path).map(Arc::clone)?;
        let now = lock(&content).now.clone();
        Some(now)
    }

    /// Changes a file behind everybody's back, durably: bit rot, or a test's scissors.
    pub fn tamper(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let content = lock(&self.state).names.get(path).map(Arc::clone);
        content.is_some_and(|content| {
            let mut content = lock(&content);
            content.pending.clear();
            change(&mut content.now);
            true
        })
    }

    /// Every file, sorted.
    pub fn paths(&self) -> Vec<String> {
        lock(&self.state).names.keys().cloned().collect()
    }

    /// A disk of its own with the same files, all of them durable: one past for many futures.
    pub fn fork(&self) -> Self {
        let from = lock(&self.state);
        let names: Names = from
            .names
            .iter()
            .map(|(path, content)| {
                let now = lock(content).now.clone();
                (path.clone(), Arc::new(Mutex::new(Content { now, pending: Vec::new() })))
            })
            .collect();
        let state = State { durable: names.clone(), names, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), life: 0 }
    }

    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        live(&self.state, self.life)
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    async fn open(&self, path: &str, how: Open) -> io::Result<MemoryFile> {
        let mut state = self.live()?;
        let content = match (state.names.get(path), how) {
            (Some(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, Open::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (Some(content), Open::Existing | Open::Any) => Arc::clone(content),
            (None, Open::New | Open::Any) => {
                let content = Arc::new(Mutex::new(Content::default()));
                state.names.insert(path.to_owned(), Arc::clone(&content));
                content
            }
        };
        Ok(MemoryFile { state: Arc::clone(&self.state), life: self.life, content })
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = self.live()?;
        let files = within(&state.names, dir).filter(|(rest, _)| !rest.contains('/'));
        Ok(files.map(|(rest, _)| rest.to_owned()).collect())
    }

    async fn create_dir(&self, _dir: &str) -> io::Result<()> {
        self.live().map(drop)
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.live()?;
        let content = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), content);
        Ok(())
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.live()?;
        state.names.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    async fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.live()?;
        let directly = |names: &Names| -> Names {
            within(names, dir)
                .filter(|(rest, _)| !rest.contains('/'))
                .map(|(rest, content)| (join(dir, rest), Arc::clone(content)))
                .collect()
        };
        let (gone, here) = (directly(&state.durable), directly(&state.names));
        for path in gone.keys() {
            state.durable.remove(path);
        }
        state.durable.extend(here);
        Ok(())
    }
}

/// An open file of a [`MemoryDisk`].
pub struct MemoryFile {
    state: Arc<Mutex<State>>,
    life: u64,
    content: Arc<Mutex<Content>>,
}

impl MemoryFile {
    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        live(&self.state, self.life)
    }
}

impl DiskFile for MemoryFile {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let _state = self.live()?;
        let content = lock(&self.content);
        let start = position(offset)?.min(content.now.len());
        let end = start.saturating_add(len).min(content.now.len());
        Ok(Bytes::copy_from_slice(&content.now[start..end]))
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        let mut state = self.live()?;
        let mut content = lock(&self.content);
        let offset = position(offset)?;
        take_space(&mut state, (offset + data.len()).saturating_sub(content.now.len()))?;
        state.writes += 1;
        change(&mut content, offset, data);
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        let mut state = self.live()?;
        if let Some(left) = state.syncs_left.as_mut() {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("a planted sync error"))?;
        }
        state.syncs += 1;
        lock(&self.content).pending.clear();
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        let _state = self.live()?;
        u64::try_from(lock(&self.content).now.len()).map_err(io::Error::other)
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.live()?;
        let mut content = lock(&self.content);
        let (len, old_len) = (position(len)?, content.now.len());
        take_space(&mut state, len.saturating_sub(old_len))?;
        if len > old_len {
            let zeroes = Bytes::from(vec![0; len - old_len]);
            change(&mut content, old_len, zeroes);
        } else {
            let old = content.now.split_off(len);
            content.pending.push(Change { offset: len, old, old_len, new: Bytes::new() });
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn live(state: &Mutex<State>, life: u64) -> io::Result<MutexGuard<'_, State>> {
    let state = lock(state);
    if state.life == life {
        Ok(state)
    } else {
        Err(io::Error::other("this handle's life has ended"))
    }
}

fn take_space(state: &mut State, growth: usize) -> io::Result<()> {
    if let Some(space) = state.space_left.as_mut().filter(|_| growth > 0) {
        *space = space.checked_sub(growth).ok_or(io::ErrorKind::StorageFull)?;
    }
    Ok(())
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// What lies beneath `dir`, by the path from there.
fn within<'a>(
    names: &'a Names,
    dir: &str,
) -> impl Iterator<Item = (&'a str, &'a Arc<Mutex<Content>>)> {
    let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
    names
        .range::<str, _>((Bound::Included(prefix.clone().as_str()), Bound::Unbounded))
        .map_while(move |(path, content)| Some((path.strip_prefix(prefix.as_str())?, content)))
}

fn change(content: &mut Content, offset: usize, new: Bytes) {
    let old_len = content.now.len();
    let old = content
        .now
        .get(offset..)
        .map_or_else(Vec::new, |rest| rest[..new.len().min(rest.len())].to_vec());
    put(&mut content.now, offset, &new);
    content.pending.push(Change { offset, old, old_len, new });
}

fn put(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    let end = offset + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(new);
}

fn undo(bytes: &mut Vec<u8>, change: &Change) {
    bytes.resize(change.old_len, 0);
    put(bytes, change.offset, &change.old);
}

/// A change by the sectors it touches.
fn sectors(change: &Change) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = change.offset;
    let mut rest: &[u8] = &change.new;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at_checked(SECTOR - at % SECTOR).unwrap_or((rest, &[]));
        if piece.is_empty() {
            return None;
        }
        let start = at;
        at += piece.len();
        rest = after;
        Some((start, piece))
    })
}
