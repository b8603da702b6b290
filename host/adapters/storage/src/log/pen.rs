//! Puts frames where they belong: into a buffer for the active segment, which
//! one write and one sync make durable, and across into the next segment when
//! they no longer fit.

use bytes::BytesMut;
use openraft_rt::AsyncRuntime;
use quorate_types::{Disk, DiskFile};

use super::frame::{
    ALIGN, FORMAT, Framing, HEAD_BYTES, Head, Kind, SEGMENT_FRAME_BYTES, SegmentBody, framed_bytes,
};
use super::segments::{Segments, path_of};
use super::space::RETRY_AFTER;
use crate::data_dir::DirectoryId;
use crate::disk_error::{DiskError, failed, is_full};

/// The longest body that a segment of this size holds.
pub(super) fn body_bytes_max(segment_bytes: u32) -> usize {
    let room = wide(segment_bytes).saturating_sub(SEGMENT_FRAME_BYTES);
    (room / ALIGN * ALIGN).saturating_sub(HEAD_BYTES)
}

/// A length within a segment as a length in memory.
pub(super) fn wide(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A length in memory that is known to lie within a segment.
pub(super) fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Writes frames in order.
pub(super) struct Pen<RT: AsyncRuntime, D: Disk> {
    segments: Segments<RT, D>,
    directory: DirectoryId,
    framing: Framing,
    buffer: BytesMut,
    /// Where in the active segment the buffer will lie; all before is durable.
    start: u32,
    rolled: bool,
    /// Writes so far, each with its sync, and their bytes.
    pub(super) syncs: u64,
    pub(super) bytes: u64,
}

impl<RT: AsyncRuntime, D: Disk> Pen<RT, D> {
    /// Goes on at `end` of the active segment. At 0 the segment is new.
    pub(super) fn new(segments: Segments<RT, D>, directory: DirectoryId, end: u32) -> Self {
        let framing = Framing::new(directory, segments.active().number);
        let buffer = BytesMut::new();
        let mut pen = Self {
            segments,
            directory,
            framing,
            buffer,
            start: end,
            rolled: false,
            syncs: 0,
            bytes: 0,
        };
        if end == 0 {
            pen.begin_segment(0);
        }
        pen
    }

    pub(super) fn segments(&self) -> &Segments<RT, D> {
        &self.segments
    }

    /// Whether a segment was begun since this was last asked.
    pub(super) fn take_rolled(&mut self) -> bool {
        std::mem::take(&mut self.rolled)
    }

    /// Up to where all is durable: the segment, and the place in it.
    pub(super) fn durable(&self) -> (u64, u32) {
        (self.segments.active().number, self.start)
    }

    /// Puts one frame and says in which segment it lies. It is durable after the next `flush`.
    pub(super) async fn put(&mut self, head: Head, body: &[u8]) -> Result<u64, DiskError> {
        let end = wide(self.start) + self.buffer.len() + framed_bytes(body.len());
        if end > wide(self.segments.active().size) {
            self.flush().await?;
            let previous_end = self.start;
            self.segments.advance().await?;
            self.framing = Framing::new(self.directory, self.segments.active().number);
            self.start = 0;
            self.begin_segment(previous_end);
            self.rolled = true;
        }
        self.framing.put(&mut self.buffer, head, self.start, body);
        Ok(self.segments.active().number)
    }

    fn begin_segment(&mut self, previous_end: u32) {
        let active = self.segments.active();
        let head = Head::of_segment(Kind::Segment, active.number);
        let first = self.segments.first();
        let body = SegmentBody { format: FORMAT, size: active.size, first, previous_end };
        self.framing.put(&mut self.buffer, head, 0, &body.encode());
    }

    /// Makes all frames durable.
    pub(super) async fn flush(&mut self) -> Result<(), DiskError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = self.buffer.split().freeze();
        let end = self.start + narrow(data.len());
        self.syncs += 1;
        self.bytes += u64::from(end - self.start);
        let active = self.segments.active();
        assert!(end <= active.size, "frames stay within their segment");
        // What is overwritten needs space where a file system copies on write. A write refused for
        // want of it was not synced, so the same write may come again.
        while let Err(error) = active.file.write_and_sync(u64::from(self.start), data.clone()).await
        {
            if !is_full(&error) || self.segments.space().is_deserted() {
                return Err(failed("write and sync", &path_of(active.number))(error));
            }
            self.segments.space().set_full(true);
            RT::sleep(RETRY_AFTER).await;
        }
        self.start = end;
        self.look_ahead()
    }

    /// Sees that a spare is there when it will be needed.
    pub(super) fn look_ahead(&mut self) -> Result<(), DiskError> {
        if self.start > self.segments.active().size / 2 || self.segments.space().is_full() {
            self.segments.prepare()?;
        }
        self.segments.space().set_left(self.segments.left(self.start));
        Ok(())
    }

    /// Makes all frames durable and leaves nothing in the background.
    pub(super) async fn finish(&mut self) -> Result<(), DiskError> {
        let flushed = self.flush().await;
        self.segments.settle().await;
        flushed
    }

    /// Frees segments; the `Released` frame that says so must have been flushed.
    pub(super) async fn release(&mut self, number: u64) -> Result<(), DiskError> {
        assert!(self.buffer.is_empty(), "what frees a segment is durable first");
        self.segments.release(number).await
    }
}
