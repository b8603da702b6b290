//! A disk in memory whose syncs take time, so that a crash, a restart or an
//! answer can fall between a write and its sync.

use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use quorate_storage::{MemoryDisk, MemoryFile};
use quorate_types::rng::Rng;
use quorate_types::{Disk, DiskFile, Open};

use crate::types::locked;

/// Draws how long the next sync takes.
struct Pace {
    rng: Rng,
    longest_us: u64,
    /// No sync ends any more.
    still: bool,
}

pub(super) struct SlowDisk<RT> {
    disk: MemoryDisk,
    pace: Arc<Mutex<Pace>>,
    runtime: PhantomData<fn() -> RT>,
}

impl<RT> Clone for SlowDisk<RT> {
    fn clone(&self) -> Self {
        let (disk, pace) = (self.disk.clone(), Arc::clone(&self.pace));
        Self { disk, pace, runtime: PhantomData }
    }
}

pub(super) struct SlowFile<RT> {
    file: MemoryFile,
    pace: Arc<Mutex<Pace>>,
    runtime: PhantomData<fn() -> RT>,
}

impl<RT> SlowDisk<RT> {
    /// Syncs take no time until told otherwise.
    pub(super) fn new(seed: u64) -> Self {
        let pace = Arc::new(Mutex::new(Pace { rng: Rng::new(seed), longest_us: 0, still: false }));
        Self { disk: MemoryDisk::new(), pace, runtime: PhantomData }
    }

    pub(super) fn slow_down(&self, longest: Duration) {
        locked(&self.pace).longest_us = u64::try_from(longest.as_micros()).unwrap();
    }

    /// Syncs that begin from now on end when the disk moves again.
    pub(super) fn stand_still(&self, still: bool) {
        locked(&self.pace).still = still;
    }

    pub(super) fn memory(&self) -> &MemoryDisk {
        &self.disk
    }

    /// Power loss in which each unsynced sector is kept or not as a coin falls.
    pub(super) fn crash(&self) -> Self {
        let disk = self.disk.crash_keeping(|| locked(&self.pace).rng.chance(500_000));
        Self { disk, ..self.clone() }
    }
}

async fn take_time<RT: AsyncRuntime>(pace: &Mutex<Pace>) {
    while locked(pace).still {
        RT::sleep(Duration::from_millis(5)).await;
    }
    let span = {
        let mut pace = locked(pace);
        let longest = pace.longest_us;
        if longest == 0 {
            return;
        }
        Duration::from_micros(pace.rng.below(longest))
    };
    RT::sleep(span).await;
}

impl<RT: AsyncRuntime> Disk for SlowDisk<RT> {
    type File = SlowFile<RT>;

    async fn open(&self, path: &str, how: Open) -> io::Result<SlowFile<RT>> {
        let file = self.disk.open(path, how).await?;
        Ok(SlowFile { file, pace: Arc::clone(&self.pace), runtime: PhantomData })
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir).await
    }

    async fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir(dir).await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to).await
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path).await
    }

    async fn sync_dir(&self, dir: &str) -> io::Result<()> {
        take_time::<RT>(&self.pace).await;
        self.disk.sync_dir(dir).await
    }
}

impl<RT: AsyncRuntime> DiskFile for SlowFile<RT> {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.file.read_at(offset, len).await
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.file.write_at(offset, data).await
    }

    async fn sync(&self) -> io::Result<()> {
        take_time::<RT>(&self.pace).await;
        self.file.sync().await
    }

    async fn len(&self) -> io::Result<u64> {
        self.file.len().await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).await
    }
}
