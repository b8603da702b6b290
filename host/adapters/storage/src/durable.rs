//! Files that appear whole or not at all: written under a temporary name, synced,
//! renamed, and the name synced. Small ones are text and end in their checksum.

use bytes::Bytes;
use quorate_types::{Disk, DiskFile, Open};

use crate::disk_error::{DiskError, failed};

/// One read or write of a large file, bytes: long enough that the hop to a disk thread does not
/// show, short enough that checksums between two of them do not hold up the runtime (SHA-256 of
/// 1 MiB takes about 1 ms).
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// Puts `parts`, one after the other, into `dir`/`name` by way of `temporary`.
pub(crate) async fn write_whole<D: Disk>(
    disk: &D,
    temporary: &str,
    (dir, name): (&str, &str),
    parts: impl IntoIterator<Item = Bytes, IntoIter: Send> + Send,
) -> Result<(), DiskError> {
    let written = fill(disk, temporary, parts).await;
    if written.is_err() {
        // What was begun takes the space that others wait for. Where this fails too, the next start
        // removes it.
        disk.remove(temporary).await.ok();
    }
    written?;
    let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    disk.rename(temporary, &path).await.map_err(failed("rename", temporary))?;
    let shown = if dir.is_empty() { "the data directory" } else { dir };
    disk.sync_dir(dir).await.map_err(failed("sync", shown))
}

async fn fill<D: Disk>(
    disk: &D,
    temporary: &str,
    parts: impl IntoIterator<Item = Bytes, IntoIter: Send> + Send,
) -> Result<(), DiskError> {
    let file = disk.open(temporary, Open::Any).await.map_err(failed("create", temporary))?;
    file.set_len(0).await.map_err(failed("empty", temporary))?;
    let mut offset = 0;
    for mut part in parts {
        while !part.is_empty() {
            let piece = part.split_to(part.len().min(PIECE_BYTES));
            let next = offset + u64::try_from(piece.len()).unwrap_or(u64::MAX);
            file.write_at(offset, piece).await.map_err(failed("write", temporary))?;
            offset = next;
        }
    }
    file.sync().await.map_err(failed("sync", temporary))
}

/// Opens a file that may be absent.
pub(crate) async fn open_if_there<D: Disk>(
    disk: &D,
    path: &str,
) -> Result<Option<D::File>, DiskError> {
    match disk.open(path, Open::Existing).await {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", path)(error)),
    }
}

/// Makes a folder directly beneath `parent` and its name durable.
pub(crate) async fn make_dir<D: Disk>(disk: &D, parent: &str, dir: &str) -> Result<(), DiskError> {
    disk.create_dir(dir).await.map_err(failed("create", dir))?;
    let shown = if parent.is_empty() { "the data directory" } else { parent };
    disk.sync_dir(parent).await.map_err(failed("sync", shown))
}

/// Lines of text, then the CRC-32 of them.
pub(crate) fn with_checksum(lines: String) -> String {
    let sum = crc32fast::hash(lines.as_bytes());
    format!("{lines}checksum {sum:08x}\n")
}

/// The lines above a checksum that holds.
pub(crate) fn checked(bytes: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_source| "it is not text")?;
    let end = text.find("checksum ").ok_or("it has no checksum")?;
    let (lines, sum) = text.split_at(end);
    if sum == format!("checksum {:08x}\n", crc32fast::hash(lines.as_bytes())) {
        Ok(lines)
    } else {
        Err("its checksum does not hold")
    }
}
