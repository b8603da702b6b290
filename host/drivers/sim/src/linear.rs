//! Linearizability: whether what callers saw of an object is what one order of their
//! operations, each at some moment between its begin and its end, would have shown
//! (Herlihy and Wing, TOPLAS 1990).
//!
//! The search is that of Wing and Gong with Lowe's cache (Concurrency 2017): take any
//! operation that no other one must precede, and go back where none fits. Events lie
//! in a linked list, so that taking one and going back are constant; the set of those
//! taken is known by a 128-bit hash that each adds to, so that the cache holds no
//! sets. Two sets of equal hash, at 2^-64 for the largest cache that fits in memory,
//! would let a bad history pass, never refuse a good one.
//!
//! Objects that do not touch each other are checked apart: [`check_each`]. An
//! operation whose end nobody saw may have happened at any time from its begin on, or
//! never.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use quorate_types::rng::Rng;

/// An object as one caller alone sees it.
pub trait Model {
    /// What it is in.
    type State: Clone + Eq + Hash;
    /// What is done, and what was answered, as far as that is known.
    type Act;

    /// Before anything is done.
    fn initial() -> Self::State;

    /// The state after `act`, where `state` can have answered so.
    fn step(state: &Self::State, act: &Self::Act) -> Option<Self::State>;
}

/// One operation of one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<A> {
    /// When it began, by a clock that all callers share.
    pub begin: u64,
    /// When it was answered; none where nobody knows whether it happened.
    pub end: Option<u64>,
    /// What it did, and what it was answered.
    pub act: A,
}

/// An event of the history: an operation begins or ends.
struct Event {
    operation: usize,
    /// Where its end lies, for a begin.
    end: Option<usize>,
}

/// The events that are not taken out, by their order. Place 0 is the list's head.
struct Events {
    all: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
}

const HEAD: usize = 0;

impl Events {
    fn new<A>(operations: &[Operation<A>]) -> Self {
        // At one moment begins come before ends: then the two overlap, which allows more.
        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * operations.len());
        for (number, operation) in operations.iter().enumerate() {
            moments.push((operation.begin, false, number));
            moments.push((operation.end.unwrap_or(u64::MAX), true, number));
        }
        moments.sort_unstable();
        let mut ends = vec![HEAD; operations.len()];
        for (at, (_, is_end, number)) in (1..).zip(&moments) {
            if *is_end {
                ends[*number] = at;
            }
        }
        let mut all = vec![Event { operation: 0, end: None }];
        all.extend(moments.iter().map(|(_, is_end, number)| Event {
            operation: *number,
            end: (!is_end).then(|| ends[*number]),
        }));
        let count = all.len();
        let next = (1..=count).map(|at| at % count).collect();
        let previous = (0..count).map(|at| (at + count - 1) % count).collect();
        Self { all, next, previous }
    }

    fn take(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        (self.next[before], self.previous[after]) = (after, before);
    }

    fn put_back(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        (self.next[before], self.previous[after]) = (at, at);
    }
}

/// The longest prefix of an order that was found, where there is no whole one: the operations by
/// their number, in that order, and the one whose end could not be passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// In the order in which they can have happened.
    pub order: Vec<usize>,
    /// What was answered to it fits nowhere.
    pub on: usize,
}

/// Whether one object can have shown this.
///
/// # Errors
/// Where it cannot: how far an order goes.
pub fn check<M: Model>(operations: &[Operation<M::Act>]) -> Result<(), Stuck> {
    check_within::<M>(operations, u64::MAX).unwrap_or(Ok(()))
}

/// The same, in so many steps at most; none where they were not enough to say. What nobody knows
/// the end of makes bad histories dear, as each subset of it must be tried.
pub fn check_within<M: Model>(
    operations: &[Operation<M::Act>],
    steps_max: u64,
) -> Option<Result<(), Stuck>> {
    let mut rng = Rng::new(0x11ea);
    let marks: Vec<u128> = operations
        .iter()
        .map(|_| (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64()))
        .collect();
    let mut open = operations.iter().filter(|operation| operation.end.is_some()).count();
    let mut events = Events::new(operations);
    let mut state = M::initial();
    let mut taken = 0_u128;
    let mut seen: HashSet<(u128, M::State)> = HashSet::new();
    let mut path: Vec<(usize, M::State)> = Vec::new();
    let mut stuck = Stuck { order: Vec::new(), on: 0 };
    let mut at = events.next[HEAD];
    let mut steps = 0;
    while open > 0 {
        steps += 1;
        if steps > steps_max {
            return None;
        }
        let Event { operation, end } = events.all[at];
        if let Some(end) = end {
            let after = M::step(&state, &operations[operation].act);
            let after =
                after.filter(|after| seen.insert((taken ^ marks[operation], after.clone())));
            let Some(after) = after else {
                at = events.next[at];
                continue;
            };
            events.take(at);
            events.take(end);
            taken ^= marks[operation];
            open -= usize::from(operations[operation].end.is_some());
            path.push((at, std::mem::replace(&mut state, after)));
            at = events.next[HEAD];
            continue;
        }
        // An end: whatever has begun before it was tried, so something taken was wrong.
        if stuck.order.len() <= path.len() {
            let order = path.iter().map(|(at, _)| events.all[*at].operation).collect();
            stuck = Stuck { order, on: operation };
        }
        let Some((begin, before)) = path.pop() else { return Some(Err(stuck)) };
        let Event { operation, end } = events.all[begin];
        events.put_back(end.unwrap_or(HEAD));
        events.put_back(begin);
        taken ^= marks[operation];
        open += usize::from(operations[operation].end.is_some());
        state = before;
        at = events.next[begin];
    }
    Some(Ok(()))
}

/// Checks objects that do not touch each other, each by itself.
///
/// # Errors
/// The first object that cannot have shown what it did; numbers are those among its own operations.
pub fn check_each<M: Model, K: Ord>(
    operations: impl IntoIterator<Item = (K, Operation<M::Act>)>,
) -> Result<(), (K, Stuck)> {
    let mut objects: BTreeMap<K, Vec<Operation<M::Act>>> = BTreeMap::new();
    for (key, operation) in operations {
        objects.entry(key).or_default().push(operation);
    }
    for (key, operations) in objects {
        check::<M>(&operations).map_err(|stuck| (key, stuck))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
