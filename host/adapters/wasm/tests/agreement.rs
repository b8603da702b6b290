//! Every built-in balancer exists twice, as a component and as a native reference answer
//! that shares no source with it. Whatever a host may do to a pool, both do the same:
//! every pick, every refusal and every saved byte.

#![expect(clippy::unwrap_used, reason = "what cannot be had ends a test")]

use std::sync::{Arc, LazyLock};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use quorate_policy::{Balancer, Fault, Feature, Observation, Outcome, Slot, Snapshot};
use quorate_wasm::{OpenError, PolicyComponent, PolicyHost, PolicyLimits, builtin};

/// Sequences tried for each policy.
const CASES: u32 = 256;

static HOST: LazyLock<PolicyHost> =
    LazyLock::new(|| PolicyHost::new(PolicyLimits::simulated(), None).unwrap());

/// One thing that a host does.
#[derive(Clone, Debug)]
enum Act {
    Replace {
        slots: Vec<Slot>,
        values: Vec<i64>,
    },
    Patch {
        feature: Feature,
        slots: Vec<Slot>,
        values: Vec<i64>,
    },
    Pick {
        key: u64,
        cost: u32,
    },
    PickBatch {
        first_key: u64,
        count: u32,
    },
    Observe(Vec<Observation>),
    /// Saves, opens a successor from that under another seed, and goes on with it. The
    /// successor is told of the same slots at once, as a host does.
    Succeed {
        seed: u64,
    },
}

/// Slots near each other, so that pools overlap and patches hit; now and then far ones.
fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![8 => 0_u32..24, 1 => 1_000_u32..1_010, 1 => Just(Slot::MAX)]
}

/// Mostly ascending, as they should be; sometimes not.
fn slots() -> impl Strategy<Value = Vec<Slot>> {
    let ascending = vec(slot(), 0..40).prop_map(|mut slots| {
        slots.sort_unstable();
        slots.dedup();
        slots
    });
    let many = (1_u32..400).prop_map(|len| (0..len).collect());
    prop_oneof![12 => ascending, 2 => many, 1 => vec(slot(), 0..6)]
}

/// Readings: small ones that tie, plausible ones, and whatever fits into a column.
fn value() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 0_i64..4,
        6 => 0_i64..2_000_000,
        1 => any::<i64>(),
        1 => Just(i64::MIN),
        1 => Just(i64::MAX),
    ]
}

fn observation() -> impl Strategy<Value = Observation> {
    let outcome = prop_oneof![
        6 => Just(Outcome::Ok),
        2 => Just(Outcome::Error),
        1 => Just(Outcome::Timeout),
        1 => Just(Outcome::Refused),
        1 => Just(Outcome::Unused),
    ];
    let latency_us = prop_oneof![
        8 => 0_u64..50_000,
        1 => any::<u64>(),
        1 => Just(u64::from(u32::MAX)),
    ];
    (slot(), latency_us, outcome).prop_map(|(slot, latency_us, outcome)| Observation {
        slot,
        latency_us,
        outcome,
    })
}

fn act() -> impl Strategy<Value = Act> {
    let feature = prop::sample::select(Feature::ALL.to_vec());
    let patched = vec((slot(), value()), 0..6);
    prop_oneof![
        2 => (slots(), vec(value(), 1..64)).prop_map(|(slots, values)| Act::Replace { slots, values }),
        3 => (feature, patched, 0_usize..12).prop_map(|(feature, patched, odd)| {
            let (slots, mut values): (Vec<_>, Vec<_>) = patched.into_iter().unzip();
            if odd == 0 {
                values.push(7);
            }
            Act::Patch { feature, slots, values }
        }),
        6 => (any::<u64>(), any::<u32>()).prop_map(|(key, cost)| Act::Pick { key, cost }),
        3 => (any::<u64>(), prop_oneof![0_u32..100, 1_000_u32..1_100])
            .prop_map(|(first_key, count)| Act::PickBatch { first_key, count }),
        6 => vec(observation(), 0..80).prop_map(Act::Observe),
        2 => any::<u64>().prop_map(|seed| Act::Succeed { seed }),
    ]
}

/// The two of them, and what a host knows about the pool.
struct Pair {
    component: Box<dyn Balancer>,
    native: Box<dyn Balancer>,
    slots: Vec<Slot>,
}

impl Pair {
    /// Does it to both and compares.
    fn act(&mut self, policy: &Policy, act: &Act) -> Result<(), TestCaseError> {
        let (component, native) = (&mut self.component, &mut self.native);
        match act {
            Act::Replace { slots, values } => {
                let columns = policy.columns(slots, values);
                let given = component.replace(1, slots, &columns);
                let taken = alike(&given, &native.replace(1, slots, &columns))?;
                if taken {
                    self.slots.clone_from(slots);
                }
            }
            Act::Patch { feature, slots, values } => {
                let given = component.patch(*feature, slots, values);
                alike(&given, &native.patch(*feature, slots, values))?;
            }
            Act::Pick { key, cost } => {
                alike(&component.pick(*key, *cost), &native.pick(*key, *cost))?;
            }
            Act::PickBatch { first_key, count } => {
                let (mut ours, mut theirs) = (vec![9], vec![9]);
                let given = component.pick_batch(*first_key, *count, &mut ours);
                alike(&given, &native.pick_batch(*first_key, *count, &mut theirs))?;
                prop_assert_eq!(ours, theirs);
            }
            Act::Observe(ended) => {
                alike(&component.observe(ended), &native.observe(ended))?;
            }
            Act::Succeed { seed } => {
                let saved = component.save();
                alike(&saved, &native.save())?;
                self.succeed(policy, *seed, &saved.unwrap())?;
            }
        }
        Ok(())
    }

    fn succeed(
        &mut self,
        policy: &Policy,
        seed: u64,
        saved: &Snapshot,
    ) -> Result<(), TestCaseError> {
        let (component, native) = policy.open(seed, Some(saved));
        self.component = component.unwrap();
        self.native = native.unwrap();
        let columns = policy.columns(&self.slots, &[1, 0, 500_000, 2]);
        let given = self.component.replace(2, &self.slots, &columns);
        alike(&given, &self.native.replace(2, &self.slots, &columns))?;
        Ok(())
    }
}

type Opened = Result<Box<dyn Balancer>, Fault>;

/// A built-in policy; the configurations of the component and of the native answer are
/// the same except where a test wants a difference.
struct Policy {
    name: &'static str,
    configs: [&'static str; 2],
    component: Arc<PolicyComponent>,
}

impl Policy {
    fn new(name: &'static str, configs: [&'static str; 2]) -> Self {
        let component = HOST.admit(builtin::find(name).unwrap().bytes).unwrap();
        Self { name, configs, component }
    }

    fn open(&self, seed: u64, prior: Option<&Snapshot>) -> (Opened, Opened) {
        let [config, native_config] = self.configs.map(str::as_bytes);
        let component = match prior {
            Some(prior) => self.component.restore(config, seed, prior),
            None => self.component.open(config, seed),
        };
        let component = component.map_err(|error| match error {
            OpenError::Open(fault) => fault,
            error @ (OpenError::Instantiate(_) | OpenError::SnapshotTooLarge { .. }) => {
                panic!("{}: {error}", self.name)
            }
        });
        let native = quorate_policy::open(self.name, native_config, seed, prior).unwrap();
        (component.map(|policy| Box::new(policy) as Box<dyn Balancer>), native)
    }

    /// Columns for these slots out of a few values, over and over.
    fn columns(&self, slots: &[Slot], values: &[i64]) -> Vec<i64> {
        let len = slots.len() * self.component.descriptor().features.len();
        values.iter().copied().cycle().take(len).collect()
    }
}

/// Equal answers, or refusals of one kind; whether it was an answer.
fn alike<T: PartialEq + std::fmt::Debug>(
    component: &Result<T, Fault>,
    native: &Result<T, Fault>,
) -> Result<bool, TestCaseError> {
    match (component, native) {
        (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
        (Err(ours), Err(theirs)) => prop_assert_eq!(
            std::mem::discriminant(ours),
            std::mem::discriminant(theirs),
            "{} and {}",
            ours,
            theirs
        ),
        (ours, theirs) => prop_assert!(false, "the component: {ours:?}, natively: {theirs:?}"),
    }
    Ok(component.is_ok())
}

/// Compares the two over random sequences and gives the first difference.
fn difference(name: &'static str, configs: [&'static str; 2]) -> Option<String> {
    let policy = Policy::new(name, configs);
    let (component, native) = policy.open(0, None);
    assert_eq!(component.unwrap().describe(), native.unwrap().describe());
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let sequence = (any::<u64>(), vec(act(), 1..60));
    let outcome = TestRunner::new(config).run(&sequence, |(seed, acts)| {
        let (component, native) = policy.open(seed, None);
        let mut pair =
            Pair { component: component.unwrap(), native: native.unwrap(), slots: Vec::new() };
        pair.act(&policy, &Act::Replace { slots: (0..8).collect(), values: vec![0, 3, 1] })?;
        acts.iter().try_for_each(|act| pair.act(&policy, act))
    });
    outcome.err().map(|failure| format!("{name}: {failure}"))
}

#[track_caller]
fn agree(name: &'static str, config: &'static str) {
    assert_eq!(difference(name, [config; 2]), None);
}

#[test]
fn round_robin_agrees() {
    agree("round-robin", "");
}

#[test]
fn least_used_agrees() {
    agree("least-used", "{}");
}

#[test]
fn load_aware_agrees() {
    agree("load-aware", "");
}

#[test]
fn peak_ewma_agrees() {
    agree("peak-ewma", "");
}

#[test]
fn peak_ewma_agrees_when_it_forgets_fast_and_draws_few() {
    agree("peak-ewma", r#"{"choices": 2, "half-life": 1}"#);
}

#[test]
fn a_difference_is_noticed() {
    let half_lives = ["{\"half-life\": 4}", "{\"half-life\": 5}"];
    assert!(difference("peak-ewma", half_lives).is_some());
}

#[test]
fn configurations_and_saved_states_are_refused_alike() {
    let configs =
        ["", " {} ", "{\"choices\":1}", "{\"choices\":17}", "{\"half-life\":0}", "[", "{\"d\":5}"];
    // Peak-EWMA's state: the stream, the tick, one slot, and what is known of it.
    let state = |success_ppm: u32, at: u64| {
        let words = [1_u32, 5, 900, success_ppm].map(u32::to_le_bytes).concat();
        [&77_u64.to_le_bytes()[..], &9_u64.to_le_bytes(), &words, &at.to_le_bytes()].concat()
    };
    let [good, sure, late] = [state(800_000, 9), state(1_000_001, 9), state(800_000, 10)];
    let bodies = [vec![], vec![0; 4], vec![0; 20], vec![0; 21], vec![255; 40], good, sure, late];
    let mut opened = 0;
    for name in quorate_policy::native::NAMES {
        for config in configs {
            let policy = Policy::new(name, [config; 2]);
            let schema = policy.component.descriptor().state_schema;
            let mut priors = vec![None, Some(Snapshot { schema: 7, applied: 0, body: vec![] })];
            priors.extend(
                bodies.iter().map(|body| Some(Snapshot { schema, applied: 3, body: body.clone() })),
            );
            for prior in priors {
                let (component, native) = policy.open(1, prior.as_ref());
                let saved = |policy: Box<dyn Balancer>| { policy }.save();
                let (component, native) = (component.and_then(saved), native.and_then(saved));
                let case = format!("{name} {config} {prior:?}");
                opened += usize::from(alike(&component, &native).expect(&case));
            }
        }
    }
    // Two configurations that all read, a third for peak-ewma; no state or an empty one,
    // round-robin's of 4 bytes, and peak-ewma's that has no slot and that has a good one.
    assert_eq!(opened, 2 * 3 + 2 * 2 + 2 * 2 + 3 * 3);
}
