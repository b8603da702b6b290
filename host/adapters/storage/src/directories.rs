//! Which data directory each voter votes from, as this node remembers it. A voter
//! that lost its directory has forgotten what it voted and acknowledged, and cannot
//! know that; those to whom it presented its first directory do.
//!
//! The file `directories` is text: one `NODE DIRECTORY` a line in order of nodes,
//! then the checksum of the lines above. A name is entered once and never changed,
//! since a node id is never given to another directory.

use std::collections::BTreeMap;

use quorate_types::{Disk, DiskFile, NodeId};

use crate::data_dir::{DirectoryId, directory_id};
use crate::disk_error::{DiskError, failed};
use crate::durable::{checked, open_if_there, with_checksum, write_whole};

const FILE: &str = "directories";
const TEMPORARY: &str = "directories.tmp";
/// A line is at most 54 bytes; this is room for more than a thousand voters.
const FILE_BYTES_MAX: usize = 64 << 10;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoriesError {
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It cannot be read.
    #[error(
        "`directories` is damaged: {reason}. Restore it from a copy; without it this node cannot \
         tell a voter that lost its data directory from one that did not"
    )]
    Damaged {
        /// In what way.
        reason: &'static str,
    },
}

/// The voters' directories.
#[derive(Debug)]
pub struct Directories<D> {
    disk: D,
    known: BTreeMap<NodeId, DirectoryId>,
}

impl<D: Disk> Directories<D> {
    /// Reads what is remembered; nothing in a new directory.
    pub async fn open(disk: D) -> Result<Self, DirectoriesError> {
        let known = match open_if_there(&disk, FILE).await? {
            None => BTreeMap::new(),
            Some(file) => {
                let bytes = file.read_at(0, FILE_BYTES_MAX).await.map_err(failed("read", FILE))?;
                parse(&bytes).map_err(|reason| DirectoriesError::Damaged { reason })?
            }
        };
        Ok(Self { disk, known })
    }

    /// The directory that this node is known to vote from.
    pub fn of(&self, node: NodeId) -> Option<DirectoryId> {
        self.known.get(&node).copied()
    }

    /// The directory that this node votes from: the one remembered, else `claimed`, which is
    /// remembered for good before this returns.
    pub async fn settle(
        &mut self,
        node: NodeId,
        claimed: DirectoryId,
    ) -> Result<DirectoryId, DiskError> {
        if let Some(known) = self.of(node) {
            return Ok(known);
        }
        let mut known = self.known.clone();
        known.insert(node, claimed);
        let text = with_checksum(write(&known));
        write_whole(&self.disk, TEMPORARY, ("", FILE), [text.into()]).await?;
        self.known = known;
        Ok(claimed)
    }
}

fn write(known: &BTreeMap<NodeId, DirectoryId>) -> String {
    known.iter().map(|(node, directory)| format!("{node} {directory}\n")).collect()
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<NodeId, DirectoryId>, &'static str> {
    let lines = checked(bytes)?;
    let entry = |line: &str| {
        let (node, directory) = line.split_once(' ')?;
        Some((node.parse().ok()?, directory_id(directory)?))
    };
    lines.lines().map(|line| entry(line).ok_or("a line is no node and directory")).collect()
}

#[cfg(test)]
mod tests {
    use openraft_rt::AsyncRuntime;
    use openraft_rt_sim::SimRuntime;

    use super::*;
    use crate::MemoryDisk;

    const ONE: DirectoryId = DirectoryId([1; 16]);
    const OTHER: DirectoryId = DirectoryId([2; 16]);

    fn settle(disk: &MemoryDisk, node: u64, claimed: DirectoryId) -> DirectoryId {
        SimRuntime::with_seed(1).block_on(async {
            let mut directories = Directories::open(disk.clone()).await.expect("sound");
            directories.settle(NodeId(node), claimed).await.expect("written")
        })
    }

    #[test]
    fn the_first_directory_of_a_voter_stands_after_a_crash() {
        let disk = MemoryDisk::new();
        assert_eq!(settle(&disk, 2, ONE), ONE);
        assert_eq!(settle(&disk, 3, OTHER), OTHER);
        let disk = disk.crash();
        assert_eq!(settle(&disk, 2, OTHER), ONE, "what it voted from first");
        assert_eq!(settle(&disk, 3, OTHER), OTHER);
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let disk = MemoryDisk::new();
        settle(&disk, 2, ONE);
        let bytes = disk.bytes(FILE).expect("written");
        for bit in 0..bytes.len() * 8 {
            disk.tamper(FILE, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let opened = SimRuntime::with_seed(1).block_on(Directories::open(disk.clone()));
            assert!(matches!(opened, Err(DirectoriesError::Damaged { .. })), "bit {bit}");
            disk.tamper(FILE, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        }
        assert_eq!(settle(&disk, 2, OTHER), ONE);
    }
}
