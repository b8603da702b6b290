//! A guarded policy answers whatever its component does.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod guests;

use std::sync::Arc;

use guests::PolicyGuest;
use quorate_policy::{Balancer, Feature, Observation, Outcome, Slot};
use quorate_wasm::{GuardCounts, GuardedBalancer, PolicyComponent, PolicyHost, PolicyLimits};

/// Picks the lowest slot, and does `misdeed` when the key is 13.
fn at_13(misdeed: &str) -> String {
    format!(
        "(if (i64.eq (local.get 1) (i64.const 13)) (then {misdeed}))
        (i32.store8 (i32.const 128) (i32.ne (global.get $count) (i32.const 0)))
        (i32.store offset=4 (i32.const 128) (global.get $lowest)) (i32.const 128)"
    )
}

fn admit(guest: PolicyGuest) -> Arc<PolicyComponent> {
    let host = PolicyHost::new(PolicyLimits::simulated(), None).unwrap();
    host.admit(&guest.component()).unwrap()
}

/// A policy of this name over slots 5, 6 and 7, with this body for `pick`.
fn guarded(name: &'static str, pick: &str) -> GuardedBalancer {
    let component = admit(PolicyGuest::named(name).body("pick", pick));
    let mut policy = GuardedBalancer::open(component, b"", 1).unwrap();
    policy.replace(1, &[5, 6, 7], &[]).unwrap();
    policy
}

fn counts(policy: &GuardedBalancer) -> GuardCounts {
    policy.counters().read()
}

#[test]
fn a_trap_is_answered_natively_and_the_next_pick_by_a_fresh_instance() {
    let mut policy = guarded("round-robin", &at_13("(unreachable)"));
    assert_eq!(policy.pick(1, 1), Ok(Some(5)));
    assert!(!policy.last_was_fallback());
    assert_eq!(policy.pick(13, 1), Ok(Some(5)), "the first of a native round");
    assert!(policy.last_was_fallback());
    assert_eq!(policy.pick(2, 1), Ok(Some(5)), "a fresh instance has the table");
    assert!(!policy.last_was_fallback());
    let expected = GuardCounts { traps: 1, fallbacks: 1, restarts: 1, ..GuardCounts::default() };
    assert_eq!(counts(&policy), expected);
}

#[test]
fn each_way_to_fail_is_counted_by_its_name() {
    let outside = "(i32.store8 (i32.const 128) (i32.const 1))
        (i32.store offset=4 (i32.const 128) (i32.const 99)) (return (i32.const 128))";
    let once = GuardCounts { fallbacks: 1, restarts: 1, ..GuardCounts::default() };
    for (misdeed, expected) in [
        ("(unreachable)", GuardCounts { traps: 1, ..once }),
        ("(loop $l (br $l))", GuardCounts { over_budget: 1, ..once }),
        (outside, GuardCounts { illegal: 1, ..once }),
    ] {
        let mut policy = guarded("round-robin", &at_13(misdeed));
        assert_eq!(policy.pick(13, 1), Ok(Some(5)), "{misdeed}");
        assert_eq!(counts(&policy), expected, "{misdeed}");
    }
}

#[test]
fn a_component_that_always_fails_is_left_alone_for_longer_and_longer() {
    let mut policy = guarded("round-robin", "(unreachable)");
    let picked: Vec<Option<Slot>> =
        (0..6_000).map(|key| policy.pick(key, 1).expect("always an answer")).collect();
    let turn = [Some(5), Some(6), Some(7)];
    assert!(
        picked.iter().zip(turn.iter().cycle()).all(|(got, wanted)| got == wanted),
        "one native round-robin gave every answer, in turn"
    );
    let counted = counts(&policy);
    assert_eq!(counted.fallbacks, 6_000);
    assert_eq!(counted.traps, 4, "at once, and after 1,024 and 4,096 native decisions");
}

#[test]
fn a_policy_of_an_unknown_name_falls_back_to_round_robin() {
    let mut policy = guarded("of-my-own", &at_13("(unreachable)"));
    assert_eq!(policy.pick(13, 1), Ok(Some(5)));
    assert_eq!(policy.pick(13, 1), Ok(Some(6)), "the native round goes on where it was");
    assert!(policy.last_was_fallback());
}

#[test]
fn a_batch_that_fails_is_answered_whole_and_once() {
    let component = admit(PolicyGuest::named("round-robin").body("pick-batch", "(unreachable)"));
    let mut policy = GuardedBalancer::open(component, b"", 1).unwrap();
    policy.replace(1, &[5, 6, 7], &[]).unwrap();
    let mut picked = vec![42];
    policy.pick_batch(0, 4, &mut picked).unwrap();
    assert_eq!(picked, [42, 5, 6, 7, 5]);
    assert_eq!(counts(&policy).fallbacks, 1);
}

#[test]
fn the_native_answer_sees_the_columns_that_the_component_was_given() {
    let component = admit(
        PolicyGuest::named("least-used").features(&["in-flight"]).body("pick", "(unreachable)"),
    );
    let mut policy = GuardedBalancer::open(component, b"", 1).unwrap();
    policy.replace(1, &[5, 6, 7], &[4, 2, 9]).unwrap();
    assert_eq!(policy.pick(0, 1), Ok(Some(6)));
    policy.patch(Feature::InFlight, &[6], &[8]).unwrap();
    assert_eq!(policy.pick(0, 1), Ok(Some(5)));
    policy.patch(Feature::InFlight, &[5, 6, 7], &[3, 2, 1]).unwrap();
    assert_eq!(policy.pick(0, 1), Ok(Some(7)));
    policy.replace(2, &[5, 6], &[3, 2]).unwrap();
    assert_eq!(policy.pick(0, 1), Ok(Some(6)));
}

#[test]
fn a_refused_table_or_a_trap_in_observe_loses_no_decision() {
    let refuse = "(i32.store8 (i32.const 128) (i32.const 1))
        (i32.store8 offset=8 (i32.const 128) (i32.const 2)) (i32.const 128)";
    let component = admit(PolicyGuest::named("round-robin").body("replace", refuse));
    let mut policy = GuardedBalancer::open(component, b"", 1).unwrap();
    policy.replace(1, &[5, 6], &[]).unwrap();
    assert_eq!(policy.pick(0, 1), Ok(Some(5)));
    assert!(policy.last_was_fallback());
    assert_eq!(counts(&policy).refused, 2, "by the first instance and by its successor");

    let component = admit(PolicyGuest::named("round-robin").body("observe", "(unreachable)"));
    let mut policy = GuardedBalancer::open(component, b"", 1).unwrap();
    policy.replace(1, &[5, 6], &[]).unwrap();
    let ended = Observation { slot: 5, latency_us: 10, outcome: Outcome::Ok };
    policy.observe(&[ended]).unwrap();
    assert_eq!(counts(&policy).traps, 1);
    assert_eq!(policy.pick(0, 1), Ok(Some(5)));
    assert!(!policy.last_was_fallback(), "a fresh instance is there already");
}

#[test]
fn a_table_that_is_not_well_formed_is_the_hosts_fault_and_harms_nobody() {
    let mut policy = guarded("round-robin", &at_13("(unreachable)"));
    assert!(policy.replace(2, &[7, 5], &[]).is_err(), "not ascending");
    assert!(policy.replace(2, &[5, 5], &[]).is_err(), "twice");
    assert!(policy.replace(2, &[5], &[1]).is_err(), "a column too many");
    assert!(policy.patch(Feature::Load, &[5], &[1]).is_err(), "a feature it did not ask for");
    assert_eq!(policy.pick(0, 1), Ok(Some(5)));
    assert_eq!(counts(&policy), GuardCounts::default());
}

#[test]
fn an_empty_pool_has_no_slot_to_pick() {
    let mut policy = guarded("round-robin", &at_13("(unreachable)"));
    policy.replace(2, &[], &[]).unwrap();
    assert_eq!(policy.pick(0, 1), Ok(None));
    let mut picked = Vec::new();
    policy.pick_batch(0, 100, &mut picked).unwrap();
    assert!(picked.is_empty());
    assert_eq!(counts(&policy), GuardCounts::default());
}

#[test]
fn a_batch_longer_than_the_component_takes_is_asked_in_parts() {
    let component = admit(PolicyGuest::named("round-robin").max_batch(10));
    let mut policy = GuardedBalancer::open(component, b"", 1).unwrap();
    policy.replace(1, &[5], &[]).unwrap();
    let mut picked = Vec::new();
    policy.pick_batch(0, 64, &mut picked).unwrap();
    assert_eq!(picked, [5; 64]);
    assert!(!policy.last_was_fallback());
}
