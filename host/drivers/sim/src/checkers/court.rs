//! One group's judges, and what each node's log has of the group.

use std::collections::{BTreeMap, BTreeSet};

use quorate_ledger::{Command, Ledger};
use quorate_raft::{LogEntry, log_entry};
use quorate_storage::Record;
use quorate_types::{Digest, GroupId, Index, NodeId, Term};

use super::{Book as _, Volume, committed, entries, leaders, states, terms, voters};
use crate::law::Verdict;
use crate::world::SimLog;

/// Over all nodes and all their lives.
pub(crate) struct Court {
    group: GroupId,
    committed: committed::Committed,
    entries: entries::Entries,
    leaders: leaders::Leaders,
    states: states::States,
    terms: terms::Terms,
    pub(crate) voters: voters::Voters,
    logs: BTreeMap<NodeId, Volume>,
    /// Up to here events were heard, from whichever node applied them first.
    heard: Index,
}

impl Court {
    /// Over a group that begins with these voters.
    pub(crate) fn new(group: GroupId, founders: BTreeSet<NodeId>) -> Self {
        Self {
            group,
            committed: committed::Committed::default(),
            entries: entries::Entries::default(),
            leaders: leaders::Leaders::default(),
            states: states::States::default(),
            terms: terms::Terms::default(),
            voters: voters::Voters::new(founders),
            logs: BTreeMap::new(),
            heard: Index(0),
        }
    }

    /// Whose.
    pub(crate) const fn group(&self) -> GroupId {
        self.group
    }

    /// Looks at what a node's log has gained.
    pub(crate) fn look(&mut self, node: NodeId) -> Verdict {
        let verdict = self.logs.get(&node).map_or(Ok(()), |log| self.entries.see(node, log));
        for (at, sets) in self.entries.take_voters() {
            self.voters.noted(at, sets);
        }
        verdict
    }

    /// A node's life begins with this log.
    pub(crate) fn opened(&mut self, node: NodeId, log: SimLog) -> Verdict {
        self.logs.insert(node, Volume { group: self.group, log });
        self.committed.all_kept(&self.logs, &self.voters)
    }

    /// A node's life begins in this term, before it has heard of anything.
    pub(crate) fn began(&self, node: NodeId, term: Term) -> [Verdict; 2] {
        [self.terms.began(node, term), self.committed.began(node)]
    }

    /// A node's life ends; its log is let go by whoever takes it.
    pub(crate) fn ended(&mut self, node: NodeId) -> Option<Volume> {
        self.entries.forget(node);
        self.committed.forget(node);
        self.logs.remove(&node)
    }

    /// The entries up to `index` that are heard of for the first time, as this node has them;
    /// none where all were heard of. Of commands those alone that are about epochs.
    pub(crate) fn news(&mut self, node: NodeId, index: Index) -> Option<Vec<(Index, Command)>> {
        let from = self.heard;
        if index <= from {
            return None;
        }
        self.heard = index;
        let log = self.logs.get(&node)?;
        let fresh = log.read(Index(from.0 + 1)..Index(index.0 + 1)).into_iter();
        Some(fresh.filter_map(|record| Some((record.index, about_epochs(record)?))).collect())
    }

    pub(crate) fn applied(
        &mut self,
        node: NodeId,
        index: Index,
        (at, digest): (Index, Digest),
    ) -> [Verdict; 2] {
        let state = self.states.see(node, at, digest);
        let seen = self.look(node);
        let log = self.logs.get(&node).map_or(Ok(()), |log| {
            seen?;
            self.committed.see(node, index, log, &mut self.voters)?;
            self.committed.kept(index, &self.logs, &self.voters)
        });
        [state, log]
    }

    pub(crate) fn restored(
        &mut self,
        node: NodeId,
        index: Index,
        (at, digest): (Index, Digest),
    ) -> Verdict {
        self.committed.restored(node, index);
        self.states.see(node, at, digest)
    }

    pub(crate) fn leadership(
        &mut self,
        node: NodeId,
        leader: Option<NodeId>,
        term: Term,
    ) -> [Verdict; 2] {
        self.terms.heard(node, term);
        let Some(leader) = leader else { return [Ok(()), Ok(())] };
        let one = self.leaders.see(term, leader);
        let seen = self.look(node);
        let whole = match self.logs.get(&node) {
            Some(log) if leader == node => seen
                .and_then(|()| self.voters.leads(node, term))
                .and_then(|()| self.committed.leads(node, term, log)),
            Some(_) | None => seen,
        };
        [one, whole]
    }

    /// The last word on a node's state: its digest is the one computed anew.
    pub(crate) fn end(&self, node: NodeId, view: &Ledger) -> Verdict {
        self.states.recompute(node, view.digest(), view.recompute_digest())
    }

    /// Lets the logs go.
    pub(crate) fn take_logs(&mut self) -> Vec<Volume> {
        std::mem::take(&mut self.logs).into_values().collect()
    }
}

/// The command in a record, if it may give leases or adopt; most others are larger, and concern
/// nobody here.
fn about_epochs(record: Record) -> Option<Command> {
    const ASSIGN: u16 = 102;
    const ADOPT: [u16; 2] = [107, 108];
    let Ok(LogEntry::Command(entry)) = log_entry(record.payload) else { return None };
    let kind = entry.first_chunk().map(|kind| u16::from_be_bytes(*kind))?;
    if kind != ASSIGN && !ADOPT.contains(&kind) {
        return None;
    }
    Command::decode(&entry).ok().map(|(command, _at)| command)
}
