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

/// Names the failed call; for `map_err`.
pub(crate) fn failed(act: &'static str, file: &str) -> impl FnOnce(io::Error) -> DiskError {
    let file = file.to_owned();
    move |source| DiskError { act, file, source }
}
