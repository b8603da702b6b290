//! Who submits: tasks under idempotency keys, at any node, again at another until
//! one acknowledges.

use std::time::Duration;

use bytes::Bytes;
use openraft_rt::{AsyncRuntime as _, Instant as _};
use openraft_rt_sim::{SimInstant, SimRuntime};
use quorate_types::rng::Rng;
use quorate_types::{Door as _, Payload, Reply, Request, Submission, TaskSpec};

use crate::node::{CAPABILITY, Doors, SimHandle};
use crate::world::{World, locked};

/// An answer is due within this span.
const WITHIN_MS: u64 = 2_000;
/// A task is submitted at so many doors before its owner gives up.
const TRIES: usize = 12;

/// Submits `rate` tasks a second until the run has lasted `until`.
pub(crate) async fn submit_all(
    world: World,
    doors: Doors,
    mut rng: Rng,
    rate: u64,
    until: Duration,
) {
    let end = SimInstant::now() + until;
    let mut count = 0_u64;
    while SimInstant::now() < end {
        let mean_us = 1_000_000 / rate.max(1);
        SimRuntime::sleep(Duration::from_micros(1 + rng.below(2 * mean_us))).await;
        count += 1;
        let one = submit(world.clone(), Doors::clone(&doors), rng.fork(), format!("key-{count}"));
        drop(SimRuntime::spawn(one));
    }
}

async fn submit(world: World, doors: Doors, mut rng: Rng, key: String) {
    let spec = TaskSpec {
        capabilities: vec![CAPABILITY.to_owned()],
        input: Payload::Inline(Bytes::from(key.clone())),
        idempotency_key: Some(key.clone()),
        ..TaskSpec::default()
    };
    for _ in 0..TRIES {
        if let Some(door) = any(&doors, &mut rng) {
            let submission = Submission { spec: spec.clone(), nonce: (0, 0, 0) };
            let ask = door.ask(Request::Submit(vec![submission]), WITHIN_MS);
            let answer = SimRuntime::timeout(Duration::from_millis(2 * WITHIN_MS), ask).await;
            if let Ok(Ok(Reply::Submitted(each))) = answer
                && let [Ok(submitted)] = each.as_slice()
            {
                world.acknowledged(&key, submitted.id);
                return;
            }
        }
        SimRuntime::sleep(Duration::from_millis(50 + rng.below(400))).await;
    }
}

fn any(doors: &Doors, rng: &mut Rng) -> Option<SimHandle> {
    let doors = locked(doors);
    let count = u64::try_from(doors.len()).unwrap_or(0);
    let drawn = usize::try_from(rng.below(count.max(1))).unwrap_or(0);
    doors.values().nth(drawn).cloned()
}
