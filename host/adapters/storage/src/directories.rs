//! Which data directory each voter votes from, in which of its lives, and how far
//! its log was, as this node remembers it. A voter that lost its directory, or
//! goes on from an old copy of it, has forgotten what it voted and acknowledged,
//! and cannot know that; those to whom it presented itself do.
//!
//! The file `directories` is text: one `NODE DIRECTORY LIFE BOOT POSITION` a line
//! in order of nodes, then the checksum of the lines above. A directory is entered
//! once and never changed, since a node id is never given to another one; life and
//! position only grow. A new directory or life is durable before it is accepted;
//! a position is kept in memory and written with the next of these, or by
//! [`keep`](Directories::keep): an old one never refuses a sound node.

use std::collections::BTreeMap;

use quorate_types::{Disk, DiskFile, NodeId};

use crate::data_dir::{DirectoryId, directory_id};
use crate::disk_error::{DiskError, failed};
use crate::durable::{checked, open_if_there, with_checksum, write_whole};

const FILE: &str = "directories";
const TEMPORARY: &str = "directories.tmp";
/// A line is at most 120 bytes; this is room for more than a thousand voters.
const FILE_BYTES_MAX: usize = 128 << 10;

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

/// One life of a voter's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The directory.
    pub directory: DirectoryId,
    /// Its number, from 1.
    pub life: u64,
    /// Drawn at its start: tells two processes from each other that go on from copies.
    pub boot: u64,
    /// Up to where its log was durable, as [`LogCounts::position`](crate::LogCounts) says.
    pub position: u64,
}

/// What is to be thought of a voter that presents itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on from where it was.
    Sound,
    /// It voted from another directory before.
    OtherDirectory,
    /// It voted in a later life of the directory, or had a longer log: this is an older copy, or
    /// its disk has lost what it had promised to keep.
    Behind,
    /// Another process has the same life of the directory: one of them is a copy.
    Elsewhere,
    /// It is of an earlier life of the cluster: what it promised and holds is no part of this one.
    OtherEra,
}

/// The voters' directories.
#[derive(Debug)]
pub struct Directories<D> {
    disk: D,
    known: BTreeMap<NodeId, Life>,
    /// Whether a position was not yet written.
    moved: bool,
}

impl<D: Disk> Directories<D> {
    /// The disk that they lie on.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Reads what is remembered; nothing in a new directory.
    pub async fn open(disk: D) -> Result<Self, DirectoriesError> {
        let known = match open_if_there(&disk, FILE).await? {
            None => BTreeMap::new(),
            Some(file) => {
                let bytes = file.read_at(0, FILE_BYTES_MAX).await.map_err(failed("read", FILE))?;
                parse(&bytes).map_err(|reason| DirectoriesError::Damaged { reason })?
            }
        };
        Ok(Self { disk, known, moved: false })
    }

    /// The newest life that this node has voted from.
    pub fn of(&self, node: NodeId) -> Option<Life> {
        self.known.get(&node).copied()
    }

    /// What is to be thought of `claim`.
    pub fn judge(&self, node: NodeId, claim: &Life) -> Verdict {
        let Some(known) = self.of(node) else { return Verdict::Sound };
        if claim.directory != known.directory {
            Verdict::OtherDirectory
        } else if claim.boot == known.boot && claim.life == known.life {
            Verdict::Sound
        } else if claim.life < known.life || claim.position < known.position {
            Verdict::Behind
        } else if claim.life == known.life {
            Verdict::Elsewhere
        } else {
            Verdict::Sound
        }
    }

    /// Judges, and remembers what is sound: a directory or a life that is new here for good before
    /// this returns.
    pub async fn settle(&mut self, node: NodeId, claim: Life) -> Result<Verdict, DiskError> {
        let verdict = self.judge(node, &claim);
        if verdict != Verdict::Sound {
            return Ok(verdict);
        }
        match self.of(node).filter(|known| known.boot == claim.boot) {
            Some(known) => {
                let position = known.position.max(claim.position);
                self.moved |= position > known.position;
                self.known.insert(node, Life { position, ..known });
            }
            None => {
                let mut known = self.known.clone();
                known.insert(node, claim);
                self.write(known).await?;
            }
        }
        Ok(verdict)
    }

    /// Writes positions that have moved since the last write.
    pub async fn keep(&mut self) -> Result<(), DiskError> {
        if self.moved { self.write(self.known.clone()).await } else { Ok(()) }
    }

    async fn write(&mut self, known: BTreeMap<NodeId, Life>) -> Result<(), DiskError> {
        let text = with_checksum(write(&known));
        write_whole(&self.disk, TEMPORARY, ("", FILE), [text.into()]).await?;
        self.known = known;
        self.moved = false;
        Ok(())
    }
}

fn write(known: &BTreeMap<NodeId, Life>) -> String {
    let line = |(node, life): (&NodeId, &Life)| {
        let Life { directory, life, boot, position } = life;
        format!("{node} {directory} {life} {boot:016x} {position}\n")
    };
    known.iter().map(line).collect()
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<NodeId, Life>, &'static str> {
    let lines = checked(bytes)?;
    let entry = |line: &str| {
        let mut words = line.split(' ');
        let node = words.next()?.parse().ok()?;
        let life = Life {
            directory: directory_id(words.next()?)?,
            life: words.next()?.parse().ok()?,
            boot: u64::from_str_radix(words.next()?, 16).ok()?,
            position: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some((node, life))
    };
    lines.lines().map(|line| entry(line).ok_or("a line is no node and its life")).collect()
}

#[cfg(test)]
mod tests {
    use openraft_rt::AsyncRuntime;
    use openraft_rt_sim::SimRuntime;

    use super::*;
    use crate::MemoryDisk;

    const ONE: DirectoryId = DirectoryId([1; 16]);
    const OTHER: DirectoryId = DirectoryId([2; 16]);
    const FIRST: Life = Life { directory: ONE, life: 3, boot: 7, position: 100 };

    fn settle(disk: &MemoryDisk, node: u64, claim: Life) -> Verdict {
        SimRuntime::with_seed(1).block_on(async {
            let mut directories = Directories::open(disk.clone()).await.expect("sound");
            directories.settle(NodeId(node), claim).await.expect("written")
        })
    }

    #[test]
    fn what_a_voter_was_stands_after_a_crash() {
        let disk = MemoryDisk::new();
        assert_eq!(settle(&disk, 2, FIRST), Verdict::Sound);
        let disk = disk.crash();
        for (claim, verdict) in [
            (FIRST, Verdict::Sound),
            (Life { position: 90, ..FIRST }, Verdict::Sound),
            (Life { directory: OTHER, ..FIRST }, Verdict::OtherDirectory),
            (Life { boot: 8, position: 200, ..FIRST }, Verdict::Elsewhere),
            (Life { life: 2, boot: 8, position: 200, ..FIRST }, Verdict::Behind),
            (Life { life: 4, boot: 8, position: 99, ..FIRST }, Verdict::Behind),
            (Life { life: 9, boot: 8, position: 0, ..FIRST }, Verdict::Behind),
        ] {
            assert_eq!(settle(&disk, 2, claim), verdict, "{claim:?}");
        }
        assert_eq!(settle(&disk, 3, Life { directory: OTHER, ..FIRST }), Verdict::Sound);
        assert_eq!(settle(&disk, 2, Life { life: 4, boot: 9, ..FIRST }), Verdict::Sound);
        assert_eq!(settle(&disk.crash(), 2, FIRST), Verdict::Behind, "its time is over");
    }

    #[test]
    fn a_position_counts_at_once_and_is_durable_when_kept() {
        SimRuntime::with_seed(1).block_on(async {
            let disk = MemoryDisk::new();
            let mut directories = Directories::open(disk.clone()).await.expect("sound");
            let node = NodeId(2);
            directories.settle(node, FIRST).await.expect("written");
            let syncs = disk.syncs();
            directories.settle(node, Life { position: 500, ..FIRST }).await.expect("in memory");
            assert_eq!(disk.syncs(), syncs, "a position alone costs no sync");
            let next = Life { life: 4, boot: 8, position: 400, ..FIRST };
            assert_eq!(directories.judge(node, &next), Verdict::Behind);
            directories.keep().await.expect("written");
            directories.keep().await.expect("nothing moved");
            assert_eq!(disk.syncs(), syncs + 1);
            let directories = Directories::open(disk.crash()).await.expect("sound");
            assert_eq!(directories.of(node).map(|life| life.position), Some(500));
        });
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let disk = MemoryDisk::new();
        settle(&disk, 2, FIRST);
        let bytes = disk.bytes(FILE).expect("written");
        for bit in 0..bytes.len() * 8 {
            disk.tamper(FILE, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let opened = SimRuntime::with_seed(1).block_on(Directories::open(disk.clone()));
            assert!(matches!(opened, Err(DirectoriesError::Damaged { .. })), "bit {bit}");
            disk.tamper(FILE, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        }
        assert_eq!(settle(&disk, 2, FIRST), Verdict::Sound);
    }
}
