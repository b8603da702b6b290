//! The last events of the logs, for watchers. Every node orders those of one group
//! alike; a watcher takes with it how far it has come in each, so it goes on at any
//! node.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_types::door::{Borrowed, Source};
use quorate_types::revision::Place;
use quorate_types::{Event, EventKind, GroupId, Index, Refusal, Revision};

use crate::queue::Queue;

/// Events kept: at 1 KiB each 64 MiB, some seconds of the busiest log.
const KEPT: usize = 65_536;
/// Events a watcher may lag behind before it is told to list again.
const WATCHER_LAG: usize = 16_384;

type Item = Result<Event, Refusal>;

struct Kept {
    group: GroupId,
    place: Place,
    kind: EventKind,
}

/// One reader. It hears what lies above what it has seen: a node that is behind
/// brings older events once more.
struct Watcher {
    seen: Revision,
    queue: Queue<Item>,
}

#[derive(Default)]
struct State {
    kept: VecDeque<Kept>,
    /// The newest event of each group.
    newest: Revision,
    /// Everything up to and including this is no longer here.
    forgotten: Revision,
    watchers: Vec<Watcher>,
}

/// The logs' recent events. Clones share it.
#[derive(Clone, Default)]
pub struct EventLog(Arc<Mutex<State>>);

impl std::fmt::Debug for EventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLog").field("kept", &self.lock().kept.len()).finish_non_exhaustive()
    }
}

impl EventLog {
    /// Appends what one entry of a group brought.
    pub fn append(&self, group: GroupId, index: Index, kinds: &[EventKind]) {
        if kinds.is_empty() {
            return;
        }
        let mut state = self.lock();
        for (ordinal, kind) in (0_u32..).zip(kinds) {
            let kept = Kept { group, place: (index, ordinal), kind: kind.clone() };
            state.watchers.retain_mut(|watcher| watcher.offer(&kept));
            state.newest.advance(group, kept.place);
            state.kept.push_back(kept);
        }
        while state.kept.len() > KEPT {
            if let Some(Kept { group, place, .. }) = state.kept.pop_front() {
                state.forgotten.advance(group, place);
            }
        }
    }

    /// A snapshot took the place of a group's entries up to `index`; their events are unknown here.
    pub fn skip_to(&self, group: GroupId, index: Index) {
        let place = (index, u32::MAX);
        let mut state = self.lock();
        state.kept.retain(|kept| kept.group != group);
        state.newest.advance(group, place);
        state.forgotten.advance(group, place);
        state.watchers.retain(|watcher| {
            let missed = watcher.seen.at(group) < Some(place);
            if missed {
                end(&watcher.queue, "what happened before a snapshot");
            }
            !missed
        });
    }

    /// Events after this revision; none means from now on.
    pub fn watch(&self, after: Option<Revision>) -> Watch {
        let queue = Queue::new(KEPT + WATCHER_LAG);
        let mut state = self.lock();
        let seen = after.unwrap_or_else(|| state.newest.clone());
        if state.forgotten.places().any(|(group, place)| seen.at(group) < Some(place)) {
            end(&queue, "what happened right after that revision");
            return Watch(queue);
        }
        let mut watcher = Watcher { seen, queue: queue.clone() };
        // The queue has room for all that is kept.
        if state.kept.iter().all(|kept| watcher.offer(kept)) {
            state.watchers.push(watcher);
        }
        Watch(queue)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Takes an event that it has not seen; false when it has gone or is too slow.
    fn offer(&mut self, Kept { group, place, kind }: &Kept) -> bool {
        if self.queue.is_closed() {
            return false;
        }
        if self.seen.at(*group) >= Some(*place) {
            return true;
        }
        self.seen.advance(*group, *place);
        let event = Event { revision: self.seen.clone(), kind: kind.clone() };
        if self.queue.push(Ok(event)).is_err() {
            end(&self.queue, "the watcher is too slow: an event");
            return false;
        }
        true
    }
}

fn end(watcher: &Queue<Item>, what: &str) {
    watcher.push_always(Err(Refusal::Compacted(what.to_owned())));
    watcher.close();
}

/// A watcher's end. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch(Queue<Item>);

impl Source<Item> for Watch {
    fn next(&mut self) -> Borrowed<'_, Option<Item>> {
        Box::pin(self.0.pop())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{AgentId, Incarnation};

    use super::*;

    const G0: GroupId = GroupId(0);
    const G1: GroupId = GroupId(1);

    fn down(agent: u64) -> EventKind {
        let reason = "test".to_owned();
        EventKind::AgentDown { agent: AgentId(agent), incarnation: Incarnation(1), reason }
    }

    fn revision(text: &str) -> Option<Revision> {
        Some(text.parse().expect("a revision"))
    }

    fn heard(watch: &Watch) -> Vec<String> {
        std::iter::from_fn(|| watch.0.try_pop())
            .map(|item| item.expect("kept").revision.to_string())
            .collect()
    }

    #[test]
    fn a_watch_resumes_where_it_left_and_hears_what_follows() {
        let log = EventLog::default();
        log.append(G0, Index(1), &[down(1), down(2)]);
        let watch = log.watch(revision("0-1.0"));
        log.append(G0, Index(2), &[down(3)]);
        assert_eq!(heard(&watch), ["0-1.1", "0-2.0"]);
    }

    #[test]
    fn a_node_that_is_behind_brings_nothing_twice() {
        let log = EventLog::default();
        let watch = log.watch(revision("0-7.0"));
        log.append(G0, Index(6), &[down(1)]);
        log.append(G0, Index(7), &[down(2), down(3)]);
        assert_eq!(heard(&watch), ["0-7.1"]);
    }

    #[test]
    fn a_watch_goes_on_where_the_groups_came_in_another_order() {
        let (here, there) = (EventLog::default(), EventLog::default());
        let watch = here.watch(None);
        here.append(G0, Index(1), &[down(1)]);
        here.append(G1, Index(5), &[down(2)]);
        here.append(G0, Index(2), &[down(3)]);
        let seen = heard(&watch);
        assert_eq!(seen, ["0-1.0", "0-1.0_1-5.0", "0-2.0_1-5.0"]);
        there.append(G1, Index(5), &[down(2)]);
        there.append(G1, Index(6), &[down(4)]);
        there.append(G0, Index(1), &[down(1)]);
        there.append(G0, Index(2), &[down(3)]);
        let left = heard(&there.watch(revision(&seen[1])));
        assert_eq!(left, ["0-1.0_1-6.0", "0-2.0_1-6.0"], "each event once, whatever came between");
    }

    #[test]
    fn from_now_on_includes_groups_that_were_silent_until_now() {
        let log = EventLog::default();
        log.append(G0, Index(3), &[down(1)]);
        let watch = log.watch(None);
        log.append(G1, Index(1), &[down(2)]);
        assert_eq!(heard(&watch), ["0-3.0_1-1.0"]);
    }

    #[test]
    fn what_is_no_longer_kept_is_refused_by_name() {
        let log = EventLog::default();
        log.skip_to(G0, Index(5));
        let watch = log.watch(revision("0-3.0"));
        assert!(matches!(watch.0.try_pop(), Some(Err(Refusal::Compacted(_)))));
        assert!(watch.0.is_closed());
        let other = log.watch(revision("1-9.0"));
        assert!(
            matches!(other.0.try_pop(), Some(Err(Refusal::Compacted(_)))),
            "nothing seen of g0"
        );
        let ahead = log.watch(revision("0-6.0"));
        log.skip_to(G0, Index(6));
        assert!(ahead.0.is_closed(), "an event of entry 6 may have been missed");
    }
}
