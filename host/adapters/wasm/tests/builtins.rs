//! The components that ship, under the limits that ship.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

use std::time::Duration;

use quorate_policy::{Balancer, Observation, Outcome, Slot};
use quorate_wasm::builtin::{World, all, find};
use quorate_wasm::limits::FUNCTION_BYTES_MAX;
use quorate_wasm::{
    AgentHost, AgentLimits, CompileCache, ComponentBalancer, Grants, GuardedBalancer, Outline,
    PolicyHost, PolicyLimits,
};

fn host() -> PolicyHost {
    PolicyHost::new(PolicyLimits::simulated(), None).unwrap()
}

fn open(host: &PolicyHost, name: &str) -> ComponentBalancer {
    host.admit(find(name).unwrap().bytes).unwrap().open(b"", 7).unwrap()
}

/// A table of `count` slots with the policy's columns, in varied but fixed values.
fn fill(policy: &mut dyn Balancer, count: u32) {
    let slots: Vec<Slot> = (0..count).map(|slot| slot * 3).collect();
    let values = i64::from(count) * i64::try_from(policy.describe().features.len()).unwrap();
    let columns: Vec<i64> = (0..values).map(|value| value * 7919 % 101).collect();
    policy.replace(1, &slots, &columns).unwrap();
}

fn balancers() -> impl Iterator<Item = &'static str> {
    all().iter().filter(|one| one.world == World::Balancer).map(|one| one.name)
}

#[test]
fn every_component_is_admitted_with_room_to_spare() {
    let agents = AgentHost::new(AgentLimits::hot(), None).unwrap();
    let policies = PolicyHost::new(PolicyLimits::hot(), None).unwrap();
    for one in all() {
        let outline = Outline::read(one.bytes).unwrap();
        assert!(outline.compile_cost() * 16 < PolicyLimits::hot().shape.compile_cost_max);
        let largest = outline.largest_body();
        assert!(
            largest * 4 <= FUNCTION_BYTES_MAX,
            "{}: a body of {largest} bytes; the cap is to be several times what real tools make",
            one.name
        );
        let name = match one.world {
            World::Balancer => policies.admit(one.bytes).unwrap().descriptor().name.clone(),
            World::Agent => agents.admit(one.bytes, Grants::ALL).unwrap().descriptor().name.clone(),
        };
        assert_eq!(name, one.name);
    }
}

#[test]
fn fuel_is_the_same_on_every_run_and_far_below_its_budget() {
    let limits = PolicyLimits::simulated();
    for name in balancers() {
        let mut used = Vec::new();
        for _run in 0..2 {
            let mut policy = open(&host(), name);
            fill(&mut policy, 100);
            for key in 0..50 {
                assert!(policy.pick(key, 1).unwrap().is_some());
                used.push(policy.fuel_used());
            }
        }
        let (first, second) = used.split_at(50);
        assert_eq!(first, second, "{name}");
        let budget = limits.pick_fuel + 100 * limits.slot_fuel;
        let most = used.iter().max().unwrap();
        assert!(most * 4 < budget, "{name} used {most} of {budget}");
    }
}

#[test]
fn budgets_hold_from_no_slots_to_ten_thousand() {
    for name in balancers() {
        for count in [0, 1, 60, 1_000, 10_000] {
            let mut policy = open(&host(), name);
            fill(&mut policy, count);
            assert_eq!(policy.pick(1, 1).unwrap().is_some(), count > 0, "{name} at {count}");
            let mut batch = Vec::new();
            policy.pick_batch(2, 256, &mut batch).unwrap();
            assert_eq!(batch.len(), if count > 0 { 256 } else { 0 }, "{name} at {count}");
            let ended: Vec<Observation> = batch
                .iter()
                .map(|slot| Observation { slot: *slot, latency_us: 900, outcome: Outcome::Ok })
                .collect();
            policy.observe(&ended).unwrap();
            fill(&mut policy, count);
            policy.save().unwrap();
        }
    }
}

#[test]
fn a_restored_instance_decides_as_the_one_it_was_saved_from() {
    for name in balancers() {
        let host = host();
        let component = host.admit(find(name).unwrap().bytes).unwrap();
        let mut old = GuardedBalancer::open(component.clone(), b"", 7).unwrap();
        fill(&mut old, 40);
        for key in 0..100 {
            let slot = old.pick(key, 1).unwrap().unwrap();
            let ended = Observation { slot, latency_us: 100 * key, outcome: Outcome::Ok };
            old.observe(&[ended]).unwrap();
        }
        let saved = old.save().unwrap();
        let mut new = GuardedBalancer::restore(component, b"", 7, &saved).unwrap();
        fill(&mut new, 40);
        fill(&mut old, 40);
        for key in 100..300 {
            assert_eq!(new.pick(key, 1), old.pick(key, 1), "{name} at {key}");
        }
        assert!(!new.last_was_fallback() && !old.last_was_fallback());
    }
}

#[test]
fn a_cache_on_disk_spares_the_compiler() {
    let directory = tempfile::tempdir().unwrap();
    let cache = || Some(CompileCache::open(&directory.path().join("compiled")).unwrap().into());
    let bytes = find("round-robin").unwrap().bytes;
    PolicyHost::new(PolicyLimits::simulated(), cache()).unwrap().admit(bytes).unwrap();

    // With no time to compile, only a cache can answer.
    let mut limits = PolicyLimits::simulated();
    limits.shape.compile_time_max = Duration::ZERO;
    let restarted = PolicyHost::new(limits.clone(), cache()).unwrap();
    let mut policy = restarted.admit(bytes).unwrap().open(b"", 1).unwrap();
    fill(&mut policy, 3);
    assert_eq!(policy.pick(0, 1), Ok(Some(0)));

    // Code for another engine is another file.
    limits.net = PolicyLimits::hot().net;
    assert!(PolicyHost::new(limits, cache()).unwrap().admit(bytes).is_err());
}
