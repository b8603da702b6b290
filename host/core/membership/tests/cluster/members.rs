//! Who belongs to the cluster may change while a node lives.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_membership::{Config, Effect, Membership, Status};
use quorate_types::{AgentId, Gone, Incarnation, LoadReading, NodeId, Time};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);

fn set(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// Carries frames between the two until none is left.
fn exchange(now: Time, one: &mut Membership, two: &mut Membership) {
    one.tick(now);
    two.tick(now);
    let mut quiet = false;
    while !quiet {
        quiet = true;
        for first in [true, false] {
            let (from, to, sender) =
                if first { (&mut *one, &mut *two, N1) } else { (&mut *two, &mut *one, N2) };
            while let Some(effect) = from.poll_effect() {
                let Effect::Send { frame, .. } = effect else { continue };
                quiet = false;
                to.handle_frame(now, sender, &frame).unwrap();
            }
        }
    }
}

#[test]
fn a_member_that_is_added_is_heard_and_one_that_is_removed_is_forgotten() {
    let alone = |node| Membership::new(Config::new(node, [node].into(), Incarnation(1)), node.0);
    let (mut one, mut two) = (alone(N1), alone(N2));
    let mut now = Time(1_000_000);
    one.peer_up(now, N2);
    assert_eq!(one.status(N2), None, "no member yet");
    for (node, other) in [(&mut one, N2), (&mut two, N1)] {
        node.set_members(now, set(&[1, 2]));
        assert_eq!(node.status(other), Some(Status::Suspect), "it has not answered yet");
        node.peer_up(now, other);
    }
    let reading = LoadReading { in_flight: 3, ..LoadReading::default() };
    two.publish_reading(AgentId(7), reading);
    for _ in 0..200 {
        now += Duration::from_millis(10);
        exchange(now, &mut one, &mut two);
    }
    assert_eq!((one.status(N2), two.status(N1)), (Some(Status::Alive), Some(Status::Alive)));
    assert_eq!(one.reading(AgentId(7)).map(|(reading, _at)| reading), Some(reading));

    one.set_members(now, set(&[1]));
    one.peer_gone(now, N2, Gone::Closed);
    assert_eq!((one.status(N2), one.reading(AgentId(7))), (None, None));
    assert!(one.members().map(|member| member.node).eq([N1]));
    one.tick(now + Duration::from_secs(60));
    assert!(one.poll_effect().is_none(), "nobody is left to speak to");

    // And back, in the same life.
    one.set_members(now, set(&[1, 2]));
    one.peer_up(now, N2);
    two.peer_up(now, N1);
    for _ in 0..300 {
        now += Duration::from_millis(10);
        exchange(now, &mut one, &mut two);
    }
    assert_eq!(one.status(N2), Some(Status::Alive));
    assert_eq!(one.reading(AgentId(7)).map(|(reading, _at)| reading), Some(reading));
}
