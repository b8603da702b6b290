//! A backup of the live cluster, piece by piece.
//!
//! Each group is caught at a moment at which this node has applied all that was
//! acknowledged before the backup began (a read barrier). The shards are caught
//! first and the system group after them: what a shard has adopted is then always in
//! the system's state too, so that a cluster made from it does not wait for a decision
//! that was lost. A state that is caught is a few reference counts; one at a time is
//! written out, so that beside the cluster itself a backup holds one group's snapshot
//! or one blob.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use openraft_rt::AsyncRuntime;
use quorate_ledger::Ledger;
use quorate_storage::{BackupGroup, BackupHead, BackupWriter};
use quorate_types::door::{Borrowed, Source};
use quorate_types::{
    Digest, Disk, Door as _, Era, GroupId, Index, NodeId, Refusal, Request, Term, Wire,
};

use crate::handle::Handle;

/// A leader that is lost is replaced within this span.
const BARRIER_MS: u64 = 10_000;

/// Whose backup it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The cluster's id.
    pub cluster: String,
    /// Which life of it.
    pub era: Era,
    /// This node.
    pub node: NodeId,
}

/// A group as it was caught.
struct Caught {
    group: GroupId,
    index: Index,
    term: Term,
    ledger: Ledger,
}

/// What is written, groups first, then blobs, then the end.
struct Content {
    writer: BackupWriter,
    groups: VecDeque<Caught>,
    blobs: BTreeSet<Digest>,
    /// What is left of the group or blob under way.
    rest: Bytes,
}

enum Stage {
    Begin,
    Writing(Box<Content>),
    Ended,
}

/// A backup under way.
pub(crate) struct Backup<RT: AsyncRuntime, D: Disk, W: Wire> {
    handle: Handle<RT, D, W>,
    with_blobs: bool,
    stage: Stage,
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Backup<RT, D, W> {
    pub(crate) fn new(handle: Handle<RT, D, W>, with_blobs: bool) -> Self {
        Self { handle, with_blobs, stage: Stage::Begin }
    }

    async fn piece(&mut self) -> Option<Result<Bytes, Refusal>> {
        // Whatever interrupts it, it is not gone on with.
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Begin => Some(self.begin().await),
            Stage::Writing(mut content) => {
                let piece = if !content.rest.is_empty() {
                    content.writer.part(&mut content.rest)
                } else if let Some(caught) = content.groups.pop_front() {
                    content.rest = caught.ledger.snapshot();
                    content.writer.group(&about(&caught, &content.rest))
                } else if let Some(digest) = content.blobs.pop_first() {
                    match self.handle.parts().blobs.get(digest).await {
                        Ok(found) => {
                            content.rest = found;
                            content.writer.blob(digest, content.rest.len())
                        }
                        Err(Refusal::NotFound(_)) => content.writer.absent(digest),
                        Err(refusal) => return Some(Err(refusal)),
                    }
                } else {
                    return Some(Ok(content.writer.end()));
                };
                self.stage = Stage::Writing(content);
                Some(Ok(piece))
            }
            Stage::Ended => None,
        }
    }

    async fn begin(&mut self) -> Result<Bytes, Refusal> {
        let Some(origin) = self.handle.origin() else {
            return Err(Refusal::Unavailable("this node is starting".to_owned()));
        };
        let layout = self.handle.layout();
        let shards: Vec<GroupId> =
            layout.shards().filter(|group| *group != GroupId::SYSTEM).collect();
        let mut groups = self.catch(shards).await?;
        let system = self.catch(vec![GroupId::SYSTEM]).await?;
        groups.splice(0..0, system);
        let mut blobs = BTreeSet::new();
        if self.with_blobs {
            groups.iter().for_each(|caught| blobs.extend(caught.ledger.blobs()));
        }
        let head = BackupHead {
            cluster: origin.cluster,
            era: origin.era,
            shards: layout.shards_count(),
            feature_level: groups.first().map_or(0, |caught| caught.ledger.feature_level()),
            node: origin.node,
            taken: (self.handle.parts().wall)(),
            blobs: self.with_blobs,
        };
        let (writer, first) = BackupWriter::begin(&head);
        let (groups, rest) = (groups.into(), Bytes::new());
        self.stage = Stage::Writing(Box::new(Content { writer, groups, blobs, rest }));
        Ok(first)
    }

    /// These groups as they are once this node has applied all that was acknowledged before.
    async fn catch(&self, groups: Vec<GroupId>) -> Result<Vec<Caught>, Refusal> {
        self.handle.ask(Request::Fresh(groups.clone()), BARRIER_MS).await?;
        let rafts = &self.handle.parts().groups;
        let caught = groups.into_iter().filter_map(|group| {
            let (index, term, ledger) = rafts.get(group)?.image();
            Some(Caught { group, index, term, ledger })
        });
        Ok(caught.collect())
    }
}

fn about(caught: &Caught, snapshot: &Bytes) -> BackupGroup {
    BackupGroup {
        group: caught.group,
        index: caught.index,
        term: caught.term,
        digest: caught.ledger.digest(),
        bytes: u64::try_from(snapshot.len()).unwrap_or(u64::MAX),
    }
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Source<Result<Bytes, Refusal>> for Backup<RT, D, W> {
    fn next(&mut self) -> Borrowed<'_, Option<Result<Bytes, Refusal>>> {
        Box::pin(self.piece())
    }
}
