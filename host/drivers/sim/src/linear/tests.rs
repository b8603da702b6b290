use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use super::*;

/// A register of small numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Read(u8),
    Write(u8),
    Exchange { from: u8, to: u8, done: bool },
}

struct Register;

impl Model for Register {
    type State = u8;
    type Act = Act;

    fn initial() -> u8 {
        0
    }

    fn step(state: &u8, act: &Act) -> Option<u8> {
        match *act {
            Act::Read(value) => (value == *state).then_some(*state),
            Act::Write(value) => Some(value),
            Act::Exchange { from, to, done: true } => (from == *state).then_some(to),
            Act::Exchange { from, done: false, .. } => (from != *state).then_some(*state),
        }
    }
}

/// The same, for the oracle.
struct Oracle;

impl Specification for Oracle {
    type State = u8;
    type Operation = Act;

    fn init() -> u8 {
        0
    }

    fn apply(act: &Act, state: &u8) -> (bool, u8) {
        Register::step(state, act).map_or((false, *state), |after| (true, after))
    }
}

fn done(begin: u64, end: u64, act: Act) -> Operation<Act> {
    Operation { begin, end: Some(end), act }
}

#[test]
fn a_read_may_see_a_write_that_overlaps_it_and_must_see_one_that_ended() {
    let write = done(1, 4, Act::Write(7));
    assert_eq!(check::<Register>(&[write, done(2, 3, Act::Read(0))]), Ok(()));
    assert_eq!(check::<Register>(&[write, done(2, 3, Act::Read(7))]), Ok(()));
    assert_eq!(check::<Register>(&[write, done(5, 6, Act::Read(7))]), Ok(()));
    let stale = check::<Register>(&[write, done(5, 6, Act::Read(0))]);
    assert_eq!(stale, Err(Stuck { order: vec![0], on: 1 }));
}

#[test]
fn two_reads_do_not_go_back_in_time() {
    let write = done(1, 10, Act::Write(7));
    let reads =
        |first, second| [write, done(2, 3, Act::Read(first)), done(4, 5, Act::Read(second))];
    assert_eq!(check::<Register>(&reads(0, 7)), Ok(()));
    assert!(check::<Register>(&reads(7, 0)).is_err());
}

#[test]
fn what_nobody_knows_the_end_of_may_happen_late_or_never() {
    let write = Operation { begin: 1, end: None, act: Act::Write(7) };
    let reads = |values: [u8; 2]| {
        [write, done(2, 3, Act::Read(values[0])), done(8, 9, Act::Read(values[1]))]
    };
    for values in [[0, 0], [0, 7], [7, 7]] {
        assert_eq!(check::<Register>(&reads(values)), Ok(()), "{values:?}");
    }
    assert!(check::<Register>(&reads([7, 0])).is_err());
}

#[test]
fn objects_are_checked_apart() {
    let good = [("a", done(1, 2, Act::Write(1))), ("b", done(3, 4, Act::Read(0)))];
    assert_eq!(check_each::<Register, _>(good), Ok(()));
    let bad = [("a", done(1, 2, Act::Write(1))), ("a", done(3, 4, Act::Read(0)))];
    assert_eq!(check_each::<Register, _>(bad).unwrap_err().0, "a");
}

/// What the oracle is shown: who called or was answered.
type Actions = Vec<(usize, Action<Act>)>;

/// Some callers at a register; now and then one is told something else than it was.
fn drawn(rng: &mut Rng) -> (Vec<Operation<Act>>, Actions) {
    let (callers, mut state) = (2 + rng.below(3), 0_u8);
    let mut open: Vec<Option<(u64, Act)>> = vec![None; usize::try_from(callers).unwrap()];
    let (mut operations, mut actions) = (Vec::new(), Vec::new());
    for now in 0..12 + rng.below(14) {
        let caller = usize::try_from(rng.below(callers)).unwrap();
        let small = |rng: &mut Rng| u8::try_from(rng.below(3)).unwrap();
        if let Some((begin, act)) = open[caller].take() {
            operations.push(done(begin, now, act));
            actions.push((caller, Action::Response(act)));
            continue;
        }
        // It happens at once, and is told at its end; some answers are made up.
        let mut act = match rng.below(3) {
            0 => Act::Read(state),
            1 => Act::Write(small(rng)),
            _ => {
                let (from, to) = (small(rng), small(rng));
                Act::Exchange { from, to, done: from == state }
            }
        };
        state = Register::step(&state, &act).unwrap();
        if rng.chance(60_000) {
            act = match act {
                Act::Read(_) => Act::Read(small(rng)),
                Act::Exchange { from, to, done } => Act::Exchange { from, to, done: !done },
                Act::Write(_) => act,
            };
        }
        open[caller] = Some((now, act));
        actions.push((caller, Action::Call(act)));
    }
    for (caller, left) in open.into_iter().enumerate() {
        if let Some((begin, act)) = left {
            operations.push(done(begin, 1_000, act));
            actions.push((caller, Action::Response(act)));
        }
    }
    (operations, actions)
}

#[test]
fn it_agrees_with_another_checker_on_thousands_of_histories() {
    let mut bad = 0;
    for seed in 0..6_000 {
        let (operations, actions) = drawn(&mut Rng::new(seed));
        let expected = WGLChecker::<Oracle>::is_linearizable(History::from_actions(actions));
        assert_eq!(check::<Register>(&operations).is_ok(), expected, "seed {seed}: {operations:?}");
        bad += u64::from(!expected);
    }
    assert!((500..5_000).contains(&bad), "{bad} of them were bad");
}

#[test]
fn a_long_history_takes_no_time_to_speak_of() {
    let mut rng = Rng::new(1);
    let mut state = 0;
    let operations: Vec<_> = (0..100_000_u64)
        .map(|now| {
            let from = u8::try_from(rng.below(4)).unwrap();
            let act = Act::Exchange { from, to: from ^ 1, done: from == state };
            state = Register::step(&state, &act).unwrap();
            // Ten overlap at any time.
            done(now * 10, now * 10 + 100, act)
        })
        .collect();
    assert_eq!(check::<Register>(&operations), Ok(()));
}

#[test]
fn a_history_that_takes_too_long_is_told_from_a_bad_one() {
    let writes = (0..16).map(|value| Operation { begin: 1, end: None, act: Act::Write(value) });
    let mut operations: Vec<_> = writes.collect();
    operations.push(done(20, 21, Act::Read(99)));
    assert_eq!(check_within::<Register>(&operations, 10_000), None);
    operations.truncate(3);
    operations.push(done(20, 21, Act::Read(99)));
    let found = check_within::<Register>(&operations, 10_000);
    assert_eq!(found.map(|found| found.map_err(|stuck| stuck.on)), Some(Err(3)));
}
