//! What all parts of a run share: the trace, the judges, and the logs that they read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::runtime::{SimRuntime, elapsed};
use quorate_ledger::{Ledger, Views};
use quorate_storage::Log;
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::{Digest, EventKind, GroupId, Index, Layout, NodeId, Term};

use crate::checkers::{Court, Judges};
use crate::disk::SimDisk;
use crate::law::{Breach, Complaint, Law, Verdict};
use crate::tally::Tally;
use crate::trace::Trace;

/// A node's log, as the judges read it.
pub(crate) type SimLog = Log<SimRuntime, SimDisk>;

/// More complaints than these say nothing new.
const COMPLAINTS_MAX: usize = 16;

/// What is written down.
struct Record {
    trace: Trace,
    complaints: Vec<Complaint>,
    faults: u64,
    tally: Tally,
}

struct State {
    record: Record,
    judges: Judges,
    /// One a group, from the first log that was opened on.
    courts: BTreeMap<GroupId, Court>,
    /// The voters that every group begins with.
    founders: BTreeSet<NodeId>,
    /// Since when nothing has been wrong with anything.
    calm: Option<Duration>,
}

/// A run's world. Clones share it.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(keep_lines: bool, founders: BTreeSet<NodeId>) -> Self {
        let record = Record {
            trace: Trace::new(keep_lines),
            complaints: Vec::new(),
            faults: 0,
            tally: Tally::default(),
        };
        let (judges, courts) = (Judges::default(), BTreeMap::new());
        let state = State { record, judges, courts, founders, calm: None };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Something happened at a disk or on the wire.
    pub(crate) fn note(&self, node: NodeId, kind: &str, sizes: (u64, u64)) {
        locked(&self.0).record.trace.note(elapsed(), node.0, kind, sizes);
    }

    /// A fault, in words; `count` of them.
    pub(crate) fn fault(&self, what: &str, count: u64) {
        let record = &mut locked(&self.0).record;
        record.faults += count;
        record.trace.say(elapsed(), what);
    }

    /// Words for who reads the trace.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        locked(&self.0).record.trace.tell(elapsed(), what);
    }

    /// Nothing is wrong with anything from now on, or something is.
    pub(crate) fn set_calm(&self, calm: bool) {
        let mut state = locked(&self.0);
        state.calm = match state.calm {
            Some(since) if calm => Some(since),
            Some(_) | None => calm.then(elapsed),
        };
    }

    /// Since when nothing has been wrong.
    pub(crate) fn calm_since(&self) -> Option<Duration> {
        locked(&self.0).calm
    }

    pub(crate) fn complain(&self, law: Law, what: impl Into<String>) {
        self.judge(law.broken(what));
    }

    /// What somebody found by himself.
    pub(crate) fn judge(&self, verdict: Verdict) {
        locked(&self.0).record.judge(verdict);
    }

    /// Asks the judges, who may take note.
    pub(crate) fn ask(&self, judge: impl FnOnce(&mut Judges) -> Verdict) {
        let mut state = locked(&self.0);
        let verdict = judge(&mut state.judges);
        state.record.judge(verdict);
    }

    /// Asks the judges what they know.
    pub(crate) fn know<T>(&self, look: impl FnOnce(&Judges) -> T) -> T {
        look(&locked(&self.0).judges)
    }

    /// The sets of voters of all groups that may have a say now.
    pub(crate) fn voters(&self) -> Vec<BTreeSet<NodeId>> {
        let state = locked(&self.0);
        state.courts.values().flat_map(|court| court.voters.configs().flatten()).cloned().collect()
    }

    /// A door says that these alone vote in a group.
    pub(crate) fn acknowledged(&self, group: GroupId, voters: &BTreeSet<NodeId>) {
        self.in_court(group, |court, _record| [court.voters.acknowledged(voters)]);
    }

    /// Something was done and acknowledged.
    pub(crate) fn count(&self, add: impl FnOnce(&mut Tally)) {
        add(&mut locked(&self.0).record.tally);
    }

    /// Looks at what a node's log has gained.
    pub(crate) fn look(&self, node: NodeId) {
        let mut state = locked(&self.0);
        let state = &mut *state;
        for court in state.courts.values_mut() {
            let verdict = court.look(node);
            state.record.judge_of(court.group(), verdict);
        }
    }

    /// A node's life begins with this log.
    pub(crate) fn opened(&self, node: NodeId, layout: Layout, log: &SimLog) {
        let mut state = locked(&self.0);
        let state = &mut *state;
        for group in layout.groups() {
            let begin = || Court::new(group, state.founders.clone());
            let verdict = state.courts.entry(group).or_insert_with(begin).opened(node, log.clone());
            state.record.judge_of(group, verdict);
        }
    }

    /// A node's life begins in this term of a group, before it has heard of anything.
    pub(crate) fn began(&self, node: NodeId, group: GroupId, term: Term) {
        self.in_court(group, |court, _record| court.began(node, term));
    }

    pub(crate) fn ended(&self, node: NodeId) {
        let logs: Vec<_> = {
            let mut state = locked(&self.0);
            state.courts.values_mut().map(|court| court.ended(node)).collect()
        };
        drop(logs); // Outside the lock: the last handle ends a writer.
    }

    pub(crate) fn applied(
        &self,
        node: NodeId,
        (group, index): (GroupId, Index),
        events: &[EventKind],
        view: &Ledger,
    ) {
        let digest = view.digest();
        self.hear(node, (group, index), events, view);
        self.in_court(group, |court, record| {
            record.note_in((node, group), "applied", (index.0, tell_apart(&digest)));
            court.applied(node, index, (view.index(), digest))
        });
    }

    pub(crate) fn restored(&self, node: NodeId, group: GroupId, index: Index, view: &Ledger) {
        let digest = view.digest();
        self.in_court(group, |court, record| {
            record.note_in((node, group), "restored", (index.0, tell_apart(&digest)));
            [court.restored(node, index, (view.index(), digest))]
        });
    }

    pub(crate) fn leadership(
        &self,
        node: NodeId,
        group: GroupId,
        leader: Option<NodeId>,
        term: Term,
    ) {
        self.in_court(group, |court, record| {
            let sizes = (leader.map_or(0, |id| id.0), term.0);
            record.note_in((node, group), "leader", sizes);
            court.leadership(node, leader, term)
        });
    }

    fn in_court<const N: usize>(
        &self,
        group: GroupId,
        hear: impl FnOnce(&mut Court, &mut Record) -> [Verdict; N],
    ) {
        let mut state = locked(&self.0);
        let state = &mut *state;
        let Some(court) = state.courts.get_mut(&group) else { return };
        for verdict in hear(court, &mut state.record) {
            state.record.judge_of(group, verdict);
        }
    }

    /// What entries brought: the same from every node, so heard once, in the log's order.
    fn hear(
        &self,
        node: NodeId,
        (group, index): (GroupId, Index),
        events: &[EventKind],
        view: &Ledger,
    ) {
        let mut state = locked(&self.0);
        let State { record, judges, courts, .. } = &mut *state;
        let news = courts.get_mut(&group).and_then(|court| court.news(node, index));
        let Some(mut commands) = news else { return };
        let newest = commands.pop_if(|(at, _)| *at == index).map(|(_, command)| command);
        for (at, command) in commands {
            record.judge_of(group, judges.epochs.see(group, at, Some(&command), &[]));
        }
        record.judge_of(group, judges.epochs.see(group, index, newest.as_ref(), events));
        // A state may be ahead of the entry that is told.
        if view.index() <= index {
            record.judge_of(group, judges.epochs.compare(group, view));
        }
        for event in events {
            record.trace.tell(elapsed(), || format!("g{group} {index}: {event:?}"));
            let verdict = judges.tasks.see(index, event, &mut record.tally);
            record.judge(verdict);
            record.judge_of(group, judges.policies.see(group, index, event));
        }
    }

    /// Whether every acknowledged task has come to its end.
    pub(crate) fn is_settled(&self) -> bool {
        locked(&self.0).judges.tasks.is_settled()
    }

    /// The last word on a node's states.
    pub(crate) fn judge_end(&self, node: NodeId, views: &Views) {
        let counted = views.counts(NAMESPACE_DEFAULT).values().sum();
        let mut state = locked(&self.0);
        let state = &mut *state;
        for (group, court) in &state.courts {
            let verdict = views.group(*group).map_or(Ok(()), |view| court.end(node, view));
            state.record.judge_of(*group, verdict);
        }
        let verdict = state.judges.tasks.end(|task| views.task(task), counted);
        state.record.judge(verdict);
    }

    pub(crate) fn has_complaints(&self) -> bool {
        !locked(&self.0).record.complaints.is_empty()
    }

    /// What is left of it; lets the logs go.
    pub(crate) fn close(&self) -> Closed {
        let mut state = locked(&self.0);
        let logs: Vec<_> = state.courts.values_mut().map(Court::take_logs).collect();
        let record = &mut state.record;
        let closed = Closed {
            hash: record.trace.hash(),
            events: record.trace.events(),
            lines: record.trace.take_lines(),
            complaints: std::mem::take(&mut record.complaints),
            faults: record.faults,
            tally: record.tally,
        };
        drop(state);
        drop(logs);
        closed
    }
}

/// What a world leaves.
pub(crate) struct Closed {
    pub(crate) hash: u64,
    pub(crate) events: u64,
    pub(crate) lines: Vec<String>,
    pub(crate) complaints: Vec<Complaint>,
    pub(crate) faults: u64,
    pub(crate) tally: Tally,
}

impl Record {
    fn judge(&mut self, verdict: Verdict) {
        let Err(Breach { law, what }) = verdict else { return };
        let complaint = Complaint { at: elapsed(), law, what };
        self.trace.say(complaint.at, &format!("{law}: {}", complaint.what));
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(complaint);
        }
    }

    /// What was found out about one group.
    fn judge_of(&mut self, group: GroupId, verdict: Verdict) {
        self.judge(verdict.map_err(|breach| Breach {
            what: format!("group {group}: {}", breach.what),
            ..breach
        }));
    }

    fn note_in(&mut self, (node, group): (NodeId, GroupId), kind: &str, sizes: (u64, u64)) {
        self.trace.note_in(elapsed(), (node.0, group.0), kind, sizes);
    }
}

/// Eight bytes of a state's digest.
fn tell_apart(digest: &Digest) -> u64 {
    digest.0.iter().take(8).fold(0, |word, byte| (word << 8) | u64::from(*byte))
}
