//! Histories by hand, each with one thing that must not be.

use TaskState::{Cancelled, Completed, DeadLetter, Leased, Queued, Retrying};
use quorate_types::{TaskSpec, Time};

use super::*;

const T: TaskId = TaskId(7);

fn event(state: TaskState, token: u64) -> EventKind {
    EventKind::Task {
        task: T,
        namespace: "default".to_owned(),
        state,
        agent: None,
        token: (token > 0).then_some(Token(token)),
        attempt: 0,
        policy_epoch: None,
        reason: None,
        result: None,
        labels: BTreeMap::new(),
    }
}

/// The judge after these (state, token), and what it said of the last.
fn after(history: &[(TaskState, u64)]) -> (Tasks, Option<Law>) {
    let (mut judge, mut law) = (Tasks::default(), None);
    for (state, token) in history {
        assert_eq!(law, None, "only the last is wrong");
        let verdict = judge.see(Index(1), &event(*state, *token), &mut Tally::default());
        law = verdict.err().map(|breach| breach.law);
    }
    (judge, law)
}

fn law(verdict: Verdict) -> Option<Law> {
    verdict.err().map(|breach| breach.law)
}

fn view(state: TaskState, result: Option<Payload>) -> TaskView {
    TaskView {
        id: T,
        spec: TaskSpec::default(),
        state,
        attempts: 1,
        failures: 0,
        lease: None,
        result,
        error: None,
        created: Time(0),
        finished: None,
    }
}

#[test]
fn a_life_in_order_is_let_pass() {
    let life = [(Queued, 0), (Leased, 1), (Queued, 1), (Leased, 2), (Retrying, 2), (Leased, 3)];
    assert_eq!(after(&life).1, None);
    for end in [Completed, DeadLetter, Cancelled] {
        let life: Vec<_> = life.into_iter().chain([(end, 3)]).collect();
        assert_eq!(after(&life).1, None, "{end}");
    }
}

#[test]
fn what_happens_after_an_end_is_seen() {
    let ended = [(Queued, 0), (Leased, 1), (Completed, 1)];
    for again in [Completed, Queued, Leased, Cancelled] {
        let life: Vec<_> = ended.into_iter().chain([(again, 1)]).collect();
        assert_eq!(after(&life).1, Some(Law::Conservation), "{again}");
    }
    assert_eq!(after(&[(Completed, 1)]).1, Some(Law::Conservation), "never submitted");
    assert_eq!(after(&[(Queued, 0), (Completed, 1)]).1, Some(Law::Conservation), "never leased");
}

#[test]
fn a_stale_token_is_seen() {
    let other = [(Queued, 0), (Leased, 1), (Queued, 1), (Leased, 2), (Completed, 1)];
    assert_eq!(after(&other).1, Some(Law::Fencing));
    let reused = [(Queued, 0), (Leased, 2), (Queued, 2), (Leased, 2)];
    assert_eq!(after(&reused).1, Some(Law::Fencing));
}

#[test]
fn an_ack_of_what_is_not_so_is_seen() {
    let (mut judge, _) = after(&[(Queued, 0), (Leased, 1)]);
    let result = Payload::default();
    assert_eq!(judge.acknowledged("key", T, result.clone()), Ok(()));
    let other = judge.acknowledged("key", TaskId(8), result.clone());
    assert_eq!(law(other), Some(Law::Idempotency));
    let unknown = judge.acknowledged("other", TaskId(9), result);
    assert_eq!(law(unknown), Some(Law::ReadYourWrites));
    assert_eq!(law(judge.completed(T, Token(1))), Some(Law::Fencing));
    assert_eq!(law(judge.cancelled(T)), Some(Law::ReadYourWrites));

    let (judge, _) = after(&[(Queued, 0), (Leased, 1), (Completed, 1)]);
    assert_eq!(judge.completed(T, Token(1)), Ok(()));
    assert_eq!(law(judge.completed(T, Token(2))), Some(Law::Fencing));
    assert_eq!(judge.read(T, Some(Completed), Completed), Ok(()));
    assert_eq!(judge.read(T, Some(Leased), Completed), Ok(()));
    assert_eq!(law(judge.read(T, Some(Completed), Leased)), Some(Law::ReadYourWrites));
}

#[test]
fn a_lost_unfinished_or_wrong_task_is_seen_at_the_end() {
    let (mut judge, _) = after(&[(Queued, 0), (Leased, 1)]);
    let right = Payload::Inline("right".into());
    assert_eq!(judge.acknowledged("key", T, right.clone()), Ok(()));
    assert!(!judge.is_settled());
    assert_eq!(law(judge.end(|_| None, 1)), Some(Law::Conservation));
    assert_eq!(law(judge.end(|_| Some(view(Leased, None)), 1)), Some(Law::Liveness));

    let done = judge.see(Index(2), &event(Completed, 1), &mut Tally::default());
    assert_eq!(done, Ok(()));
    assert!(judge.is_settled());
    let end = |state, result: &Payload, counted| {
        law(judge.end(|_| Some(view(state, Some(result.clone()))), counted))
    };
    assert_eq!(end(Completed, &right, 1), None);
    assert_eq!(end(Completed, &Payload::default(), 1), Some(Law::Conservation));
    assert_eq!(end(Cancelled, &right, 1), Some(Law::Conservation));
    assert_eq!(end(Completed, &right, 2), Some(Law::Conservation));
}
