//! Keys: what callers saw of the keys under one first segment is linearizable, the
//! segment being one object, as ranges and transactions are about several keys.
//!
//! The model is the few rules that a key has, written again. Besides, a revision is
//! one value for ever.

use std::collections::BTreeMap;

use quorate_types::kv::Revision;

use crate::law::{Law, Verdict};
use crate::linear::{Model, Operation, Stuck, check_within};

/// Keys of a segment.
pub(crate) const KEYS: usize = 3;
/// A search that takes longer than this is given up, and counted. A good history takes a few steps
/// an operation.
const STEPS_MAX: u64 = 2_000_000;

/// What a key holds, and how often it was put since it came to be.
pub(crate) type Cell = Option<(u64, u64)>;
/// A segment's keys.
pub(crate) type Cells = [Cell; KEYS];

/// What must be true of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Absent,
    Present,
    Version(u64),
    Value(u64),
}

/// An act on a key, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Get(usize),
    Put(usize, u64, Option<Is>),
    Delete(usize, Option<Is>),
    DeleteAll,
}

/// What is done as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    One(Ask),
    Txn { compare: Vec<(usize, Is)>, then: Vec<Ask>, otherwise: Vec<Ask> },
    Range,
}

/// What came of an act on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Got(Cell),
    /// The version.
    Put(u64),
    /// How many.
    Deleted(u64),
}

/// What came of an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    One(Told),
    Txn {
        held: bool,
        results: Vec<Told>,
    },
    Range(Cells),
    /// A key was not as expected; nothing was changed.
    Conflict,
}

/// Acts done together, in order, with what came of each where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) acts: Vec<Act>,
    pub(crate) answers: Option<Vec<Answer>>,
}

/// A segment as one caller alone sees it.
pub(crate) struct Segment;

impl Model for Segment {
    type State = Cells;
    type Act = Seen;

    fn initial() -> Cells {
        [None; KEYS]
    }

    fn step(state: &Cells, seen: &Seen) -> Option<Cells> {
        let mut after = *state;
        for (at, act) in seen.acts.iter().enumerate() {
            let answer = perform(&mut after, act);
            if seen.answers.as_ref().is_some_and(|told| told.get(at) != Some(&answer)) {
                return None;
            }
        }
        Some(after)
    }
}

fn perform(cells: &mut Cells, act: &Act) -> Answer {
    match act {
        Act::Range => Answer::Range(*cells),
        Act::One(ask) => perform_one(cells, *ask).map_or(Answer::Conflict, Answer::One),
        Act::Txn { compare, then, otherwise } => {
            let held = compare.iter().all(|(key, is)| holds(cells[*key], *is));
            let asks = if held { then } else { otherwise };
            let mut after = *cells;
            let results: Option<Vec<Told>> =
                asks.iter().map(|ask| perform_one(&mut after, *ask)).collect();
            let Some(results) = results else { return Answer::Conflict };
            *cells = after;
            Answer::Txn { held, results }
        }
    }
}

/// None where the key is not as expected.
fn perform_one(cells: &mut Cells, ask: Ask) -> Option<Told> {
    let expected = |cell: Cell, is: Option<Is>| is.is_none_or(|is| holds(cell, is));
    match ask {
        Ask::Get(key) => Some(Told::Got(cells[key])),
        Ask::Put(key, value, is) => expected(cells[key], is).then(|| {
            let version = cells[key].map_or(0, |(_, version)| version) + 1;
            cells[key] = Some((value, version));
            Told::Put(version)
        }),
        Ask::Delete(key, is) => {
            expected(cells[key], is).then(|| Told::Deleted(u64::from(cells[key].take().is_some())))
        }
        Ask::DeleteAll => {
            let gone = cells.iter_mut().filter_map(Option::take).count();
            Some(Told::Deleted(u64::try_from(gone).unwrap_or(u64::MAX)))
        }
    }
}

fn holds(cell: Cell, is: Is) -> bool {
    match is {
        Is::Absent => cell.is_none(),
        Is::Present => cell.is_some(),
        Is::Version(version) => cell.map_or(0, |(_, version)| version) == version,
        Is::Value(value) => cell.is_some_and(|(held, _)| held == value),
    }
}

/// All segments.
#[derive(Default)]
pub(crate) struct Keys {
    histories: BTreeMap<String, Vec<Operation<Seen>>>,
    values: BTreeMap<(String, usize, Revision), u64>,
}

impl Keys {
    /// Something was done, or may have been, to one segment.
    pub(crate) fn done(&mut self, segment: &str, operation: Operation<Seen>) {
        let reads = |act: &Act| matches!(act, Act::Range | Act::One(Ask::Get(_)));
        // What was only to be read, and was not, says nothing.
        if operation.end.is_some() || !operation.act.acts.iter().all(reads) {
            self.histories.entry(segment.to_owned()).or_default().push(operation);
        }
    }

    /// A door says that the key had this value from this revision on.
    pub(crate) fn held(&mut self, segment: &str, key: usize, at: Revision, value: u64) -> Verdict {
        let first = *self.values.entry((segment.to_owned(), key, at)).or_insert(value);
        if first == value {
            return Ok(());
        }
        Law::Linearizable
            .broken(format!("{segment}/{key} had {first} and {value} since revision {at}"))
    }

    /// The segments that somebody has touched.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.histories.keys().cloned().collect()
    }

    /// The last word on all of them, and how many could not be judged.
    pub(crate) fn end(&self) -> (Verdict, u64) {
        let mut unjudged = 0;
        for (segment, operations) in &self.histories {
            match check_within::<Segment>(operations, STEPS_MAX) {
                Some(Ok(())) => {}
                Some(Err(stuck)) => return (refuted(segment, operations, &stuck), unjudged),
                None => unjudged += 1,
            }
        }
        (Ok(()), unjudged)
    }
}

/// What was before, and what cannot have come then.
fn refuted(segment: &str, operations: &[Operation<Seen>], stuck: &Stuck) -> Verdict {
    const SHOWN: usize = 4;
    let said = |number: &usize| {
        operations.get(*number).map(|Operation { begin, end, act }| {
            let ms = |at: u64| at / 1_000_000;
            let end = end.map_or_else(|| "?".to_owned(), |end| ms(end).to_string());
            format!("{}..{end} ms {:?} -> {:?}", ms(*begin), act.acts, act.answers)
        })
    };
    let from = stuck.order.len().saturating_sub(SHOWN);
    let before: Vec<String> = stuck.order.iter().skip(from).filter_map(said).collect();
    let on = said(&stuck.on).unwrap_or_default();
    Law::Linearizable.broken(format!("of `{segment}`: {on} fits nowhere, after {before:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(begin: u64, end: u64, act: Act, answer: Answer) -> Operation<Seen> {
        let act = Seen { acts: vec![act], answers: Some(vec![answer]) };
        Operation { begin, end: Some(end), act }
    }

    fn law(operations: &[Operation<Seen>]) -> Option<Law> {
        let mut judge = Keys::default();
        operations.iter().for_each(|operation| judge.done("s", operation.clone()));
        judge.end().0.err().map(|breach| breach.law)
    }

    #[test]
    fn a_stale_range_and_a_put_that_happened_twice_are_seen() {
        let put = |begin, value, version| {
            let (act, told) = (Ask::Put(0, value, None), Told::Put(version));
            done(begin, begin + 1, Act::One(act), Answer::One(told))
        };
        let range =
            |begin, cell| done(begin, begin + 1, Act::Range, Answer::Range([cell, None, None]));
        assert_eq!(law(&[put(1, 7, 1), range(3, Some((7, 1)))]), None);
        assert_eq!(law(&[put(1, 7, 1), range(3, None)]), Some(Law::Linearizable));
        assert_eq!(law(&[put(1, 7, 1), put(3, 8, 3)]), Some(Law::Linearizable));
        let maybe = Seen { acts: vec![Act::One(Ask::Put(0, 9, None))], answers: None };
        let maybe = Operation { begin: 2, end: None, act: maybe };
        assert_eq!(law(&[put(1, 7, 1), maybe.clone(), put(3, 8, 3)]), None, "it may have been");
        assert_eq!(law(&[put(1, 7, 1), maybe, range(9, Some((7, 1)))]), None, "or not");
    }

    #[test]
    fn what_expects_otherwise_changes_nothing() {
        let compare = vec![(0, Is::Version(0)), (1, Is::Absent)];
        let then = vec![Ask::Put(0, 1, None), Ask::Put(1, 2, Some(Is::Present))];
        let txn = Act::Txn { compare, then, otherwise: vec![Ask::DeleteAll] };
        let get = |value| done(3, 4, Act::One(Ask::Get(0)), Answer::One(Told::Got(value)));
        let refused = done(1, 2, txn.clone(), Answer::Conflict);
        assert_eq!(law(&[refused.clone(), get(None)]), None);
        assert_eq!(law(&[refused, get(Some((1, 1)))]), Some(Law::Linearizable));
        let put = done(1, 2, Act::One(Ask::Put(0, 5, Some(Is::Absent))), Answer::One(Told::Put(1)));
        let results = vec![Told::Deleted(1)];
        let other = done(3, 4, txn, Answer::Txn { held: false, results });
        assert_eq!(law(&[put, other]), None);
    }

    #[test]
    fn a_revision_with_two_values_is_seen() {
        let mut judge = Keys::default();
        assert_eq!(judge.held("s", 0, Revision::default(), 1), Ok(()));
        assert_eq!(judge.held("s", 1, Revision::default(), 2), Ok(()));
        assert!(judge.held("s", 0, Revision::default(), 2).is_err());
    }
}
