//! Owners of tasks: each submits under a key, at any node, again at another until
//! one acknowledges; some then cancel, some read.

use std::time::Duration;

use crate::runtime::{SimRuntime, WORLD, elapsed, wall};
use bytes::Bytes;
use openraft_rt::AsyncRuntime as _;
use quorate_types::door::Consistency;
use quorate_types::rng::Rng;
use quorate_types::{
    Digest, Payload, Refusal, Reply, Request, Retry, Submission, TaskId, TaskSpec,
};

use super::workers::OUTSIDE;
use super::{Front, WITHIN_MS};
use crate::guests::{LARGE, result_of};
use crate::law::Law;
use crate::node::CAPABILITY;

/// A task is submitted at so many doors before its owner gives up.
const TRIES: usize = 12;
/// So long after a heal everybody is served, but for frames that are lost now and then.
const RECOVER: Duration = Duration::from_secs(5);
const REFUSED_MAX: u64 = 3;
/// Content of a blob, bytes; some take two chunks and more.
const BLOB_BYTES_MAX: u64 = 150_000;

pub(super) async fn inline(front: Front, rng: Rng, count: u64) {
    let content = Bytes::from(format!("task-{count}"));
    submit(front, rng, CAPABILITY, Payload::Inline(content.clone()), &content).await;
}

pub(super) async fn outside(front: Front, rng: Rng, count: u64) {
    let content = Bytes::from(format!("outside-{count}"));
    submit(front, rng, OUTSIDE, Payload::Inline(content.clone()), &content).await;
}

/// Its content is a blob, and now and then its result as well.
pub(super) async fn with_blob(front: Front, mut rng: Rng, count: u64) {
    let mut content = if rng.chance(150_000) { LARGE.to_vec() } else { Vec::new() };
    content.extend_from_slice(format!("blob-{count}-").as_bytes());
    let size = usize::try_from(rng.below(BLOB_BYTES_MAX)).unwrap_or(0);
    content.resize(content.len() + size, b'.');
    let content = Bytes::from(content);
    for _ in 0..TRIES {
        if front.put_blob(&mut rng, &content).await {
            let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
            let input = Payload::Blob { digest: Digest::of(&content), size };
            submit(front, rng, CAPABILITY, input, &content).await;
            return;
        }
        pause(&mut rng).await;
    }
}

async fn pause(rng: &mut Rng) {
    SimRuntime::sleep(Duration::from_millis(50 + rng.below(400))).await;
}

async fn submit(front: Front, mut rng: Rng, capability: &str, input: Payload, content: &[u8]) {
    let key = format!("key-{}", Digest::of(content).short());
    let attempts_max = 1 + u32::try_from(rng.below(4)).unwrap_or(0);
    let in_a_while = Duration::from_millis(2_000 + rng.below(20_000));
    let spec = TaskSpec {
        capabilities: vec![capability.to_owned()],
        input,
        priority: u8::try_from(rng.below(10)).unwrap_or(5),
        deadline: rng.chance(50_000).then(|| wall(WORLD) + in_a_while),
        retry: Retry { attempts_max, backoff_ms: 50, ..Retry::default() },
        idempotency_key: Some(key.clone()),
        ..TaskSpec::default()
    };
    let mut said = 0;
    let mut refused = 0;
    for _ in 0..TRIES {
        let calm = front.world().calm_since().filter(|since| *since + RECOVER < elapsed());
        let submission = Submission { spec: spec.clone(), nonce: (0, 0, 0) };
        let answer = front.ask_any(&mut rng, "submit", Request::Submit(vec![submission])).await;
        if let Some(Ok(Reply::Submitted(each))) = &answer
            && let [Ok(submitted)] = each.as_slice()
        {
            let (task, result) = (submitted.id, result_of(content));
            front.world().count(|tally| tally.acks += 1);
            front.world().ask(|judges| judges.tasks.acknowledged(&key, task, result));
            // Some say it again, as one whose answer was lost: it is the same task.
            if said == 0 && rng.chance(150_000) {
                said += 1;
                SimRuntime::sleep(Duration::from_millis(rng.below(15_000))).await;
                continue;
            }
            look_after(front, rng, task).await;
            return;
        }
        // After a heal the cluster serves again within a bound.
        let unserved = matches!(answer, Some(Err(Refusal::Unavailable(_) | Refusal::Timeout(_))));
        let still = unserved && calm.is_some() && front.world().calm_since() == calm;
        refused = if still { refused + 1 } else { 0 };
        if refused == REFUSED_MAX {
            let what = format!(
                "{key} was refused {refused} times; all is well since {calm:?}: {answer:?}"
            );
            front.world().complain(Law::Liveness, what);
        }
        pause(&mut rng).await;
    }
}

async fn look_after(front: Front, mut rng: Rng, task: TaskId) {
    let what = rng.below(100);
    SimRuntime::sleep(Duration::from_millis(rng.below(400))).await;
    match what {
        0..6 => cancel(&front, &mut rng, task).await,
        6..18 => read(&front, &mut rng, task).await,
        18..21 => read_for_a_while(&front, &mut rng, task).await,
        _content => {}
    }
}

/// Watches it until it has ended, at whatever door.
async fn read_for_a_while(front: &Front, rng: &mut Rng, task: TaskId) {
    for _ in 0..6 {
        SimRuntime::sleep(Duration::from_millis(rng.below(300))).await;
        read(front, rng, task).await;
    }
}

async fn cancel(front: &Front, rng: &mut Rng, task: TaskId) {
    let Some(answer) = front.ask_any(rng, "cancel", Request::Cancel(task)).await else { return };
    match answer {
        Ok(_done) => {
            front.world().count(|tally| tally.cancelled += 1);
            front.world().ask(|judges| judges.tasks.cancelled(task));
            read(front, rng, task).await;
        }
        Err(refusal) => expect_known(front, task, &refusal),
    }
}

/// Reads what every acknowledgement before it must show in.
async fn read(front: &Front, rng: &mut Rng, task: TaskId) {
    let Some(entrance) = front.any(rng) else { return };
    let since = front.world().know(|judges| judges.tasks.state(task));
    let request = Request::Task(task, Consistency::Linearizable);
    match front.ask(&entrance, "read", request, WITHIN_MS).await {
        Some(Ok(Reply::Task(view, false))) => {
            front.world().count(|tally| tally.reads += 1);
            front.world().ask(|judges| judges.tasks.read(task, since, view.state));
        }
        Some(Ok(other)) => {
            let what = format!("a linearizable read of {task} was answered by {other:?}");
            front.world().complain(Law::ReadYourWrites, what);
        }
        Some(Err(refusal)) => expect_known(front, task, &refusal),
        None => {}
    }
}

/// Whatever else is wrong, an acknowledged task exists.
fn expect_known(front: &Front, task: TaskId, refusal: &Refusal) {
    if let Refusal::NotFound(what) = refusal {
        front.world().complain(Law::ReadYourWrites, format!("of {task} it is said: {what}"));
    }
}
