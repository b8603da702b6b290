//! The seam to durable storage. `node` supplies files, `sim` a disk that loses
//! unsynced writes, tears them and counts time.
//!
//! Paths are relative to the node's data directory, `/`-separated, and never
//! leave it; the directory itself is the empty path. All calls are asynchronous: a disk may stall and a step may not.

use std::future::Future;
use std::io;

use bytes::Bytes;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// It must exist.
    Existing,
    /// It must not exist; its name is durable only after `sync_dir` of its folder.
    New,
    /// Make it when it is absent.
    Any,
}

/// One node's directory.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens the file at `path` for reading and writing.
    fn open(&self, path: &str, how: Open) -> impl Future<Output = io::Result<Self::File>> + Send;

    /// The names of files in `dir`, sorted; an absent folder has none.
    fn list(&self, dir: &str) -> impl Future<Output = io::Result<Vec<String>>> + Send;

    /// Makes `dir` and those above it.
    fn create_dir(&self, dir: &str) -> impl Future<Output = io::Result<()>> + Send;

    /// Puts `from` in place of `to`, at once or not at all; durable after `sync_dir`.
    fn rename(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>> + Send;

    /// Removes the file at `path`; durable after `sync_dir`.
    fn remove(&self, path: &str) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &str) -> impl Future<Output = io::Result<()>> + Send;
}

/// An open file. Calls on one file may overlap; their order is the caller's to keep by awaiting.
#[expect(clippy::len_without_is_empty, reason = "nobody asks a disk whether a file is empty")]
pub trait DiskFile: Send + Sync + 'static {
    /// Up to `len` bytes from `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, len: usize) -> impl Future<Output = io::Result<Bytes>> + Send;

    /// Writes all of `data` at `offset`, extending the file if needed. Not durable until `sync`.
    fn write_at(&self, offset: u64, data: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes all that was written before the call durable. An error is final:
    /// the caller must stop acknowledging and never try again as if it had worked. Its kind is
    /// never `StorageFull` or `QuotaExceeded`, whatever the system said: those mean that a write
    /// was refused, which may be tried again.
    fn sync(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// `write_at`, then `sync`; drivers make it one hop.
    fn write_and_sync(
        &self,
        offset: u64,
        data: Bytes,
    ) -> impl Future<Output = io::Result<()>> + Send {
        async move {
            self.write_at(offset, data).await?;
            self.sync().await
        }
    }

    /// The file's length, bytes.
    fn len(&self) -> impl Future<Output = io::Result<u64>> + Send;

    /// Cuts the file, or extends it with zeroes that are really allocated.
    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>> + Send;
}
