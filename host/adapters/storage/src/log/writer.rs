//! The one task that writes. It takes all that waits, makes it one write and one
//! sync, and tells every operation in order: *group commit by draining, never by
//! waiting*. What arrives meanwhile is the next batch.
//!
//! **Recycling.** A segment is freed once nothing in it counts. What still counts
//! in the oldest one (an idle group's entries, its vote, its marks) is written
//! again at the end of a batch, so that it neither pins the segment nor is lost
//! with it. Only the oldest is freed, so a truncation never goes before what it
//! hides. Writing again starts when the segments hold more than twice what is
//! live and [`SLACK`] more, so it costs at most about one byte a byte appended,
//! and each batch carries at most as much of it as it carries itself.
//!
//! **Errors are final.** After a failed write or sync nobody knows what is on the
//! disk, and a second sync that succeeds proves nothing (the kernel may have
//! dropped the pages). The log fails, every operation that waits is told so, and
//! only a new start, which reads the disk again, goes on. A full disk is no such
//! error: nothing is told or dropped, and what was taken waits (`space`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use openraft_rt::{AsyncRuntime, Select2, Watch, WatchReceiver, WatchSender};
use quorate_types::{Disk, Faults, GroupId};

use super::LogError;
use super::frame::{HEAD_BYTES, Head, Kind, SEGMENT_FRAME_BYTES, framed_bytes};
use super::pen::{Pen, wide};
use super::queue::{Act, BATCH_BYTES_MAX, Next, Shared, Waiting};
use super::space::{RETRY_AFTER, Space};
use super::tail::Tail;
use crate::disk_error::DiskError;

/// Segments that may hold nothing live before writing again begins: the active one, the one
/// before it and one to be recycled.
const SLACK: u64 = 3;
/// A small batch still carries this much of what is written again, so that freeing one segment
/// does not take thousands of batches.
const CLEAN_BYTES_MIN: usize = 256 << 10;

/// What is live of every group, by the segment it lies in.
pub(super) type Live = BTreeMap<GroupId, Tail<u64>>;

/// Ends the log whichever way the writer goes, a panic included.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        drop(self.0.end(None));
    }
}

/// The writing task.
pub(super) struct Writer<RT: AsyncRuntime, D: Disk> {
    shared: Arc<Shared>,
    pen: Pen<RT, D>,
    live: Live,
    /// Whether the oldest segments may be worth freeing.
    cleaning: bool,
    faults: Faults,
}

type Sender<RT> = <<RT as AsyncRuntime>::Watch as Watch>::Sender<u64>;
type Receiver<RT> = <<RT as AsyncRuntime>::Watch as Watch>::Receiver<u64>;

impl<RT: AsyncRuntime, D: Disk> Writer<RT, D> {
    pub(super) fn new(shared: Arc<Shared>, pen: Pen<RT, D>, live: Live, faults: Faults) -> Self {
        Self { shared, pen, live, cleaning: true, faults }
    }

    /// Writes until every handle is gone, the log is closed, or an error. `progress` counts
    /// batches and is dropped at the end.
    pub(super) async fn run(mut self, mut wake: Receiver<RT>, progress: Sender<RT>) {
        let _ending = Ending(Arc::clone(&self.shared));
        let space = Arc::clone(&self.shared.space);
        if let Err(error) = self.pen.look_ahead() {
            return self.fail(&Arc::new(LogError::from(error)));
        }
        loop {
            let next = self.shared.lock().next();
            match next {
                Next::Batch(mut batch, marks) => {
                    let written = self.write(&mut batch, marks).await;
                    let written = written.map_err(|error| Arc::new(LogError::from(error)));
                    let failed = written.as_ref().err().map(Arc::clone);
                    let counters = &self.shared.counters;
                    counters.written(self.pen.syncs, self.pen.bytes);
                    let (segment, end) = self.pen.durable();
                    counters.durable(segment, end);
                    if failed.is_none() {
                        counters.batch(batch.len());
                    }
                    if let Some(error) = &failed {
                        tracing::error!(error = %error, "the log has failed");
                        batch.extend(self.shared.end(Some(error)));
                    }
                    for done in batch.into_iter().filter_map(|waiting| waiting.done) {
                        done(written.clone());
                    }
                    if failed.is_some() {
                        return;
                    }
                    progress.send_if_modified(|batches| {
                        *batches += 1;
                        true
                    });
                }
                Next::Nothing => {
                    let woken = match RT::select2(wake.changed(), look_again::<RT>(&space)).await {
                        Select2::First(woken) => woken.is_ok(),
                        Select2::Second(()) => true,
                    };
                    if !woken {
                        return;
                    }
                    if let Err(error) = self.pen.look_ahead() {
                        self.fail(&Arc::new(LogError::from(error)));
                        return;
                    }
                    progress.send_if_modified(|_batches| true);
                }
                Next::Close(marks) => {
                    if let Err(error) = self.seal(marks).await {
                        drop(self.shared.end(Some(&Arc::new(LogError::from(error)))));
                    }
                    return;
                }
            }
        }
    }

    /// The log has failed between two batches: whoever waits for the next is told.
    fn fail(&self, error: &Arc<LogError>) {
        tracing::error!(%error, "the log has failed");
        let waiting = self.shared.end(Some(error));
        for done in waiting.into_iter().filter_map(|waiting| waiting.done) {
            done(Err(Arc::clone(error)));
        }
    }

    /// Makes a batch durable.
    async fn write(
        &mut self,
        batch: &mut [Waiting],
        marks: BTreeMap<GroupId, Bytes>,
    ) -> Result<(), DiskError> {
        let mut bytes = 0;
        // Mutable only because a `Done` may go to another thread but not be shared with one.
        for waiting in batch.iter_mut() {
            bytes += self.put(waiting.group, &waiting.act).await?;
        }
        self.put_marks(marks).await?;
        let released = self.clean(bytes).await?;
        if self.faults.append_acked_early {
            acknowledge_appends(batch);
        }
        self.pen.flush().await?;
        match released {
            Some(number) => self.pen.release(number).await,
            None => Ok(()),
        }
    }

    async fn put(&mut self, group: GroupId, act: &Act) -> Result<usize, DiskError> {
        let of_group = |kind| Head::of_group(kind, group);
        let mut bytes = 0;
        match act {
            Act::Append(records) => {
                for record in records {
                    let (index, term) = (record.index, record.term);
                    let head = Head { kind: Kind::Entry, group, index, term };
                    let place = self.pen.put(head, &record.payload).await?;
                    self.tail(group).append(record.clone(), place);
                    bytes += framed_bytes(record.payload.len());
                }
            }
            Act::Vote(_) if self.faults.vote_dropped => {}
            Act::Vote(vote) => {
                let mixed = self.faults.groups_mixed;
                let head = if mixed {
                    Head::of_group(Kind::Vote, GroupId::SYSTEM)
                } else {
                    of_group(Kind::Vote)
                };
                let place = self.pen.put(head, vote).await?;
                self.tail(group).set_vote(vote.clone(), place);
            }
            Act::Truncate(index) => {
                let head = Head { index: *index, ..of_group(Kind::Truncate) };
                self.pen.put(head, &[]).await?;
                self.tail(group).truncate_after(*index);
            }
            Act::Purge(index, term) => {
                let head = Head { index: *index, term: *term, ..of_group(Kind::Purge) };
                let place = self.pen.put(head, &[]).await?;
                self.tail(group).purge_upto(*index, *term, place);
            }
        }
        Ok(bytes)
    }

    fn tail(&mut self, group: GroupId) -> &mut Tail<u64> {
        self.live.entry(group).or_default()
    }

    async fn put_marks(&mut self, marks: BTreeMap<GroupId, Bytes>) -> Result<(), DiskError> {
        for (group, mark) in marks {
            let place = self.pen.put(Head::of_group(Kind::Committed, group), &mark).await?;
            self.tail(group).set_committed(mark, place);
        }
        Ok(())
    }

    async fn seal(&mut self, marks: BTreeMap<GroupId, Bytes>) -> Result<(), DiskError> {
        self.put_marks(marks).await?;
        self.pen.put(Head::of_group(Kind::Seal, GroupId(0)), &[]).await?;
        self.pen.finish().await
    }

    /// Puts what lets the oldest segments be freed, and says up to which one that holds after the
    /// next flush. `carried` is what the batch itself has put, bytes.
    async fn clean(&mut self, carried: usize) -> Result<Option<u64>, DiskError> {
        self.cleaning |= self.pen.take_rolled();
        let mut left = carried.clamp(CLEAN_BYTES_MIN, BATCH_BYTES_MAX);
        let mut oldest = self.pen.segments().first();
        while self.cleaning {
            let weights = self.weigh();
            let active = self.pen.segments().active().number;
            while oldest < active && !weights.contains_key(&oldest) {
                oldest += 1;
            }
            if oldest < active && self.crowded(active - oldest + 1, &weights) {
                if left == 0 {
                    break;
                }
                left = self.write_again(oldest, left).await?;
            } else {
                self.cleaning = false;
            }
        }
        if oldest == self.pen.segments().first() {
            return Ok(None);
        }
        let released = oldest - 1;
        self.pen.put(Head::of_segment(Kind::Released, released), &[]).await?;
        Ok(Some(released))
    }

    /// Live bytes by segment.
    fn weigh(&self) -> BTreeMap<u64, u64> {
        let mut weights = BTreeMap::new();
        let mut add = |place: u64, body: usize| {
            let bytes = u64::try_from(framed_bytes(body)).unwrap_or(u64::MAX);
            *weights.entry(place).or_insert(0) += bytes;
        };
        for tail in self.live.values() {
            let (purged, vote, committed) = tail.marks();
            purged.into_iter().for_each(|place| add(place, 0));
            if !self.faults.vote_not_carried {
                vote.into_iter().for_each(|place| add(place, tail.vote().map_or(0, Bytes::len)));
            }
            let mark_bytes = tail.committed().map_or(0, Bytes::len);
            committed.into_iter().for_each(|place| add(place, mark_bytes));
            tail.entries().for_each(|(record, place)| add(place, record.payload.len()));
        }
        weights
    }

    /// Whether so many segments are too many for what is live. Packed frames fill every segment
    /// but the last by more than half (any two neighbours overflow one), so writing all again
    /// always ends this.
    fn crowded(&self, segments: u64, weights: &BTreeMap<u64, u64>) -> bool {
        let room = wide(self.pen.segments().size()) - SEGMENT_FRAME_BYTES;
        let live: u64 = weights.values().sum();
        segments > 2 * live / u64::try_from(room).unwrap_or(u64::MAX) + SLACK
    }

    /// Puts up to `left` bytes of what is live in segment `oldest` again; what is left of them.
    async fn write_again(&mut self, oldest: u64, mut left: usize) -> Result<usize, DiskError> {
        let groups: Vec<GroupId> = self.live.keys().copied().collect();
        for group in groups {
            self.write_marks_again(group, oldest).await?;
            let entries: Vec<_> = {
                let live = self.tail(group).entries().filter(|(_, place)| *place == oldest);
                live.map(|(record, _)| record.clone()).collect()
            };
            for record in entries {
                if left == 0 {
                    return Ok(0);
                }
                let (index, term) = (record.index, record.term);
                let head = Head { kind: Kind::Entry, group, index, term };
                let place = self.pen.put(head, &record.payload).await?;
                self.tail(group).place(index, place);
                left = left.saturating_sub(framed_bytes(record.payload.len()));
            }
        }
        Ok(left.saturating_sub(HEAD_BYTES))
    }

    async fn write_marks_again(&mut self, group: GroupId, oldest: u64) -> Result<(), DiskError> {
        let forgets = self.faults.vote_not_carried;
        let tail = self.tail(group);
        let (purged, vote, committed) = tail.marks();
        let here = |place: Option<u64>| place == Some(oldest);
        let purge = tail.purged().filter(|_| here(purged));
        let vote = tail.vote().filter(|_| here(vote) && !forgets).cloned();
        let mark = tail.committed().filter(|_| here(committed)).cloned();
        if let Some((index, term)) = purge {
            let head = Head { kind: Kind::Purge, group, index, term };
            let place = self.pen.put(head, &[]).await?;
            self.tail(group).purge_upto(index, term, place);
        }
        if let Some(vote) = vote {
            let place = self.pen.put(Head::of_group(Kind::Vote, group), &vote).await?;
            self.tail(group).set_vote(vote, place);
        }
        if let Some(mark) = mark {
            let place = self.pen.put(Head::of_group(Kind::Committed, group), &mark).await?;
            self.tail(group).set_committed(mark, place);
        }
        Ok(())
    }
}

/// Returns when a full disk is worth another look; never while it is not full.
async fn look_again<RT: AsyncRuntime>(space: &Space) {
    if space.is_full() {
        RT::sleep(RETRY_AFTER).await;
    } else {
        std::future::pending().await
    }
}

/// A planted fault: appends are told they are durable before they are.
fn acknowledge_appends(batch: &mut [Waiting]) {
    for waiting in batch {
        if matches!(waiting.act, Act::Append(_))
            && let Some(done) = waiting.done.take()
        {
            done(Ok(()));
        }
    }
}
