//! What a start finds. Segments are read in order and their frames replayed;
//! what an interrupted write left at the end is dropped, and any other damage is
//! refused with the place and what to do about it. Nothing is changed on the disk
//! before all of it has been understood.
//!
//! Found by a start and then trusted means *made durable first*: after a killed
//! process the last write may lie in the kernel's memory only, so the active
//! segment is synced before its frames count.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_types::{Disk, DiskFile, Open};

use super::frame::{
    ALIGN, FORMAT, Frame, Framing, Kind, NoFrame, SEGMENT_FRAME_BYTES, SegmentBody, format_of,
};
use super::pen::{narrow, wide};
use super::replay::Replay;
use super::segments::{Active, DIR, NEW, SPARE, is_usable, number_of, path_of};
use super::writer::Live;
use super::{LogOptions, OpenError};
use crate::disk_error::{DiskError, failed};

/// A log as found.
pub(super) struct Found<F> {
    pub(super) live: Live,
    /// The lowest segment that counts.
    pub(super) first: u64,
    /// Where writing goes on, if anything was ever written.
    pub(super) active: Option<(Active<F>, u32)>,
    /// Files that can be used again.
    pub(super) free: Vec<String>,
    /// Bytes of the last write that were dropped.
    pub(super) torn_bytes: u64,
    /// Whether the last life closed the log.
    pub(super) sealed: bool,
}

/// One segment as read.
pub(super) struct Segment<F> {
    file: F,
    size: u32,
    /// Where the frames end.
    end: usize,
    /// Where the last readable frame behind that ends.
    readable_to: usize,
}

/// What the first frame of each written segment says, or why it says nothing.
type Heads = BTreeMap<u64, Result<SegmentBody, OpenError>>;

/// What lies on the disk, understood and not changed.
pub(super) struct Understood<F> {
    pub(super) live: Live,
    pub(super) first: u64,
    /// The last written segment, if anything was ever written.
    last: Option<(u64, Segment<F>)>,
    /// Segments that hold nothing that counts.
    dead: Vec<u64>,
    pub(super) sealed: bool,
}

impl<F> Understood<F> {
    /// Bytes that an unfinished write left readable behind the end.
    pub(super) fn torn_bytes(&self) -> u64 {
        let torn = self.last.as_ref().map_or(0, |(_, segment)| segment.readable_to - segment.end);
        u64::from(narrow(torn))
    }
}

/// Reads the log; whatever stands against it going on is an error.
pub(super) async fn understand<D: Disk>(
    disk: &D,
    options: &LogOptions,
) -> Result<Understood<D::File>, OpenError> {
    let names = disk.list(DIR).await.map_err(failed("list", DIR))?;
    let files: BTreeSet<u64> = names.iter().filter_map(|name| number_of(name)).collect();
    let heads = read_heads(disk, options, &files).await?;
    let written: BTreeSet<u64> = heads.keys().copied().collect();
    let told = heads.values().flatten().map(|body| body.first).max();
    let told = told.unwrap_or(1);
    let mut replay = Replay::default();
    let last = read_segments(disk, options, told, heads, &mut replay).await?;
    let first = told.max(replay.released() + 1);
    let sealed = replay.sealed();
    let live = replay.finish()?;
    let dead = written.range(..first).copied().collect();
    Ok(Understood { live, first, last, dead, sealed })
}

/// Reads the log and makes it ready to be gone on with.
pub(super) async fn recover<D: Disk>(
    disk: &D,
    options: &LogOptions,
) -> Result<Found<D::File>, OpenError> {
    disk.create_dir(DIR).await.map_err(failed("create", DIR))?;
    disk.sync_dir("").await.map_err(failed("sync", "the data directory"))?;
    let Understood { live, first, last, dead, sealed } = understand(disk, options).await?;
    let free = clear_away(disk, options, &dead).await?;
    let Some((number, segment)) = last else {
        return Ok(Found { live, first: 1, active: None, free, torn_bytes: 0, sealed });
    };
    assert!(first <= number, "the active segment is never released");
    let torn_bytes = make_sure(&segment, number).await?;
    let active = Active { file: segment.file, number, size: segment.size };
    let active = Some((active, narrow(segment.end)));
    Ok(Found { live, first, active, free, torn_bytes, sealed })
}

/// The heads of all segments that were ever written. Only the newest file may be an unwritten one,
/// and it was taken up because the one before it was full; whatever else it shows was exchanged.
async fn read_heads<D: Disk>(
    disk: &D,
    options: &LogOptions,
    files: &BTreeSet<u64>,
) -> Result<Heads, OpenError> {
    let mut heads = Heads::new();
    let newest = files.last().copied().unwrap_or(0);
    for &number in files {
        let path = path_of(number);
        let file = disk.open(&path, Open::Existing).await.map_err(failed("open", &path))?;
        let start = file.read_at(0, SEGMENT_FRAME_BYTES).await.map_err(failed("read", &path))?;
        let framing = Framing::new(options.directory, number);
        let head = match framing.read(&start, 0) {
            Ok(frame) => segment_body(&frame, &path),
            Err(NoFrame::Unknown { kind, version }) => {
                Err(OpenError::Unknown { file: path, offset: 0, kind, version })
            }
            Err(NoFrame::Unreadable | NoFrame::BadBody) => {
                if let Some(found) = misplaced(options, files, number, &start) {
                    return Err(OpenError::Misplaced { file: path, found });
                }
                let size = file.len().await.map_err(failed("read", &path))?;
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let bytes = file.read_at(0, size).await.map_err(failed("read", &path))?;
                let claimed = Framing::claimed(&start) == Some(number);
                if number == newest && !claimed && behind(&framing, &bytes, 0).1 == 0 {
                    // Taken up and never written, or torn in its first write.
                    continue;
                }
                let reason = "its first frame is damaged, or belongs to another data directory";
                Err(damaged(&path, 0, reason))
            }
        };
        heads.insert(number, head);
    }
    if newest > 1 && !heads.contains_key(&newest) && !heads.contains_key(&(newest - 1)) {
        return Err(OpenError::Missing { file: path_of(newest - 1) });
    }
    Ok(heads)
}

/// Which other segment's first frame this is, sound, where a file that was renamed in order does
/// not have it: one goes from a lower number, which it leaves, to the newest.
fn misplaced(
    options: &LogOptions,
    files: &BTreeSet<u64>,
    number: u64,
    start: &[u8],
) -> Option<u64> {
    let found = Framing::claimed(start).filter(|found| *found != number)?;
    Framing::new(options.directory, found).read(start, 0).ok()?;
    let renamed = found < number && files.last() == Some(&number) && !files.contains(&found);
    (!renamed).then_some(found)
}

fn segment_body(frame: &Frame<'_>, path: &str) -> Result<SegmentBody, OpenError> {
    let found = format_of(frame.body);
    if found != FORMAT {
        return Err(OpenError::Format { file: path.to_owned(), found, known: FORMAT });
    }
    let body = SegmentBody::decode(frame.body).filter(|_| frame.head.kind == Kind::Segment);
    body.ok_or_else(|| damaged(path, 0, "its first frame is not a segment's"))
}

/// Replays every written segment from `first` on and returns the last one. What is wrong with a
/// segment that a later one says was released does not matter.
async fn read_segments<D: Disk>(
    disk: &D,
    options: &LogOptions,
    first: u64,
    mut heads: Heads,
    replay: &mut Replay,
) -> Result<Option<(u64, Segment<D::File>)>, OpenError> {
    let Some(&newest) = heads.keys().next_back() else {
        return Ok(None);
    };
    let mut problem = None;
    let mut last = None;
    for number in first..=newest {
        let next = heads.get(&(number + 1)).and_then(|next| next.as_ref().ok());
        let next = next.map(|next| wide(next.previous_end));
        let segment = match heads.remove(&number) {
            Some(Ok(head)) => read_segment(disk, options, (number, head), next, replay).await,
            Some(Err(error)) => Err(error),
            None => Err(OpenError::Missing { file: path_of(number) }),
        };
        match segment {
            Ok(segment) => last = Some((number, segment)),
            Err(OpenError::Disk(error)) => return Err(OpenError::Disk(error)),
            Err(error) => problem = Some((number, error)),
        }
    }
    match problem {
        Some((number, error)) if number > replay.released() => Err(error),
        Some(_) | None => Ok(last),
    }
}

/// Replays one segment. `next` is where its successor says that it ends.
async fn read_segment<D: Disk>(
    disk: &D,
    options: &LogOptions,
    (number, head): (u64, SegmentBody),
    next: Option<usize>,
    replay: &mut Replay,
) -> Result<Segment<D::File>, OpenError> {
    let path = path_of(number);
    let file = disk.open(&path, Open::Existing).await.map_err(failed("open", &path))?;
    let bytes = file.read_at(0, wide(head.size)).await.map_err(failed("read", &path))?;
    if bytes.len() < wide(head.size) {
        return Err(damaged(&path, bytes.len(), "the file was cut short"));
    }
    let framing = Framing::new(options.directory, number);
    let mut end = 0;
    loop {
        match framing.read(&bytes, end) {
            Ok(frame) => {
                replay.apply(&frame, number);
                end = frame.end;
            }
            Err(NoFrame::Unknown { kind, version }) => {
                return Err(OpenError::Unknown { file: path, offset: end, kind, version });
            }
            Err(NoFrame::Unreadable | NoFrame::BadBody) => break,
        }
    }
    let (readable_to, durable_to) = match next {
        Some(previous_end) => (end, previous_end),
        None => behind(&framing, &bytes, end),
    };
    if end < durable_to {
        return Err(damaged(&path, end, "a frame that was durable cannot be read"));
    }
    Ok(Segment { file, size: head.size, end, readable_to })
}

/// Where the last readable frame behind `end` ends, and up to where such frames prove that the
/// segment was durable.
fn behind(framing: &Framing, bytes: &[u8], end: usize) -> (usize, usize) {
    let (mut readable_to, mut witness) = (end, 0);
    for at in (end..bytes.len()).step_by(ALIGN) {
        if let Ok(frame) = framing.read(bytes, at) {
            witness = witness.max(frame.witness);
            readable_to = readable_to.max(frame.end);
        }
    }
    (readable_to, witness)
}

/// Removes what can be read behind the end, so that no later frame makes it follow, and makes all
/// that was read durable. Returns how much was removed, bytes.
async fn make_sure<F: DiskFile>(segment: &Segment<F>, number: u64) -> Result<u64, DiskError> {
    let path = path_of(number);
    let torn = segment.readable_to - segment.end;
    if torn > 0 {
        let offset = u64::from(narrow(segment.end));
        let zeroes = Bytes::from(vec![0; torn]);
        segment.file.write_at(offset, zeroes).await.map_err(failed("write", &path))?;
        tracing::warn!(file = path, offset, torn, "dropped an unfinished write");
    }
    segment.file.sync().await.map_err(failed("sync", &path))?;
    Ok(u64::from(narrow(torn)))
}

/// Removes a half-made file and keeps dead segments for use. A file that was taken up and never
/// written stays until the rename to its number replaces it.
async fn clear_away<D: Disk>(
    disk: &D,
    options: &LogOptions,
    dead: &[u64],
) -> Result<Vec<String>, DiskError> {
    let names = disk.list(DIR).await.map_err(failed("list", DIR))?;
    let mut gone = Vec::new();
    if names.iter().any(|name| NEW.ends_with(name.as_str())) {
        gone.push(NEW.to_owned());
    }
    let mut free = Vec::new();
    let spare = names.iter().any(|name| SPARE.ends_with(name.as_str())).then(|| SPARE.to_owned());
    for path in dead.iter().map(|number| path_of(*number)).chain(spare) {
        if is_usable(disk, &path, options.segment_bytes).await? {
            free.push(path);
        } else {
            gone.push(path);
        }
    }
    for path in gone {
        disk.remove(&path).await.map_err(failed("remove", &path))?;
    }
    disk.sync_dir(DIR).await.map_err(failed("sync", DIR))?;
    Ok(free)
}

fn damaged(path: &str, offset: usize, reason: &'static str) -> OpenError {
    OpenError::Damaged { file: path.to_owned(), offset, reason }
}
