//! Where admission stands in the way of frames: a peer that has not accepted this
//! life of the directory gets no frame of the log from here, and none of its comes
//! in. So this node takes part in no quorum but with those who know it. From a peer of
//! another era nothing comes in at all but its words about that.

use quorate_types::{Disk, Gone, Inbox, Lane, NodeId, SendError, Wire, WireEvent};

use bytes::Bytes;

use super::Desk;
use super::word::{Said, WORD_BYTES_MAX};

/// Lanes on which votes are cast and entries promised.
const fn is_fenced(lane: Lane) -> bool {
    match lane {
        Lane::Append | Lane::Vote | Lane::Snapshot => true,
        Lane::Gossip | Lane::Call | Lane::Control | Lane::Blob => false,
    }
}

/// The wire as the log has it.
pub(crate) struct Fence<D, W> {
    desk: Desk<D, W>,
    wire: W,
}

impl<D, W: Clone> Clone for Fence<D, W> {
    fn clone(&self) -> Self {
        Self { desk: self.desk.clone(), wire: self.wire.clone() }
    }
}

impl<D: Disk, W: Wire> Fence<D, W> {
    pub(crate) fn new(desk: Desk<D, W>, wire: W) -> Self {
        Self { desk, wire }
    }
}

impl<D: Disk, W: Wire> Wire for Fence<D, W> {
    fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        if is_fenced(lane) && !self.desk.is_accepted_by(to) {
            return Err(SendError::Unconnected);
        }
        self.wire.send(to, lane, frame)
    }
}

/// Takes this room's words out of what arrives, and passes on what may pass. For the rooms inside
/// a peer comes up when it has accepted this node.
pub(crate) struct Porch<I, D, W> {
    pub(crate) desk: Desk<D, W>,
    pub(crate) inside: I,
}

impl<I: Inbox, D: Disk, W: Wire> Inbox for Porch<I, D, W> {
    async fn deliver(&self, event: WireEvent) {
        match &event {
            WireEvent::Frame { from, lane: Lane::Control, frame }
                if frame.len() <= WORD_BYTES_MAX =>
            {
                if let Some(said) = Said::read(frame) {
                    if self.desk.hear(*from, said).await {
                        self.inside.deliver(WireEvent::PeerUp(*from)).await;
                    }
                    return;
                }
            }
            WireEvent::Frame { from, lane, .. } => {
                if is_fenced(*lane) && !self.desk.is_accepted_by(*from) {
                    return;
                }
            }
            WireEvent::PeerUp(peer) => return self.desk.peer_up(*peer),
            WireEvent::PeerGone(peer, gone) => {
                // One that turns out dead later was passed on as gone before.
                if !self.desk.peer_gone(*peer, *gone) && *gone != Gone::Refused {
                    return;
                }
            }
        }
        if let WireEvent::Frame { from, .. } = &event
            && self.desk.is_of_other_era(*from)
        {
            return;
        }
        self.inside.deliver(event).await;
    }
}
