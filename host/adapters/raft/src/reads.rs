//! Linearizable reads, many by one confirmation.
//!
//! A read must know that this node led after the read began (`ReadIndex`, Raft
//! thesis 6.4), which costs a round of heartbeats. Reads that arrive while a round is
//! under way share the next one: it begins after all of them, so that it speaks for
//! each, and a thousand readers cost as many rounds as one.

use std::sync::Arc;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft_rt::{
    AsyncRuntime, Mpsc, MpscReceiver, MpscSender, Oneshot, OneshotSender, WatchReceiver as _,
};
use quorate_types::{Disk, Index, NodeId};

use crate::instance::Slot;
use crate::propose::{ReadError, WAITING_MAX};
use crate::types::{MpscRx, MpscTx, OneshotTx, index_of};

type Answer = Result<Index, ReadError>;

/// The readers' end. When the last is dropped, so is the task that asks.
pub(crate) struct Reads<RT: AsyncRuntime>(MpscTx<RT, OneshotTx<RT, Answer>>);

impl<RT: AsyncRuntime> Reads<RT> {
    /// Planted to be `unconfirmed`, reads ask nobody.
    pub(crate) fn begin<D: Disk>(slot: Arc<Slot<RT, D>>, unconfirmed: bool) -> Self {
        // Readers have a place each before they come here, so that none finds it full.
        let (readers, queue) = RT::Mpsc::channel(WAITING_MAX);
        drop(RT::spawn(serve(slot, queue, unconfirmed)));
        Self(readers)
    }

    /// Waits for a confirmation that begins after this call.
    pub(crate) async fn confirm(&self) -> Answer {
        let (answer, answered) = RT::Oneshot::channel();
        self.0.send(answer).await.map_err(|_ended| ReadError::Stopped)?;
        answered.await.unwrap_or(Err(ReadError::Stopped))
    }
}

async fn serve<RT: AsyncRuntime, D: Disk>(
    slot: Arc<Slot<RT, D>>,
    mut queue: MpscRx<RT, OneshotTx<RT, Answer>>,
    unconfirmed: bool,
) {
    let mut readers = Vec::new();
    while let Some(first) = queue.recv().await {
        readers.push(first);
        while let Ok(next) = queue.try_recv() {
            readers.push(next);
        }
        let answer = if unconfirmed { believe(&slot) } else { confirm(&slot).await };
        for reader in readers.drain(..) {
            // A reader may have gone meanwhile.
            drop(reader.send(answer.clone()));
        }
    }
}

/// A planted fault: who once led believes that it still does.
fn believe<RT: AsyncRuntime, D: Disk>(slot: &Slot<RT, D>) -> Answer {
    let instance = slot.current().ok_or(ReadError::Stopped)?;
    let metrics = instance.metrics();
    let metrics = metrics.borrow_watched();
    if metrics.current_leader == Some(metrics.id) {
        Ok(index_of(metrics.last_applied.map_or(0, |last| last.index)))
    } else {
        Err(ReadError::NotLeader { leader: metrics.current_leader.map(NodeId) })
    }
}

async fn confirm<RT: AsyncRuntime, D: Disk>(slot: &Slot<RT, D>) -> Answer {
    let lost = || match slot.has_ended() {
        true => ReadError::Stopped,
        false => ReadError::NotLeader { leader: None },
    };
    let instance = slot.current().ok_or_else(lost)?;
    let linearizer = match instance.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => linearizer,
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
            return Err(ReadError::NotLeader { leader: to.leader_id.map(NodeId) });
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
            return Err(ReadError::NoQuorum);
        }
        Err(RaftError::Fatal(_ended)) => return Err(lost()),
    };
    let ready = linearizer.await_ready(&instance).await.map_err(|_ended| lost())?;
    Ok(index_of(ready.read_log_id().index()))
}
