//! openraft's state machine over the machine and the snapshot store.
//!
//! A snapshot is taken of a frozen copy (a few reference counts), written and
//! made durable off the path that applies, and read back when a follower needs
//! it. The newest one on disk always wins: one that was frozen earlier and is
//! written later is not written at all.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use openraft_rt::{AsyncRuntime, Instant, Mutex as _};
use quorate_ledger::Ledger;
use quorate_storage::Snapshots;
use quorate_types::{Disk, GroupId, Index, Term};

use crate::machine::{Frozen, Machine};
use crate::record;
use crate::types::{
    Entry, Framed, LogId, Snapshot, SnapshotMeta, StoredMembership, Tc, index_or_none, log_id,
    term_of,
};

/// Entries applied under one lock and published as one view. openraft hands over what is committed
/// at once, which after a restart may be a whole log.
const BATCH_MAX: usize = 1_024;

/// How often a snapshot that found the disk full is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The group's snapshots, one writer at a time.
pub(crate) struct Shelf<RT: AsyncRuntime, D: Disk> {
    group: GroupId,
    snapshots: Snapshots<D>,
    newest: RT::Mutex<Index>,
}

impl<RT: AsyncRuntime, D: Disk> Shelf<RT, D> {
    pub(crate) fn new(group: GroupId, snapshots: Snapshots<D>) -> Self {
        Self { group, snapshots, newest: RT::Mutex::new(Index(0)) }
    }

    /// The newest snapshot on disk.
    pub(crate) async fn latest(&self) -> io::Result<Option<Snapshot>> {
        let latest = self.snapshots.latest(self.group).await.map_err(io::Error::other)?;
        let Some((meta, body)) = latest else { return Ok(None) };
        let last_membership =
            record::decode_membership(&meta.membership).map_err(io::Error::other)?;
        let meta = SnapshotMeta { last_log_id: log_id(meta.index, meta.term), last_membership };
        Ok(Some(Snapshot { meta, snapshot: body }))
    }

    /// Makes it the newest on disk. Waits for space while it is `wanted`: a snapshot frees the log
    /// that it holds, and a failure would end the group.
    async fn write(
        &self,
        meta: &SnapshotMeta,
        body: Bytes,
        wanted: impl Fn() -> bool + Send,
    ) -> io::Result<()> {
        let mut newest = self.newest.lock().await;
        let index = index_or_none(meta.last_log_id.as_ref());
        if index < *newest {
            return Ok(());
        }
        let stored = quorate_storage::SnapshotMeta {
            index,
            term: meta.last_log_id.as_ref().map_or(Term(0), term_of),
            membership: record::encode_membership(&meta.last_membership),
        };
        while let Err(error) = self.snapshots.write(self.group, stored.clone(), body.clone()).await
        {
            if !error.is_full() || !wanted() {
                return Err(io::Error::other(error));
            }
            tracing::warn!(group = %self.group, %error, "the disk is full; it is tried again");
            RT::sleep(RETRY_AFTER).await;
        }
        *newest = index;
        Ok(())
    }
}

/// Work on a whole state, off the thread of its caller: a large one takes seconds, and heartbeats
/// must not wait for it. A seeded runtime has no threads, and does it in place.
async fn aside<RT: AsyncRuntime, T: Send + 'static>(
    work: impl Fn() -> T + Clone + Send + 'static,
) -> io::Result<T> {
    match RT::spawn_blocking(work.clone()).await {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(work()),
        done => done,
    }
}

/// A planted fault: ledger time as this node has it, in place of the leader's stamp.
fn stamp_anew(entries: &mut [Entry], since: Duration) {
    for entry in entries {
        if let EntryPayload::Normal(command) = &entry.payload
            && let Some((head, rest)) = command.entry().split_first_chunk::<4>()
            && let Some((at, body)) = rest.split_first_chunk::<8>()
        {
            let by_us = u64::try_from(since.as_micros()).unwrap_or(0);
            let at = u64::from_be_bytes(*at).saturating_add(by_us);
            let stamped = [head.as_slice(), &at.to_be_bytes(), body].concat();
            entry.payload = EntryPayload::Normal(Framed::command(&stamped));
        }
    }
}

/// The state machine of one openraft instance.
pub(crate) struct StateMachine<RT: AsyncRuntime, D: Disk> {
    machine: Arc<Machine>,
    shelf: Arc<Shelf<RT, D>>,
    generation: u64,
    /// Gone with this instance, and then nobody wants its snapshots.
    alive: Arc<()>,
    /// When it began, for who stamps anew.
    origin: RT::Instant,
}

impl<RT: AsyncRuntime, D: Disk> StateMachine<RT, D> {
    /// Fences every earlier instance's.
    pub(crate) fn new(machine: Arc<Machine>, shelf: Arc<Shelf<RT, D>>) -> Self {
        let generation = machine.next_generation();
        let origin = <RT::Instant as Instant>::now();
        Self { machine, shelf, generation, alive: Arc::default(), origin }
    }

    /// Puts the newest snapshot on disk in place, when a node starts.
    pub(crate) async fn restore(&self) -> io::Result<()> {
        let Some(snapshot) = self.shelf.latest().await? else { return Ok(()) };
        let index = index_or_none(snapshot.meta.last_log_id.as_ref());
        *self.shelf.newest.lock().await = index;
        let ledger = self.read(snapshot.snapshot).await?;
        self.machine.install(self.generation, &snapshot.meta, ledger)
    }

    /// The state in a snapshot, read aside as it is written.
    async fn read(&self, body: Bytes) -> io::Result<Ledger> {
        let machine = Arc::clone(&self.machine);
        aside::<RT, _>(move || machine.read_snapshot(&body)).await?.map_err(io::Error::other)
    }
}

impl<RT: AsyncRuntime, D: Disk> RaftStateMachine<Tc<RT>> for StateMachine<RT, D> {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder<RT, D>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.machine.applied())
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Tc<RT>>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(BATCH_MAX);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.into_iter().collect::<Result<Vec<_>, io::Error>>()?;
            let (mut entries, responders): (Vec<_>, Vec<_>) = chunk.into_iter().unzip();
            if self.machine.stamps_anew() {
                stamp_anew(&mut entries, <RT::Instant as Instant>::now() - self.origin);
            }
            let batch = self.machine.apply(self.generation, &entries);
            // The view is out, so whoever gets an answer can read what it speaks of.
            for (responder, outcome) in responders.into_iter().zip(batch.outcomes) {
                if let Some(responder) = responder {
                    responder.send(outcome);
                }
            }
            batch.failure.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder<RT, D>> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder<RT, D> {
        let (frozen, shelf) = (self.machine.freeze(), Arc::clone(&self.shelf));
        Builder { frozen, shelf, wanted: Arc::downgrade(&self.alive) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Bytes,
    ) -> Result<(), io::Error> {
        // Read it first: what cannot be read must not become the newest on disk.
        let ledger = self.read(snapshot.clone()).await?;
        self.shelf.write(meta, snapshot, || true).await?;
        self.machine.install(self.generation, meta, ledger)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.shelf.latest().await
    }
}

/// Takes one snapshot.
pub(crate) struct Builder<RT: AsyncRuntime, D: Disk> {
    frozen: Frozen,
    shelf: Arc<Shelf<RT, D>>,
    wanted: Weak<()>,
}

impl<RT: AsyncRuntime, D: Disk> RaftSnapshotBuilder<Tc<RT>> for Builder<RT, D> {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let ledger = self.frozen.ledger.clone();
        let body = aside::<RT, _>(move || ledger.snapshot()).await?;
        let meta = self.frozen.meta.clone();
        self.shelf.write(&meta, body.clone(), || self.wanted.strong_count() > 0).await?;
        Ok(Snapshot { meta, snapshot: body })
    }
}
