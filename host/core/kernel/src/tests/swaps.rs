//! Policies that overlap, that are many, and whose components are not here yet.

use std::sync::atomic::{AtomicU32, Ordering};

use quorate_dispatch::{Guarded, POOLS_MAX, PolicyRef, PolicySource};
use quorate_ledger::{Activate, SystemCommand};
use quorate_types::{Gone, WireEvent};

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
    let activated = one.ledger().policy("balancer").map(|policy| policy.epoch);
    assert_ne!(activated, Some(one.ledger().adopted_epoch("balancer")), "the second is to come");

    one.pass(Duration::from_millis(200));
    one.steps = 0;
    one.pass(Duration::from_secs(2));
    assert!(one.steps < 200, "{} steps while it can decide nothing", one.steps);
    assert!(one.work.is_empty());
    one.release();
    one.pass(Duration::from_millis(100));
    assert_eq!(one.state(task), TaskState::Leased);
}

/// Native answers under names whose components are not here, and how often one was opened.
#[derive(Clone, Default)]
struct Absent(Arc<AtomicU32>);

impl PolicySource for Absent {
    fn open(&self, policy: &PolicyRef, seed: u64) -> Box<dyn Guarded> {
        self.0.fetch_add(1, Ordering::Relaxed);
        NativeSource.open(policy, seed)
    }

    fn ready(&self, _digest: &Digest) -> bool {
        false
    }
}

#[test]
fn a_component_that_no_peer_had_yet_is_prepared_until_it_is_here() {
    let peer = NodeId(2);
    let mut one = One::with_agents(&["echo"]);
    let source = Absent::default();
    one.kernel.source = Box::new(source.clone());
    one.unprepared = Some("no peer that is up has it".to_owned());
    one.apply(activate("least-used"));
    assert_eq!(one.prepared, 1, "it is not here when the entry is applied");
    one.pass(Duration::from_millis(1_100));
    assert_eq!(one.prepared, 2, "once more after a pause");
    one.pass(Duration::from_secs(3_600));
    assert!((50..70).contains(&one.prepared), "{} times in an hour", one.prepared);

    let before = one.prepared;
    one.give(Input::Wire(WireEvent::PeerUp(peer)));
    assert_eq!(one.prepared, before + 1, "at once when a peer comes up");
    one.give(Input::Wire(WireEvent::PeerGone(peer, Gone::Closed)));
    one.submit("echo");
    let opened = source.0.load(Ordering::Relaxed);
    one.unprepared = None;
    one.give(Input::Wire(WireEvent::PeerUp(peer)));
    assert_eq!(one.prepared, before + 2);
    one.submit("echo");
    assert_eq!(source.0.load(Ordering::Relaxed), opened + 1, "the component decides from now on");

    one.pass(Duration::from_secs(120));
    assert_eq!(one.prepared, before + 2, "and is not prepared again");
}

/// Native answers, each of which holds on to one thing while it is open.
struct Held(Arc<()>);

struct Holding(Box<dyn Guarded>, #[expect(dead_code, reason = "counted")] Arc<()>);

impl Guarded for Holding {
    fn balancer(&mut self) -> &mut dyn quorate_policy::Balancer {
        self.0.balancer()
    }

    fn fell_back(&self) -> bool {
        self.0.fell_back()
    }
}

impl PolicySource for Held {
    fn open(&self, policy: &PolicyRef, seed: u64) -> Box<dyn Guarded> {
        Box::new(Holding(NativeSource.open(policy, seed), Arc::clone(&self.0)))
    }

    fn ready(&self, _digest: &Digest) -> bool {
        true
    }
}

#[test]
fn tasks_of_many_kinds_are_placed_by_a_bounded_number_of_policies() {
    let kinds: Vec<String> = (0..2 * POOLS_MAX).map(|number| format!("kind{number}")).collect();
    let agents: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let mut one = One::with_agents(&agents);
    let held = Arc::new(());
    one.kernel.source = Box::new(Held(Arc::clone(&held)));
    for kind in &agents {
        one.submit(kind);
    }
    assert_eq!(one.work.len(), kinds.len(), "every task is placed");
    let open = Arc::strong_count(&held) - 2;
    assert_eq!(open, POOLS_MAX, "and the policies placed first have made room");
    while let Some((work, _order)) = one.work.pop() {
        one.give(Input::WorkEnded(work, Ok(Payload::default())));
    }
    assert_eq!(Arc::strong_count(&held) - 2, POOLS_MAX, "an end opens none");
}
