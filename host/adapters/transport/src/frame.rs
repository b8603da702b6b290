//! Frames on a lane's stream: u32 big-endian length, then the body, whose bytes
//! are its sender's business. The length is checked before anything is allocated.

use std::io;

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use quorate_types::limits::FRAME_BYTES_MAX;

use crate::queue::BATCH_BYTES;

/// A length that no frame has: the sender leaves in order and will write no more.
const FAREWELL: u32 = u32::MAX;

/// The multiplexer cuts what it is given into pieces of this size. A body above it is written by
/// itself, since copying it costs more than the write it saves; and one piece is what a reader
/// buffers, so that seven idle lanes of a peer cost 112 KiB.
const PIECE_BYTES: usize = 16 << 10;

/// Why no further frame comes from a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {bytes} bytes is announced; the limit is {FRAME_BYTES_MAX}")]
    TooLarge { bytes: u32 },
    #[error("the stream ended")]
    Ended(#[from] io::Error),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Frame(Bytes),
    Farewell,
}

pub(crate) struct FrameReader<S>(BufReader<S>);

impl<S: AsyncRead + Unpin> FrameReader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(BufReader::with_capacity(PIECE_BYTES, stream))
    }

    /// The next frame. Each owns its allocation, so that keeping a small one does not keep a whole
    /// read buffer alive. A peer may announce [`FRAME_BYTES_MAX`] and be slow: a lane costs one frame.
    pub(crate) async fn next(&mut self) -> Result<Arrival, FrameError> {
        let mut head = [0; 4];
        self.0.read_exact(&mut head).await?;
        let announced = u32::from_be_bytes(head);
        if announced == FAREWELL {
            return Ok(Arrival::Farewell);
        }
        let bytes = usize::try_from(announced)
            .ok()
            .filter(|bytes| *bytes <= FRAME_BYTES_MAX)
            .ok_or(FrameError::TooLarge { bytes: announced })?;
        let mut body = vec![0; bytes];
        self.0.read_exact(&mut body).await?;
        Ok(Arrival::Frame(Bytes::from(body)))
    }
}

pub(crate) struct FrameWriter<S> {
    stream: S,
    joined: Vec<u8>,
}

impl<S: AsyncWrite + Unpin> FrameWriter<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, joined: Vec::new() }
    }

    /// Writes all of `frames`, small ones joined into few writes. Does not flush.
    pub(crate) async fn write(&mut self, frames: &[Bytes]) -> io::Result<()> {
        for frame in frames {
            // The queue took no frame above FRAME_BYTES_MAX, which fits easily.
            let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
            self.joined.extend_from_slice(&length.to_be_bytes());
            if frame.len() <= PIECE_BYTES {
                self.joined.extend_from_slice(frame);
                if self.joined.len() >= BATCH_BYTES {
                    self.write_joined().await?;
                }
            } else {
                self.write_joined().await?;
                self.stream.write_all(frame).await?;
            }
        }
        self.write_joined().await
    }

    async fn write_joined(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.joined).await?;
        self.joined.clear();
        Ok(())
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.stream.flush().await
    }

    /// Leaves in order.
    pub(crate) async fn farewell(mut self) -> io::Result<()> {
        self.stream.write_all(&FAREWELL.to_be_bytes()).await?;
        self.stream.close().await
    }
}

const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;

    #[test]
    fn frames_of_every_size_come_back_in_order_and_then_the_farewell() {
        let sizes = [0, 1, 100, PIECE_BYTES, PIECE_BYTES + 1, BATCH_BYTES, FRAME_BYTES_MAX];
        let frames: Vec<Bytes> = sizes.iter().map(|size| Bytes::from(vec![5; *size])).collect();
        let mut wire = Vec::new();
        block_on(async {
            let mut writer = FrameWriter::new(Cursor::new(&mut wire));
            writer.write(&frames).await.unwrap();
            writer.farewell().await.unwrap();
            let mut reader = FrameReader::new(Cursor::new(&wire));
            for frame in frames {
                assert_eq!(reader.next().await.unwrap(), Arrival::Frame(frame));
            }
            assert_eq!(reader.next().await.unwrap(), Arrival::Farewell);
            assert!(matches!(reader.next().await, Err(FrameError::Ended(_))));
        });
    }

    #[test]
    fn a_length_above_the_limit_is_refused_and_a_torn_frame_is_an_end() {
        let over = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
        let mut reader = FrameReader::new(Cursor::new(over));
        let refused = block_on(reader.next());
        assert!(matches!(refused, Err(FrameError::TooLarge { bytes }) if bytes == 4_194_305));

        let mut reader = FrameReader::new(Cursor::new([0, 0, 0, 9, 1, 2]));
        assert!(matches!(block_on(reader.next()), Err(FrameError::Ended(_))));
    }
}
