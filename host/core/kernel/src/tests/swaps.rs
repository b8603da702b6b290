//! Policies that overlap, and components that are not here yet.

use quorate_ledger::{Activate, SystemCommand};

use super::*;

fn activate(name: &str) -> SystemCommand {
    SystemCommand::ActivatePolicy(Activate {
        slot: "balancer".to_owned(),
        name: name.to_owned(),
        digest: Digest::of(name.as_bytes()),
        world: "quorate:balancer/policy@0.1.0-dev".to_owned(),
        config: Bytes::new(),
    })
}

#[test]
fn a_leader_rests_while_two_swaps_overlap_and_gives_what_is_due_after_them() {
    let mut one = One::with_agents(&["echo"]);
    let not_before = Some(one.now + Duration::from_millis(100));
    let task = one.submit_spec(TaskSpec { not_before, ..task("echo") });

    one.held = Some(Vec::new());
    one.apply(activate("least-used"));
    one.apply(activate("round-robin"));
    let first = one.held.replace(Vec::new()).unwrap_or_default();
    for effect in first {
        let Effect::Propose(ticket, group, entry) = effect else { continue };
        for input in one.commit(ticket, group, &entry) {
            one.give(input);
        }
    }
    let activated = one.ledger.policy("balancer").map(|policy| policy.epoch);
    assert_ne!(activated, Some(one.ledger.adopted_epoch("balancer")), "the second is to come");

    one.pass(Duration::from_millis(200));
    one.steps = 0;
    one.pass(Duration::from_secs(2));
    assert!(one.steps < 200, "{} steps while it can decide nothing", one.steps);
    assert!(one.work.is_empty());
    one.release();
    one.pass(Duration::from_millis(100));
    assert_eq!(one.state(task), TaskState::Leased);
}
