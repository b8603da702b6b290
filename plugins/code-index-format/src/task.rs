//! The input of an indexing task: which files, and where their contents are.

use alloc::vec::Vec;

use crate::Digest;
use crate::bytes::{Ascending, FormatError, Reader, put_count};

const MAGIC: &[u8; 4] = b"QIT1";
const INPUT_LEN: usize = 36;

/// One file to index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// What the index calls it.
    pub id: u32,
    /// The blob of its contents.
    pub digest: Digest,
}

/// The bytes of a task. At 36 bytes a file, 1,800 files fit into 64 KiB.
pub fn encode_task(files: &[Input]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put_count(&mut out, files.len());
    for file in files {
        out.extend_from_slice(&file.id.to_le_bytes());
        out.extend_from_slice(&file.digest);
    }
    out
}

/// The files of a task, which must ascend by id.
pub fn decode_task(bytes: &[u8]) -> Result<Vec<Input>, FormatError> {
    let mut reader = Reader::of(MAGIC, bytes)?;
    let count = reader.count()?;
    if count > reader.left() / INPUT_LEN {
        return Err(FormatError::Short);
    }
    let (mut files, mut order) = (Vec::with_capacity(count), Ascending::default());
    for _ in 0..count {
        let file = Input { id: reader.u32()?, digest: reader.array()? };
        order.put(&mut Vec::new(), file.id)?;
        files.push(file);
    }
    reader.end()?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_read_as_written_and_ids_ascend() {
        let file = |id| Input { id, digest: [7; 32] };
        let files = [file(0), file(3), file(u32::MAX)];
        let bytes = encode_task(&files);
        assert_eq!(bytes.len(), 5 + 3 * 36);
        assert_eq!(decode_task(&bytes).as_deref(), Ok(&files[..]));
        assert_eq!(decode_task(&encode_task(&[file(3), file(3)])), Err(FormatError::Order));
        assert_eq!(decode_task(&bytes[..bytes.len() - 1]), Err(FormatError::Short));
        assert_eq!(decode_task(&[&bytes[..], &[0]].concat()), Err(FormatError::Trailing));
        assert_eq!(decode_task(b"QIP1\0"), Err(FormatError::Magic));
    }
}
