//! How a lane's stream begins: the opener writes the lane's number, the other
//! end repeats it. From then on the opener only writes and the other end only
//! reads.
//!
//! The echo costs one round trip per lane and connection and buys a fact: when
//! the opener has read it, the peer's reader exists. Optimistic negotiation
//! (`V1Lazy`) alone would let a lane look open that the peer refused.

use std::io;

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt};
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::{Stream, StreamProtocol};
use quorate_types::Lane;

const RAFT: StreamProtocol = StreamProtocol::new("/quorate/raft/1");
const GOSSIP: StreamProtocol = StreamProtocol::new("/quorate/gossip/1");
const CALL: StreamProtocol = StreamProtocol::new("/quorate/call/1");
const BLOB: StreamProtocol = StreamProtocol::new("/quorate/blob/1");

fn protocol_of(lane: Lane) -> StreamProtocol {
    match lane {
        Lane::Append | Lane::Vote | Lane::Snapshot => RAFT,
        Lane::Gossip => GOSSIP,
        Lane::Call | Lane::Control => CALL,
        Lane::Blob => BLOB,
    }
}

/// Why a stream did not become a lane.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpeningError {
    #[error("{protocol} has no lane {number}")]
    UnknownLane { protocol: StreamProtocol, number: u8 },
    #[error("lane {asked} was opened and lane {echoed} confirmed")]
    WrongEcho { asked: u8, echoed: u8 },
    #[error("the stream broke before the lane was open")]
    Broken(#[from] io::Error),
}

/// The opener's side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenLane(pub(crate) Lane);

impl UpgradeInfo for OpenLane {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(protocol_of(self.0))
    }
}

impl OutboundUpgrade<Stream> for OpenLane {
    type Output = Stream;
    type Error = OpeningError;
    type Future = BoxFuture<'static, Result<Stream, OpeningError>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        open(self.0, stream).boxed()
    }
}

async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    lane: Lane,
    mut stream: S,
) -> Result<S, OpeningError> {
    let asked = lane.number();
    stream.write_all(&[asked]).await?;
    stream.flush().await?;
    let mut echo = [0];
    stream.read_exact(&mut echo).await?;
    let [echoed] = echo;
    if echoed == asked { Ok(stream) } else { Err(OpeningError::WrongEcho { asked, echoed }) }
}

/// The other side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcceptLane;

impl UpgradeInfo for AcceptLane {
    type Info = StreamProtocol;
    type InfoIter = std::array::IntoIter<StreamProtocol, 4>;

    fn protocol_info(&self) -> Self::InfoIter {
        [RAFT, GOSSIP, CALL, BLOB].into_iter()
    }
}

impl InboundUpgrade<Stream> for AcceptLane {
    type Output = (Lane, Stream);
    type Error = OpeningError;
    type Future = BoxFuture<'static, Result<(Lane, Stream), OpeningError>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        accept(protocol, stream).boxed()
    }
}

async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    protocol: StreamProtocol,
    mut stream: S,
) -> Result<(Lane, S), OpeningError> {
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    let [number] = byte;
    let lane = Lane::from_number(number)
        .filter(|lane| protocol_of(*lane) == protocol)
        .ok_or(OpeningError::UnknownLane { protocol, number })?;
    stream.write_all(&byte).await?;
    stream.flush().await?;
    Ok((lane, stream))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures::executor::block_on;

    use super::*;

    /// A peer that has said all that it will say, and the bytes that it was told.
    struct Spoken {
        says: &'static [u8],
        told: Vec<u8>,
    }

    fn peer(says: &'static [u8]) -> Spoken {
        Spoken { says, told: Vec::new() }
    }

    impl AsyncRead for Spoken {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.says).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Spoken {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.told).poll_write(cx, bytes)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn every_lane_opens_under_its_protocol_and_is_confirmed() {
        for lane in Lane::ALL {
            let says: &'static [u8] = Box::leak(Box::new([lane.number()]));
            let opened = block_on(open(lane, peer(says))).unwrap();
            let (accepted, end) = block_on(accept(protocol_of(lane), peer(says))).unwrap();
            assert_eq!(accepted, lane);
            assert_eq!(opened.told, end.told, "the number there and the number back");
        }
    }

    #[test]
    fn a_lane_of_another_protocol_or_of_none_is_refused_unconfirmed() {
        for (protocol, says) in [(RAFT, &[3]), (GOSSIP, &[0]), (CALL, &[6]), (BLOB, &[255])] {
            let refused = block_on(accept(protocol, peer(says)));
            assert!(matches!(refused, Err(OpeningError::UnknownLane { .. })));
        }
        let silent = block_on(accept(RAFT, peer(&[])));
        assert!(matches!(silent, Err(OpeningError::Broken(_))));
    }

    #[test]
    fn an_opener_believes_only_its_own_number() {
        let wrong = block_on(open(Lane::Vote, peer(&[0])));
        assert!(matches!(wrong, Err(OpeningError::WrongEcho { asked: 1, echoed: 0 })));
        let silent = block_on(open(Lane::Vote, peer(&[])));
        assert!(matches!(silent, Err(OpeningError::Broken(_))));
    }
}
