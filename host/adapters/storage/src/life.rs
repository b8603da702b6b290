//! How often a directory was started. The file `life` is text: `life N`, then the
//! checksum of that line. Bumped durably before a node speaks to anyone, so that
//! two copies of a directory cannot both go on from where they parted unnoticed:
//! peers remember the highest number that they have met ([`Directories`]).
//!
//! [`Directories`]: crate::Directories

use quorate_types::{Disk, DiskFile};

use crate::data_dir::JOIN_ANEW;
use crate::disk_error::{DiskError, failed};
use crate::durable::{checked, open_if_there, with_checksum, write_whole};

const FILE: &str = "life";
const TEMPORARY: &str = "life.tmp";
const FILE_BYTES_MAX: usize = 256;

/// Why a directory's life cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The number cannot be read.
    #[error("`life` is damaged: {reason}. Restore that file from a copy; without one: {JOIN_ANEW}")]
    Damaged {
        /// In what way.
        reason: &'static str,
    },
}

/// Begins the next life of the directory: its number, from 1, durable when this returns.
pub async fn begin_life<D: Disk>(disk: &D) -> Result<u64, LifeError> {
    let life = lives(disk).await? + 1;
    let text = with_checksum(format!("life {life}\n"));
    write_whole(disk, TEMPORARY, ("", FILE), [text.into()]).await?;
    Ok(life)
}

/// How many lives the directory has had.
pub async fn lives<D: Disk>(disk: &D) -> Result<u64, LifeError> {
    let Some(file) = open_if_there(disk, FILE).await? else { return Ok(0) };
    let bytes = file.read_at(0, FILE_BYTES_MAX).await.map_err(failed("read", FILE))?;
    let bad = |reason| LifeError::Damaged { reason };
    let line = checked(&bytes).map_err(bad)?;
    let number = line.strip_prefix("life ").and_then(|rest| rest.trim_end().parse().ok());
    number.ok_or_else(|| bad("it has no number"))
}

#[cfg(test)]
mod tests {
    use openraft_rt::AsyncRuntime;
    use openraft_rt_sim::SimRuntime;

    use super::*;
    use crate::MemoryDisk;

    #[test]
    fn each_life_has_the_next_number_whatever_ended_the_last() {
        SimRuntime::with_seed(1).block_on(async {
            let mut disk = MemoryDisk::new();
            for life in 1..=6 {
                assert_eq!(begin_life(&disk).await.expect("begun"), life);
                disk = if life % 2 == 0 { disk.crash() } else { disk.kill() };
            }
            disk.fail_syncs_after(0);
            assert!(begin_life(&disk).await.is_err());
            let disk = disk.crash();
            assert_eq!(lives(&disk).await.expect("sound"), 6);
            let length = disk.bytes(FILE).expect("there").len();
            for bit in 0..length * 8 {
                disk.tamper(FILE, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
                assert!(matches!(lives(&disk).await, Err(LifeError::Damaged { .. })), "{bit}");
                disk.tamper(FILE, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            }
        });
    }
}
