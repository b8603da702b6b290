//! One lane's queue to one peer: filled by any thread, emptied by the lane's writer.
//!
//! It takes frames only while the peer is connected; a loss empties it, because
//! frames of an old connection must not surprise the peer's next life.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_types::limits::FRAME_BYTES_MAX;
use quorate_types::{Lane, SendError};
use tokio::sync::Notify;

use crate::options::QueueBound;

/// Frames are handed to the writer in batches of about this many bytes, which it joins into one write.
pub(crate) const BATCH_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Closed,
    Open,
    /// The node is leaving: what waits is still sent.
    Draining,
}

/// What the writer is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Write the batch.
    Write,
    /// Flush and wait.
    Wait,
    /// Say farewell and end.
    Leave,
}

struct State {
    gate: Gate,
    frames: VecDeque<Bytes>,
    bytes: usize,
}

/// The queue.
pub(crate) struct LaneQueue {
    state: Mutex<State>,
    ready: Notify,
    bound: QueueBound,
}

impl LaneQueue {
    pub(crate) fn new(bound: QueueBound) -> Self {
        let state = State { gate: Gate::Closed, frames: VecDeque::new(), bytes: 0 };
        Self { state: Mutex::new(state), ready: Notify::new(), bound }
    }

    /// Nothing is left half-done under the lock, so a panic elsewhere leaves it usable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, frame: Bytes) -> Result<(), SendError> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(SendError::TooLarge);
        }
        let mut state = self.state();
        if state.gate != Gate::Open {
            return Err(SendError::Unconnected);
        }
        let idle = state.frames.is_empty();
        let over = state.frames.len() >= self.bound.frames_max
            || state.bytes + frame.len() > self.bound.bytes_max;
        if over && !idle {
            return Err(SendError::Full);
        }
        state.bytes += frame.len();
        state.frames.push_back(frame);
        drop(state);
        if idle {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Moves at least one frame and about [`BATCH_BYTES`] into `batch`, which must be empty.
    pub(crate) fn take(&self, batch: &mut Vec<Bytes>) -> Next {
        assert!(batch.is_empty(), "the last batch was written");
        let mut state = self.state();
        let mut bytes = 0;
        while bytes < BATCH_BYTES {
            let Some(frame) = state.frames.pop_front() else { break };
            bytes += frame.len();
            batch.push(frame);
        }
        state.bytes -= bytes;
        match (batch.is_empty(), state.gate) {
            (false, _) => Next::Write,
            (true, Gate::Draining) => Next::Leave,
            (true, Gate::Open | Gate::Closed) => Next::Wait,
        }
    }

    /// Until [`take`](Self::take) may have something new to say.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    pub(crate) fn open(&self) {
        self.state().gate = Gate::Open;
    }

    pub(crate) fn drain(&self) {
        self.state().gate = Gate::Draining;
        self.ready.notify_one();
    }

    /// Refuses frames from now on and returns how many that waited are lost.
    pub(crate) fn close(&self) -> usize {
        let mut state = self.state();
        state.gate = Gate::Closed;
        state.bytes = 0;
        std::mem::take(&mut state.frames).len()
    }
}

/// All lanes' queues to one peer.
pub(crate) struct PeerQueues([LaneQueue; Lane::ALL.len()]);

impl PeerQueues {
    pub(crate) fn new(bound: QueueBound) -> Self {
        Self(std::array::from_fn(|_| LaneQueue::new(bound)))
    }

    pub(crate) fn lane(&self, lane: Lane) -> &LaneQueue {
        &self.0[usize::from(lane.number())]
    }

    pub(crate) fn open(&self) {
        self.0.iter().for_each(LaneQueue::open);
    }

    pub(crate) fn drain(&self) {
        self.0.iter().for_each(LaneQueue::drain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(frames_max: usize, bytes_max: usize) -> LaneQueue {
        let queue = LaneQueue::new(QueueBound { frames_max, bytes_max });
        queue.open();
        queue
    }

    fn frame(bytes: usize) -> Bytes {
        Bytes::from(vec![7; bytes])
    }

    #[test]
    fn it_takes_nothing_before_the_peer_is_there_or_after_it_is_gone() {
        let queue = LaneQueue::new(QueueBound::default());
        assert_eq!(queue.push(frame(1)), Err(SendError::Unconnected));
        queue.open();
        assert_eq!(queue.push(frame(1)), Ok(()));
        assert_eq!(queue.close(), 1, "the frame that waited is lost");
        assert_eq!(queue.push(frame(1)), Err(SendError::Unconnected));
        queue.open();
        assert_eq!(queue.take(&mut Vec::new()), Next::Wait, "the new connection starts empty");
    }

    #[test]
    fn both_bounds_hold_and_taking_makes_room() {
        let by_count = queue(2, 1_000);
        assert_eq!(by_count.push(frame(1)), Ok(()));
        assert_eq!(by_count.push(frame(1)), Ok(()));
        assert_eq!(by_count.push(frame(1)), Err(SendError::Full));
        let mut batch = Vec::new();
        assert_eq!(by_count.take(&mut batch), Next::Write);
        assert_eq!(batch.len(), 2);
        assert_eq!(by_count.push(frame(1)), Ok(()));

        let by_bytes = queue(100, 10);
        assert_eq!(by_bytes.push(frame(6)), Ok(()));
        assert_eq!(by_bytes.push(frame(5)), Err(SendError::Full));
        assert_eq!(by_bytes.push(frame(4)), Ok(()));
    }

    #[test]
    fn an_empty_queue_takes_any_legal_frame_and_no_illegal_one() {
        let queue = queue(4, 10);
        assert_eq!(queue.push(frame(FRAME_BYTES_MAX + 1)), Err(SendError::TooLarge));
        assert_eq!(
            queue.push(frame(FRAME_BYTES_MAX)),
            Ok(()),
            "a small bound must not wedge a lane"
        );
        assert_eq!(queue.push(frame(1)), Err(SendError::Full));
    }

    #[test]
    fn a_batch_stops_at_its_size_and_keeps_the_order() {
        let queue = queue(100, 1 << 20);
        for byte in 0..4_u8 {
            queue.push(Bytes::from(vec![byte; BATCH_BYTES / 2])).unwrap();
        }
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch), Next::Write);
        assert_eq!(batch.iter().map(|frame| frame[0]).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_leaving_node_sends_what_waits_and_takes_no_more() {
        let queue = queue(4, 100);
        queue.push(frame(1)).unwrap();
        queue.drain();
        assert_eq!(queue.push(frame(1)), Err(SendError::Unconnected));
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch), Next::Write);
        batch.clear();
        assert_eq!(queue.take(&mut batch), Next::Leave);
    }
}
