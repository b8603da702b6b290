//! Blobs (first publication: signatures).

use std::io;

use bytes::Bytes;
use quorate_types::{Digest, Disk};

/// Why a blob cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Reading or writing failed.
    #[error("could not {act} `{file}`")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On which file.
        file: String,
        /// Why it failed.
        #[source]
        source: io::Error,
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

/// Content by its digest. Clones share it.
#[derive(Clone, Debug)]
pub struct Blobs<D> {
    _disk: D,
}

impl<D: Disk> Blobs<D> {
    /// Blobs in `blobs/`; removes what unfinished writes left.
    pub async fn open(disk: D) -> Result<Self, BlobError> {
        Ok(Self { _disk: disk })
    }

    /// Keeps content under its digest, durable when this returns.
    pub async fn put(&self, _digest: Digest, _content: Bytes) -> Result<(), BlobError> {
        Ok(())
    }

    /// The content, verified, or none.
    pub async fn get(&self, _digest: Digest) -> Result<Option<Bytes>, BlobError> {
        Ok(None)
    }

    /// Whether it is here, without reading it.
    pub async fn has(&self, _digest: Digest) -> Result<bool, BlobError> {
        Ok(false)
    }

    /// Every digest that is here, sorted.
    pub async fn list(&self) -> Result<Vec<Digest>, BlobError> {
        Ok(Vec::new())
    }

    /// Forgets it; whether it was here.
    pub async fn remove(&self, _digest: Digest) -> Result<bool, BlobError> {
        Ok(false)
    }
}
