//! How a lane's stream begins: the opener writes the lane's number, the other
//! end repeats it. From then on the opener only writes and the other end only
//! reads.
//!
//! The echo costs one round trip per lane and connection and buys a fact: when
//! the opener has read it, the peer's reader exists. Optimistic negotiation
//! (`V1Lazy`) alone would let a lane look open that the peer refused.

use std::io;

use futures::future::BoxFuture;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
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

    fn upgrade_outbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        let asked = self.0.number();
        async move {
            stream.write_all(&[asked]).await?;
            stream.flush().await?;
            let mut echo = [0];
            stream.read_exact(&mut echo).await?;
            let [echoed] = echo;
            if echoed == asked {
                Ok(stream)
            } else {
                Err(OpeningError::WrongEcho { asked, echoed })
            }
        }
        .boxed()
    }
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

    fn upgrade_inbound(self, mut stream: Stream, protocol: StreamProtocol) -> Self::Future {
        async move {
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
        .boxed()
    }
}
