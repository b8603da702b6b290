//! A damaged log is written anew from what the other voters have.
//!
//! Damage within what was durable may have held anything of any group: a vote, an
//! entry that was acknowledged, a truncation of what lies before it. So nothing of
//! the damaged log is trusted, and what is readable only says which groups there
//! are ([`Salvage`]). Until it is written anew the node neither votes nor appends,
//! since its log does not open.
//!
//! What makes a node sound again, by group, each read from the others *after* this
//! node's last life has ended, and **all** other voters having answered:
//!
//! * *Votes.* This node may have voted for another in any term up to the highest
//!   that any other voter knows, as a candidate keeps its term before it asks. Its
//!   new vote is for itself in that term, or a higher one that is readable here, so
//!   that it grants no vote in a term in which it may have granted one. A vote for
//!   itself that nobody heard of elected nobody, and answers to it find nobody.
//! * *Entries.* Of two or more voters, a committed entry that this node acknowledged
//!   is on at least one other. Among all others' logs the one with the highest (last
//!   term, last index) has every committed entry: its last entry came from a leader
//!   of that term, whose log had every entry committed in terms before (leader
//!   completeness), and of its own term no other log has more of it. The new log is
//!   a copy of that one, with its purge mark; a snapshot that ends at the mark or
//!   behind it is put in place first.
//! * *The end of it.* What only this node had is lost; none of it was committed.
//!
//! Alone in its group a node has nobody to ask: it stays refused. So it does while
//! another voter does not answer, were it for damage of its own.
//!
//! The new log lies in `repair/log/` until it is whole and durable. Its numbers
//! begin behind the highest that was ever used, so that no stale frame is read and
//! the log's position does not go back. Its segments then move, the first of them
//! last: until that one is there a start finds it missing and refuses, and with it
//! everything below is free.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use quorate_types::{Disk, GroupId, Index, Open, Term};

use super::frame::{Framing, Head, Kind};
use super::pen::{Pen, body_bytes_max};
use super::segments::{DIR, Segments, number_of, path_of};
use super::space::Space;
use super::{LogOptions, OpenError, SubmitError};
use crate::beneath::Beneath;
use crate::disk_error::{DiskError, failed};
use crate::record::Record;

/// The folder in which a log is written anew.
const REPAIR: &str = "repair";

/// What is left of a damaged log.
#[derive(Debug)]
pub struct Salvage {
    /// What is wrong with it.
    pub damage: OpenError,
    /// Groups of which something is readable.
    pub groups: BTreeMap<GroupId, Remains>,
    newest: u64,
}

/// What is readable of one group. The damaged places may have held more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Every vote that is readable, oldest first. Older ones may have been superseded.
    pub votes: Vec<Bytes>,
    /// The highest term of an entry or a purge mark.
    pub term: Term,
    /// The lowest and the highest index of an entry.
    pub entries: Option<(Index, Index)>,
}

/// A group as it is written anew.
#[derive(Clone, Debug, Default)]
pub struct Anew {
    /// Its vote.
    pub vote: Option<Bytes>,
    /// Its committed mark.
    pub committed: Option<Bytes>,
    /// Up to where it is purged, which a snapshot holds.
    pub purged: Option<(Index, Term)>,
    /// Its entries behind that.
    pub records: Vec<Record>,
}

/// Why a log is not written anew. The damaged one is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What it is to hold is not a log.
    #[error("group {group} cannot be written anew: {source}")]
    Refused {
        /// The group.
        group: GroupId,
        /// Why.
        source: SubmitError,
    },
}

impl Salvage {
    /// Looks at a log that `error` keeps from opening; none where the others cannot help, since
    /// nothing is damaged: another format, a newer program, files under wrong names.
    pub async fn of<D: Disk>(
        disk: &D,
        options: &LogOptions,
        error: OpenError,
    ) -> Result<Result<Self, OpenError>, DiskError> {
        match &error {
            OpenError::Damaged { .. } | OpenError::Missing { .. } | OpenError::Hole { .. } => {}
            OpenError::Disk(_)
            | OpenError::Misplaced { .. }
            | OpenError::Format { .. }
            | OpenError::Unknown { .. }
            | OpenError::SegmentBytes { .. } => return Ok(Err(error)),
        }
        let mut salvage = Self { damage: error, groups: BTreeMap::new(), newest: 0 };
        let names = disk.list(DIR).await.map_err(failed("list", DIR))?;
        for number in names.iter().filter_map(|name| number_of(name)) {
            salvage.newest = salvage.newest.max(number);
            salvage.read_segment(disk, options, number).await?;
        }
        Ok(Ok(salvage))
    }

    async fn read_segment<D: Disk>(
        &mut self,
        disk: &D,
        options: &LogOptions,
        number: u64,
    ) -> Result<(), DiskError> {
        use quorate_types::DiskFile as _;
        let path = path_of(number);
        let file = disk.open(&path, Open::Existing).await.map_err(failed("open", &path))?;
        let bytes = file.len().await.map_err(failed("read", &path))?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let bytes = file.read_at(0, bytes).await.map_err(failed("read", &path))?;
        let framing = Framing::new(options.directory, number);
        let mut at = 0;
        while at < bytes.len() {
            let Ok(frame) = framing.read(&bytes, at) else {
                at += super::frame::ALIGN;
                continue;
            };
            at = frame.end;
            let Head { kind, group, index, term } = frame.head;
            match kind {
                Kind::Segment | Kind::Released | Kind::Seal => {}
                Kind::Committed | Kind::Truncate => {
                    self.groups.entry(group).or_default();
                }
                Kind::Vote => {
                    let vote = Bytes::copy_from_slice(frame.body);
                    self.groups.entry(group).or_default().votes.push(vote);
                }
                Kind::Purge | Kind::Entry => {
                    let remains = self.groups.entry(group).or_default();
                    remains.term = remains.term.max(term);
                    if kind == Kind::Entry {
                        let (first, last) = remains.entries.unwrap_or((index, index));
                        remains.entries = Some((first.min(index), last.max(index)));
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts a log of these groups in place of the damaged one, durable when this returns. Called
    /// within a task.
    pub async fn rewrite<RT: AsyncRuntime, D: Disk>(
        &self,
        _runtime: PhantomData<RT>,
        disk: &D,
        options: &LogOptions,
        groups: BTreeMap<GroupId, Anew>,
    ) -> Result<(), RewriteError> {
        check(&groups, options)?;
        let scratch = Beneath::new(disk.clone(), REPAIR);
        scratch.create_dir(DIR).await.map_err(failed("create", REPAIR))?;
        disk.sync_dir("").await.map_err(failed("sync", "the data directory"))?;
        disk.sync_dir(REPAIR).await.map_err(failed("sync", REPAIR))?;
        for name in scratch.list(DIR).await.map_err(failed("list", REPAIR))? {
            let path = format!("{DIR}/{name}");
            scratch.remove(&path).await.map_err(failed("remove", &path))?;
        }
        let first = self.newest + 1;
        let space = Arc::new(Space::new(options.segment_bytes));
        // Nobody may wait here for a full disk: a repair is tried again by the next start.
        space.desert();
        let segments =
            Segments::<RT, _>::begin(scratch.clone(), options.segment_bytes, first, space).await?;
        let mut pen = Pen::new(segments, options.directory, 0);
        for (group, anew) in groups {
            put(&mut pen, group, anew).await?;
        }
        pen.put(Head::of_group(Kind::Seal, GroupId(0)), &[]).await?;
        pen.finish().await?;
        put_in_place(disk, &scratch).await?;
        tracing::warn!(damage = %self.damage, first, "the log was written anew from other voters'");
        Ok(())
    }
}

async fn put<RT: AsyncRuntime, D: Disk>(
    pen: &mut Pen<RT, D>,
    group: GroupId,
    anew: Anew,
) -> Result<(), DiskError> {
    if let Some((index, term)) = anew.purged {
        pen.put(Head { kind: Kind::Purge, group, index, term }, &[]).await?;
    }
    for Record { index, term, payload } in anew.records {
        pen.put(Head { kind: Kind::Entry, group, index, term }, &payload).await?;
    }
    for (kind, body) in [(Kind::Committed, anew.committed), (Kind::Vote, anew.vote)] {
        if let Some(body) = body {
            pen.put(Head::of_group(kind, group), &body).await?;
        }
    }
    Ok(())
}

/// Moves the new segments among the old ones, the first of them last.
async fn put_in_place<D: Disk>(disk: &D, scratch: &Beneath<D>) -> Result<(), DiskError> {
    let names = scratch.list(DIR).await.map_err(failed("list", REPAIR))?;
    for name in names.iter().rev().filter(|name| number_of(name).is_some()) {
        let (from, to) = (format!("{REPAIR}/{DIR}/{name}"), format!("{DIR}/{name}"));
        disk.rename(&from, &to).await.map_err(failed("rename", &from))?;
        // One after the other: the first must not be there before the others.
        disk.sync_dir(DIR).await.map_err(failed("sync", DIR))?;
    }
    let dir = format!("{REPAIR}/{DIR}");
    disk.sync_dir(&dir).await.map_err(failed("sync", &dir))
}

/// Entries must follow each other and fit.
fn check(groups: &BTreeMap<GroupId, Anew>, options: &LogOptions) -> Result<(), RewriteError> {
    let limit = body_bytes_max(options.segment_bytes);
    for (&group, anew) in groups {
        let refuse = |source| Err(RewriteError::Refused { group, source });
        let mut last = anew.purged.map_or(Index(0), |(index, _)| index);
        for (at, record) in anew.records.iter().enumerate() {
            let follows = record.index.0 == last.0 + 1;
            let begins = at == 0 && anew.purged.is_none() && record.index > last;
            if !follows && !begins {
                let what = format!("entry {}", record.index);
                return refuse(SubmitError::OutOfOrder { group, what, last });
            }
            last = record.index;
        }
        let bodies = anew.records.iter().map(|record| record.payload.len());
        let marks = [&anew.vote, &anew.committed].into_iter().flatten().map(Bytes::len);
        if let Some(got) = bodies.chain(marks).find(|got| *got > limit) {
            return refuse(SubmitError::TooLarge { got, limit });
        }
    }
    Ok(())
}
