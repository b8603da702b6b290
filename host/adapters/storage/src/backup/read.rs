//! Reading a backup: in order, each thing whole and verified before it is given.

use std::io::{ErrorKind, Read};

use bytes::{Bytes, BytesMut};
use quorate_types::limits::BLOB_BYTES_MAX;
use quorate_types::{Digest, cbor};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::{
    BACKUP_FORMAT, BackupError, BackupGroup, BackupHead, BackupTotals, Blob, FRAME_HEAD_BYTES,
    Kind, MAGIC, PAYLOAD_BYTES_MAX, SUM_BYTES, length, sum_of,
};

/// The next thing in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupItem {
    /// A group, and its snapshot.
    Group(BackupGroup, Bytes),
    /// A blob, whose content is what its name says.
    Blob(Digest, Bytes),
    /// A blob that records refer to and that no node had.
    Absent(Digest),
    /// The end; nothing follows it.
    End(BackupTotals),
}

/// A backup that is being read.
#[derive(Debug)]
pub struct BackupReader<R> {
    from: R,
    at: u64,
    next: u64,
    whole: Sha256,
    seen: BackupTotals,
    ended: bool,
}

impl<R: Read> BackupReader<R> {
    /// Reads the head.
    pub fn open(from: R) -> Result<(Self, BackupHead), BackupError> {
        let (whole, seen) = (Sha256::new(), BackupTotals::default());
        let mut reader = Self { from, at: 0, next: 0, whole, seen, ended: false };
        let first = match reader.take::<12>() {
            Ok(first) => first,
            Err(BackupError::Cut { .. }) => return Err(BackupError::Strange),
            Err(error) => return Err(error),
        };
        let [magic @ .., f0, f1, f2, f3] = first;
        if magic != *MAGIC {
            return Err(BackupError::Strange);
        }
        let found = u32::from_le_bytes([f0, f1, f2, f3]);
        if found != BACKUP_FORMAT {
            return Err(BackupError::Format { found, known: BACKUP_FORMAT });
        }
        reader.whole.update(first);
        let (kind, payload) = reader.frame()?;
        if kind != Kind::Head {
            return Err(reader.damaged("it does not begin with its head"));
        }
        let head = reader.about(&payload)?;
        Ok((reader, head))
    }

    /// The next thing; none after the end.
    pub fn next_item(&mut self) -> Result<Option<BackupItem>, BackupError> {
        if self.ended {
            return Ok(None);
        }
        let before = self.whole.clone();
        let (kind, payload) = self.frame()?;
        Ok(Some(match kind {
            Kind::Group => {
                let group: BackupGroup = self.about(&payload)?;
                self.seen.groups += 1;
                BackupItem::Group(group, self.content(group.bytes)?)
            }
            Kind::Blob => {
                let Blob { digest, bytes } = self.about(&payload)?;
                if bytes > BLOB_BYTES_MAX {
                    return Err(self.damaged("a blob is larger than any may be"));
                }
                let content = self.content(bytes)?;
                if Digest::of(&content) != digest {
                    return Err(self.damaged(format!("blob {digest} has another content")));
                }
                self.seen.blobs += 1;
                BackupItem::Blob(digest, content)
            }
            Kind::Absent => {
                self.seen.absent += 1;
                BackupItem::Absent(self.about(&payload)?)
            }
            Kind::End => {
                let totals: BackupTotals = self.about(&payload)?;
                let digest = Digest(before.finalize().into());
                if totals != (BackupTotals { digest, ..self.seen }) {
                    return Err(self.damaged("its end does not fit what is before it"));
                }
                self.nothing_follows()?;
                self.ended = true;
                BackupItem::End(totals)
            }
            Kind::Head | Kind::Part => return Err(self.damaged("a frame is out of place")),
        }))
    }

    fn content(&mut self, bytes: u64) -> Result<Bytes, BackupError> {
        // Grown as parts prove sound, not by what was announced.
        let mut content = BytesMut::new();
        while length(content.len()) < bytes {
            let (kind, part) = self.frame()?;
            if kind != Kind::Part || part.is_empty() {
                return Err(self.damaged("a content ends too early"));
            }
            content.extend_from_slice(&part);
        }
        if length(content.len()) > bytes {
            return Err(self.damaged("a content is longer than announced"));
        }
        Ok(content.freeze())
    }

    fn frame(&mut self) -> Result<(Kind, Vec<u8>), BackupError> {
        let head = self.take::<FRAME_HEAD_BYTES>()?;
        let [kind, l0, l1, l2, l3] = head;
        let bytes = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(self.damaged("a frame is longer than any may be"));
        }
        let mut payload = vec![0; bytes];
        self.fill(&mut payload)?;
        let sum = self.take::<SUM_BYTES>()?;
        if sum != sum_of(self.next, &head, &payload).to_le_bytes() {
            return Err(self.damaged("a frame's checksum does not hold"));
        }
        let kind = Kind::of(kind).ok_or_else(|| self.damaged("a frame is of no known kind"))?;
        self.next += 1;
        self.whole.update(head);
        self.whole.update(&payload);
        self.whole.update(sum);
        Ok((kind, payload))
    }

    fn about<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T, BackupError> {
        cbor::decode(payload, PAYLOAD_BYTES_MAX).map_err(|error| self.damaged(error.to_string()))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        match self.from.read_exact(bytes) {
            Ok(()) => {
                self.at += length(bytes.len());
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(BackupError::Cut { at: self.at })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn nothing_follows(&mut self) -> Result<(), BackupError> {
        match self.from.read(&mut [0])? {
            0 => Ok(()),
            _more => Err(self.damaged("something follows its end")),
        }
    }

    fn damaged(&self, reason: impl Into<String>) -> BackupError {
        BackupError::Damaged { at: self.at, reason: reason.into() }
    }
}
