//! What one run knows: time, tasks, timers, clocks and the hash over its choices.

use std::collections::{BTreeMap, VecDeque};
use std::panic::Location;

use quorate_types::NodeId;
use quorate_types::rng::Rng;

use super::clock::{Clocks, EPOCH};
use super::ready::{Place, Ready};
use super::tasks::Tasks;
use super::timers::Timers;

/// Polls at one instant. The busiest honest one is some thousands: all tasks of all nodes, each
/// woken by several others.
pub(super) const POLLS_MAX: u64 = 100_000;
/// Steps that are kept as lines.
const STEPS_MAX: usize = 200;

/// The state behind `now`, `spawn` and `sleep`.
pub(super) struct Core {
    now: u64,
    /// Whose task is being polled.
    pub(super) current: NodeId,
    pub(super) tasks: Tasks,
    pub(super) ready: Ready,
    pub(super) timers: Timers,
    pub(super) clocks: Clocks,
    pub(super) rng: Rng,
    pub(super) steps: Steps,
    /// Tasks that could go on, of nodes that are held.
    frozen: BTreeMap<NodeId, Vec<Place>>,
    /// How often nodes were held.
    freezes: BTreeMap<NodeId, u64>,
    polls: u64,
}

impl Core {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: EPOCH,
            current: super::WORLD,
            tasks: Tasks::default(),
            ready: Ready::default(),
            timers: Timers::default(),
            clocks: Clocks::default(),
            rng: Rng::new(seed),
            steps: Steps::default(),
            frozen: BTreeMap::new(),
            freezes: BTreeMap::new(),
            polls: 0,
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn elapsed(&self) -> u64 {
        self.now - EPOCH
    }

    /// What the clock of whoever is polled shows.
    pub(super) fn local_now(&self) -> u64 {
        self.clocks.local(self.current, self.now)
    }

    /// One of the tasks that can go on, by lot.
    pub(super) fn choose(&mut self) -> Option<Place> {
        loop {
            let place = self.ready.draw(&mut self.rng)?;
            let node = self.tasks.node(place);
            match node.and_then(|node| self.frozen.get_mut(&node)) {
                Some(held) => held.push(place),
                None if node.is_some() || place.is_main() => return Some(place),
                None => {} // It ended, and somebody still had its waker.
            }
        }
    }

    /// A poll of this task of this node begins; whether it is one too many at this instant.
    pub(super) fn begin(&mut self, place: Place, node: NodeId) -> bool {
        self.current = node;
        self.polls += 1;
        let from = self.tasks.origin(place);
        self.steps.note(self.now, node, place, from);
        self.polls <= POLLS_MAX
    }

    /// Time goes on to the next timer. None is left where it cannot.
    pub(super) fn advance(&mut self) -> Option<Vec<std::task::Waker>> {
        self.current = super::WORLD;
        let next = self.timers.next()?;
        if next > self.now {
            self.now = next;
            self.polls = 0;
        }
        Some(self.timers.due(self.now))
    }

    pub(super) fn freeze(&mut self, node: NodeId) {
        self.frozen.entry(node).or_default();
        *self.freezes.entry(node).or_default() += 1;
    }

    pub(super) fn freezes(&self, node: NodeId) -> (u64, bool) {
        let count = self.freezes.get(&node).copied().unwrap_or(0);
        (count, self.frozen.contains_key(&node))
    }

    pub(super) fn thaw(&mut self, node: NodeId) {
        for place in self.frozen.remove(&node).unwrap_or_default() {
            self.ready.put(place);
        }
    }
}

/// When, whose, which task, and where it was spawned.
type Step = (u64, NodeId, Place, Option<&'static Location<'static>>);

/// The hash over who ran when, and the last of it in lines where somebody reads them.
#[derive(Debug, Default)]
pub(super) struct Steps {
    hash: u64,
    last: Option<VecDeque<Step>>,
}

impl Steps {
    pub(super) fn keep(&mut self) {
        self.last.get_or_insert_default();
    }

    fn note(
        &mut self,
        now: u64,
        node: NodeId,
        place: Place,
        from: Option<&'static Location<'static>>,
    ) {
        for word in [now, place.number()] {
            self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        if let Some(last) = &mut self.last {
            if last.len() == STEPS_MAX {
                last.pop_front();
            }
            last.push_back((now, node, place, from));
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        let line = |(now, node, place, from): Step| {
            let seconds = std::time::Duration::from_nanos(now - EPOCH).as_secs_f64();
            let from = from.map_or_else(|| "the play".to_owned(), ToString::to_string);
            format!("{seconds:>12.6} {node} task {} of {from}", place.number())
        };
        self.last.take().unwrap_or_default().into_iter().map(line).collect()
    }
}
