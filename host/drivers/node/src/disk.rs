//! The `Disk` seam over files in one directory.
//!
//! Calls that may block run on this disk's own threads: one for `write_and_sync`,
//! which is how the log writes, so that an acknowledgement is one hop away from
//! the disk whatever else goes on, and a few for everything else. The directory
//! is locked for the life of the disk: two processes never share one.
//!
//! `sync` is `fdatasync`: contents and length, no timestamps. Files grow with
//! zeroes that are really written, since the blocks that `fallocate` reserves
//! cost a journal entry at their first write, which is what preallocating is to
//! avoid.
//!
//! A failed sync is final for the whole directory: the kernel may have dropped the
//! pages and would call the next one a success. From then on nothing is written,
//! synced or renamed here any more, [`FileDisk::failure`] says why, and the
//! process is expected to end. Symbolic links are followed; whoever may write in the data directory
//! may replace its contents anyway.

#[cfg(test)]
mod tests;
mod threads;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use quorate_types::{Disk, DiskFile, Open};

use threads::Threads;

const LOCK: &str = "lock";
/// Threads for all but the log: blobs and snapshots of a few writers at once. More would only
/// queue in the kernel.
const THREADS: usize = 4;
/// One write of zeroes, bytes.
const ZEROES_BYTES: usize = 1 << 20;
/// The owner alone reads and writes: the log holds what tenants submitted.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Why a directory cannot serve as a disk.
#[derive(Debug, thiserror::Error)]
pub enum FileDiskError {
    /// It cannot be made or used.
    #[error("could not {act} `{}`", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the data directory `{}` is in use by another process: stop that node first, or give this \
         one its own `data_dir`",
        root.display()
    )]
    InUse {
        /// The directory.
        root: PathBuf,
    },
}

struct Shared {
    root: PathBuf,
    threads: Threads,
    log: Threads,
    broken: Arc<Broken>,
}

/// Why nothing is written.
#[derive(Debug)]
struct Broken {
    /// The first failed sync.
    sync: OnceLock<String>,
    read_only: bool,
}

impl Broken {
    fn check(&self) -> io::Result<()> {
        if self.read_only {
            let reason = "the data directory was opened for reading only";
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, reason));
        }
        match self.sync.get() {
            None => Ok(()),
            Some(first) => Err(io::Error::other(format!("an earlier sync failed: {first}"))),
        }
    }

    /// Runs one sync; a failure of it is never taken for a full disk.
    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.check()?;
        sync().map_err(|error| {
            let first = self.sync.get_or_init(|| error.to_string());
            io::Error::other(format!("a sync failed: {first}"))
        })
    }
}

/// A directory as a disk. Clones share it; the lock goes with the last of them, its files
/// included.
#[derive(Clone)]
pub struct FileDisk(Arc<Shared>);

impl std::fmt::Debug for FileDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FileDisk").field(&self.0.root).finish()
    }
}

impl FileDisk {
    /// Makes `root` if it is absent, locks it and starts the threads. Blocks for moments.
    pub fn open(root: &Path) -> Result<Self, FileDiskError> {
        make_root(root).map_err(failed("create", root))?;
        let path = root.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        Self::locked(root, options.open(&path).map_err(failed("open", &path))?, false)
    }

    /// Opens what is there and nobody else has open, to read it; no call on it changes anything.
    pub fn open_to_read(root: &Path) -> Result<Self, FileDiskError> {
        let path = root.join(LOCK);
        Self::locked(root, File::open(&path).map_err(failed("open", &path))?, true)
    }

    fn locked(root: &Path, lock: File, read_only: bool) -> Result<Self, FileDiskError> {
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FileDiskError::InUse { root: root.to_owned() });
            }
            Err(TryLockError::Error(source)) => {
                return Err(failed("lock", &root.join(LOCK))(source));
            }
        }
        let lock = Arc::new(lock);
        let start = |name, count| {
            Threads::start(name, count, &lock).map_err(failed("start threads for", root))
        };
        let (threads, log) = (start("disk", THREADS)?, start("disk-log", 1)?);
        let broken = Arc::new(Broken { sync: OnceLock::new(), read_only });
        Ok(Self(Arc::new(Shared { root: root.to_owned(), threads, log, broken })))
    }

    /// Why nothing is written here any more, if that is so: a sync has failed.
    pub fn failure(&self) -> Option<String> {
        let first = self.0.broken.sync.get()?;
        Some(format!("a sync in `{}` failed: {first}", self.0.root.display()))
    }

    /// Where `path` is. Only plain names: nothing leads out of the directory.
    fn locate(&self, path: &str) -> io::Result<PathBuf> {
        let mut place = self.0.root.clone();
        for name in path.split('/').filter(|_| !path.is_empty()) {
            if name.is_empty() || name == "." || name == ".." || name.contains(['\0', '\\']) {
                let reason = format!("`{path}` is not a path within the data directory");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            place.push(name);
        }
        Ok(place)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.0.threads.run(work).await
    }
}

impl Disk for FileDisk {
    type File = FileOnDisk;

    async fn open(&self, path: &str, how: Open) -> io::Result<FileOnDisk> {
        let place = self.locate(path)?;
        let read_only = self.0.broken.read_only;
        let file = self.run(move || open_file(&place, how, read_only)).await?;
        Ok(FileOnDisk { file: Arc::new(file), disk: self.clone() })
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let place = self.locate(dir)?;
        self.run(move || list_files(&place)).await
    }

    async fn create_dir(&self, dir: &str) -> io::Result<()> {
        let place = self.locate(dir)?;
        let broken = Arc::clone(&self.0.broken);
        self.run(move || {
            broken.check()?;
            DirBuilder::new().recursive(true).mode(DIR_MODE).create(place)
        })
        .await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.locate(from)?, self.locate(to)?);
        let broken = Arc::clone(&self.0.broken);
        self.run(move || {
            broken.check()?;
            std::fs::rename(from, to)
        })
        .await
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        let place = self.locate(path)?;
        let broken = Arc::clone(&self.0.broken);
        self.run(move || {
            broken.check()?;
            std::fs::remove_file(place)
        })
        .await
    }

    async fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let place = self.locate(dir)?;
        // A folder opened for reading only can be synced; std has no way to ask for O_DIRECTORY
        // and needs none, since a file in its place would be an error of the caller's own.
        let broken = Arc::clone(&self.0.broken);
        self.run(move || broken.sync(|| File::open(place)?.sync_all())).await
    }
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileDiskError {
    let path = path.to_owned();
    move |source| FileDiskError::Io { act, path, source }
}

/// Makes the data directory and its name durable: one that vanished with the power would be taken
/// for an emptied one, and its node refused.
fn make_root(root: &Path) -> io::Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    let is_there = |above: &&Path| above.as_os_str().is_empty() || above.is_dir();
    let made = root.ancestors().skip(1).take_while(|above| !is_there(above)).count();
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(root)?;
    // Each new folder's name lies in the one above it, the last of which was there before.
    for above in root.ancestors().skip(1).take(made + 1) {
        sync_folder(above)?;
    }
    Ok(())
}

/// Makes the names in a folder durable; an empty path is the working directory's.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// Makes a file's or folder's own name durable, which lies in the folder above it.
pub fn sync_name(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_folder)
}

fn open_file(place: &Path, how: Open, read_only: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    if read_only {
        return options.read(true).open(place);
    }
    options.read(true).write(true).mode(FILE_MODE);
    match how {
        Open::Existing => {}
        Open::New => {
            options.create_new(true);
        }
        Open::Any => {
            options.create(true).truncate(false);
        }
    }
    options.open(place)
}

fn list_files(place: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(place) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        // A name that is not text is none of ours.
        if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// An open file of a [`FileDisk`].
pub struct FileOnDisk {
    file: Arc<File>,
    disk: FileDisk,
}

impl std::fmt::Debug for FileOnDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FileOnDisk").field(&self.file).finish()
    }
}

impl FileOnDisk {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = Arc::clone(&self.file);
        self.disk.run(move || work(&file)).await
    }
}

impl DiskFile for FileOnDisk {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.run(move |file| read_up_to(file, offset, len)).await
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        let broken = Arc::clone(&self.disk.0.broken);
        self.run(move |file| {
            broken.check()?;
            file.write_all_at(&data, offset)
        })
        .await
    }

    async fn sync(&self) -> io::Result<()> {
        let broken = Arc::clone(&self.disk.0.broken);
        self.run(move |file| broken.sync(|| file.sync_data())).await
    }

    async fn write_and_sync(&self, offset: u64, data: Bytes) -> io::Result<()> {
        let (file, broken) = (Arc::clone(&self.file), Arc::clone(&self.disk.0.broken));
        let work = move || {
            broken.check()?;
            file.write_all_at(&data, offset)?;
            broken.sync(|| file.sync_data())
        };
        self.disk.0.log.run(work).await
    }

    async fn len(&self) -> io::Result<u64> {
        self.run(|file| Ok(file.metadata()?.len())).await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let broken = Arc::clone(&self.disk.0.broken);
        self.run(move |file| {
            broken.check()?;
            resize(file, len)
        })
        .await
    }
}

fn read_up_to(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    // What the file has bounds the buffer, not what the caller would take.
    let there = file.metadata()?.len().saturating_sub(offset);
    let len = len.min(usize::try_from(there).unwrap_or(usize::MAX));
    let mut bytes = BytesMut::zeroed(len);
    let mut filled = 0;
    while filled < len {
        let at = offset + u64::try_from(filled).map_err(io::Error::other)?;
        match file.read_at(&mut bytes[filled..], at) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.freeze())
}

fn resize(file: &File, len: u64) -> io::Result<()> {
    let mut at = file.metadata()?.len();
    if len <= at {
        return file.set_len(len);
    }
    let zeroes = vec![0; ZEROES_BYTES];
    while at < len {
        let piece = usize::try_from(len - at).unwrap_or(ZEROES_BYTES).min(ZEROES_BYTES);
        file.write_all_at(&zeroes[..piece], at)?;
        at += u64::try_from(piece).map_err(io::Error::other)?;
    }
    Ok(())
}
