//! Reads that see every write acknowledged before they began (ReadIndex, Ongaro's
//! thesis, section 6.4), at whichever node they stand.
//!
//! A read names the groups that it speaks of. Of each of them the leader is asked
//! how far its log must be applied; once this node has come so far, it answers from
//! what it has. One question serves all reads that came before it was put, and while
//! it is under way those that come wait for the next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::{GroupId, Index, Refusal, Time};

use crate::asks::{Origin, Own, Target};
use crate::frame::{Done, Errand, Setback};
use crate::io::Now;
use crate::kernel::Kernel;

/// A question without an answer is put again after this span; the reads have deadlines of their own.
const BARRIER_WITHIN: Duration = Duration::from_secs(10);

/// And after a pause, when it was refused.
const REST: Duration = Duration::from_millis(20);

/// One group's reads.
#[derive(Debug, Default)]
struct Queue {
    /// Those that the next question will serve.
    next: Vec<u64>,
    /// Those that the one under way will.
    under_way: Option<Vec<u64>>,
    /// Those that wait until this node has applied as much.
    applied: BTreeSet<(Index, u64)>,
    /// After a question that came to nothing, when the next is put.
    rest: Option<Time>,
}

/// Reads under way, by their asks: the groups that each still waits for.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    table: BTreeMap<u64, BTreeSet<GroupId>>,
    queues: BTreeMap<GroupId, Queue>,
}

impl Reads {
    /// When a question is put again.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.queues.values().filter_map(|queue| queue.rest).min()
    }

    /// Nobody waits for it any more.
    pub(crate) fn forget(&mut self, ask: u64) {
        self.table.remove(&ask);
    }

    /// A read has waited for this group long enough; true where it was the last.
    fn passed(&mut self, ask: u64, group: GroupId) -> bool {
        let Some(groups) = self.table.get_mut(&ask) else { return false };
        groups.remove(&group);
        let ready = groups.is_empty();
        if ready {
            self.table.remove(&ask);
        }
        ready
    }
}

impl Kernel {
    /// Answers an ask by `answer_read` once what is known here of these groups is recent enough.
    pub(crate) fn read_fresh(&mut self, ask: u64, groups: impl Iterator<Item = GroupId>) {
        let groups: BTreeSet<GroupId> = groups.collect();
        for group in &groups {
            self.reads.queues.entry(*group).or_default().next.push(ask);
        }
        self.reads.table.insert(ask, groups);
    }

    pub(crate) fn settle_reads(&mut self, now: Now) {
        for group in self.config.layout.groups() {
            let Some(queue) = self.reads.queues.get_mut(&group) else { continue };
            if queue.rest.is_some_and(|until| until > now.mono) {
                continue;
            }
            queue.rest = None;
            if queue.under_way.is_some() || queue.next.is_empty() {
                continue;
            }
            queue.under_way = Some(std::mem::take(&mut queue.next));
            let origin = Origin::Own(Own::Barrier(group));
            self.begin(now, origin, Target::Leader(group), Errand::Barrier, BARRIER_WITHIN);
        }
    }

    /// Whether a read waits for a group of which no leader is known.
    pub(crate) fn waits_for_leader(&self, ask: u64) -> bool {
        let groups = self.reads.table.get(&ask);
        groups.is_some_and(|groups| groups.iter().any(|group| self.leader(*group).is_none()))
    }

    /// A group's leader has said how far its log must be applied, or nobody has.
    pub(crate) fn barrier_told(&mut self, now: Now, group: GroupId, result: Result<Done, Setback>) {
        let Some(queue) = self.reads.queues.get_mut(&group) else { return };
        let asks = queue.under_way.take().unwrap_or_default();
        match result {
            Ok(Done::Barrier(index)) => {
                queue.applied.extend(asks.into_iter().map(|ask| (index, ask)));
                self.reads_applied(now, group);
            }
            Err(Setback::Refused(busy @ Refusal::Busy { .. })) => {
                for ask in asks {
                    self.finish(now, ask, Err(Setback::Refused(busy.clone())));
                }
            }
            Ok(_) | Err(_) => {
                // Put again for those that still wait; none does past its deadline. Not at once:
                // what refuses at once would go round for ever.
                let table = &self.reads.table;
                queue.next.extend(asks.into_iter().filter(|ask| table.contains_key(ask)));
                queue.rest = Some(now.mono + REST);
            }
        }
    }

    /// This node has applied more of a group's log.
    pub(crate) fn reads_applied(&mut self, now: Now, group: GroupId) {
        let applied = self.applied.get(&group).copied().unwrap_or_default();
        while let Some(queue) = self.reads.queues.get_mut(&group)
            && queue.applied.first().is_some_and(|(index, _ask)| *index <= applied)
            && let Some((_index, ask)) = queue.applied.pop_first()
        {
            if self.reads.passed(ask, group) {
                self.answer_read(now, ask, false);
            }
        }
    }
}
