//! One call over two nodes, and frames that do not all arrive.

use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_types::{CapabilitySet, Digest, LoadReading, TraceId};

use super::*;
use crate::pools::POOLS_MAX;
use crate::registry::Entry;
use crate::source::{Guarded, NativeSource};

const CALL: CallId = CallId(1);
/// Where the first attempt goes.
const FIRST: NodeId = NodeId(1);
const NOW: Time = Time(1_000);

/// The caller's node, with an agent on each of two others.
fn calls() -> (Calls, Registry) {
    let policy = PolicyRef {
        name: "round-robin".to_owned(),
        digest: Digest::default(),
        epoch: PolicyEpoch(0),
        config: Vec::new(),
    };
    let entry = |number: u64| Entry {
        namespace: "default".to_owned(),
        capabilities: CapabilitySet::from(vec!["echo".to_owned()]),
        candidate: Candidate {
            agent: AgentId(number),
            incarnation: Incarnation(1),
            node: NodeId(number),
            capacity: 4,
            weight: 1,
            reading: LoadReading { success_ppm: 1_000_000, ..LoadReading::default() },
        },
    };
    let mut registry = Registry::default();
    registry.set((1..=2).map(|number| (AgentId(number), entry(number))).collect());
    (Calls::new(policy, 7), registry)
}

fn spec(idempotent: bool) -> CallSpec {
    CallSpec {
        namespace: "default".to_owned(),
        capabilities: vec!["echo".to_owned()],
        content_type: "text/plain".to_owned(),
        body: Bytes::from_static(b"body"),
        deadline_ms: 1_000,
        idempotent,
        trace: TraceId::default(),
    }
}

/// What is told to the caller, and which attempts are sent.
fn effects(calls: &mut Calls) -> (Vec<Result<CallEvent, Refusal>>, Vec<u32>) {
    let (mut told, mut sent) = (Vec::new(), Vec::new());
    while let Some(effect) = calls.poll_effect() {
        match effect {
            CallEffect::Tell { event, .. } => told.push(event),
            CallEffect::Dispatch { attempt, .. } => sent.push(attempt),
            CallEffect::Abandon { .. } => {}
        }
    }
    (told, sent)
}

fn after(idempotent: bool, said: Vec<Delivery>) -> (Vec<Result<CallEvent, Refusal>>, Vec<u32>) {
    let (mut calls, registry) = calls();
    calls.start(NOW, CALL, spec(idempotent), &registry, &NativeSource);
    for said in said {
        calls.deliver(NOW, FIRST, (CALL, 1), said, &registry, &NativeSource);
    }
    effects(&mut calls)
}

fn chunk() -> Delivery {
    Delivery::Chunk(Bytes::from_static(b"part"))
}

#[test]
fn a_whole_reply_is_passed_on() {
    let (told, sent) = after(false, vec![chunk(), chunk(), Delivery::Done(8)]);
    assert!(matches!(told.as_slice(), [Ok(_), Ok(_), Ok(CallEvent::Done { attempts: 1, .. })]));
    assert_eq!(sent, [1]);
    let (told, _sent) = after(false, vec![Delivery::Done(0)]);
    assert!(matches!(told.as_slice(), [Ok(CallEvent::Done { .. })]), "an empty reply is whole");
}

#[test]
fn a_reply_with_a_gap_is_never_taken_for_a_whole_one() {
    let (told, sent) = after(true, vec![chunk(), Delivery::Done(8)]);
    assert!(matches!(told.as_slice(), [Ok(CallEvent::Chunk(_)), Err(Refusal::Unavailable(_))]));
    assert_eq!(sent, [1], "the caller has a part of it");
    let (told, sent) = after(false, vec![Delivery::Done(4)]);
    assert!(matches!(told.as_slice(), [Err(Refusal::Unavailable(_))]));
    assert_eq!(sent, [1], "it has run, and may not again");
}

#[test]
fn an_idempotent_call_of_which_nothing_arrived_is_made_again() {
    let (told, sent) = after(true, vec![Delivery::Done(4)]);
    assert!(told.is_empty());
    assert_eq!(sent, [1, 2]);
}

#[test]
fn only_the_node_that_has_a_call_is_heard() {
    let (mut calls, registry) = calls();
    calls.start(NOW, CALL, spec(true), &registry, &NativeSource);
    for said in [chunk(), Delivery::Busy, Delivery::Failed("forged".into()), Delivery::Done(0)] {
        calls.deliver(NOW, NodeId(2), (CALL, 1), said, &registry, &NativeSource);
    }
    let (told, sent) = effects(&mut calls);
    assert_eq!((told.len(), sent), (0, vec![1]), "another node's words count for nothing");
    for said in [chunk(), Delivery::Done(4)] {
        calls.deliver(NOW, FIRST, (CALL, 1), said, &registry, &NativeSource);
    }
    let (told, _sent) = effects(&mut calls);
    assert!(matches!(told.as_slice(), [Ok(CallEvent::Chunk(_)), Ok(CallEvent::Done { .. })]));
}

/// Counts the instances of a policy that are open.
#[derive(Default)]
struct Counted(Arc<AtomicUsize>);

struct Instance(Box<dyn Guarded>, Arc<AtomicUsize>);

impl PolicySource for Counted {
    fn open(&self, policy: &PolicyRef, seed: u64) -> Box<dyn Guarded> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::new(Instance(NativeSource.open(policy, seed), Arc::clone(&self.0)))
    }

    fn ready(&self, _digest: &Digest) -> bool {
        true
    }
}

impl Guarded for Instance {
    fn balancer(&mut self) -> &mut dyn quorate_policy::Balancer {
        self.0.balancer()
    }

    fn fell_back(&self) -> bool {
        self.0.fell_back()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

fn wanting(capability: String) -> CallSpec {
    CallSpec { capabilities: vec![capability], ..spec(true) }
}

#[test]
fn calls_to_what_nobody_can_do_open_no_policy() {
    let (mut calls, mut registry) = calls();
    let source = Counted::default();
    for number in 0..1_000 {
        calls.start(NOW, CallId(number), wanting(format!("x{number}")), &registry, &source);
    }
    assert_eq!(source.0.load(Ordering::Relaxed), 0);

    let mut entry = registry.get(AgentId(1)).expect("it is there").clone();
    entry.capabilities = CapabilitySet::from(vec!["x7".to_owned()]);
    registry.set([(AgentId(1), entry)].into());
    calls.tick(NOW + BUSY_WAIT, &registry, &source);
    assert_eq!(effects(&mut calls).1, [1], "the one that waited for it is routed");
    assert_eq!(source.0.load(Ordering::Relaxed), 1);
}

#[test]
fn many_sets_of_agents_share_a_bounded_number_of_policies() {
    let (mut calls, mut registry) = calls();
    let source = Counted::default();
    let able: Vec<String> = (0..200).map(|number| format!("x{number}")).collect();
    let mut entry = registry.get(AgentId(1)).expect("it is there").clone();
    entry.capabilities = CapabilitySet::from(able.clone());
    registry.set([(AgentId(1), entry)].into());
    for (number, capability) in (0..).zip(able) {
        calls.start(NOW, CallId(number), wanting(capability), &registry, &source);
    }
    assert_eq!(effects(&mut calls).1.len(), 200, "each is routed");
    assert_eq!(source.0.load(Ordering::Relaxed), POOLS_MAX);

    for number in 0..200 {
        calls.deliver(NOW, FIRST, (CallId(number), 1), Delivery::Done(0), &registry, &source);
    }
    assert_eq!(effects(&mut calls).0.len(), 200, "each ends, its pool open or not");
    calls.start(NOW, CallId(900), wanting("x199".to_owned()), &registry, &source);
    assert_eq!(source.0.load(Ordering::Relaxed), POOLS_MAX, "what was used last is open still");
}
