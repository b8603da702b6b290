//! A call to the disk that failed, with what it was for. Every operation's error
//! has it as one variant.

use std::io;

/// A failed call to the disk.
#[derive(Debug, thiserror::Error)]
#[error("could not {act} `{file}`")]
pub struct DiskError {
    /// What was tried.
    pub act: &'static str,
    /// On which file or folder.
    pub file: String,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    /// Whether there was no space: nothing that was there has changed, and the same may work later.
    /// A failed sync is never this.
    pub fn is_full(&self) -> bool {
        is_full(&self.source)
    }
}

/// Whether a call failed for want of space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Names the failed call; for `map_err`.
pub(crate) fn failed(act: &'static str, file: &str) -> impl FnOnce(io::Error) -> DiskError {
    let file = file.to_owned();
    move |source| DiskError { act, file, source }
}
