//! Snapshots: a group's whole state at one index, one file each, written beside
//! the log and shown whole or not at all. The newest one counts and the others
//! go once it is durable. A damaged snapshot is refused, and an older one never
//! stands in for it, since the log behind that was purged.
//!
//! Files are `snapshots/gN-INDEX-TERM.snap` (decimal, 20 digits each). Format 2,
//! little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | `quorsnap` |
//! | 8 | 4 | format, 2 |
//! | 12 | 4 | group |
//! | 16 | 8 | index |
//! | 24 | 8 | term |
//! | 32 | 8 | length of the membership |
//! | 40 | 8 | length of the body |
//! | 48 | 4 | CRC-32 of the 48 bytes above |
//! | 52 | … | membership, then body, each in blocks |
//!
//! A block is up to 64 KiB of content and the CRC-32 of the head's checksum, its
//! number (u64, counted through both) and content: one block can be checked
//! without the rest, and one of another snapshot or place is none here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use crc32fast::Hasher;
use quorate_types::{Disk, DiskFile, GroupId, Index, Term};

use crate::data_dir::JOIN_ANEW;
use crate::disk_error::{DiskError, failed};
use crate::durable::{make_dir, open_if_there, write_whole};

const DIR: &str = "snapshots";
const MAGIC: &[u8; 8] = b"quorsnap";
const FORMAT: u32 = 2;
const HEAD_BYTES: usize = 52;
const BLOCK_BYTES: usize = 64 << 10;
const SUM_BYTES: usize = 4;
/// One read: 16 blocks with their sums.
const READ_BYTES: usize = 16 * (BLOCK_BYTES + SUM_BYTES);

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry in it.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// The membership there, opaque here.
    pub membership: Bytes,
}

/// A snapshot by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its path.
    pub file: String,
    /// Whose it is.
    pub group: GroupId,
    /// The last entry in it.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// Its length, bytes.
    pub bytes: u64,
}

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The newest snapshot cannot be read.
    #[error(
        "`{file}` is damaged at byte {offset}: {reason}. The log before it is gone, so nothing \
         older can stand in for it: {JOIN_ANEW}"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where in it, bytes.
        offset: usize,
        /// In what way.
        reason: &'static str,
    },
    /// Another format.
    #[error(
        "`{file}` has snapshot format {found}, this program reads {known}; start the one that wrote it"
    )]
    Format {
        /// The file.
        file: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
}

impl SnapshotError {
    /// Whether there was no space. What was there counts as before, and the same may work later.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_full(),
            Self::Damaged { .. } | Self::Format { .. } => false,
        }
    }
}

/// The snapshots of a node's groups. Clones share them.
#[derive(Clone, Debug)]
pub struct Snapshots<D> {
    disk: D,
    /// Numbers temporary files, so that two writers never share one.
    writes: Arc<AtomicU64>,
}

impl<D: Disk> Snapshots<D> {
    /// Snapshots in `snapshots/`; removes what unfinished writes left.
    pub async fn open(disk: D) -> Result<Self, SnapshotError> {
        make_dir(&disk, "", DIR).await?;
        for name in disk.list(DIR).await.map_err(failed("list", DIR))? {
            if name.ends_with(".tmp") {
                let path = format!("{DIR}/{name}");
                disk.remove(&path).await.map_err(failed("remove", &path))?;
            }
        }
        Ok(Self { disk, writes: Arc::default() })
    }

    /// Makes `body` the group's snapshot, durable when this returns, and removes older ones. Where
    /// one of a later index is there already, nothing is written: that one counts.
    pub async fn write(
        &self,
        group: GroupId,
        meta: SnapshotMeta,
        body: Bytes,
    ) -> Result<(), SnapshotError> {
        let name = name_of(group, meta.index, meta.term);
        let older = self.names(group).await?;
        if older.last().is_some_and(|newest| *newest > name) {
            return Ok(());
        }
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{DIR}/{number}.tmp");
        let head = head_of(group, &meta, &body);
        let blocks = blocks(head_sum(&head), &meta.membership, &body);
        let parts = std::iter::once(head).chain(blocks);
        write_whole(&self.disk, &temporary, (DIR, &name), parts).await?;
        for old in older.into_iter().filter(|old| *old != name) {
            let path = format!("{DIR}/{old}");
            self.disk.remove(&path).await.map_err(failed("remove", &path))?;
        }
        Ok(())
    }

    /// The group's snapshot, verified.
    pub async fn latest(
        &self,
        group: GroupId,
    ) -> Result<Option<(SnapshotMeta, Bytes)>, SnapshotError> {
        let Some(name) = self.names(group).await?.pop() else {
            return Ok(None);
        };
        self.read(group, &name).await
    }

    /// Snapshots as they lie there, in order; nothing is made or removed.
    pub fn as_they_lie(disk: D) -> Self {
        Self { disk, writes: Arc::default() }
    }

    /// Removes the group's snapshots that cannot be read, for one that takes their place.
    pub async fn discard_damaged(&self, group: GroupId) -> Result<(), SnapshotError> {
        for name in self.names(group).await? {
            match self.read(group, &name).await {
                Ok(_sound) => {}
                Err(SnapshotError::Damaged { file, .. }) => {
                    self.disk.remove(&file).await.map_err(failed("remove", &file))?;
                    self.disk.sync_dir(DIR).await.map_err(failed("sync", DIR))?;
                }
                Err(error @ (SnapshotError::Disk(_) | SnapshotError::Format { .. })) => {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Every snapshot of every group, in order of their names.
    pub async fn list(&self) -> Result<Vec<SnapshotFile>, SnapshotError> {
        let mut files = Vec::new();
        for name in self.disk.list(DIR).await.map_err(failed("list", DIR))? {
            let Some((group, index, term)) = parse_name(&name) else { continue };
            let path = format!("{DIR}/{name}");
            let Some(file) = open_if_there(&self.disk, &path).await? else { continue };
            let bytes = file.len().await.map_err(failed("read", &path))?;
            files.push(SnapshotFile { file: path, group, index, term, bytes });
        }
        Ok(files)
    }

    /// One of these, verified.
    pub async fn read_file(
        &self,
        file: &SnapshotFile,
    ) -> Result<Option<(SnapshotMeta, Bytes)>, SnapshotError> {
        self.read(file.group, &name_of(file.group, file.index, file.term)).await
    }

    async fn read(
        &self,
        group: GroupId,
        name: &str,
    ) -> Result<Option<(SnapshotMeta, Bytes)>, SnapshotError> {
        let path = format!("{DIR}/{name}");
        let Some(file) = open_if_there(&self.disk, &path).await? else {
            return Ok(None);
        };
        let bytes = file.read_at(0, HEAD_BYTES).await.map_err(failed("read", &path))?;
        let head = Head::parse(&bytes, &path)?;
        if head.group != group || name != name_of(group, head.index, head.term) {
            return Err(damaged(&path, 0, "its name and its content differ"));
        }
        let (membership, body) = read_blocks(&file, &path, &head).await?;
        Ok(Some((SnapshotMeta { index: head.index, term: head.term, membership }, body)))
    }

    /// The group's files, oldest first.
    async fn names(&self, group: GroupId) -> Result<Vec<String>, DiskError> {
        let prefix = format!("{group}-");
        let mut names = self.disk.list(DIR).await.map_err(failed("list", DIR))?;
        names.retain(|name| name.starts_with(&prefix) && name.ends_with(".snap"));
        Ok(names)
    }
}

fn name_of(group: GroupId, index: Index, term: Term) -> String {
    format!("{group}-{:020}-{:020}.snap", index.0, term.0)
}

fn parse_name(name: &str) -> Option<(GroupId, Index, Term)> {
    let mut parts = name.strip_suffix(".snap")?.split('-');
    let group = parts.next()?.parse().ok()?;
    let (index, term) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((group, Index(index), Term(term)))
}

fn damaged(path: &str, offset: usize, reason: &'static str) -> SnapshotError {
    SnapshotError::Damaged { file: path.to_owned(), offset, reason }
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn head_of(group: GroupId, meta: &SnapshotMeta, body: &Bytes) -> Bytes {
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    head.put_slice(MAGIC);
    head.put_u32_le(FORMAT);
    head.put_u32_le(group.0);
    head.put_u64_le(meta.index.0);
    head.put_u64_le(meta.term.0);
    head.put_u64_le(length(&meta.membership));
    head.put_u64_le(length(body));
    head.put_u32_le(crc32fast::hash(&head));
    head.freeze()
}

/// The checksum at the end of a head.
fn head_sum(head: &[u8]) -> u32 {
    u32_at(head, HEAD_BYTES - SUM_BYTES)
}

fn sum_of(head: u32, number: u64, content: &[u8]) -> u32 {
    let mut sum = Hasher::new();
    sum.update(&head.to_le_bytes());
    sum.update(&number.to_le_bytes());
    sum.update(content);
    sum.finalize()
}

/// Membership and body as they lie in the file: each block is content, then its sum.
fn blocks(head: u32, membership: &Bytes, body: &Bytes) -> impl Iterator<Item = Bytes> + Send {
    let (membership, body) = (membership.clone(), body.clone());
    let contents = [membership, body].into_iter().flat_map(|whole| {
        let starts = (0..whole.len()).step_by(BLOCK_BYTES);
        starts.map(move |at| whole.slice(at..whole.len().min(at + BLOCK_BYTES)))
    });
    (0_u64..).zip(contents).flat_map(move |(number, content)| {
        let sum = Bytes::copy_from_slice(&sum_of(head, number, &content).to_le_bytes());
        [content, sum]
    })
}

struct Head {
    sum: u32,
    group: GroupId,
    index: Index,
    term: Term,
    membership_bytes: usize,
    body_bytes: usize,
}

impl Head {
    fn parse(bytes: &[u8], path: &str) -> Result<Self, SnapshotError> {
        let bad = |reason| damaged(path, 0, reason);
        let bytes = bytes.first_chunk::<HEAD_BYTES>().ok_or_else(|| bad("it is too short"))?;
        if bytes[..8] != MAGIC[..] || crc32fast::hash(&bytes[..48]) != u32_at(bytes, 48) {
            return Err(bad("its head does not hold"));
        }
        let format = u32_at(bytes, 8);
        if format != FORMAT {
            let file = path.to_owned();
            return Err(SnapshotError::Format { file, found: format, known: FORMAT });
        }
        let length =
            |at| usize::try_from(u64_at(bytes, at)).map_err(|_source| bad("it is too long"));
        Ok(Self {
            sum: head_sum(bytes),
            group: GroupId(u32_at(bytes, 12)),
            index: Index(u64_at(bytes, 16)),
            term: Term(u64_at(bytes, 24)),
            membership_bytes: length(32)?,
            body_bytes: length(40)?,
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Reads a file in order, many blocks at a time.
struct Source<'a, F> {
    file: &'a F,
    path: &'a str,
    offset: usize,
    ahead: Bytes,
}

impl<F: DiskFile> Source<'_, F> {
    async fn take(&mut self, len: usize) -> Result<Bytes, SnapshotError> {
        if self.ahead.len() < len {
            let offset = u64::try_from(self.offset).unwrap_or(u64::MAX);
            let read = self.file.read_at(offset, READ_BYTES).await;
            self.ahead = read.map_err(failed("read", self.path))?;
        }
        if self.ahead.len() < len {
            return Err(damaged(self.path, self.offset, "the file ends too early"));
        }
        self.offset += len;
        Ok(self.ahead.split_to(len))
    }
}

async fn read_blocks<F: DiskFile>(
    file: &F,
    path: &str,
    head: &Head,
) -> Result<(Bytes, Bytes), SnapshotError> {
    let mut source = Source { file, path, offset: HEAD_BYTES, ahead: Bytes::new() };
    let mut number = 0;
    let mut wholes = [Bytes::new(), Bytes::new()];
    for (whole, bytes) in wholes.iter_mut().zip([head.membership_bytes, head.body_bytes]) {
        // Grown as blocks prove sound, not by what a head claims.
        let mut content = BytesMut::new();
        while content.len() < bytes {
            let offset = source.offset;
            let block = source.take((bytes - content.len()).min(BLOCK_BYTES)).await?;
            let sum = source.take(SUM_BYTES).await?;
            if sum[..] != sum_of(head.sum, number, &block).to_le_bytes() {
                return Err(damaged(path, offset, "a block's checksum does not hold"));
            }
            content.put_slice(&block);
            number += 1;
        }
        *whole = content.freeze();
    }
    let [membership, body] = wholes;
    Ok((membership, body))
}

#[cfg(test)]
mod tests;
