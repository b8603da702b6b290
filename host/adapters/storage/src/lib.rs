//! What a node keeps: one write-ahead log for all its groups, snapshots, blobs
//! and the identity of its directory, all over the `Disk` seam.
//!
//! An acknowledgement from this room means *fsynced*. What was not acknowledged
//! may be there or not after a crash; what was acknowledged is there, or the
//! directory is refused by name. Damage is never served and never repaired by
//! guessing.
//!
//! Nothing here names a file system or a runtime: the same code runs over files
//! on tokio and over a simulated disk under a seed.

#![forbid(unsafe_code)]

mod backup;
mod beneath;
mod blobs;
mod data_dir;
mod directories;
mod disk_error;
mod durable;
mod kept_members;
mod life;
mod log;
mod memory_disk;
mod record;
mod snapshots;

pub use backup::{
    BACKUP_FORMAT, BackupError, BackupGroup, BackupHead, BackupItem, BackupReader, BackupTotals,
    BackupWriter,
};
pub use blobs::{BlobError, Blobs};
pub use data_dir::{DataDir, DataDirError, DirectoryId, FORMAT, Identity, JOIN_ANEW};
pub use directories::{Directories, DirectoriesError, Life, Verdict};
pub use disk_error::DiskError;
pub use kept_members::{keep_members, kept_members};
pub use life::{LifeError, begin_life, lives};
pub use log::{
    Anew, Log, LogCounts, LogError, LogOptions, LogSurvey, OnDone, OpenError, Recovered,
    RecoveredGroup, Remains, RewriteError, Salvage, SegmentState, SegmentSurvey, SubmitError,
};
pub use memory_disk::{MemoryDisk, MemoryFile};
pub use record::Record;
pub use snapshots::{SnapshotError, SnapshotFile, SnapshotMeta, Snapshots};
