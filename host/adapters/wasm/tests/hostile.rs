//! Components that are wrong, each in one way: every one is refused by an error that
//! says what, why and what to try, and the host goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod guests;

use std::time::{Duration, Instant};

use guests::{PolicyGuest, agent, text};
use quorate_policy::{Balancer as _, Fault};
use quorate_wasm::{AdmitError, AgentHost, AgentLimits, Failure, Grants, PolicyHost, PolicyLimits};

const LOOP: &str = "(loop $for_ever (br $for_ever)) (unreachable)";
const RECURSE: &str = "(func $deeper (param i32) (result i32)
    (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (local.get 0)))";

fn host() -> PolicyHost {
    PolicyHost::new(PolicyLimits::simulated(), None).unwrap()
}

/// The refusal of this component; the host admits a good one before and after.
fn refusal(component: &[u8]) -> AdmitError {
    let host = host();
    let refused = host.admit(component).err().expect("it should have been refused");
    let good = host.admit(&PolicyGuest::named("good").component()).expect("the host is alive");
    assert_eq!(good.descriptor().name, "good");
    refused
}

#[track_caller]
fn assert_says(error: &AdmitError, words: &[&str]) {
    let said = error.to_string();
    for word in words {
        assert!(said.contains(word), "`{said}` does not say `{word}`");
    }
}

#[test]
fn what_is_not_a_component_is_refused() {
    let error = refusal(b"#!/bin/sh\n");
    assert!(matches!(error, AdmitError::NotComponent { .. }), "{error:?}");
    assert_says(&error, &["not a valid WebAssembly component", "build it again"]);

    let error = refusal(&text("(module (func (export \"pick\")))"));
    assert!(matches!(error, AdmitError::CoreModule), "{error:?}");
    assert_says(&error, &["core WebAssembly module", "wasm-tools component new"]);

    let mut cut = PolicyGuest::named("cut").component();
    cut.truncate(cut.len() / 2);
    assert!(matches!(refusal(&cut), AdmitError::NotComponent { .. }));
}

#[test]
fn a_component_that_is_flipped_anywhere_is_refused_or_as_well_behaved_as_before() {
    let whole = PolicyGuest::named("whole").component();
    let host = host();
    let mut refused = 0;
    for place in (0..whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[place] ^= 0x10;
        match host.admit(&flipped) {
            Ok(policy) => assert!(policy.descriptor().batch_max > 0),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    assert!(refused > whole.len() / 7 / 4, "only {refused} flips were noticed");
    host.admit(&whole).expect("the host is alive");
}

#[test]
fn a_component_of_another_world_is_refused() {
    let error = refusal(&text("(component)"));
    assert_says(&error, &["does not export `quorate:balancer/balancing@", "exports nothing"]);

    let other = text(
        r#"(component (instance $none) (export "quorate:balancer/balancing@0.9.0" (instance $none)))"#,
    );
    let error = refusal(&other);
    assert!(matches!(error, AdmitError::LacksWorld { .. }), "{error:?}");
    assert_says(&error, &["balancing@0.9.0", "build it against"]);

    let hollow = text(
        r#"(component (instance $none)
            (export "quorate:balancer/balancing@0.1.0-dev" (instance $none)))"#,
    );
    let error = refusal(&hollow);
    assert!(matches!(error, AdmitError::WorldDiffers { .. }), "{error:?}");
    assert_says(&error, &["differs", "describe"]);
}

#[test]
fn a_policy_that_imports_more_than_types_is_refused_by_name() {
    let error = refusal(&text(r#"(component (import "wasi:io/streams@0.2.3" (instance)))"#));
    assert!(matches!(error, AdmitError::UnknownImport { .. }), "{error:?}");
    assert_says(&error, &["`wasi:io/streams@0.2.3`", "without WASI"]);

    let error = refusal(&text(r#"(component (import "quorate:host/clock@0.1.0-dev" (instance)))"#));
    assert_says(&error, &["`quorate:host/clock@0.1.0-dev`", "quorate:common/types"]);

    let disguised = text(
        r#"(component (import "quorate:common/types@0.1.0-dev"
            (instance (export "now" (func (result u64))))))"#,
    );
    let error = refusal(&disguised);
    assert!(matches!(error, AdmitError::LacksWorld { .. }), "{error:?}");
}

#[test]
fn an_agent_that_imports_what_it_was_not_granted_is_refused_by_name() {
    let host = AgentHost::new(AgentLimits::hot(), None).unwrap();
    let digger = agent(&["log", "draw"], "(drop (call $draw)) (call $internal)");
    let error = host.admit(&digger, Grants { log: true, ..Grants::NONE }).err().unwrap();
    assert!(matches!(error, AdmitError::NotGranted { grant: "random", .. }), "{error:?}");
    assert_says(&error, &["`quorate:host/random@0.1.0-dev`", "grant `random`"]);

    let stranger = text(r#"(component (import "wasi:http/types@0.3.0" (instance)))"#);
    let error = host.admit(&stranger, Grants::ALL).err().unwrap();
    assert!(matches!(error, AdmitError::UnknownImport { .. }), "{error:?}");

    let admitted = host.admit(&digger, Grants { log: true, random: true, ..Grants::NONE }).unwrap();
    assert_eq!(admitted.descriptor().name, "digger");
    assert_eq!(admitted.descriptor().capabilities.names(), ["dig"]);
}

#[test]
fn what_is_too_large_is_refused_with_both_figures() {
    let fat =
        PolicyGuest::named("fat").extra(&format!("(func {})", "nop ".repeat(120_000))).component();
    let error = refusal(&fat);
    assert!(matches!(error, AdmitError::FunctionTooLarge { got: 120_002.., .. }), "{error:?}");
    assert_says(&error, &["12000", "65536", "split the function"]);

    let crowd = "(func ".to_owned() + &"nop ".repeat(60_000) + ")";
    let error = refusal(&PolicyGuest::named("crowd").extra(&crowd.repeat(3)).component());
    assert!(
        matches!(error, AdmitError::CompileTooCostly { cost: 10_800_000_000.., .. }),
        "{error:?}"
    );
    assert_says(&error, &["8589934592", "split"]);

    let heavy = PolicyGuest::named("heavy")
        .extra(&format!("(data (i32.const 8192) \"{}\")", "x".repeat(5 << 20)))
        .memory_pages(100)
        .component();
    let error = refusal(&heavy);
    assert!(matches!(error, AdmitError::TooLarge { limit: 4_194_304, .. }), "{error:?}");
}

#[test]
fn what_needs_more_than_the_pool_has_is_refused_with_both_figures() {
    let error = refusal(&PolicyGuest::named("greedy").memory_pages(16_384).component());
    assert!(matches!(error, AdmitError::NeedsTooMuch { needs: 16_384, has: 256, .. }), "{error:?}");
    assert_says(&error, &["16384 pages of 64 KiB", "256"]);

    let error = refusal(&PolicyGuest::named("wide").extra("(table 5000 funcref)").component());
    assert!(
        matches!(error, AdmitError::NeedsTooMuch { needs: 5_000, has: 4_096, .. }),
        "{error:?}"
    );
}

#[test]
fn features_that_are_off_do_not_compile() {
    let relaxed = PolicyGuest::named("relaxed")
        .extra("(func (param v128 v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 1)))")
        .component();
    let error = refusal(&relaxed);
    assert!(matches!(error, AdmitError::DoesNotCompile { .. }), "{error:?}");
    assert_says(&error, &["relaxed SIMD"]);
}

#[test]
fn compiled_code_from_elsewhere_is_refused() {
    let component = PolicyGuest::named("native").component();
    let artefact = wasmtime::Engine::default().precompile_component(&component).unwrap();
    let error = refusal(&artefact);
    assert!(matches!(error, AdmitError::Precompiled), "{error:?}");
    assert_says(&error, &["precompiled", "compiles for itself"]);
}

#[test]
fn a_compile_that_takes_too_long_is_given_up() {
    let mut limits = PolicyLimits::simulated();
    limits.shape.compile_time_max = Duration::ZERO;
    let host = PolicyHost::new(limits, None).unwrap();
    let error = host.admit(&PolicyGuest::named("slow").component()).err().unwrap();
    assert!(matches!(error, AdmitError::CompileTooSlow { limit_ms: 0 }), "{error:?}");
    assert_says(&error, &["0 ms", "split"]);
}

#[test]
fn a_first_life_that_fails_is_told_with_its_step() {
    let starter = PolicyGuest::named("starter").extra(&format!("(start $go) (func $go {LOOP})"));
    let error = refusal(&starter.component());
    assert!(matches!(error, AdmitError::FirstLife { step: "instantiate", .. }), "{error:?}");
    assert_says(&error, &["over its budget"]);

    let error = refusal(&PolicyGuest::named("loops").body("describe", LOOP).component());
    assert!(matches!(error, AdmitError::FirstLife { step: "describe", .. }), "{error:?}");

    let deep =
        PolicyGuest::named("deep").extra(RECURSE).body("describe", "(call $deeper (i32.const 0))");
    assert_says(&refusal(&deep.component()), &["call stack exhausted"]);

    let error = refusal(&PolicyGuest::named("traps").body("describe", "(unreachable)").component());
    assert_says(&error, &["`describe`", "unreachable"]);
}

#[test]
fn descriptions_that_no_host_can_serve_are_refused() {
    let error = refusal(&PolicyGuest::named("curious").features(&["phase-of-moon"]).component());
    assert!(matches!(error, AdmitError::BadDescription { .. }), "{error:?}");
    assert_says(&error, &["`phase-of-moon`", "`in-flight`"]);

    assert_says(&refusal(&PolicyGuest::named("").component()), &["name of 0 bytes"]);
    assert_says(
        &refusal(&PolicyGuest::named("none").max_batch(0).component()),
        &["at most 0 picks"],
    );
}

/// One pick of a policy with this body for `pick`, over slots 3 and 256.
fn pick(limits: PolicyLimits, guest: PolicyGuest) -> (Result<Option<u32>, Fault>, Option<Failure>) {
    let host = PolicyHost::new(limits, None).unwrap();
    let mut policy = host.admit(&guest.component()).unwrap().open(b"", 1).unwrap();
    policy.replace(1, &[3, 256], &[]).unwrap();
    let picked = policy.pick(0, 1);
    let failure = policy.failure();
    if failure.is_some() {
        assert!(policy.pick(0, 1).is_err(), "a failed instance is not asked again");
    }
    (picked, failure)
}

#[test]
fn a_pick_that_loops_is_cut_by_fuel() {
    let looped = pick(PolicyLimits::simulated(), PolicyGuest::named("l").body("pick", LOOP));
    assert_eq!(looped, (Err(Fault::OverBudget), Some(Failure::OverBudget)));
}

#[test]
fn a_pick_that_fuel_does_not_cut_meets_the_net() {
    let mut limits = PolicyLimits::hot();
    limits.pick_fuel = u64::MAX / 2;
    limits.net = Some(Duration::from_millis(20));
    let looped = pick(limits, PolicyGuest::named("l").body("pick", LOOP));
    assert_eq!(looped, (Err(Fault::OverBudget), Some(Failure::OverBudget)));
}

#[test]
fn a_pick_that_is_slow_without_using_fuel_meets_the_net() {
    // One instruction fills 16 MiB, so that 50,000 units of fuel would last for minutes.
    let fill = "(drop (memory.grow (i32.const 254)))
        (loop $for_ever
          (memory.fill (i32.const 4096) (i32.const 7) (i32.const 16700000))
          (br $for_ever))
        (unreachable)";
    let mut limits = PolicyLimits::hot();
    limits.net = Some(Duration::from_millis(20));
    let began = Instant::now();
    let filled = pick(limits, PolicyGuest::named("f").body("pick", fill));
    assert_eq!(filled, (Err(Fault::OverBudget), Some(Failure::OverBudget)));
    assert!(began.elapsed() < Duration::from_secs(20), "took {:?}", began.elapsed());
}

#[test]
fn a_pick_that_traps_or_recurses_says_so() {
    let (picked, failure) =
        pick(PolicyLimits::simulated(), PolicyGuest::named("t").body("pick", "(unreachable)"));
    assert_eq!(failure, Some(Failure::Trap));
    assert!(picked.unwrap_err().to_string().contains("unreachable"));

    let mut limits = PolicyLimits::simulated();
    limits.pick_fuel = 10_000_000;
    let deep = PolicyGuest::named("d").extra(RECURSE).body("pick", "(call $deeper (i32.const 0))");
    let (picked, failure) = pick(limits, deep);
    assert_eq!(failure, Some(Failure::Trap));
    assert!(picked.unwrap_err().to_string().contains("call stack exhausted"));
}

#[test]
fn memory_grows_to_the_limit_and_no_further() {
    let grow = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
        (i32.store8 (i32.const 128) (i32.const 1))
        (i32.store offset=4 (i32.const 128) (memory.size)) (i32.const 128)";
    let grown = pick(PolicyLimits::simulated(), PolicyGuest::named("g").body("pick", grow));
    assert_eq!(grown, (Ok(Some(256)), None), "256 pages are the 16 MiB of the limit");
}

#[test]
fn a_pick_outside_the_pool_is_illegal() {
    let outside = "(i32.store8 (i32.const 128) (i32.const 1))
        (i32.store offset=4 (i32.const 128) (i32.const 4)) (i32.const 128)";
    let (picked, failure) =
        pick(PolicyLimits::simulated(), PolicyGuest::named("o").body("pick", outside));
    assert_eq!(failure, Some(Failure::Illegal));
    assert!(picked.unwrap_err().to_string().contains("slot 4"));

    let none = "(i32.store8 (i32.const 128) (i32.const 0)) (i32.const 128)";
    let (_picked, failure) =
        pick(PolicyLimits::simulated(), PolicyGuest::named("n").body("pick", none));
    assert_eq!(failure, Some(Failure::Illegal), "none, although the pool has two");

    let wild = "(i32.const 131072000)";
    let (_picked, failure) =
        pick(PolicyLimits::simulated(), PolicyGuest::named("w").body("pick", wild));
    assert_eq!(failure, Some(Failure::Trap), "an answer outside its memory");
}

#[test]
fn an_instance_beyond_the_pool_is_refused_and_a_freed_one_is_had_again() {
    let mut limits = PolicyLimits::simulated();
    limits.shape.instances_max = 2;
    let host = PolicyHost::new(limits, None).unwrap();
    let policy = host.admit(&PolicyGuest::named("two").component()).unwrap();
    let first = policy.open(b"", 1).unwrap();
    let second = policy.open(b"", 1).unwrap();
    let refused = policy.open(b"", 1).err().expect("the pool has two").to_string();
    assert!(refused.contains("could not be instantiated"), "{refused}");
    drop(first);
    policy.open(b"", 1).expect("one is free again");
    drop(second);
}
