//! What all parts of a run share: the trace, the judges, and the logs that they read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::runtime::{SimRuntime, elapsed};
use quorate_ledger::Ledger;
use quorate_storage::Log;
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::{Digest, EventKind, GroupId, Index, NodeId, Term};

use crate::checkers::Judges;
use crate::disk::SimDisk;
use crate::law::{Breach, Complaint, Law, Verdict};
use crate::tally::Tally;
use crate::trace::Trace;

/// A node's log, as the judges read it.
pub(crate) type SimLog = Log<SimRuntime, SimDisk>;

/// More complaints than these say nothing new.
const COMPLAINTS_MAX: usize = 16;

struct State {
    trace: Trace,
    judges: Judges,
    logs: BTreeMap<NodeId, SimLog>,
    /// Up to here events were heard, from whichever node applied them first.
    heard: Index,
    complaints: Vec<Complaint>,
    faults: u64,
    tally: Tally,
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
    pub(crate) fn new(keep_lines: bool, voters: usize) -> Self {
        let state = State {
            trace: Trace::new(keep_lines),
            judges: Judges::new(voters),
            logs: BTreeMap::new(),
            heard: Index(0),
            complaints: Vec::new(),
            faults: 0,
            tally: Tally::default(),
            calm: None,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Something happened at a disk or on the wire.
    pub(crate) fn note(&self, node: NodeId, kind: &str, sizes: (u64, u64)) {
        locked(&self.0).trace.note(elapsed(), node.0, kind, sizes);
    }

    /// A fault, in words; `count` of them.
    pub(crate) fn fault(&self, what: &str, count: u64) {
        let mut state = locked(&self.0);
        state.faults += count;
        state.trace.say(elapsed(), what);
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
        locked(&self.0).judge(verdict);
    }

    /// Asks the judges, who may take note.
    pub(crate) fn ask(&self, judge: impl FnOnce(&mut Judges) -> Verdict) {
        let mut state = locked(&self.0);
        let verdict = judge(&mut state.judges);
        state.judge(verdict);
    }

    /// Asks the judges what they know.
    pub(crate) fn know<T>(&self, look: impl FnOnce(&Judges) -> T) -> T {
        look(&locked(&self.0).judges)
    }

    /// Something was done and acknowledged.
    pub(crate) fn count(&self, add: impl FnOnce(&mut Tally)) {
        add(&mut locked(&self.0).tally);
    }

    /// Looks at what a node's log has gained.
    pub(crate) fn look(&self, node: NodeId) {
        let mut state = locked(&self.0);
        let state = &mut *state;
        let Some(log) = state.logs.get(&node) else { return };
        let verdict = state.judges.entries.see(node, log);
        state.judge(verdict);
    }

    /// A node's life begins with this log.
    pub(crate) fn opened(&self, node: NodeId, log: SimLog) {
        let mut state = locked(&self.0);
        let state = &mut *state;
        state.logs.insert(node, log);
        let verdict = state.judges.committed.all_kept(&state.logs);
        state.judge(verdict);
    }

    /// A node's life begins in this term, before it has heard of anything.
    pub(crate) fn began(&self, node: NodeId, term: Term) {
        let mut state = locked(&self.0);
        let verdict = state.judges.terms.began(node, term);
        state.judge(verdict);
        let verdict = state.judges.committed.began(node);
        state.judge(verdict);
    }

    pub(crate) fn ended(&self, node: NodeId) {
        let log = {
            let mut state = locked(&self.0);
            state.judges.entries.forget(node);
            state.judges.committed.forget(node);
            state.logs.remove(&node)
        };
        drop(log); // Outside the lock: the last handle ends a writer.
    }

    pub(crate) fn applied(&self, node: NodeId, index: Index, events: &[EventKind], view: &Ledger) {
        let digest = view.digest();
        let mut state = locked(&self.0);
        state.trace.note(elapsed(), node.0, "applied", (index.0, tell_apart(&digest)));
        let state = &mut *state;
        let verdict = state.judges.states.see(node, view.index(), digest);
        state.judge(verdict);
        state.hear(index, events);
        let verdict = state.logs.get(&node).map_or(Ok(()), |log| {
            state.judges.entries.see(node, log)?;
            state.judges.committed.see(node, index, log)?;
            state.judges.committed.kept(index, &state.logs)
        });
        state.judge(verdict);
    }

    pub(crate) fn restored(&self, node: NodeId, index: Index, view: &Ledger) {
        let digest = view.digest();
        let mut state = locked(&self.0);
        state.trace.note(elapsed(), node.0, "restored", (index.0, tell_apart(&digest)));
        state.judges.committed.restored(node, index);
        let verdict = state.judges.states.see(node, view.index(), digest);
        state.judge(verdict);
    }

    pub(crate) fn leadership(&self, node: NodeId, leader: Option<NodeId>, term: Term) {
        let mut state = locked(&self.0);
        let state = &mut *state;
        state.trace.note(elapsed(), node.0, "leader", (leader.map_or(0, |id| id.0), term.0));
        state.judges.terms.heard(node, term);
        let Some(leader) = leader else { return };
        let verdict = state.judges.leaders.see(term, leader);
        state.judge(verdict);
        if leader == node
            && let Some(log) = state.logs.get(&node)
        {
            let verdict = state.judges.committed.leads(node, term, log);
            state.judge(verdict);
        }
    }

    /// Whether every acknowledged task has come to its end.
    pub(crate) fn is_settled(&self) -> bool {
        locked(&self.0).judges.tasks.is_settled()
    }

    /// The last word on a node's state.
    pub(crate) fn judge_end(&self, node: NodeId, view: &Ledger) {
        let counted = view.counts(NAMESPACE_DEFAULT).values().sum();
        let mut state = locked(&self.0);
        let verdicts = [
            state.judges.states.recompute(node, view.digest(), view.recompute_digest()),
            state.judges.tasks.end(|task| view.task(task), counted),
        ];
        for verdict in verdicts {
            state.judge(verdict);
        }
    }

    pub(crate) fn has_complaints(&self) -> bool {
        !locked(&self.0).complaints.is_empty()
    }

    /// What is left of it; lets the logs go.
    pub(crate) fn close(&self) -> Closed {
        let mut state = locked(&self.0);
        let logs = std::mem::take(&mut state.logs);
        let closed = Closed {
            hash: state.trace.hash(),
            events: state.trace.events(),
            lines: state.trace.take_lines(),
            complaints: std::mem::take(&mut state.complaints),
            faults: state.faults,
            tally: state.tally,
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

impl State {
    /// What entries brought: the same from every node, so heard once, in the log's order.
    fn hear(&mut self, index: Index, events: &[EventKind]) {
        if index <= self.heard {
            return;
        }
        self.heard = index;
        for event in events {
            self.trace.tell(elapsed(), || format!("{index}: {event:?}"));
            let verdict = self.judges.tasks.see(index, event, &mut self.tally);
            self.judge(verdict);
            let verdict = self.judges.policies.see(index, event);
            self.judge(verdict);
        }
    }

    fn judge(&mut self, verdict: Verdict) {
        let Err(Breach { law, what }) = verdict else { return };
        let complaint = Complaint { at: elapsed(), law, what };
        self.trace.say(complaint.at, &format!("{law}: {}", complaint.what));
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(complaint);
        }
    }
}

/// Eight bytes of a state's digest.
fn tell_apart(digest: &Digest) -> u64 {
    digest.0.iter().take(8).fold(0, |word, byte| (word << 8) | u64::from(*byte))
}

/// The one group that carries both machines.
pub(crate) const GROUP: GroupId = GroupId::SYSTEM;
