//! Blobs as an agent sees them: readers and writers, which are its only files.

use bytes::Bytes;
use quorate_types::Digest;
use quorate_types::limits::BLOB_BYTES_MAX;
use wasmtime::component::Resource;

use super::host::AgentState;
use crate::bindings::agent::quorate::common::types::Fault;
use crate::bindings::agent::quorate::host::blobs;
use crate::limits::READ_BYTES_MAX;

/// A blob being read. Held whole: it was verified whole.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
#[derive(Debug)]
pub struct Reader {
    size: u64,
    rest: Bytes,
}

/// A blob being written.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
#[derive(Debug, Default)]
pub struct Writer {
    content: Vec<u8>,
}

impl AgentState {
    /// Accounts for `more` bytes in open readers and writers, or says why not.
    fn hold_bytes(&mut self, more: usize) -> Result<(), Fault> {
        let held = self.held_bytes.saturating_add(length(more));
        let limit = self.limits.held_bytes_max;
        if held > limit {
            return Err(Fault::Invalid(format!(
                "open blobs would hold {held} bytes and the limit is {limit}; drop a reader first"
            )));
        }
        self.held_bytes = held;
        Ok(())
    }

    fn release_bytes(&mut self, fewer: u64) {
        self.held_bytes = self.held_bytes.saturating_sub(fewer);
    }
}

impl blobs::Host for AgentState {}

impl blobs::HostReader for AgentState {
    async fn open(&mut self, digest: String) -> wasmtime::Result<Result<Resource<Reader>, Fault>> {
        let Ok(digest) = digest.parse::<Digest>() else {
            return Ok(Err(Fault::Invalid("a digest is 64 hexadecimal digits".to_owned())));
        };
        let content = match self.env.read_blob(digest).await {
            Ok(content) => content,
            Err(reason) => return Ok(Err(Fault::Internal(reason))),
        };
        if let Err(fault) = self.hold_bytes(content.len()) {
            return Ok(Err(fault));
        }
        let reader = Reader { size: length(content.len()), rest: content };
        Ok(Ok(self.table.push(reader)?))
    }

    fn size(&mut self, reader: Resource<Reader>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&reader)?.size)
    }

    fn read(
        &mut self,
        reader: Resource<Reader>,
        n: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, Fault>> {
        let reader = self.table.get_mut(&reader)?;
        let wanted = usize::try_from(n).unwrap_or(usize::MAX).min(READ_BYTES_MAX);
        let chunk = reader.rest.split_to(wanted.min(reader.rest.len()));
        Ok(Ok(chunk.to_vec()))
    }

    fn drop(&mut self, reader: Resource<Reader>) -> wasmtime::Result<()> {
        let reader = self.table.delete(reader)?;
        self.release_bytes(reader.size);
        Ok(())
    }
}

impl blobs::HostWriter for AgentState {
    fn create(&mut self) -> wasmtime::Result<Result<Resource<Writer>, Fault>> {
        Ok(Ok(self.table.push(Writer::default())?))
    }

    fn write(
        &mut self,
        writer: Resource<Writer>,
        bytes: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Fault>> {
        let written = length(self.table.get(&writer)?.content.len());
        if written.saturating_add(length(bytes.len())) > BLOB_BYTES_MAX {
            return Ok(Err(Fault::Invalid(format!("a blob has at most {BLOB_BYTES_MAX} bytes"))));
        }
        if let Err(fault) = self.hold_bytes(bytes.len()) {
            return Ok(Err(fault));
        }
        self.table.get_mut(&writer)?.content.extend_from_slice(&bytes);
        Ok(Ok(()))
    }

    async fn finish(
        &mut self,
        writer: Resource<Writer>,
    ) -> wasmtime::Result<Result<String, Fault>> {
        let content = Bytes::from(self.table.delete(writer)?.content);
        let size = length(content.len());
        let stored = self.env.write_blob(content).await;
        self.release_bytes(size);
        Ok(stored.map(|digest| digest.to_string()).map_err(Fault::Internal))
    }

    fn drop(&mut self, writer: Resource<Writer>) -> wasmtime::Result<()> {
        let writer = self.table.delete(writer)?;
        self.release_bytes(length(writer.content.len()));
        Ok(())
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
