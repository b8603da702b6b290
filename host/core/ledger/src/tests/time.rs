//! Ledger time: deadlines, queue timeouts, retention, and clocks that jump.

use std::time::Duration;

use quorate_types::door::TaskFilter;
use quorate_types::limits::FRAME_BYTES_MAX;
use quorate_types::{Digest, Faults, Payload, TaskSpec, TaskState, Time, Timeouts};

use super::fixture::{World, complete, states, task, text};
use crate::bounds::{Bounds, SWEEP_MAX};
use crate::{Outcome, ShardCommand};

const SECOND: Duration = Duration::from_secs(1);

fn swept(dead: u32, forgotten: u32) -> Outcome {
    Outcome::Swept { dead, forgotten, more: false }
}

#[test]
fn a_clock_that_jumps_back_does_not_take_ledger_time_with_it() {
    let mut world = World::new();
    world.submit(task(&[]));
    let before = world.ledger.time();
    world.now = Time(5);
    world.submit(task(&[]));
    assert_eq!(world.ledger.time(), before);
}

#[test]
fn a_deadline_ends_a_task_wherever_it_stands() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let deadline = Some(world.now + SECOND);
    let dated = TaskSpec { deadline, ..task(&[]) };
    let [waiting, running, done] = [(); 3].map(|()| world.submit(dated.clone()));
    let token = world.assign(running, life);
    let done_token = world.assign(done, life);
    world.apply(complete(done, done_token, "x"));
    assert_eq!(world.ledger.next_due(), deadline);
    assert_eq!(world.outcome(ShardCommand::Sweep), swept(0, 0));
    let applied = world.wait(SECOND).apply(ShardCommand::Sweep);
    assert_eq!(applied.outcome, swept(2, 0));
    let dead = TaskState::DeadLetter;
    assert_eq!(states(&applied.events), [(waiting, dead), (running, dead)]);
    assert!(matches!(world.outcome(complete(running, token, "late")), Outcome::Refused(_)));
    assert_eq!(world.state(done), TaskState::Completed);
    let late = world.submit_with_nonce(dated, 77);
    assert!(late.is_err(), "nothing is taken that is late already: {late:?}");
}

#[test]
fn a_queue_timeout_ends_with_the_first_lease() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let timeouts = Timeouts { queue_ms: Some(1000), ..Timeouts::default() };
    let hasty = TaskSpec { timeouts, ..task(&[]) };
    let (waiting, leased) = (world.submit(hasty.clone()), world.submit(hasty));
    let token = world.assign(leased, life);
    let expire = ShardCommand::Expire { leases: vec![(leased, token)], reason: "x".to_owned() };
    world.apply(expire);
    assert_eq!(world.wait(SECOND).outcome(ShardCommand::Sweep), swept(1, 0));
    assert_eq!(world.state(waiting), TaskState::DeadLetter);
    assert_eq!(world.state(leased), TaskState::Queued, "it had been leased in time");
}

#[test]
fn a_finished_record_is_forgotten_after_its_retention_with_its_key_and_blobs() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let blob = Digest::of(b"large");
    let spec = TaskSpec {
        idempotency_key: Some("k".to_owned()),
        input: Payload::Blob { digest: blob, size: 5 },
        retention_ms: 1000,
        ..task(&[])
    };
    let id = world.submit(spec.clone());
    let token = world.assign(id, life);
    world.apply(complete(id, token, "x"));
    assert_eq!(world.wait(SECOND / 2).outcome(ShardCommand::Sweep), swept(0, 0));
    assert!(world.ledger.refers_to(&blob));
    assert_eq!(world.wait(SECOND / 2).outcome(ShardCommand::Sweep), swept(0, 1));
    assert_eq!((world.ledger.task(id), world.ledger.was_forgotten(id)), (None, true));
    assert!(!world.ledger.refers_to(&blob));
    assert_eq!(world.ledger.next_due(), None);
    let refused = world.refusal(ShardCommand::Cancel(id)).to_string();
    assert!(refused.contains("no longer kept"), "{refused}");
    let again = world.submit_with_nonce(spec, 1).expect("the key is free again");
    assert!(!again.existed && again.id > id, "a number is never given again");
}

#[test]
fn a_blob_is_referred_to_until_the_last_record_is_forgotten() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let blob = Payload::Blob { digest: Digest::of(b"shared"), size: 6 };
    let short = TaskSpec { input: blob.clone(), retention_ms: 1000, ..task(&[]) };
    let long = TaskSpec { retention_ms: 2000, ..task(&[]) };
    let (asks, answers) = (world.submit(short), world.submit(long));
    world.apply(ShardCommand::Cancel(asks));
    let token = world.assign(answers, life);
    world.apply(ShardCommand::Complete { task: answers, token, result: blob });
    let refers = |world: &World| world.ledger.refers_to(&Digest::of(b"shared"));
    assert_eq!(world.wait(SECOND).outcome(ShardCommand::Sweep), swept(0, 1));
    assert!(refers(&world), "a result still does");
    assert_eq!(world.wait(SECOND).outcome(ShardCommand::Sweep), swept(0, 1));
    assert!(!refers(&world));
}

#[test]
fn finished_content_that_is_too_much_goes_before_its_time() {
    let bounds = Bounds { finished_bytes_max: 8, ..Bounds::default() };
    let mut world = World::with(&Faults::none(), bounds);
    let five = TaskSpec { input: text("12345"), ..task(&[]) };
    let [first, second] = [(); 2].map(|()| {
        let id = world.submit(five.clone());
        world.wait(SECOND).apply(ShardCommand::Cancel(id));
        id
    });
    assert_eq!(world.outcome(ShardCommand::Sweep), swept(0, 1));
    assert!(world.ledger.was_forgotten(first) && !world.ledger.was_forgotten(second));
}

#[test]
fn too_many_finished_records_go_before_their_time_by_bounded_steps() {
    let bounds = Bounds { finished_max: 3, ..Bounds::default() };
    let mut world = World::with(&Faults::none(), bounds);
    let extra = SWEEP_MAX + 5;
    for _n in 0..extra + 3 {
        let id = world.submit(task(&[]));
        world.apply(ShardCommand::Cancel(id));
    }
    assert_eq!(world.ledger.next_due(), Some(world.ledger.time()));
    let step = u32::try_from(SWEEP_MAX).expect("small");
    let first = Outcome::Swept { dead: 0, forgotten: step, more: true };
    assert_eq!(world.outcome(ShardCommand::Sweep), first);
    assert_eq!(world.outcome(ShardCommand::Sweep), swept(0, 5));
    assert_eq!(world.views().counts("default"), [(TaskState::Cancelled, 3)].into());
}

#[test]
fn tasks_are_listed_in_pages_that_lose_none() {
    let mut world = World::new();
    let life = world.with_agent(&[]);
    let mut wanted = Vec::new();
    for n in 0..23 {
        let queue = if n % 3 == 0 { "rare" } else { "default" }.to_owned();
        let id = world.submit(TaskSpec { queue, ..task(&[]) });
        if n % 2 == 0 {
            world.assign(id, life);
        }
        wanted.push(id);
    }
    world.submit(TaskSpec { namespace: "other".to_owned(), ..task(&[]) });
    let list = |mut filter: TaskFilter| {
        let mut ids = Vec::new();
        loop {
            let page = world.views().tasks(&filter).expect("a page");
            assert!(page.tasks.len() <= 4);
            ids.extend(page.tasks.into_iter().map(|task| task.id));
            filter.cursor = page.cursor;
            if filter.cursor.is_none() {
                return ids;
            }
        }
    };
    let filter = TaskFilter { namespace: "default".to_owned(), limit: 4, ..TaskFilter::default() };
    assert_eq!(list(filter.clone()), wanted);
    let leased: Vec<_> = wanted.iter().copied().step_by(2).collect();
    assert_eq!(list(TaskFilter { state: Some(TaskState::Leased), ..filter.clone() }), leased);
    let rare: Vec<_> = wanted.iter().copied().step_by(3).collect();
    assert_eq!(list(TaskFilter { queue: Some("rare".to_owned()), ..filter.clone() }), rare);
    let forged = TaskFilter { cursor: Some("page two".to_owned()), ..filter };
    assert!(world.views().tasks(&forged).is_err());
    let counts = [(TaskState::Queued, 11), (TaskState::Leased, 12)].into();
    assert_eq!(world.views().counts("default"), counts);
    assert_eq!(world.ledger.namespaces().collect::<Vec<_>>(), ["default", "other"]);
}

#[test]
fn a_page_of_large_tasks_ends_before_it_outgrows_a_frame() {
    let mut world = World::new();
    let input = Payload::Inline("x".repeat(60 << 10).into());
    let large = TaskSpec { input, ..task(&[]) };
    let wanted: Vec<_> = (0..70).map(|_| world.submit(large.clone())).collect();
    let mut filter = TaskFilter { limit: 100, ..TaskFilter::default() };
    let mut seen = Vec::new();
    loop {
        let page = world.views().tasks(&filter).expect("a page");
        let bytes = quorate_types::cbor::encode(&page).len();
        assert!(!page.tasks.is_empty() && bytes < FRAME_BYTES_MAX / 2, "{bytes} bytes");
        seen.extend(page.tasks.iter().map(|task| task.id));
        filter.cursor = page.cursor;
        if filter.cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, wanted, "each of them once");
}
