//! The last events of the log, for watchers. Every node orders them alike: an
//! event's revision is its entry's index and its place within the entry, so a
//! watcher goes on at any node.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_types::door::{Borrowed, Source};
use quorate_types::{Event, EventKind, Index, Refusal};

use crate::queue::Queue;

/// Events kept: at 1 KiB each 64 MiB, some seconds of the busiest log.
const KEPT: usize = 65_536;
/// Events a watcher may lag behind before it is told to list again.
const WATCHER_LAG: usize = 16_384;

type Item = Result<Event, Refusal>;

/// One reader. It hears what lies above the revision that it has seen: a node that
/// is behind brings older events once more.
struct Watcher {
    seen: Option<(Index, u32)>,
    queue: Queue<Item>,
}

#[derive(Default)]
struct State {
    kept: VecDeque<Event>,
    /// Everything up to and including this revision is no longer here.
    forgotten: Option<(Index, u32)>,
    watchers: Vec<Watcher>,
}

/// The log's recent events. Clones share it.
#[derive(Clone, Default)]
pub struct EventLog(Arc<Mutex<State>>);

impl std::fmt::Debug for EventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLog").field("kept", &self.lock().kept.len()).finish_non_exhaustive()
    }
}

impl EventLog {
    /// Appends what one entry brought.
    pub fn append(&self, index: Index, kinds: &[EventKind]) {
        if kinds.is_empty() {
            return;
        }
        let mut state = self.lock();
        for (ordinal, kind) in (0_u32..).zip(kinds) {
            let event = Event { revision: (index, ordinal), kind: kind.clone() };
            state.watchers.retain(|watcher| offer(watcher, event.clone()));
            state.kept.push_back(event);
        }
        while state.kept.len() > KEPT {
            state.forgotten = state.kept.pop_front().map(|event| event.revision);
        }
    }

    /// A snapshot took the place of entries up to `index`; their events are unknown here.
    pub fn skip_to(&self, index: Index) {
        let mut state = self.lock();
        state.kept.clear();
        state.forgotten = Some((index, u32::MAX));
        for watcher in state.watchers.drain(..) {
            end(&watcher.queue, "what happened before a snapshot");
        }
    }

    /// Events after this revision; none means from now on.
    pub fn watch(&self, after: Option<(Index, u32)>) -> Watch {
        let queue = Queue::new(KEPT + WATCHER_LAG);
        let mut state = self.lock();
        if let Some(after) = after {
            if state.forgotten.is_some_and(|forgotten| after < forgotten) {
                end(&queue, "what happened right after that revision");
                return Watch(queue);
            }
            for event in state.kept.iter().filter(|event| event.revision > after) {
                queue.push_always(Ok(event.clone()));
            }
        }
        state.watchers.push(Watcher { seen: after, queue: queue.clone() });
        Watch(queue)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a watcher an event; false when it has gone or is too slow.
fn offer(watcher: &Watcher, event: Event) -> bool {
    if watcher.queue.is_closed() {
        return false;
    }
    if watcher.seen.is_some_and(|seen| event.revision <= seen) {
        return true;
    }
    if watcher.queue.push(Ok(event)).is_err() {
        end(&watcher.queue, "the watcher is too slow: an event");
        return false;
    }
    true
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

    fn down(agent: u64) -> EventKind {
        let reason = "test".to_owned();
        EventKind::AgentDown { agent: AgentId(agent), incarnation: Incarnation(1), reason }
    }

    #[test]
    fn a_watch_resumes_where_it_left_and_hears_what_follows() {
        let log = EventLog::default();
        log.append(Index(1), &[down(1), down(2)]);
        let watch = log.watch(Some((Index(1), 0)));
        log.append(Index(2), &[down(3)]);
        let heard: Vec<_> = std::iter::from_fn(|| watch.0.try_pop())
            .map(|item| item.expect("kept").revision)
            .collect();
        assert_eq!(heard, [(Index(1), 1), (Index(2), 0)]);
    }

    #[test]
    fn a_node_that_is_behind_brings_nothing_twice() {
        let log = EventLog::default();
        let watch = log.watch(Some((Index(7), 0)));
        log.append(Index(6), &[down(1)]);
        log.append(Index(7), &[down(2), down(3)]);
        let heard: Vec<_> = std::iter::from_fn(|| watch.0.try_pop())
            .map(|item| item.expect("kept").revision)
            .collect();
        assert_eq!(heard, [(Index(7), 1)]);
    }

    #[test]
    fn what_is_no_longer_kept_is_refused_by_name() {
        let log = EventLog::default();
        log.skip_to(Index(5));
        let watch = log.watch(Some((Index(3), 0)));
        assert!(matches!(watch.0.try_pop(), Some(Err(Refusal::Compacted(_)))));
        assert!(watch.0.is_closed());
    }
}
