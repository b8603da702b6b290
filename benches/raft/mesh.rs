//! A wire between groups in one process: a bounded, ordered lane for each pair of nodes,
//! without delay and without loss, so that what is measured is ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use openraft_rt_tokio::TokioRuntime;
use quorate_raft::Raft;
use quorate_types::{Disk, Lane, NodeId, SendError, Wire};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

/// A lane takes this many frames, like a transport's.
const QUEUE_MAX: usize = 256;
/// What a group speaks on.
const LANES: [Lane; 3] = [Lane::Append, Lane::Vote, Lane::Snapshot];

type Key = (NodeId, NodeId, Lane);

/// The lanes of a cluster; what is sent before [`Mesh::carry`] waits in them.
pub(crate) struct Mesh {
    senders: Arc<BTreeMap<Key, Sender<Bytes>>>,
    receivers: Vec<(Key, Receiver<Bytes>)>,
}

impl Mesh {
    pub(crate) fn between(nodes: &[NodeId]) -> Self {
        let (mut senders, mut receivers) = (BTreeMap::new(), Vec::new());
        for from in nodes {
            for to in nodes.iter().filter(|to| *to != from) {
                for lane in LANES {
                    let (sender, receiver) = channel(QUEUE_MAX);
                    senders.insert((*from, *to, lane), sender);
                    receivers.push(((*from, *to, lane), receiver));
                }
            }
        }
        Self { senders: Arc::new(senders), receivers }
    }

    /// This node's end.
    pub(crate) fn wire(&self, from: NodeId) -> MeshWire {
        MeshWire { from, senders: Arc::clone(&self.senders) }
    }

    /// Carries frames to the groups from now on, a task a lane.
    pub(crate) fn carry<D: Disk>(
        self,
        groups: &BTreeMap<NodeId, Raft<TokioRuntime, D>>,
    ) -> Vec<JoinHandle<()>> {
        let carry = |((from, to, lane), mut receiver): (Key, Receiver<Bytes>)| {
            let group = groups[&to].clone();
            tokio::spawn(async move {
                while let Some(frame) = receiver.recv().await {
                    group.deliver(from, lane, frame).await;
                }
            })
        };
        self.receivers.into_iter().map(carry).collect()
    }
}

/// One node's end of the mesh.
#[derive(Clone)]
pub(crate) struct MeshWire {
    from: NodeId,
    senders: Arc<BTreeMap<Key, Sender<Bytes>>>,
}

impl Wire for MeshWire {
    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let sender = self.senders.get(&(self.from, to, lane)).ok_or(SendError::Unconnected)?;
        sender.try_send(frame).map_err(|error| match error {
            TrySendError::Full(_) => SendError::Full,
            TrySendError::Closed(_) => SendError::Unconnected,
        })
    }
}
