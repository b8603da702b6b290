//! The newest list of members that a node knows, as bytes of whoever keeps it: the
//! file `members`, a CRC-32 and then the list.
//!
//! The log has the list as well. But a node that starts knows of its log only what it
//! had noted as committed, which may be long ago, and must reach the members of today
//! to learn more. A list that is lost or damaged is no loss of anything promised, so
//! it is passed over and not refused.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{Disk, DiskFile};

use crate::disk_error::{DiskError, failed};
use crate::durable::{open_if_there, write_whole};

const FILE: &str = "members";
const TEMPORARY: &str = "members.tmp";
/// 64 members of 300 bytes are far below.
const FILE_BYTES_MAX: usize = 256 << 10;

/// Keeps this list in place of the one before.
pub async fn keep_members<D: Disk>(disk: &D, list: Bytes) -> Result<(), DiskError> {
    let mut sum = BytesMut::new();
    sum.put_u32_le(crc32fast::hash(&list));
    write_whole(disk, TEMPORARY, ("", FILE), [sum.freeze(), list]).await
}

/// The list that was kept last; none where there is none that can be read.
pub async fn kept_members<D: Disk>(disk: &D) -> Result<Option<Bytes>, DiskError> {
    let Some(file) = open_if_there(disk, FILE).await? else { return Ok(None) };
    let mut bytes = file.read_at(0, FILE_BYTES_MAX).await.map_err(failed("read", FILE))?;
    if bytes.len() < 4 {
        return Ok(None);
    }
    let sum = bytes.split_to(4);
    let sound = crc32fast::hash(&bytes).to_le_bytes() == sum[..];
    if !sound {
        tracing::warn!("`members` is damaged; the members of the node's file are dialled");
    }
    Ok(sound.then_some(bytes))
}

#[cfg(test)]
mod tests {
    use openraft_rt::AsyncRuntime;
    use openraft_rt_sim::SimRuntime;

    use super::*;
    use crate::MemoryDisk;

    #[test]
    fn a_list_is_read_as_it_was_kept_and_a_damaged_one_is_none() {
        SimRuntime::with_seed(1).block_on(async {
            let mut disk = MemoryDisk::new();
            assert_eq!(kept_members(&disk).await.expect("sound"), None);
            for list in ["one", "", "another"] {
                keep_members(&disk, Bytes::from(list)).await.expect("kept");
                disk = disk.crash();
                let kept = kept_members(&disk).await.expect("sound");
                assert_eq!(kept, Some(Bytes::from(list)));
            }
            disk.tamper(FILE, |bytes| bytes[5] ^= 1);
            assert_eq!(kept_members(&disk).await.expect("readable"), None);
        });
    }
}
