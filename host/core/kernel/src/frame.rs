//! The kernel's envelopes on the lanes `Call` and `Control`: a version, then CBOR.

use bytes::Bytes;
use quorate_dispatch::Delivery;
use quorate_types::limits::FRAME_BYTES_MAX;
use quorate_types::view::CallSpec;
use quorate_types::{
    AgentId, CallId, Digest, GroupId, Incarnation, Index, NodeId, Refusal, Reply, Request, TaskId,
    Token, cbor,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The only version there is yet.
const VERSION: u16 = 1;
/// How far an answer stays below the largest frame.
const FRAME_SPARE_BYTES: usize = 1 << 10;

/// What one node asks another to do: what a door may ask, and what nodes ask for themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Errand {
    /// On behalf of a door.
    Door(Box<Request>),
    /// This node began a life; number it.
    NodeUp {
        /// Its API.
        api: Option<String>,
        /// How many shards it is set up with.
        shards: u16,
        /// Drawn when it started.
        boot: u64,
    },
    /// How far must a node have applied the group's log to know all that was acknowledged?
    Barrier,
    /// Which of these blobs does no record refer to? A node asks itself.
    Unused(Vec<Digest>),
    /// A node is about to be removed: does the cluster keep all content that it has without it?
    Leave,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Done {
    /// To a door's request.
    Door(Box<Reply>),
    /// The life's number.
    NodeUp(Incarnation),
    /// So far.
    Barrier(Index),
    /// Those.
    Unused(Vec<Digest>),
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Setback {
    /// It was carried out, and refused.
    Refused(Refusal),
    /// Ask the leader; this is who it is, as far as known here.
    NotLeader(Option<NodeId>),
}

/// Lane `Control`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Control {
    /// Do this, as the leader of the group, where one is named, or as any node.
    Ask { id: u64, group: Option<GroupId>, errand: Errand, within_ms: u64 },
    /// It is done, or not.
    Answer { id: u64, result: Result<Done, Setback> },
    /// To a shard's leader: these agents of mine live; renew their leases.
    Alive(Vec<(AgentId, Incarnation)>),
    /// To a shard's leader: agents of mine have started these tasks, which have a start timeout. Told when
    /// it happens, and with each sign of life again, since a frame may be lost and a leader change.
    Started(Vec<(TaskId, Token)>),
    /// To a shard's leader: an outside agent of mine waits for this many leases beyond those that
    /// were committed up to these indices. Replaces every earlier offer of the agent.
    Offer { agent: AgentId, incarnation: Incarnation, open: u32, as_of: Vec<(GroupId, Index)> },
}

/// Lane `Call`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Routed {
    /// Do this.
    Begin {
        call: CallId,
        attempt: u32,
        agent: AgentId,
        incarnation: Incarnation,
        within_ms: u64,
        spec: Box<CallSpec>,
    },
    /// Nobody waits for it any more.
    Abandon { call: CallId, attempt: u32 },
    /// What became of it.
    Said { call: CallId, attempt: u32, said: Said },
}

/// `Delivery` on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    Chunk(Bytes),
    /// With the length of the whole reply, since a chunk before it may be lost.
    Done(u64),
    Busy,
    Unknown,
    Failed(String),
}

impl From<Said> for Delivery {
    fn from(said: Said) -> Self {
        match said {
            Said::Chunk(bytes) => Self::Chunk(bytes),
            Said::Done(bytes) => Self::Done(bytes),
            Said::Busy => Self::Busy,
            Said::Unknown => Self::Unknown,
            Said::Failed(why) => Self::Failed(why),
        }
    }
}

pub(crate) fn encode<T: Serialize>(body: &T) -> Bytes {
    cbor::encode(&(VERSION, body)).into()
}

/// The frame that answers an ask. Where the answer is too large for one, it says that instead: a
/// frame that is refused unsent would leave the asker without any.
pub(crate) fn encode_answer(id: u64, result: Result<Done, Setback>) -> Bytes {
    let frame = encode(&Control::Answer { id, result });
    let (got, limit) = (frame.len(), FRAME_BYTES_MAX - FRAME_SPARE_BYTES);
    if got <= limit {
        return frame;
    }
    let why = format!(
        "the answer has {got} bytes, and {limit} is what one node sends another; ask for fewer, \
         by a limit, a namespace or capabilities, or ask the node that leads"
    );
    encode(&Control::Answer { id, result: Err(Setback::Refused(Refusal::Invalid(why))) })
}

pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, String> {
    match cbor::decode::<(u16, T)>(frame, FRAME_BYTES_MAX) {
        Ok((VERSION, body)) => Ok(body),
        Ok((other, _body)) => Err(format!("version {other} is not known here")),
        Err(error) => Err(error.to_string()),
    }
}
