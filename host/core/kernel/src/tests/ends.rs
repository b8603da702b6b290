//! Ends of work that are too long to be told whole, or come too late.

use quorate_types::WireEvent;
use quorate_types::limits::{INLINE_BYTES_MAX, REASON_BYTES_MAX};

use super::*;
use crate::frame::{self, Routed};
use crate::io::WorkFault;

#[test]
fn a_fault_of_megabytes_is_recorded_as_far_as_it_is_kept() {
    let mut one = One::with_agents(&["echo"]);
    let task = one.submit("echo");
    let (work, _order) = one.work.pop().expect("it was begun");
    let message = "\u{fc}".repeat(3 << 20);
    one.sent.clear();
    one.give(Input::WorkEnded(work, Err(WorkFault { message, retry: false })));
    assert_eq!(one.state(task), TaskState::DeadLetter);

    one.give(Input::Call { id: CallId(1), spec: Box::new(call("echo")) });
    let (work, _order) = one.work.pop().expect("it was begun");
    let message = format!("x{}", "\u{fc}".repeat(3 << 20));
    one.give(Input::WorkEnded(work, Err(WorkFault { message, retry: false })));
    let [Err(Refusal::Agent(why))] = &one.told[..] else { panic!("it failed") };
    assert_eq!(why.len(), REASON_BYTES_MAX - 1, "no letter is cut in two");
}

#[test]
fn a_result_that_the_log_will_not_take_fails_its_task_and_is_not_sent_for_ever() {
    let mut one = One::with_agents(&["echo"]);
    let task = one.submit("echo");
    let (work, _order) = one.work.pop().expect("it was begun");
    let large = Payload::Inline(vec![0; INLINE_BYTES_MAX + 1].into());
    one.give(Input::WorkEnded(work, Ok(large)));
    assert_eq!(one.state(task), TaskState::DeadLetter);
    let before = one.index(GroupId::SYSTEM);
    one.pass(Duration::from_secs(2));
    assert_eq!(one.index(GroupId::SYSTEM), before, "nothing more is proposed for it");
    let next = one.submit("echo");
    assert_eq!(one.state(next), TaskState::Leased, "its slot is free");
}

#[test]
fn a_hosted_call_ends_at_its_deadline_though_nobody_abandons_it() {
    let mut one = One::with_agents(&["echo"]);
    let (agent, incarnation) =
        one.ledger().agents().map(|agent| (agent.id, agent.incarnation)).next().expect("it lives");
    let begin = Routed::Begin {
        call: CallId(1),
        attempt: 1,
        agent,
        incarnation,
        within_ms: 500,
        spec: Box::new(call("echo")),
    };
    let frame = frame::encode(&begin);
    one.give(Input::Wire(WireEvent::Frame { from: NodeId(2), lane: Lane::Call, frame }));
    one.pass(Duration::from_millis(490));
    assert_eq!(one.work.len(), 1, "it runs");
    one.pass(Duration::from_millis(20));
    assert!(one.work.is_empty(), "it was cancelled");
    one.steps = 0;
    one.pass(Duration::from_secs(1));
    assert!(one.steps < 20, "{} steps for a call that is over", one.steps);
}
