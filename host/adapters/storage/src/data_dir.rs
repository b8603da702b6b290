//! Whose directory this is. The file `identity` binds (cluster, node, peer,
//! directory) and carries the format number of the whole directory, so that one
//! of another node, cluster or format is refused by name and never written to:
//! a node that spoke from another's log would break the promises of both.
//!
//! The file is text, one `name value` a line in this order: `format`, `cluster`,
//! `node`, `peer`, `directory` (32 hexadecimal digits), `era` where it is not the
//! first (`-` until a node that joins has learned it) and `checksum`, the CRC-32 of
//! all lines above it. People may read it and must not edit it.

use std::fmt;

use quorate_types::{Disk, DiskFile, Era, NodeId};
use serde::{Deserialize, Serialize};

use crate::disk_error::{DiskError, failed};
use crate::durable::{checked, open_if_there, with_checksum, write_whole};

/// The format of a data directory that this program reads and writes.
pub const FORMAT: u32 = 2;

const FILE: &str = "identity";
const TEMPORARY: &str = "identity.tmp";
/// Five short lines; a cluster id and a peer id are some tens of bytes each.
const FILE_BYTES_MAX: usize = 4096;
/// What is done with a directory that this program cannot repair and a node that must not vote
/// from it. One wording, wherever it is met.
pub const JOIN_ANEW: &str = "copy the data directory aside and let the node join anew with an empty \
                             one, under a node id that was never used: `quorate cluster member \
                             replace OLD NEW@ADDRESS` at any other node, then `quorate node run -f \
                             FILE`";

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
    /// The cluster's id; one line of text.
    pub cluster: String,
    /// The node's number in it.
    pub node: NodeId,
    /// The node's peer id, as the transport writes it; one line of text.
    pub peer: String,
    /// The directory itself.
    pub directory: DirectoryId,
    /// Which life of the cluster it is a part of; none before a node that joins has learned it.
    pub era: Option<Era>,
}

/// Why a directory cannot be used by this node. Nothing was written to it.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An id that does not fit a line.
    #[error("{what} `{id}` cannot be kept: it is empty or has a line break")]
    BadId {
        /// Which one.
        what: &'static str,
        /// The id.
        id: String,
    },
    /// The identity file cannot be read.
    #[error(
        "`identity` is damaged: {reason}. Restore that file from a copy; without one: {JOIN_ANEW}"
    )]
    Damaged {
        /// In what way.
        reason: &'static str,
    },
    /// There is data but no identity.
    #[error(
        "`{found}` is there but `identity` is not, so nobody knows whose data this is. Restore it \
         from a copy; without one: {JOIN_ANEW}"
    )]
    Orphan {
        /// What is there.
        found: String,
    },
    /// Another format.
    #[error(
        "the data directory has format {found} and this program reads format {known}: start the \
         program that wrote it, or let that one leave the cluster first"
    )]
    Format {
        /// The directory's.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It belongs to someone else.
    #[error(
        "the data directory belongs to {what} `{found}`, and this is {what} `{wanted}`: point \
         `data_dir` at this node's own directory, or at an empty one for a new node"
    )]
    Foreign {
        /// What differs: cluster, node or peer.
        what: &'static str,
        /// The directory's.
        found: String,
        /// Ours.
        wanted: String,
    },
}

/// A directory that belongs to this node.
#[derive(Clone, Debug)]
pub struct DataDir {
    identity: Identity,
    created: bool,
}

impl DataDir {
    /// Opens this node's directory, or makes it when it is empty. `wanted.directory` is used only
    /// when it is made; an existing directory keeps its own id.
    pub async fn open_or_create<D: Disk>(disk: &D, wanted: Identity) -> Result<Self, DataDirError> {
        for (what, id) in [("the cluster id", &wanted.cluster), ("the peer id", &wanted.peer)] {
            if id.trim().is_empty() || id.contains(['\n', '\r']) {
                return Err(DataDirError::BadId { what, id: id.clone() });
            }
        }
        if let Some(found) = Self::read(disk).await? {
            same(&found, &wanted)?;
            return Ok(Self { identity: found, created: false });
        }
        for dir in ["log", "snapshots"] {
            let names = disk.list(dir).await.map_err(failed("list", dir))?;
            if let Some(name) = names.first() {
                return Err(DataDirError::Orphan { found: format!("{dir}/{name}") });
            }
        }
        let text = write(&wanted);
        write_whole(disk, TEMPORARY, ("", FILE), [text.into()]).await?;
        Ok(Self { identity: wanted, created: true })
    }

    /// Whose directory this is, without making or changing anything; none where there is no
    /// identity.
    pub async fn read<D: Disk>(disk: &D) -> Result<Option<Identity>, DataDirError> {
        let Some(file) = open_if_there(disk, FILE).await? else { return Ok(None) };
        let bytes = file.read_at(0, FILE_BYTES_MAX).await.map_err(failed("read", FILE))?;
        parse(&bytes).map(Some)
    }

    /// The cluster that this node joins is in this era; durable when this returns. An era is
    /// learned once.
    pub async fn learn_era<D: Disk>(disk: &D, era: Era) -> Result<(), DataDirError> {
        let Some(found) = Self::read(disk).await? else {
            return Err(DataDirError::Damaged { reason: "it is gone" });
        };
        match found.era {
            Some(known) if known == era => Ok(()),
            Some(known) => {
                let (found, wanted) = (known.to_string(), era.to_string());
                Err(DataDirError::Foreign { what: "era", found, wanted })
            }
            None => {
                let text = write(&Identity { era: Some(era), ..found });
                Ok(write_whole(disk, TEMPORARY, ("", FILE), [text.into()]).await?)
            }
        }
    }

    /// As it lies in the directory.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it was made just now. A node that voted before and finds this true has lost its
    /// memory: it must not vote under its old id.
    pub fn created(&self) -> bool {
        self.created
    }
}

fn same(found: &Identity, wanted: &Identity) -> Result<(), DataDirError> {
    let sides = [
        ("cluster", found.cluster.clone(), wanted.cluster.clone()),
        ("node", found.node.to_string(), wanted.node.to_string()),
        ("peer", found.peer.clone(), wanted.peer.clone()),
    ];
    match sides.into_iter().find(|(_, found, wanted)| found != wanted) {
        Some((what, found, wanted)) => Err(DataDirError::Foreign { what, found, wanted }),
        None => Ok(()),
    }
}

fn write(identity: &Identity) -> String {
    let Identity { cluster, node, peer, directory, era } = identity;
    let era = match era {
        Some(Era::FIRST) => String::new(),
        Some(era) => format!("era {era}\n"),
        None => "era -\n".to_owned(),
    };
    let lines = format!(
        "format {FORMAT}\ncluster {cluster}\nnode {node}\npeer {peer}\ndirectory {directory}\n{era}"
    );
    with_checksum(lines)
}

fn parse(bytes: &[u8]) -> Result<Identity, DataDirError> {
    let bad = |reason| DataDirError::Damaged { reason };
    let text = std::str::from_utf8(bytes).map_err(|_source| bad("it is not text"))?;
    // The format comes first and is judged first: another format may have other lines.
    let format = text.lines().next().and_then(|line| line.strip_prefix("format "));
    let format: u32 =
        format.and_then(|digits| digits.parse().ok()).ok_or_else(|| bad("it has no format"))?;
    if format != FORMAT {
        return Err(DataDirError::Format { found: format, known: FORMAT });
    }
    let lines = checked(bytes).map_err(bad)?;
    let value = |name: &str| {
        let line = lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(str::to_owned).ok_or_else(|| bad("a line is missing"))
    };
    let node = value("node")?.parse().map_err(|_source| bad("its node is not a number"))?;
    let directory = directory_id(&value("directory")?);
    let directory = directory.ok_or_else(|| bad("its directory id is not 32 digits"))?;
    let era = match lines.lines().find_map(|line| line.strip_prefix("era ")) {
        None => Some(Era::FIRST),
        Some("-") => None,
        Some(era) => Some(era.parse().map_err(|_source| bad("its era is none"))?),
    };
    Ok(Identity { cluster: value("cluster")?, node, peer: value("peer")?, directory, era })
}

pub(crate) fn directory_id(text: &str) -> Option<DirectoryId> {
    let sound = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = sound.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
    Some(DirectoryId(number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use openraft_rt::AsyncRuntime;
    use openraft_rt_sim::SimRuntime;

    use super::*;
    use crate::MemoryDisk;

    fn identity() -> Identity {
        Identity {
            cluster: "harbour".to_owned(),
            node: NodeId(3),
            peer: "12D3KooWabc".to_owned(),
            directory: DirectoryId([0xab; 16]),
            era: Some(Era::FIRST),
        }
    }

    fn open(disk: &MemoryDisk, wanted: Identity) -> Result<DataDir, DataDirError> {
        SimRuntime::with_seed(1).block_on(DataDir::open_or_create(disk, wanted))
    }

    fn refusal(disk: &MemoryDisk, change: impl FnOnce(&mut Identity)) -> String {
        let mut wanted = identity();
        change(&mut wanted);
        open(disk, wanted).expect_err("refused").to_string()
    }

    #[test]
    fn a_directory_knows_its_node_after_a_crash() {
        let disk = MemoryDisk::new();
        assert!(open(&disk, identity()).expect("an empty directory").created());
        let disk = disk.crash();
        let drawn_anew = Identity { directory: DirectoryId([1; 16]), ..identity() };
        let found = open(&disk, drawn_anew).expect("its own directory");
        assert_eq!((found.created(), found.identity()), (false, &identity()));
    }

    #[test]
    fn an_era_is_learned_once_and_kept() {
        let disk = MemoryDisk::new();
        let era = Era::FIRST.next(7);
        let block = |learn| SimRuntime::with_seed(1).block_on(learn);
        open(&disk, Identity { era: None, ..identity() }).expect("an empty directory");
        let read = |disk: &MemoryDisk| {
            let found = SimRuntime::with_seed(1).block_on(DataDir::read(disk)).expect("sound");
            found.expect("there").era
        };
        assert_eq!(read(&disk), None);
        block(DataDir::learn_era(&disk, era)).expect("learned");
        let disk = disk.crash();
        assert_eq!(read(&disk), Some(era));
        block(DataDir::learn_era(&disk, era)).expect("again");
        let other = SimRuntime::with_seed(1).block_on(DataDir::learn_era(&disk, era.next(1)));
        assert!(matches!(other, Err(DataDirError::Foreign { what: "era", .. })), "{other:?}");
        let before = MemoryDisk::new();
        open(&before, identity()).expect("an empty directory");
        let text = String::from_utf8(before.bytes(FILE).expect("written")).expect("text");
        assert!(!text.contains("era"), "directories of before there were eras read the same");
    }

    #[test]
    fn another_cluster_node_or_peer_is_refused_with_both_names() {
        let disk = MemoryDisk::new();
        open(&disk, identity()).expect("an empty directory");
        let before = disk.bytes(FILE);
        let cluster = refusal(&disk, |wanted| wanted.cluster = "lagoon".to_owned());
        assert!(cluster.contains("cluster `harbour`") && cluster.contains("cluster `lagoon`"));
        let node = refusal(&disk, |wanted| wanted.node = NodeId(4));
        assert!(node.contains("node `n3`") && node.contains("node `n4`"));
        let peer = refusal(&disk, |wanted| wanted.peer = "12D3KooWxyz".to_owned());
        assert!(peer.contains("12D3KooWabc") && peer.contains("12D3KooWxyz"));
        assert_eq!(disk.bytes(FILE), before, "a refused directory is left alone");
    }

    #[test]
    fn another_format_is_refused_before_anything_else() {
        let disk = MemoryDisk::new();
        open(&disk, identity()).expect("an empty directory");
        disk.tamper(FILE, |bytes| *bytes = b"format 9\nsomething new\n".to_vec());
        let refused = open(&disk, identity());
        assert!(matches!(refused, Err(DataDirError::Format { found: 9, known: FORMAT })));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let disk = MemoryDisk::new();
        open(&disk, identity()).expect("an empty directory");
        let bytes = disk.bytes(FILE).expect("written");
        for bit in 0..bytes.len() * 8 {
            disk.tamper(FILE, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            assert!(open(&disk, identity()).is_err(), "bit {bit}");
            disk.tamper(FILE, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        }
        assert!(open(&disk, identity()).is_ok());
    }

    #[test]
    fn data_without_an_identity_is_refused() {
        let disk = MemoryDisk::new();
        let write = write_whole(&disk, "log/new.tmp", ("log", "1.wal"), []);
        SimRuntime::with_seed(1).block_on(write).expect("written");
        let refused = open(&disk, identity()).expect_err("an orphan").to_string();
        assert!(refused.contains("log/1.wal"), "{refused}");
    }

    #[test]
    fn ids_that_do_not_fit_a_line_are_refused() {
        let disk = MemoryDisk::new();
        assert!(refusal(&disk, |wanted| wanted.cluster = "a\nnode n9".to_owned()).contains("line"));
        assert!(refusal(&disk, |wanted| wanted.peer = String::new()).contains("empty"));
    }
}
