//! Writing a backup: pure, each call gives the next bytes of the stream.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{Digest, cbor};
use sha2::{Digest as _, Sha256};

use super::{
    BACKUP_FORMAT, BackupGroup, BackupHead, BackupTotals, Blob, FRAME_HEAD_BYTES, Kind, MAGIC,
    PAYLOAD_BYTES_MAX, SUM_BYTES, length, sum_of,
};

/// A backup that is being written. `head` first, `end` last.
#[derive(Debug)]
pub struct BackupWriter {
    /// The number of the next frame.
    next: u64,
    whole: Sha256,
    totals: BackupTotals,
    /// Bytes of the last group or blob that are yet to come.
    due: u64,
}

impl BackupWriter {
    /// Begins one.
    pub fn begin(head: &BackupHead) -> (Self, Bytes) {
        let mut first = BytesMut::new();
        first.put_slice(MAGIC);
        first.put_u32_le(BACKUP_FORMAT);
        let mut whole = Sha256::new();
        whole.update(&first);
        let mut writer = Self { next: 0, whole, totals: BackupTotals::default(), due: 0 };
        first.extend_from_slice(&writer.frame(Kind::Head, &cbor::encode(head)));
        (writer, first.freeze())
    }

    /// Begins a group; its bytes follow as parts.
    pub fn group(&mut self, group: &BackupGroup) -> Bytes {
        self.totals.groups += 1;
        self.begin_content(Kind::Group, &cbor::encode(group), group.bytes)
    }

    /// Begins a blob; its bytes follow as parts.
    pub fn blob(&mut self, digest: Digest, bytes: usize) -> Bytes {
        let bytes = length(bytes);
        self.totals.blobs += 1;
        self.begin_content(Kind::Blob, &cbor::encode(&Blob { digest, bytes }), bytes)
    }

    /// A blob that no node had.
    pub fn absent(&mut self, digest: Digest) -> Bytes {
        self.totals.absent += 1;
        self.begin_content(Kind::Absent, &cbor::encode(&digest), 0)
    }

    fn begin_content(&mut self, kind: Kind, about: &[u8], bytes: u64) -> Bytes {
        assert_eq!(self.due, 0, "the content before is whole");
        self.due = bytes;
        self.frame(kind, about)
    }

    /// The next part of a content, which it takes from its front.
    pub fn part(&mut self, content: &mut Bytes) -> Bytes {
        let part = content.split_to(content.len().min(PAYLOAD_BYTES_MAX));
        assert!(length(part.len()) <= self.due, "no more than was announced");
        self.due -= length(part.len());
        self.frame(Kind::Part, &part)
    }

    /// The last frame.
    pub fn end(mut self) -> Bytes {
        assert_eq!(self.due, 0, "the last content is whole");
        let digest = Digest(self.whole.clone().finalize().into());
        let totals = BackupTotals { digest, ..self.totals };
        self.frame(Kind::End, &cbor::encode(&totals))
    }

    fn frame(&mut self, kind: Kind, payload: &[u8]) -> Bytes {
        let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut frame = BytesMut::with_capacity(FRAME_HEAD_BYTES + payload.len() + SUM_BYTES);
        frame.put_u8(kind.number());
        frame.put_u32_le(bytes);
        let sum = sum_of(self.next, &frame, payload);
        self.next += 1;
        frame.put_slice(payload);
        frame.put_u32_le(sum);
        self.whole.update(&frame);
        frame.freeze()
    }
}
