//! The segment files: which count, which one is written, which are free.
//!
//! Names are `log/NNNNNNNNNNNNNNNNNNNN.wal`, the number in decimal. A segment
//! that holds nothing that counts is *free*: its file is renamed to the next
//! number when one is needed, so that in steady state no block is ever
//! allocated. Before a file serves at all it is filled with zeroes and synced
//! under the name `log/new.tmp`; a spare is made in the background once the
//! active segment is half full and nothing is free.

use std::io;

use openraft_rt::{AsyncRuntime, Oneshot, OneshotSender};
use quorate_types::{Disk, DiskFile, Open};

use crate::disk_error::{DiskError, failed};

/// The log's folder.
pub(super) const DIR: &str = "log";
/// A file that is being filled.
pub(super) const NEW: &str = "log/new.tmp";
/// Free files beyond this are removed: one serves the next roll, one more absorbs the purge
/// that frees two.
const FREE_MAX: usize = 2;

/// The path of segment `number`.
pub(super) fn path_of(number: u64) -> String {
    format!("{DIR}/{number:020}.wal")
}

/// The number of the segment with this file name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// Makes a file of `size` zeroes at [`NEW`], durable but for its name.
async fn fill<D: Disk>(disk: D, size: u32) -> io::Result<()> {
    let file = disk.open(NEW, Open::Any).await?;
    file.set_len(0).await?;
    file.set_len(u64::from(size)).await?;
    file.sync().await
}

type Filled<RT> = <<RT as AsyncRuntime>::Oneshot as Oneshot>::Receiver<io::Result<()>>;

/// The segment that is written.
pub(super) struct Active<F> {
    pub(super) file: F,
    pub(super) number: u64,
    /// Its length, bytes.
    pub(super) size: u32,
}

/// All segments of a log.
pub(super) struct Segments<RT: AsyncRuntime, D: Disk> {
    disk: D,
    size: u32,
    first: u64,
    active: Active<D::File>,
    free: Vec<String>,
    filling: Option<Filled<RT>>,
}

impl<RT: AsyncRuntime, D: Disk> Segments<RT, D> {
    /// A log that has none yet; its first is number 1.
    pub(super) async fn begin(disk: D, size: u32) -> Result<Self, DiskError> {
        let active = take_up(&disk, size, &mut Vec::new(), 1).await?;
        Ok(Self { disk, size, first: 1, active, free: Vec::new(), filling: None })
    }

    /// A log as recovered.
    pub(super) fn resume(
        disk: D,
        size: u32,
        first: u64,
        active: Active<D::File>,
        free: Vec<String>,
    ) -> Self {
        Self { disk, size, first, active, free, filling: None }
    }

    pub(super) fn active(&self) -> &Active<D::File> {
        &self.active
    }

    /// The lowest segment that counts.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The length of new segments, bytes.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Goes on to the next segment; the active one must be durable to its end.
    pub(super) async fn advance(&mut self) -> Result<(), DiskError> {
        if let Some(filled) = self.filling.take()
            && self.free.is_empty()
            && matches!(filled.await, Ok(Ok(())))
        {
            self.free.push(NEW.to_owned());
        }
        let next = self.active.number + 1;
        self.active = take_up(&self.disk, self.size, &mut self.free, next).await?;
        Ok(())
    }

    /// Waits until nothing is being made in the background.
    pub(super) async fn settle(&mut self) {
        if let Some(filling) = self.filling.take() {
            // Made or not, nobody needs it any more.
            drop(filling.await);
        }
    }

    /// Starts to fill a spare if none is at hand. A failure shows when the spare is needed.
    pub(super) fn prepare(&mut self) {
        if self.free.is_empty() && self.filling.is_none() {
            let (filled, filling) = RT::Oneshot::channel();
            let work = fill(self.disk.clone(), self.size);
            let _detached = RT::spawn(async move {
                // A log that has ended meanwhile needs no spare.
                drop(filled.send(work.await));
            });
            self.filling = Some(filling);
        }
    }

    /// Frees the segments up to `number`; that they do not count must be durable.
    pub(super) async fn release(&mut self, number: u64) -> Result<(), DiskError> {
        assert!(number < self.active.number, "the active segment always counts");
        for gone in self.first..=number {
            let path = path_of(gone);
            if self.free.len() < FREE_MAX && is_usable(&self.disk, &path, self.size).await? {
                self.free.push(path);
            } else {
                self.disk.remove(&path).await.map_err(failed("remove", &path))?;
            }
        }
        self.first = self.first.max(number + 1);
        Ok(())
    }
}

/// Whether a file that is no longer needed can be a new segment: an older one may have another
/// length.
pub(super) async fn is_usable<D: Disk>(disk: &D, path: &str, size: u32) -> Result<bool, DiskError> {
    let file = disk.open(path, Open::Existing).await.map_err(failed("open", path))?;
    let len = file.len().await.map_err(failed("read the length of", path))?;
    Ok(len == u64::from(size))
}

/// Opens segment `number` on a free file, or on a new one.
async fn take_up<D: Disk>(
    disk: &D,
    size: u32,
    free: &mut Vec<String>,
    number: u64,
) -> Result<Active<D::File>, DiskError> {
    let from = match free.pop() {
        Some(path) => path,
        None => {
            fill(disk.clone(), size).await.map_err(failed("allocate", NEW))?;
            NEW.to_owned()
        }
    };
    let path = path_of(number);
    disk.rename(&from, &path).await.map_err(failed("rename", &from))?;
    // Its old name must be gone for good before it gets new content.
    disk.sync_dir(DIR).await.map_err(failed("sync", DIR))?;
    let file = disk.open(&path, Open::Existing).await.map_err(failed("open", &path))?;
    Ok(Active { file, number, size })
}
