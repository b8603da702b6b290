//! The segment files: which count, which one is written, which are free.
//!
//! Names are `log/NNNNNNNNNNNNNNNNNNNN.wal`, the number in decimal. A segment
//! that holds nothing that counts is *free*: its file is renamed to the next
//! number when one is needed, so that in steady state no block is ever
//! allocated. Before a file serves at all it is filled with zeroes and synced
//! under the name `log/new.tmp`; a spare, `log/spare`, is made in the background
//! once the active segment is half full and nothing is free. `space` tells what
//! follows when it cannot be made.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use openraft_rt::{AsyncRuntime, Instant, Oneshot, OneshotSender};
use quorate_types::{Disk, DiskFile, Open};

use super::space::{RETRY_AFTER, Space};
use crate::disk_error::{DiskError, failed, is_full};

/// The log's folder.
pub(super) const DIR: &str = "log";
/// A file that is being filled.
pub(super) const NEW: &str = "log/new.tmp";
/// A file that is filled and waits.
pub(super) const SPARE: &str = "log/spare";
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
async fn fill<D: Disk>(disk: &D, size: u32) -> Result<(), DiskError> {
    let file = disk.open(NEW, Open::Any).await.map_err(failed("create", NEW))?;
    file.set_len(0).await.map_err(failed("empty", NEW))?;
    if let Err(error) = file.set_len(u64::from(size)).await {
        if is_full(&error) {
            // Others may use what was not enough for this.
            file.set_len(0).await.map_err(failed("empty", NEW))?;
        }
        return Err(failed("allocate", NEW)(error));
    }
    file.sync().await.map_err(failed("sync", NEW))
}

async fn fill_spare<D: Disk>(disk: D, size: u32) -> Result<(), DiskError> {
    fill(&disk, size).await?;
    disk.rename(NEW, SPARE).await.map_err(failed("rename", NEW))?;
    disk.sync_dir(DIR).await.map_err(failed("sync", DIR))
}

/// The segment that is written.
pub(super) struct Active<F> {
    pub(super) file: F,
    pub(super) number: u64,
    /// Its length, bytes.
    pub(super) size: u32,
}

/// A spare that is being made.
struct Filling<RT: AsyncRuntime> {
    result: Arc<Mutex<Option<Result<(), DiskError>>>>,
    done: <RT::Oneshot as Oneshot>::Receiver<()>,
}

impl<RT: AsyncRuntime> Filling<RT> {
    fn begin<D: Disk>(disk: D, size: u32) -> Self {
        let (tell, done) = RT::Oneshot::channel();
        let result = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&result);
        let _detached = RT::spawn(async move {
            let filled = fill_spare(disk, size).await;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(filled);
            // A log that has ended meanwhile needs no spare.
            tell.send(()).ok();
        });
        Self { result, done }
    }

    async fn result_of_end(self) -> Option<Result<(), DiskError>> {
        let Self { result, done } = self;
        drop(done.await);
        let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
        result.take()
    }

    fn look(&self) -> Option<Result<(), DiskError>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// All segments of a log.
pub(super) struct Segments<RT: AsyncRuntime, D: Disk> {
    disk: D,
    size: u32,
    first: u64,
    active: Active<D::File>,
    free: Vec<String>,
    filling: Option<Filling<RT>>,
    space: Arc<Space>,
    /// On a full disk: when a spare is tried again.
    retry_at: Option<RT::Instant>,
}

impl<RT: AsyncRuntime, D: Disk> Segments<RT, D> {
    /// A log that has none yet.
    pub(super) async fn begin(
        disk: D,
        size: u32,
        first: u64,
        space: Arc<Space>,
    ) -> Result<Self, DiskError> {
        fill(&disk, size).await?;
        let active = take_up(&disk, size, NEW, first).await?;
        Ok(Self::resume(disk, size, (first, active), Vec::new(), space))
    }

    /// A log as recovered.
    pub(super) fn resume(
        disk: D,
        size: u32,
        (first, active): (u64, Active<D::File>),
        free: Vec<String>,
        space: Arc<Space>,
    ) -> Self {
        Self { disk, size, first, active, free, filling: None, space, retry_at: None }
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

    pub(super) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Bytes that can be written when the active segment is used up to `end`.
    pub(super) fn left(&self, end: u32) -> u64 {
        let free = u64::try_from(self.free.len()).unwrap_or(u64::MAX);
        u64::from(self.active.size - end) + free * u64::from(self.size)
    }

    /// Goes on to the next segment; the active one must be durable to its end. Waits for as long as
    /// the disk is full and somebody wants what is to be written.
    pub(super) async fn advance(&mut self) -> Result<(), DiskError> {
        while self.free.is_empty() {
            let filling = match self.filling.take() {
                Some(filling) => filling,
                None => Filling::begin(self.disk.clone(), self.size),
            };
            // Whatever it came to lies in its slot; a runtime that drops the task is at its end.
            filling.result_of_end().await.map_or(Ok(()), |result| self.take_spare(result))?;
            if self.free.is_empty() {
                if self.space.is_deserted() {
                    return Err(failed("allocate", NEW)(io::ErrorKind::StorageFull.into()));
                }
                RT::sleep(RETRY_AFTER).await;
            }
        }
        let next = self.active.number + 1;
        let from = self.free.pop().unwrap_or_else(|| SPARE.to_owned());
        self.active = take_up(&self.disk, self.size, &from, next).await?;
        Ok(())
    }

    /// Waits until nothing is being made in the background.
    pub(super) async fn settle(&mut self) {
        if let Some(filling) = self.filling.take() {
            // Made or not, nobody needs it any more.
            drop(filling.result_of_end().await);
        }
    }

    /// Starts to make a spare if none is at hand, and takes the one that is made. A full disk is
    /// remembered and tried again later; any other failure is final.
    pub(super) fn prepare(&mut self) -> Result<(), DiskError> {
        if let Some(result) = self.filling.as_ref().and_then(Filling::look) {
            self.filling = None;
            self.take_spare(result)?;
        }
        if !self.free.is_empty() {
            self.space.set_full(false);
        } else if self.filling.is_none()
            && self.retry_at.as_ref().is_none_or(|at| *at <= RT::Instant::now())
        {
            self.filling = Some(Filling::begin(self.disk.clone(), self.size));
        }
        Ok(())
    }

    fn take_spare(&mut self, result: Result<(), DiskError>) -> Result<(), DiskError> {
        match result {
            Ok(()) => {
                self.free.push(SPARE.to_owned());
                self.retry_at = None;
                self.space.set_full(false);
                Ok(())
            }
            Err(error) if error.is_full() => {
                self.retry_at = Some(RT::Instant::now() + RETRY_AFTER);
                self.space.set_full(true);
                Ok(())
            }
            Err(error) => Err(error),
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

/// Opens segment `number` on a file that is free.
async fn take_up<D: Disk>(
    disk: &D,
    size: u32,
    from: &str,
    number: u64,
) -> Result<Active<D::File>, DiskError> {
    let path = path_of(number);
    disk.rename(from, &path).await.map_err(failed("rename", from))?;
    // Its old name must be gone for good before it gets new content.
    disk.sync_dir(DIR).await.map_err(failed("sync", DIR))?;
    let file = disk.open(&path, Open::Existing).await.map_err(failed("open", &path))?;
    Ok(Active { file, number, size })
}
