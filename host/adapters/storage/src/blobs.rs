//! Blobs: content by its SHA-256, in `blobs/ab/abcd…` (64 hexadecimal digits).
//!
//! `put` returns when content and name are durable. `get` reads the content
//! through the digest again, so that rot is found by whoever asks and never
//! passed on; the cure is another `put`, from a peer that has it. `part` reads a
//! piece and cannot know: whoever puts pieces together verifies the whole.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::limits::BLOB_BYTES_MAX;
use quorate_types::{Digest, Disk, DiskFile};
use sha2::{Digest as _, Sha256};

use crate::disk_error::{DiskError, failed};
use crate::durable::{PIECE_BYTES, make_dir, open_if_there, write_whole};

const DIR: &str = "blobs";
const TEMPORARY: &str = "blobs/tmp";

/// Why a blob cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Larger than any blob may be.
    #[error("a blob of {got} bytes where at most {limit} are allowed")]
    TooLarge {
        /// Bytes given.
        got: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The content is not what its name says.
    #[error("blob {wanted} has content of digest {found}")]
    Mismatch {
        /// The name.
        wanted: Digest,
        /// The content's own.
        found: Digest,
    },
}

impl BlobError {
    /// Whether there was no space. Nothing was kept, and the same may work later.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Disk(error) => error.is_full(),
            Self::TooLarge { .. } | Self::Mismatch { .. } => false,
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    /// Numbers temporary files, so that two writers never share one.
    writes: AtomicU64,
    /// Folders whose names are known to be durable; at most 256.
    folders: Mutex<BTreeSet<String>>,
}

/// Content by its digest. Clones share it.
#[derive(Clone, Debug)]
pub struct Blobs<D> {
    disk: D,
    shared: Arc<Shared>,
}

impl<D: Disk> Blobs<D> {
    /// Blobs in `blobs/`; removes what unfinished writes left.
    pub async fn open(disk: D) -> Result<Self, BlobError> {
        make_dir(&disk, "", DIR).await?;
        make_dir(&disk, DIR, TEMPORARY).await?;
        for name in disk.list(TEMPORARY).await.map_err(failed("list", TEMPORARY))? {
            let path = format!("{TEMPORARY}/{name}");
            disk.remove(&path).await.map_err(failed("remove", &path))?;
        }
        Ok(Self { disk, shared: Arc::default() })
    }

    /// Blobs as they lie there; nothing is made or removed.
    pub fn as_they_lie(disk: D) -> Self {
        Self { disk, shared: Arc::default() }
    }

    /// Keeps content under its digest, durable when this returns. What is there already and sound
    /// stays; what is there and damaged is replaced.
    pub async fn put(&self, digest: Digest, content: Bytes) -> Result<(), BlobError> {
        let got = u64::try_from(content.len()).unwrap_or(u64::MAX);
        if got > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { got, limit: BLOB_BYTES_MAX });
        }
        let found = Digest::in_turns(&content).await;
        if found != digest {
            return Err(BlobError::Mismatch { wanted: digest, found });
        }
        let (dir, name) = place_of(&digest);
        self.make_folder(&dir).await?;
        match self.get(digest).await {
            // Content is durable before it has its name; the name may be younger than the last sync,
            // where a process died between the two.
            Ok(Some(_)) => {
                return Ok(self.disk.sync_dir(&dir).await.map_err(failed("sync", &dir))?);
            }
            Ok(None) | Err(BlobError::Mismatch { .. }) => {}
            Err(error @ (BlobError::Disk(_) | BlobError::TooLarge { .. })) => return Err(error),
        }
        let number = self.shared.writes.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{TEMPORARY}/{number}");
        Ok(write_whole(&self.disk, &temporary, (&dir, &name), [content]).await?)
    }

    /// The content, verified, or none.
    pub async fn get(&self, digest: Digest) -> Result<Option<Bytes>, BlobError> {
        let (dir, name) = place_of(&digest);
        let path = format!("{dir}/{name}");
        let Some(file) = open_if_there(&self.disk, &path).await? else {
            return Ok(None);
        };
        let got = file.len().await.map_err(failed("read", &path))?;
        if got > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { got, limit: BLOB_BYTES_MAX });
        }
        let mut content = BytesMut::with_capacity(usize::try_from(got).unwrap_or(0));
        let mut hash = Sha256::new();
        loop {
            let offset = u64::try_from(content.len()).unwrap_or(u64::MAX);
            let piece = file.read_at(offset, PIECE_BYTES).await.map_err(failed("read", &path))?;
            hash.update(&piece);
            content.put_slice(&piece);
            if piece.len() < PIECE_BYTES {
                break;
            }
        }
        let found = Digest(hash.finalize().into());
        if found != digest {
            return Err(BlobError::Mismatch { wanted: digest, found });
        }
        Ok(Some(content.freeze()))
    }

    /// At most `bytes_max` bytes from `offset` on, and the whole length, or none. Not verified.
    pub async fn part(
        &self,
        digest: Digest,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Option<(u64, Bytes)>, BlobError> {
        let (dir, name) = place_of(&digest);
        let path = format!("{dir}/{name}");
        let Some(file) = open_if_there(&self.disk, &path).await? else {
            return Ok(None);
        };
        let total = file.len().await.map_err(failed("read", &path))?;
        let bytes = file.read_at(offset, bytes_max).await.map_err(failed("read", &path))?;
        Ok(Some((total, bytes)))
    }

    /// Whether it is here, without reading it.
    pub async fn has(&self, digest: Digest) -> Result<bool, BlobError> {
        let (dir, name) = place_of(&digest);
        Ok(open_if_there(&self.disk, &format!("{dir}/{name}")).await?.is_some())
    }

    /// Every digest that is here, sorted.
    pub async fn list(&self) -> Result<Vec<Digest>, BlobError> {
        let mut digests = Vec::new();
        for first in 0..=u8::MAX {
            digests.extend(self.list_folder(first).await?);
        }
        Ok(digests)
    }

    /// Every digest that is here and begins with this byte, sorted.
    pub async fn list_folder(&self, first: u8) -> Result<Vec<Digest>, BlobError> {
        let dir = format!("{DIR}/{first:02x}");
        let names = self.disk.list(&dir).await.map_err(failed("list", &dir))?;
        Ok(names.iter().filter_map(|name| name.parse::<Digest>().ok()).collect())
    }

    /// Forgets it; whether it was here. Durable when this returns.
    pub async fn remove(&self, digest: Digest) -> Result<bool, BlobError> {
        let (dir, name) = place_of(&digest);
        let path = format!("{dir}/{name}");
        match self.disk.remove(&path).await {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed("remove", &path)(error).into()),
        }
        self.disk.sync_dir(&dir).await.map_err(failed("sync", &dir))?;
        Ok(true)
    }

    async fn make_folder(&self, dir: &str) -> Result<(), DiskError> {
        let folders = &self.shared.folders;
        if folders.lock().unwrap_or_else(PoisonError::into_inner).contains(dir) {
            return Ok(());
        }
        make_dir(&self.disk, DIR, dir).await?;
        folders.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned());
        Ok(())
    }
}

/// A blob's folder and name.
fn place_of(digest: &Digest) -> (String, String) {
    (format!("{DIR}/{:02x}", digest.0[0]), digest.to_string())
}

#[cfg(test)]
mod tests {
    use openraft_rt::AsyncRuntime;
    use openraft_rt_sim::SimRuntime;

    use super::*;
    use crate::MemoryDisk;

    fn sim<T>(scenario: impl Future<Output = T>) -> T {
        SimRuntime::with_seed(5).block_on(scenario)
    }

    fn content(text: &str) -> (Digest, Bytes) {
        (Digest::of(text.as_bytes()), Bytes::from(text.to_owned()))
    }

    #[test]
    fn what_was_put_survives_a_crash_and_what_was_removed_does_not_come_back() {
        sim(async {
            let disk = MemoryDisk::new();
            let blobs = Blobs::open(disk.clone()).await.expect("opens");
            let ((kept, text), (gone, other)) = (content("keep"), content("go"));
            blobs.put(kept, text.clone()).await.expect("kept");
            blobs.put(gone, other).await.expect("kept");
            assert!(blobs.remove(gone).await.expect("removed"));
            let blobs = Blobs::open(disk.crash()).await.expect("opens");
            assert_eq!(blobs.get(kept).await.expect("sound"), Some(text));
            assert_eq!(blobs.list().await.expect("listed"), [kept]);
            assert!(blobs.has(kept).await.expect("asked"));
            assert!(!blobs.remove(gone).await.expect("asked"), "it is not here");
        });
    }

    #[test]
    fn a_blob_found_without_a_durable_name_gets_one_before_it_is_acknowledged() {
        sim(async {
            let disk = MemoryDisk::new();
            let (digest, text) = content("renamed, and then the process died");
            let (dir, name) = place_of(&digest);
            let file = disk.open("blobs/tmp/0", quorate_types::Open::New).await.expect("new");
            file.write_and_sync(0, text.clone()).await.expect("durable");
            disk.rename("blobs/tmp/0", &format!("{dir}/{name}")).await.expect("renamed");
            let disk = disk.kill();
            let blobs = Blobs::open(disk.clone()).await.expect("opens");
            blobs.put(digest, text.clone()).await.expect("kept");
            let blobs = Blobs::open(disk.crash()).await.expect("opens");
            assert_eq!(blobs.get(digest).await.expect("sound"), Some(text));
        });
    }

    #[test]
    fn pieces_make_the_whole() {
        sim(async {
            let blobs = Blobs::open(MemoryDisk::new()).await.expect("opens");
            for bytes in [0, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 3] {
                let whole = Bytes::from(vec![7; bytes]);
                let digest = Digest::of(&whole);
                blobs.put(digest, whole.clone()).await.expect("kept");
                assert_eq!(blobs.get(digest).await.expect("sound"), Some(whole.clone()), "{bytes}");
                let total = u64::try_from(bytes).expect("small");
                let from = total.saturating_sub(2);
                let part = blobs.part(digest, from, 5).await.expect("readable").expect("here");
                assert_eq!(part, (total, whole.slice(bytes.saturating_sub(2)..)), "{bytes}");
            }
            assert_eq!(blobs.part(Digest::of(b"none"), 0, 5).await.expect("asked"), None);
        });
    }

    #[test]
    fn content_under_a_wrong_name_is_refused() {
        sim(async {
            let blobs = Blobs::open(MemoryDisk::new()).await.expect("opens");
            let ((name, _), (_, other)) = (content("one"), content("two"));
            let refused = blobs.put(name, other).await;
            assert!(matches!(refused, Err(BlobError::Mismatch { wanted, .. }) if wanted == name));
            assert!(!blobs.has(name).await.expect("asked"));
        });
    }

    #[test]
    fn rot_is_found_on_read_and_cured_by_another_put() {
        sim(async {
            let disk = MemoryDisk::new();
            let blobs = Blobs::open(disk.clone()).await.expect("opens");
            let (digest, text) = content("some content");
            blobs.put(digest, text.clone()).await.expect("kept");
            let (dir, name) = place_of(&digest);
            assert!(disk.tamper(&format!("{dir}/{name}"), |bytes| bytes[3] ^= 1));
            assert!(matches!(blobs.get(digest).await, Err(BlobError::Mismatch { .. })));
            blobs.put(digest, text.clone()).await.expect("cured");
            assert_eq!(blobs.get(digest).await.expect("sound"), Some(text));
        });
    }

    #[test]
    fn a_full_disk_is_an_error_and_leaves_nothing() {
        sim(async {
            let disk = MemoryDisk::new();
            let blobs = Blobs::open(disk.clone()).await.expect("opens");
            let (digest, text) = content("does not fit");
            disk.fill_after(3);
            let refused = blobs.put(digest, text.clone()).await;
            assert!(refused.is_err_and(|error| error.is_full()));
            assert!(disk.paths().is_empty(), "{:?}", disk.paths());
            assert!(!blobs.has(digest).await.expect("asked"));
            disk.free_up();
            blobs.put(digest, text.clone()).await.expect("there is space again");
            assert_eq!(blobs.get(digest).await.expect("sound"), Some(text));
        });
    }
}
