//! Whether what clients saw of keys is linearizable, each key being an object: by the
//! simulator's checker, with the few rules that a key has written again.

use std::collections::BTreeMap;

use quorate_sim::linear::{Model, Operation, check_within};
use quorate_types::Time;
use quorate_types::history::{self, Asked, End, History};

/// A search that takes longer is given up, and counted as such.
const STEPS_MAX: u64 = 20_000_000;
/// How many operations before the one that fits nowhere are shown.
const SHOWN: usize = 6;

/// What was judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) keys: usize,
    pub(crate) operations: usize,
    /// Writes that were acknowledged.
    pub(crate) acknowledged: usize,
    /// Writes of which nobody knows whether they were done.
    pub(crate) unknown: usize,
    /// Keys whose search was given up.
    pub(crate) given_up: Vec<String>,
    /// Keys that cannot have shown what they did, with what fits nowhere.
    pub(crate) refuted: Vec<String>,
}

/// What a key holds, by number, and how often it was put since it came to be.
type Cell = Option<(u64, u64)>;

#[derive(Clone, Copy, Debug)]
enum Act {
    Get(Cell),
    /// The version that was told, if anything was.
    Put(u64, Option<u64>),
    PutIf {
        version: u64,
        value: u64,
        told: Told,
    },
    /// Whether there was such a key, if it was told.
    Delete(Option<bool>),
}

#[derive(Clone, Copy, Debug)]
enum Told {
    Done(u64),
    Mismatch,
    Nothing,
}

struct Key;

impl Model for Key {
    type State = Cell;
    type Act = Act;

    fn initial() -> Cell {
        None
    }

    fn step(state: &Cell, act: &Act) -> Option<Cell> {
        let version = state.map_or(0, |(_value, version)| version);
        let put = |value| Some((value, version + 1));
        match *act {
            Act::Get(seen) => (*state == seen).then_some(*state),
            Act::Put(value, told) => {
                told.is_none_or(|told| told == version + 1).then(|| put(value))
            }
            Act::PutIf { version: expected, value, told } => match (told, version == expected) {
                (Told::Done(told), true) => (told == version + 1).then(|| put(value)),
                (Told::Done(_), false) | (Told::Mismatch, true) => None,
                (Told::Nothing, true) => Some(put(value)),
                (Told::Mismatch | Told::Nothing, false) => Some(*state),
            },
            Act::Delete(told) => told.is_none_or(|told| told == state.is_some()).then_some(None),
        }
    }
}

/// Judges each key's part of a history by itself.
pub(crate) fn judge(history: &History) -> Judged {
    let mut judged = Judged::default();
    for (key, seen) in history.by_key() {
        let mut numbers = BTreeMap::new();
        let operations: Vec<(&history::Operation, Operation<Act>)> =
            seen.iter().filter_map(|one| Some((*one, operation(one, &mut numbers)?))).collect();
        judged.keys += 1;
        judged.operations += operations.len();
        let writes = || operations.iter().filter(|(one, _)| one.asked != Asked::Get);
        judged.acknowledged +=
            writes().filter(|(one, _)| matches!(one.end, End::Put(_) | End::Deleted(_))).count();
        judged.unknown += writes().filter(|(one, _)| one.end == End::Unknown).count();
        let plain: Vec<_> = operations.iter().map(|(_, operation)| *operation).collect();
        match check_within::<Key>(&plain, STEPS_MAX) {
            Some(Ok(())) => {}
            None => judged.given_up.push(key.to_owned()),
            Some(Err(stuck)) => {
                let from = stuck.order.len().saturating_sub(SHOWN);
                let told = |number: &usize| format!("\n  {:?}", operations[*number].0);
                let before: String = stuck.order[from..].iter().map(told).collect();
                let on = told(&stuck.on);
                judged.refuted.push(format!("of {key}:{on}\nfits nowhere, after{before}"));
            }
        }
    }
    judged
}

/// None where it says nothing.
fn operation<'a>(
    one: &'a history::Operation,
    numbers: &mut BTreeMap<&'a str, u64>,
) -> Option<Operation<Act>> {
    let count = u64::try_from(numbers.len()).unwrap_or(u64::MAX);
    let mut number = |value: &'a str| *numbers.entry(value).or_insert(count);
    let act = match (&one.asked, &one.end) {
        (_, End::Failed) | (Asked::Get, End::Unknown) => return None,
        (Asked::Get, End::Found(found)) => {
            Act::Get(found.as_ref().map(|(value, version)| (number(value), *version)))
        }
        (Asked::Put(value), End::Put(version)) => Act::Put(number(value), Some(*version)),
        (Asked::Put(value), End::Unknown) => Act::Put(number(value), None),
        (Asked::PutIf { version, value }, end) => {
            let told = match end {
                End::Put(told) => Told::Done(*told),
                End::Mismatch => Told::Mismatch,
                End::Unknown => Told::Nothing,
                End::Found(_) | End::Deleted(_) | End::Failed => unreachable!("no answer to it"),
            };
            Act::PutIf { version: *version, value: number(value), told }
        }
        (Asked::Delete, End::Deleted(existed)) => Act::Delete(Some(*existed)),
        (Asked::Delete, End::Unknown) => Act::Delete(None),
        (Asked::Get, End::Put(_) | End::Mismatch | End::Deleted(_))
        | (Asked::Put(_), End::Found(_) | End::Mismatch | End::Deleted(_))
        | (Asked::Delete, End::Found(_) | End::Put(_) | End::Mismatch) => {
            unreachable!("{one:?} was answered otherwise than it was asked")
        }
    };
    let Time(begin) = one.called;
    Some(Operation { begin, end: one.returned.map(|Time(end)| end), act })
}
