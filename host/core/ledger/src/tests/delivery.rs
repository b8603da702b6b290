//! A task's life: submitted once, leased under fences, ended once.

use std::time::Duration;

use quorate_types::limits::INLINE_BYTES_MAX;
use quorate_types::{
    AgentSpec, EventKind, Faults, Payload, PolicyEpoch, Refusal, Retry, TaskSpec, TaskState, Token,
};

use super::fixture::{
    N1, World, activation, agent, assignment, complete, fail, states, task, text,
};
use crate::bounds::{Bounds, EPOCHS_MAX, LOST_MAX};
use crate::{Outcome, SLOT_BALANCER, ShardCommand, SystemCommand, Unassigned};

#[test]
fn a_task_is_submitted_leased_and_completed() {
    let mut world = World::new();
    let life = world.with_agent(&["index", "rust"]);
    let spec = TaskSpec { labels: [("run".to_owned(), "7".to_owned())].into(), ..task(&["index"]) };
    let id = world.submit(spec);
    let wanted = task(&["index"]).wanted();
    let waiting: Vec<_> = world.ledger.wanted(world.now).map(|wanted| (**wanted).clone()).collect();
    assert_eq!(waiting, std::slice::from_ref(&wanted));
    assert_eq!(world.ledger.ready_tasks(&wanted, world.now, 8), [(id, 5)]);

    let token = world.assign(id, life);
    assert_eq!(world.ledger.wanted(world.now).count(), 0);
    let lease = world.ledger.grant(id).expect("a lease").lease;
    assert_eq!((lease.agent, lease.token, lease.attempt), (life.0, token, 1));
    assert_eq!(world.ledger.leases_of(life.0).collect::<Vec<_>>(), [lease]);

    let applied = world.apply(complete(id, token, "postings"));
    let [EventKind::Task { state, agent, token: by, result, labels, attempt, .. }] =
        applied.events.as_slice()
    else {
        panic!("one event, not {:?}", applied.events);
    };
    assert_eq!((*state, *agent, *by), (TaskState::Completed, Some(life.0), Some(token)));
    assert_eq!((result.clone(), *attempt), (Some(text("postings")), 1));
    assert_eq!(labels.get("run").map(String::as_str), Some("7"));
    assert_eq!(world.ledger.leases_count(life.0), 0);
    assert_eq!(world.task(id).result, Some(text("postings")));
    let why = world.views().why(id).expect("a record");
    assert_eq!(why.decisions[0].ended.as_deref(), Some("completed"));
}

#[test]
fn a_completion_repeated_is_acknowledged_and_happens_once() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let id = world.submit(task(&[]));
    let token = world.assign(id, life);
    world.apply(complete(id, token, "first"));
    let again = world.apply(complete(id, token, "second"));
    assert_eq!((again.outcome, again.events), (Outcome::Done, vec![]));
    assert_eq!(world.task(id).result, Some(text("first")));
    let large = Payload::Inline(vec![0; INLINE_BYTES_MAX + 1].into());
    let other = world.submit(task(&[]));
    let other_token = world.assign(other, life);
    let command = ShardCommand::Complete { task: other, token: other_token, result: large };
    let large = world.refusal(command);
    assert!(matches!(large, Refusal::TooLarge { .. }), "{large}");
    let stale = world.refusal(complete(id, other_token, "third"));
    assert!(matches!(&stale, Refusal::Conflict(why) if why.contains("stale")), "{stale}");
    let invented = world.refusal(complete(id, Token(99), "third"));
    assert!(matches!(&invented, Refusal::Conflict(why) if why.contains("never")), "{invented}");
}

#[test]
fn a_lost_lease_is_requeued_and_its_late_completion_refused() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let id = world.submit(task(&[]));
    let old = world.assign(id, life);
    let expire = ShardCommand::Expire { leases: vec![(id, old)], reason: "silence".to_owned() };
    let applied = world.apply(expire.clone());
    assert_eq!(applied.outcome, Outcome::Requeued { requeued: 1, dead: 0 });
    assert_eq!(states(&applied.events), [(id, TaskState::Queued)]);
    assert_eq!(world.outcome(expire), Outcome::Requeued { requeued: 0, dead: 0 });

    let late = world.refusal(complete(id, old, "late"));
    assert!(matches!(&late, Refusal::Conflict(why) if why.contains("stale")), "{late}");
    let new = world.assign(id, life);
    assert!(new > old, "tokens grow");
    let late = world.refusal(complete(id, old, "late"));
    assert!(matches!(&late, Refusal::Conflict(why) if why.contains("stale")), "{late}");
    let late = world.refusal(fail(id, old, true));
    assert!(matches!(&late, Refusal::Conflict(why) if why.contains("stale")), "{late}");
    assert_eq!(world.outcome(complete(id, new, "in time")), Outcome::Done);
    assert_eq!(world.task(id).failures, 0, "a lost attempt is not a failure");
}

#[test]
fn a_task_that_kills_its_agents_ends_as_a_dead_letter() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let id = world.submit(task(&[]));
    for lost in 1..=LOST_MAX {
        let token = world.assign(id, life);
        let expire = ShardCommand::Expire { leases: vec![(id, token)], reason: "x".to_owned() };
        let dead = u32::from(lost == LOST_MAX);
        assert_eq!(world.outcome(expire), Outcome::Requeued { requeued: 1 - dead, dead });
    }
    assert_eq!(world.state(id), TaskState::DeadLetter);
    assert!(world.task(id).error.is_some_and(|error| error.contains("lost")));
    assert_eq!(world.views().why(id).expect("a record").decisions.len(), 16, "bounded");
}

#[test]
fn tasks_of_one_namespace_never_wait_for_agents_of_another() {
    let mut world = World::new();
    let node = world.start(N1, 1);
    let ours = AgentSpec { namespace: "ours".to_owned(), ..agent("w", N1, node, &["index"]) };
    let ours = world.register(ours).0;
    world.adopt();
    let of = |namespace: &str| TaskSpec { namespace: namespace.to_owned(), ..task(&["index"]) };
    let [mine, foreign] = ["ours", "theirs"].map(|namespace| world.submit(of(namespace)));

    for (namespace, id) in [("ours", mine), ("theirs", foreign)] {
        let ready = world.ledger.ready_tasks(&of(namespace).wanted(), world.now, 9);
        assert_eq!(ready, [(id, 5)], "each namespace has a queue of its own");
    }
    let able = |namespace: &str| -> Vec<_> {
        world.ledger.agents_for(&of(namespace).wanted()).map(|agent| agent.id).collect()
    };
    assert_eq!((able("ours"), able("theirs")), (vec![ours], vec![]));
    let waits = |id| world.views().why(id).and_then(|why| why.waits).expect("it waits");
    assert!(waits(mine).contains("could take it: 1"), "{}", waits(mine));
    let why = waits(foreign);
    assert!(why.contains("[index] in namespace `theirs`") && why.contains("their own: 1"), "{why}");
}

#[test]
fn failures_back_off_and_end_as_a_dead_letter() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let retry =
        Retry { attempts_max: 4, backoff_ms: 100, backoff_max_ms: 250, jitter_ppm: 500_000 };
    let id = world.submit(TaskSpec { retry, ..task(&[]) });
    let none = task(&[]).wanted();
    for longest_ms in [100, 200, 250] {
        let token = world.assign(id, life);
        let applied = world.apply(fail(id, token, true));
        assert_eq!(states(&applied.events), [(id, TaskState::Retrying)]);
        let repeated = world.apply(fail(id, token, true));
        assert_eq!((repeated.outcome, repeated.events), (Outcome::Done, vec![]));

        let next = world.ledger.next_ready(world.now).expect("a retry");
        let wait = next.since(world.now);
        let longest = Duration::from_millis(longest_ms);
        assert!(wait <= longest && wait >= longest / 2, "{wait:?} of {longest:?}");
        let early = world.try_assign(assignment(id, life, PolicyEpoch(0)));
        assert_eq!(early, Err(Unassigned::TooEarly(next)));
        assert_eq!(world.ledger.ready_tasks(&none, world.now, 1), []);
        assert_eq!(world.ledger.ready_tasks(&none, next, 1), [(id, 5)], "to a clock ahead of it");
        world.wait(wait);
    }
    let token = world.assign(id, life);
    let applied = world.apply(fail(id, token, true));
    assert_eq!(states(&applied.events), [(id, TaskState::DeadLetter)]);
    assert_eq!(world.task(id).error.as_deref(), Some("it broke"));
}

#[test]
fn a_failure_that_asks_for_no_retry_is_final() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let id = world.submit(task(&[]));
    let token = world.assign(id, life);
    world.apply(fail(id, token, false));
    assert_eq!(world.state(id), TaskState::DeadLetter);
    let late = world.refusal(complete(id, token, "after all"));
    assert!(matches!(late, Refusal::Conflict(_)), "{late}");
}

#[test]
fn a_cancelled_task_fences_its_holder() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let (waiting, running) = (world.submit(task(&[])), world.submit(task(&[])));
    let token = world.assign(running, life);
    world.apply(ShardCommand::Cancel(waiting));
    let applied = world.apply(ShardCommand::Cancel(running));
    let [EventKind::Task { state, agent, token: fenced, .. }] = applied.events.as_slice() else {
        panic!("one event, not {:?}", applied.events);
    };
    assert_eq!((*state, *agent, *fenced), (TaskState::Cancelled, Some(life.0), Some(token)));
    assert!(matches!(world.refusal(complete(running, token, "x")), Refusal::Conflict(_)));
    let unassigned = world.try_assign(assignment(waiting, life, PolicyEpoch(0)));
    assert_eq!(unassigned, Err(Unassigned::NotWaiting(TaskState::Cancelled)));
    let again = world.apply(ShardCommand::Cancel(running));
    assert_eq!((again.outcome, again.events), (Outcome::Done, vec![]));
    let done = world.submit(task(&[]));
    let token = world.assign(done, life);
    world.apply(complete(done, token, "x"));
    assert!(matches!(world.refusal(ShardCommand::Cancel(done)), Refusal::Conflict(_)));
}

#[test]
fn the_same_key_is_the_same_task_and_another_body_a_conflict() {
    let mut world = World::new();
    let keyed = |input: &str| TaskSpec {
        idempotency_key: Some("k".to_owned()),
        input: text(input),
        ..task(&[])
    };
    let first = world.submit_with_nonce(keyed("a"), 1).expect("taken");
    let again = world.submit_with_nonce(keyed("a"), 2).expect("known");
    assert_eq!((first.existed, again.existed, again.id), (false, true, first.id));
    let traced = TaskSpec { trace: quorate_types::TraceId(7), ..keyed("a") };
    assert_eq!(world.submit_with_nonce(traced, 6), Ok(again.clone()), "a trace is no body");
    let other = world.submit_with_nonce(keyed("b"), 3);
    assert!(matches!(other, Err(Refusal::Conflict(_))), "{other:?}");
    let elsewhere = TaskSpec { namespace: "other".to_owned(), ..keyed("b") };
    let elsewhere = world.submit_with_nonce(elsewhere, 4).expect("a key is a namespace's own");
    assert_ne!(elsewhere.id, first.id);
    let restored =
        crate::Ledger::restore(crate::Ledger::new(&Faults::none()), &world.ledger.snapshot());
    world.ledger = restored.expect("a snapshot");
    assert_eq!(world.submit_with_nonce(keyed("a"), 5), Ok(again));
}

#[test]
fn a_node_that_proposes_again_submits_once() {
    let mut world = World::new();
    let first = world.submit_with_nonce(task(&[]), 9);
    assert_eq!(world.submit_with_nonce(task(&[]), 9), first, "not even marked as existing");
    assert_ne!(world.submit_with_nonce(task(&[]), 10), first);
}

#[test]
fn a_batch_refuses_each_by_itself() {
    let mut world = World::with(&Faults::none(), Bounds { open_max: 2, ..Bounds::default() });
    let bad = TaskSpec { priority: 10, ..task(&[]) };
    let large = Payload::Inline(vec![0; INLINE_BYTES_MAX + 1].into());
    let large = TaskSpec { input: large, ..task(&[]) };
    let specs = [task(&[]), bad, large, task(&[]), task(&[])];
    let submissions = (1..).zip(specs);
    let submissions =
        submissions.map(|(n, spec)| quorate_types::Submission { spec, nonce: (1, 1, n) }).collect();
    let Outcome::Submitted(answers) = world.outcome(ShardCommand::Submit(submissions)) else {
        panic!("not submitted");
    };
    let [Ok(_), Err(Refusal::Invalid(_)), Err(Refusal::TooLarge { .. }), Ok(_), busy] =
        answers.as_slice()
    else {
        panic!("{answers:?}");
    };
    assert!(matches!(busy, Err(Refusal::Busy { .. })), "{busy:?}");
    assert_eq!(world.submit_with_nonce(task(&[]), 1).as_ref(), answers[0].as_ref(), "full or not");
}

#[test]
fn inline_content_fills_the_queue_as_tasks_do() {
    let mut world = World::with(&Faults::none(), Bounds { open_bytes_max: 8, ..Bounds::default() });
    let eight = TaskSpec { input: text("12345678"), ..task(&[]) };
    let first = world.submit(eight.clone());
    let busy = world.submit_with_nonce(eight.clone(), 77);
    assert!(matches!(busy, Err(Refusal::Busy { .. })), "{busy:?}");
    world.apply(ShardCommand::Cancel(first));
    world.submit(eight);
}

#[test]
fn assignments_are_counted_under_the_newest_epochs() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    for n in 0..=EPOCHS_MAX {
        let id = world.submit(task(&[]));
        world.assign(id, life);
        world.activate(&format!("policy-{n}"));
        world.adopt();
    }
    let counted = world.ledger.decisions(SLOT_BALANCER);
    let newest: Vec<_> = (1..=EPOCHS_MAX).map(|n| u64::try_from(n).expect("small")).collect();
    assert!(counted.keys().map(|epoch| epoch.0).eq(newest), "{counted:?}");
}

#[test]
fn the_first_come_and_the_more_urgent_go_first() {
    let mut world = World::new();
    let [low, first, second, high] =
        [1, 5, 5, 9].map(|priority| world.submit(TaskSpec { priority, ..task(&["x"]) }));
    let later = TaskSpec {
        priority: 7,
        not_before: Some(world.now + Duration::from_secs(1)),
        ..task(&["x"])
    };
    let later = world.submit(later);
    let wanted = task(&["x"]).wanted();
    let order = |world: &World, now| -> Vec<_> {
        let ready = world.ledger.ready_tasks(&wanted, now, 9);
        ready.into_iter().map(|(id, _priority)| id).collect()
    };
    assert_eq!(order(&world, world.now), [high, first, second, low]);
    let then = world.now + Duration::from_secs(1);
    let all = [high, later, first, second, low];
    assert_eq!(order(&world, then), all, "to a reader whose clock is ahead of the log");
    world.wait(Duration::from_secs(1)).apply(ShardCommand::Sweep);
    assert_eq!(order(&world, world.now), all, "and once the log has followed");
    assert_eq!(world.ledger.next_ready(world.now), None);
}

#[test]
fn after_the_recorded_index_no_assignment_carries_another_epoch() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let [a, b, c] = [(); 3].map(|()| world.submit(task(&[])));
    world.assign(a, life);
    let epoch = world.activate("round-robin");
    assert_eq!(epoch, PolicyEpoch(1));
    assert_eq!(
        world.try_assign(assignment(b, life, epoch)),
        Err(Unassigned::Policy { recorded: PolicyEpoch(0) }),
        "the shard's border is its own entry"
    );
    world.assign(b, life);
    let adopted = world.adopt();
    assert!(
        matches!(adopted.as_slice(), [EventKind::Policy { epoch: PolicyEpoch(1), step, .. }] if step == "adopted")
    );
    assert_eq!(
        world.try_assign(assignment(c, life, PolicyEpoch(0))),
        Err(Unassigned::Policy { recorded: PolicyEpoch(1) })
    );
    world.assign(c, life);
    let [policy] = world.views().policies().try_into().expect("one slot");
    assert_eq!(policy.decisions, [(PolicyEpoch(0), 2), (PolicyEpoch(1), 1)].into());
    assert!(policy.adopted.values().all(|index| *index > policy.index));

    assert_eq!(
        world.outcome(activation("round-robin")),
        Outcome::Activated(policy.epoch, policy.index),
        "what is there already is not activated again"
    );
    let stale = crate::PolicyAdoption {
        slot: "balancer".to_owned(),
        epoch: PolicyEpoch(1),
        name: "round-robin".to_owned(),
    };
    assert_eq!(world.activate("load-aware"), PolicyEpoch(2));
    world.adopt();
    world.apply(ShardCommand::AdoptPolicy(stale));
    assert_eq!(world.ledger.adopted_epoch("balancer"), PolicyEpoch(2), "never backwards");
}

#[test]
fn a_new_life_fences_the_old_ones_leases() {
    let mut world = World::new();
    let node = world.start(N1, 1);
    let old = world.register(agent("worker", N1, node, &[]));
    world.adopt();
    let (kept, lost) = (world.submit(task(&[])), world.submit(task(&[])));
    let old_token = world.assign(lost, old);
    let new = world.register(agent("worker", N1, node, &[]));
    assert_eq!((new.0, new.1.0), (old.0, old.1.0 + 1), "the same agent in a new life");
    assert_eq!(
        world.try_assign(assignment(kept, new, PolicyEpoch(0))),
        Err(Unassigned::Agent { recorded: Some(old.1) }),
        "not before the shard has recorded it"
    );
    let requeued = world.adopt();
    assert_eq!(states(&requeued), [(lost, TaskState::Queued)]);
    assert_eq!(
        world.try_assign(assignment(kept, old, PolicyEpoch(0))),
        Err(Unassigned::Agent { recorded: Some(new.1) })
    );
    assert!(matches!(world.refusal(complete(lost, old_token, "late")), Refusal::Conflict(_)));
    let token = world.assign(lost, new);
    assert_eq!(world.outcome(complete(lost, token, "x")), Outcome::Done);
}

#[test]
fn a_planted_fault_drops_or_doubles_the_nth_completion() {
    let finish = |faults: &Faults| {
        let mut world = World::with(faults, Bounds::default());
        let life = world.with_agent(&[]);
        let mut events = Vec::new();
        for _n in 0..3 {
            let id = world.submit(task(&[]));
            let token = world.assign(id, life);
            let applied = world.apply(complete(id, token, "x"));
            assert_eq!(applied.outcome, Outcome::Done, "acknowledged all the same");
            assert_eq!(world.state(id), TaskState::Completed);
            events.push((applied.events.len(), world.task(id).result));
        }
        events
    };
    let (whole, empty) = ((1, Some(text("x"))), (1, Some(Payload::default())));
    let doubled = (2, Some(text("x")));
    let dropped = Faults { completion_dropped: Some(2), ..Faults::none() };
    assert_eq!(finish(&dropped), [whole.clone(), empty, whole.clone()]);
    let twice = Faults { completion_doubled: Some(2), ..Faults::none() };
    assert_eq!(finish(&twice), [whole.clone(), doubled, whole]);
}

#[test]
fn a_registration_alone_does_not_touch_tasks() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let id = world.submit(task(&[]));
    let token = world.assign(id, life);
    let retire = SystemCommand::RetireAgent(crate::RetireAgent {
        agent: life.0,
        incarnation: life.1,
        reason: "drained".to_owned(),
    });
    world.apply(retire);
    assert_eq!(world.state(id), TaskState::Leased, "until the shard adopts it");
    assert_eq!(world.outcome(complete(id, token, "in time")), Outcome::Done);
    assert_eq!(states(&world.adopt()), []);
    assert_eq!(world.ledger.assignable(life.0), None);
}
