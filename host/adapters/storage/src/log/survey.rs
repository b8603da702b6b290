//! The log as it lies on a disk, for people: which segments there are and what is in
//! them, and what a start would make of it. Changes nothing.

use std::collections::BTreeMap;

use quorate_types::{Disk, DiskFile, GroupId, Index, Open};

use super::frame::{Framing, Kind, SegmentBody};
use super::pen::narrow;
use super::recover::understand;
use super::segments::{DIR, number_of};
use super::tail::Tail;
use super::writer::Live;
use super::{LogOptions, OpenError, Recovered, report};
use crate::disk_error::{DiskError, failed};
use crate::record::Record;

/// One segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSurvey {
    /// Its path.
    pub file: String,
    /// Its number.
    pub number: u64,
    /// The file's length, bytes.
    pub bytes: u64,
    /// What it is.
    pub state: SegmentState,
    /// Where its frames end, bytes.
    pub used: u64,
    /// Frames in it.
    pub frames: u64,
    /// Entries among them, by group: how many, the first and the last.
    pub entries: BTreeMap<GroupId, (u64, Index, Index)>,
}

/// What a segment is to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// It counts.
    Live,
    /// All in it was written again or purged; its file waits to be used again.
    Free,
    /// Its first frame is not this segment's: taken up and never written, or damaged.
    Unwritten,
}

/// All of a log.
#[derive(Debug)]
pub struct LogSurvey {
    /// Its segments, in order.
    pub segments: Vec<SegmentSurvey>,
    /// What a start would find, or why it would refuse.
    pub recovered: Result<Recovered, OpenError>,
    live: Live,
}

impl LogSurvey {
    /// Looks at the log in `log/` of `disk`.
    pub async fn take<D: Disk>(disk: &D, options: &LogOptions) -> Result<Self, DiskError> {
        let (first, live, recovered) = match understand(disk, options).await {
            Ok(understood) => {
                let groups = report(&understood.live);
                let (torn_bytes, sealed) = (understood.torn_bytes(), understood.sealed);
                let recovered = Recovered { groups, torn_bytes, sealed };
                (understood.first, understood.live, Ok(recovered))
            }
            Err(OpenError::Disk(error)) => return Err(error),
            Err(error) => (0, Live::new(), Err(error)),
        };
        let mut segments = Vec::new();
        for name in disk.list(DIR).await.map_err(failed("list", DIR))? {
            if let Some(number) = number_of(&name) {
                segments.push(look(disk, options, number, first).await?);
            }
        }
        Ok(Self { segments, recovered, live })
    }

    /// A group's live entries, in order.
    pub fn records(&self, group: GroupId) -> Vec<Record> {
        let everything = Index(0)..Index(u64::MAX);
        self.live.get(&group).map(|tail: &Tail<u64>| tail.read(&everything)).unwrap_or_default()
    }
}

async fn look<D: Disk>(
    disk: &D,
    options: &LogOptions,
    number: u64,
    first: u64,
) -> Result<SegmentSurvey, DiskError> {
    let file = super::segments::path_of(number);
    let handle = disk.open(&file, Open::Existing).await.map_err(failed("open", &file))?;
    let bytes = handle.len().await.map_err(failed("read", &file))?;
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    let content = handle.read_at(0, length).await.map_err(failed("read", &file))?;
    let framing = Framing::new(options.directory, number);
    let mut survey = SegmentSurvey {
        file,
        number,
        bytes,
        state: SegmentState::Unwritten,
        used: 0,
        frames: 0,
        entries: BTreeMap::new(),
    };
    let mut end = 0;
    while let Ok(frame) = framing.read(&content, end) {
        if end == 0 && SegmentBody::decode(frame.body).is_some() {
            survey.state = if number < first { SegmentState::Free } else { SegmentState::Live };
        }
        if frame.head.kind == Kind::Entry {
            let index = frame.head.index;
            let entries = survey.entries.entry(frame.head.group).or_insert((0, index, index));
            *entries = (entries.0 + 1, entries.1.min(index), entries.2.max(index));
        }
        survey.frames += 1;
        end = frame.end;
    }
    survey.used = u64::from(narrow(end));
    Ok(survey)
}
