//! Keys and leases at their leader: what waits goes into one entry, and a lease
//! lives as long as it shows signs of life to whoever leads.

use quorate_types::kv::{Act, Done, KvAnswer, KvFound, KvRead, KvRequest, LeaseId, Op, OpDone};
use quorate_types::limits::KV_VALUE_BYTES_MAX;

use super::*;
use crate::io::LogSetback;

const TTL: Duration = Duration::from_secs(2);

fn put(key: &str, value: &str, lease: Option<LeaseId>) -> Act {
    let (key, value) = (key.to_owned(), value.into());
    Act::Op(Op::Put { key, value, lease, expect: None })
}

fn request(acts: Vec<Act>) -> Request {
    Request::Kv(vec![KvRequest { namespace: "default".to_owned(), nonce: None, acts }])
}

fn act(one: &mut One, act: Act) -> Result<Done, Refusal> {
    let Reply::Kv(mut answers) = one.reply(request(vec![act])) else { panic!("acts are answered") };
    answers.remove(0).remove(0)
}

fn grant(one: &mut One) -> LeaseId {
    let segment = "app".to_owned();
    let ttl_ms = u64::try_from(TTL.as_millis()).expect("small");
    let Ok(Done::Granted(info)) = act(one, Act::Grant { segment, ttl_ms }) else {
        panic!("a lease is granted")
    };
    info.lease
}

fn is_there(one: &mut One, key: &str) -> bool {
    let read = KvRead::Get { namespace: "default".to_owned(), key: key.to_owned() };
    let reply = one.reply(Request::KvRead(vec![read], Consistency::Linearizable));
    let Reply::KvFound(found, false) = reply else { panic!("{reply:?}") };
    matches!(found.as_slice(), [Ok(KvFound::Get(Some(_), _))])
}

fn answered(one: &mut One, id: AskId) -> KvAnswer {
    let reply = one.answer(id).expect("answered").expect("not refused");
    let Reply::Kv(mut answers) = reply else { panic!("{reply:?}") };
    answers.remove(0)
}

/// Asks several times within one step.
fn ask_together(one: &mut One, requests: Vec<Request>) -> Vec<AskId> {
    let ids: Vec<AskId> = requests
        .into_iter()
        .map(|request| {
            one.next_ask += 1;
            let id = AskId(one.next_ask);
            one.kernel.handle(one.now(), Input::Ask { id, request, within: WITHIN });
            id
        })
        .collect();
    one.kernel.settle(one.now());
    for input in one.carry_out() {
        one.give(input);
    }
    ids
}

#[test]
fn what_waits_goes_into_one_entry_and_each_gets_its_own_answer() {
    let mut one = One::with_agents(&[]);
    let before = one.index(GroupId::SYSTEM);
    let requests = ["app/a", "app/b", "/wrong"].map(|key| request(vec![put(key, "x", None)]));
    let ids = ask_together(&mut one, requests.to_vec());
    assert_eq!(one.index(GroupId::SYSTEM), before + 1, "one entry");
    let outcomes: Vec<_> = ids.iter().map(|id| answered(&mut one, *id).remove(0)).collect();
    assert!(matches!(outcomes[0], Ok(Done::Op(OpDone::Put { version: 1, .. }))));
    assert!(matches!(outcomes[1], Ok(Done::Op(OpDone::Put { version: 1, .. }))));
    assert!(matches!(outcomes[2], Err(Refusal::Invalid(_))));
}

#[test]
fn what_is_too_large_for_an_entry_keeps_nobody_else_out_of_the_log() {
    let mut one = One::with_agents(&[]);
    one.held = Some(Vec::new());
    let large = "x".repeat(KV_VALUE_BYTES_MAX);
    let many = (0..40).map(|n| put(&format!("app/{n}"), &large, None)).collect();
    let small = || request(vec![put("app/a", "x", None)]);
    let ids = ask_together(&mut one, vec![small(), request(many), small()]);
    let held = one.held.take().expect("held");
    let sizes: Vec<usize> = held
        .iter()
        .map(|effect| {
            let Effect::Propose(_ticket, _group, entry) = effect else { panic!("{effect:?}") };
            entry.len()
        })
        .collect();
    assert!(
        matches!(sizes[..], [first, second, third] if first < 1024 && third < 1024
        && second > 2 << 20),
        "{sizes:?}"
    );
    let Effect::Propose(ticket, ..) = held[1] else { unreachable!("it was one") };
    one.give(Input::Proposed(ticket, Err(LogSetback::TooLarge)));
    let refused = one.answer(ids[1]).expect("answered");
    assert!(matches!(refused, Err(Refusal::TooLarge { .. })), "{refused:?}");
    assert!(one.answer(ids[0]).is_none() && one.answer(ids[2]).is_none(), "they wait");
}

#[test]
fn an_entry_that_was_lost_is_proposed_again_with_all_that_was_in_it() {
    let mut one = One::with_agents(&[]);
    one.held = Some(Vec::new());
    let requests = ["app/a", "app/b"].map(|key| request(vec![put(key, "x", None)]));
    let ids = ask_together(&mut one, requests.to_vec());
    let held = one.held.take().expect("held");
    let [Effect::Propose(ticket, ..)] = held[..] else { panic!("{held:?}") };
    one.give(Input::Proposed(ticket, Err(LogSetback::Unknown)));
    one.pass(Duration::from_secs(1));
    for id in ids {
        assert!(answered(&mut one, id).remove(0).is_ok());
    }
    assert!(is_there(&mut one, "app/a") && is_there(&mut one, "app/b"));
}

/// The log's setbacks to one proposal after the other, and what the asker has heard then.
fn heard_after(setbacks: [LogSetback; 2]) -> (One, Option<Result<Reply, Refusal>>) {
    let mut one = One::with_agents(&[]);
    one.held = Some(Vec::new());
    let id = ask_together(&mut one, vec![request(vec![put("app/a", "x", None)])])[0];
    for (nth, setback) in setbacks.into_iter().enumerate() {
        let held = one.held.as_ref().expect("held");
        let Some(Effect::Propose(ticket, ..)) = held.get(nth) else { panic!("{held:?}") };
        one.give(Input::Proposed(*ticket, Err(setback)));
        one.pass(Duration::from_millis(5));
    }
    let heard = one.answer(id);
    (one, heard)
}

#[test]
fn what_may_have_been_done_is_never_refused_as_if_it_were_not() {
    // The second try finds the log full; the first may be committed yet.
    let (mut one, heard) = heard_after([LogSetback::Unknown, LogSetback::DiskFull]);
    assert_eq!(heard, None);
    one.pass(WITHIN);
    let late = one.answer(AskId(1));
    assert!(matches!(late, Some(Err(Refusal::Timeout(_) | Refusal::Unavailable(_)))), "{late:?}");
    // Here the first is known not to be.
    let (_, heard) = heard_after([LogSetback::NotLeader, LogSetback::Busy]);
    assert!(matches!(heard, Some(Err(Refusal::Busy { .. }))), "{heard:?}");
}

#[test]
fn a_lease_lives_by_its_signs_of_life_and_ends_without() {
    let mut one = One::with_agents(&[]);
    let lease = grant(&mut one);
    act(&mut one, put("app/a", "x", Some(lease))).expect("put");
    for _sign in 0..3 {
        one.pass(TTL * 3 / 4);
        assert_eq!(one.reply(Request::KvKeep(lease)), Reply::Renewed(2000));
    }
    assert!(is_there(&mut one, "app/a"));
    one.pass(TTL + Duration::from_millis(1));
    assert!(!is_there(&mut one, "app/a"));
    let id = one.ask(Request::KvKeep(lease));
    let late = one.answer(id).expect("answered");
    assert!(matches!(late, Err(Refusal::NotFound(_))), "{late:?}");
}

#[test]
fn a_new_leader_gives_every_lease_one_full_term() {
    let mut one = One::with_agents(&[]);
    let lease = grant(&mut one);
    act(&mut one, put("app/a", "x", Some(lease))).expect("put");
    one.pass(TTL * 3 / 4);
    one.lead(false);
    one.pass(TTL);
    one.lead(true);
    one.pass(TTL * 3 / 4);
    assert!(is_there(&mut one, "app/a"), "the time without a leader does not count");
    one.pass(TTL / 2);
    assert!(!is_there(&mut one, "app/a"));
}

#[test]
fn a_lease_that_another_leader_gave_has_a_clock_here_too() {
    let mut one = One::with_agents(&[]);
    let segment = "app".to_owned();
    let acts = vec![Act::Grant { segment, ttl_ms: 2000 }];
    let request = KvRequest { namespace: "default".to_owned(), nonce: None, acts };
    let outcome = one.apply(quorate_ledger::ShardCommand::Kv(vec![request]));
    let Outcome::Kv(answers) = outcome else { panic!("{outcome:?}") };
    let Ok(Done::Granted(info)) = &answers[0][0] else { panic!("{answers:?}") };
    act(&mut one, put("app/a", "x", Some(info.lease))).expect("put");
    one.pass(TTL + Duration::from_millis(1));
    assert!(!is_there(&mut one, "app/a"));
}

#[test]
fn no_sign_of_life_helps_a_lease_whose_end_is_proposed() {
    let mut one = One::with_agents(&[]);
    let lease = grant(&mut one);
    one.held = Some(Vec::new());
    one.pass(TTL + Duration::from_millis(1));
    assert_eq!(one.held.as_ref().map(Vec::len), Some(1), "its end waits for the log");
    let id = one.ask(Request::KvKeep(lease));
    assert!(matches!(one.answer(id), Some(Err(Refusal::NotFound(_)))));
    one.release();
    let id = one.ask(Request::KvKeep(lease));
    assert!(matches!(one.answer(id), Some(Err(Refusal::NotFound(_)))));
}
