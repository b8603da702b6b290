//! A folder of a disk as a disk.

use std::io;

use quorate_types::{Disk, Open};

/// All paths lie in one folder.
#[derive(Clone)]
pub(crate) struct Beneath<D> {
    disk: D,
    folder: &'static str,
}

impl<D> Beneath<D> {
    pub(crate) const fn new(disk: D, folder: &'static str) -> Self {
        Self { disk, folder }
    }

    fn at(&self, path: &str) -> String {
        if path.is_empty() { self.folder.to_owned() } else { format!("{}/{path}", self.folder) }
    }
}

impl<D: Disk> Disk for Beneath<D> {
    type File = D::File;

    async fn open(&self, path: &str, how: Open) -> io::Result<D::File> {
        self.disk.open(&self.at(path), how).await
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(&self.at(dir)).await
    }

    async fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir(&self.at(dir)).await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.at(from), &self.at(to)).await
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(&self.at(path)).await
    }

    async fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(&self.at(dir)).await
    }
}
