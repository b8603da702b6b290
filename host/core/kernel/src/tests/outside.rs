//! Workers outside that are told too little, hold too long, or ask for too much.

use quorate_types::door::AgentFilter;
use quorate_types::limits::FRAME_BYTES_MAX;
use quorate_types::{Lane, Token, WireEvent};

use super::*;
use crate::frame::{self, Control, Errand, Setback};
use crate::outside::Outsiders;

/// A worker polls for one lease and says what it holds.
fn take_holding(
    one: &mut One,
    (agent, incarnation): (AgentId, Incarnation),
    holding: &[Token],
) -> AskId {
    let holding = Some(holding.to_vec());
    one.ask(Request::Take { agent, incarnation, max: 1, wait_ms: 4_000, holding })
}

fn beat(one: &mut One, worker: (AgentId, Incarnation)) {
    let reply = one.reply(Request::Beat(worker.0, worker.1, None));
    assert_eq!(reply, Reply::Done);
}

#[test]
fn a_lease_whose_answer_was_lost_is_told_again_to_a_worker_that_says_what_it_holds() {
    let mut one = One::with_agents(&[]);
    let worker = one.register("echo");
    let poll = take_holding(&mut one, worker, &[]);
    let task = one.submit("echo");
    let lost = one.leases(poll).remove(0);

    let poll = take_holding(&mut one, worker, &[]);
    assert!(one.answer(poll).is_none(), "its end, or the answer, may still be on its way");
    one.pass(Duration::from_secs(2));
    let told = one.leases(poll).remove(0);
    assert_eq!((told.lease.task, told.lease.token), (task, lost.lease.token), "the same lease");
    assert_eq!(told.lease.attempt, 1, "and no other attempt");

    let poll = take_holding(&mut one, worker, &[told.lease.token]);
    one.pass(Duration::from_secs(3));
    assert!(one.answer(poll).is_none(), "what it names is not told again");
}

#[test]
fn a_lease_that_ends_before_it_is_told_again_is_not() {
    let mut one = One::with_agents(&[]);
    let worker = one.register("echo");
    let poll = take_holding(&mut one, worker, &[]);
    let task = one.submit("echo");
    let token = one.leases(poll).remove(0).lease.token;
    // The end is acknowledged elsewhere and applied here a little later.
    let poll = take_holding(&mut one, worker, &[]);
    assert_eq!(one.reply(Request::Complete(task, token, Payload::default())), Reply::Done);
    one.pass(Duration::from_secs(3));
    assert!(one.answer(poll).is_none(), "there is nothing to tell");
}

#[test]
fn a_worker_that_comes_to_another_door_is_told_only_what_it_does_not_know() {
    let mut one = One::with_agents(&[]);
    let worker = one.register("echo");
    let poll = one.take(worker, 4_000);
    one.submit("echo");
    let known = one.leases(poll).remove(0).lease.token;
    // As at a door that has not seen it before.
    one.kernel.home.outside = Outsiders::default();
    let poll = take_holding(&mut one, worker, &[known]);
    one.pass(Duration::from_secs(3));
    assert!(one.answer(poll).is_none(), "it said that it knows");
}

#[test]
fn a_worker_outside_is_held_to_the_run_timeout_whatever_its_heartbeats() {
    let mut one = One::with_agents(&[]);
    let worker = one.register("echo");
    let poll = one.take(worker, 1_000);
    let timeouts = Timeouts { run_ms: Some(3_000), ..Timeouts::default() };
    let task = one.submit_spec(TaskSpec { timeouts, ..task("echo") });
    let first = one.leases(poll).remove(0).lease.token;
    for _ in 0..2 {
        one.pass(Duration::from_secs(1));
        beat(&mut one, worker);
    }
    assert_eq!(one.state(task), TaskState::Leased);
    one.pass(Duration::from_millis(1_100));
    assert_eq!(one.state(task), TaskState::Queued, "heartbeats do not lengthen a run");
    let late = one.ask(Request::Complete(task, first, Payload::default()));
    assert!(matches!(one.answer(late), Some(Err(Refusal::Conflict(_)))));
    let view = one.ledger().task(task).expect("a record");
    assert_eq!((view.attempts, view.failures), (1, 0), "the attempt is lost");
}

#[test]
fn a_poll_offers_no_more_than_its_workers_slots() {
    let mut one = One::with_agents(&[]);
    let (agent, incarnation) = one.register("echo");
    let tasks: Vec<TaskId> = (0..6).map(|_| one.submit("echo")).collect();
    one.held = Some(Vec::new());
    let take = |max| Request::Take { agent, incarnation, max, wait_ms: 1_000, holding: None };
    for max in [u32::MAX, 0] {
        one.ask(take(max));
    }
    one.release();
    one.pass(Duration::from_millis(900));
    assert_eq!(one.ledger().leases_count(agent), 4, "of {} tasks", tasks.len());
}

#[test]
fn an_answer_too_large_for_a_frame_is_refused_and_not_lost() {
    let mut one = One::with_agents(&[]);
    let capabilities: Vec<String> = (0..64).map(|at| format!("{at:0>128}")).collect();
    for at in 0..FRAME_BYTES_MAX / (64 * 128) + 1 {
        let spec = AgentSpec {
            namespace: "default".to_owned(),
            name: format!("outside-{at}"),
            node: NODE,
            node_incarnation: Incarnation(0),
            capabilities: CapabilitySet::from(capabilities.clone()),
            slots: 1,
            hosted: false,
        };
        let reply = one.reply(Request::Register(spec));
        assert!(matches!(reply, Reply::Registered(..)), "{reply:?}");
    }
    let filter = AgentFilter { namespace: Some("default".to_owned()), ..AgentFilter::default() };
    let request = Request::Agents(filter, Consistency::Stale);
    let Reply::Agents(here) = one.reply(request.clone()) else { panic!("agents were asked for") };
    assert!(here.len() > 500, "at its own door the node answers in full");

    let errand = Errand::Door(Box::new(request));
    let ask = frame::encode(&Control::Ask { id: 9, group: None, errand, within_ms: 1_000 });
    let asked = WireEvent::Frame { from: NodeId(2), lane: Lane::Control, frame: ask };
    let now = one.now();
    one.kernel.handle(now, Input::Wire(asked));
    one.kernel.settle(now);
    let answers = std::iter::from_fn(|| one.kernel.poll_effect()).filter_map(|effect| {
        let Effect::Send(NodeId(2), Lane::Control, sent) = effect else { return None };
        assert!(sent.len() < FRAME_BYTES_MAX, "{} bytes", sent.len());
        let control = frame::decode(&sent).expect("a frame of our own");
        if let Control::Answer { id: 9, result } = control { Some(result) } else { None }
    });
    let answers: Vec<_> = answers.collect();
    let [Err(Setback::Refused(Refusal::Invalid(why)))] = &answers[..] else {
        panic!("one refusal: {}", answers.len());
    };
    assert!(why.contains("ask for fewer"), "{why}");
}

#[test]
fn a_retry_comes_in_time_although_the_last_leaders_clock_was_an_hour_ahead() {
    let mut one = One::with_agents(&["echo"]);
    let task = one.submit("echo");
    let token = one.ledger().lease(task).expect("leased at once").token;
    one.lead(false);
    let error = "first attempt".to_owned();
    let fail = quorate_ledger::ShardCommand::Fail { task, token, error, retry: true };
    let ahead = one.now + Duration::from_secs(3_600);
    let entry = quorate_ledger::Command::from(fail).encode(ahead);
    let [applied, _answer] = one.commit(Ticket(0), GroupId::SYSTEM, &entry);
    one.give(applied);
    assert_eq!(one.ledger().task(task).expect("a record").state, TaskState::Retrying);

    one.lead(true);
    one.pass(Duration::from_secs(2));
    assert_eq!(one.state(task), TaskState::Leased, "it did not wait for the hour");
    let passed = one.ledger().time().since(ahead);
    assert!(passed < Duration::from_secs(2), "and ledger time went on at its pace: {passed:?}");
    one.submit("echo");
    assert!(one.ledger().time() > ahead, "whatever the leader stamps goes on from there");
}
