//! Who asks the cluster for something: owners of tasks, callers, workers outside,
//! clients of the store, contenders and watchers of its seats, and an operator. Each goes to any door, and to another when that one is gone.
//! Whoever asks holds the door to its deadline.

mod calls;
pub(crate) mod keys;
pub(crate) mod locks;
mod swaps;
mod tasks;
pub(crate) mod watchers;
mod workers;

use std::time::Duration;

use crate::runtime::{SimInstant, SimRuntime, freezes, spawn_at};
use bytes::Bytes;
use openraft_rt::{AsyncRuntime as _, Instant as _};
use quorate_types::kv::KvRecord;
use quorate_types::rng::Rng;
use quorate_types::{Digest, Door as _, NodeId, Refusal, Reply, Request};

use crate::law::Law;
use crate::node::{Doors, SimHandle};
use crate::world::{World, locked};

/// An answer is due within this span.
const WITHIN_MS: u64 = 2_000;
/// A door may be so late: virtual time costs nothing, so only its own rounding counts,
const SLACK: Duration = Duration::from_millis(50);
/// and how far its clock can be off its rate, one part in so many.
const SLACK_PART: u32 = 32;
/// A blob goes to one peer after the other, each with a span of its own.
const BLOB_WITHIN: Duration = Duration::from_secs(30);
/// Workers outside.
const WORKERS: usize = 2;
/// Clients of the store.
const CLIENTS: u64 = 3;
/// Contenders for seats.
const CONTENDERS: usize = 2;
/// Watchers of them: one a seat, and one of what each guards.
const WATCHERS: u64 = 4;

/// The cluster as those outside see it. Clones share it.
#[derive(Clone)]
pub(crate) struct Front {
    world: World,
    doors: Doors,
    until: SimInstant,
}

/// A door and the life of its node: an answer of a life that is over reaches nobody.
pub(crate) struct Entrance {
    node: NodeId,
    life: u64,
    handle: SimHandle,
    freezes: (u64, bool),
}

impl Entrance {
    /// Whether its node was held since it was found: then it is late for a reason.
    fn has_stood_still(&self) -> bool {
        self.freezes.1 || self.freezes != freezes(self.node)
    }
}

impl Front {
    /// Requests begin for `span`; what was begun is brought to its end.
    pub(crate) fn new(world: World, doors: Doors, span: Duration) -> Self {
        Self { world, doors, until: SimInstant::now() + span }
    }

    /// The door of this node, while it is there.
    pub(crate) fn door(&self, node: NodeId) -> Option<SimHandle> {
        locked(&self.doors).get(&node).map(|(_, handle)| handle.clone())
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// Whether requests do not begin any more.
    pub(crate) fn is_over(&self) -> bool {
        SimInstant::now() >= self.until
    }

    fn any(&self, rng: &mut Rng) -> Option<Entrance> {
        let doors = locked(&self.doors);
        let count = u64::try_from(doors.len()).unwrap_or(0);
        let drawn = usize::try_from(rng.below(count.max(1))).unwrap_or(0);
        let (node, (life, handle)) = doors.iter().nth(drawn)?;
        let freezes = freezes(*node);
        Some(Entrance { node: *node, life: *life, handle: handle.clone(), freezes })
    }

    fn is_open(&self, entrance: &Entrance) -> bool {
        let doors = locked(&self.doors);
        doors.get(&entrance.node).is_some_and(|(life, _)| *life == entrance.life)
    }

    /// Asks at this door; none when its node was lost meanwhile.
    async fn ask(
        &self,
        entrance: &Entrance,
        what: &str,
        request: Request,
        within_ms: u64,
    ) -> Option<Result<Reply, Refusal>> {
        let within = with_slack(within_ms);
        // As a task of the node, by its clock, and lost with it.
        let asked = spawn_at(entrance.node, entrance.handle.ask(request, within_ms));
        let answer = SimRuntime::timeout(within, asked).await;
        if !self.is_open(entrance) || entrance.has_stood_still() {
            return None;
        }
        if answer.is_err() {
            let what = format!("{} did not answer `{what}` in {within:?}", entrance.node);
            self.world().complain(Law::Deadline, what);
        }
        answer.ok()?.ok()
    }

    /// Asks at any door.
    async fn ask_any(
        &self,
        rng: &mut Rng,
        what: &str,
        request: Request,
    ) -> Option<Result<Reply, Refusal>> {
        self.ask_within(rng, what, request, WITHIN_MS).await
    }

    /// Asks at any door for an answer within this span.
    pub(crate) async fn ask_within(
        &self,
        rng: &mut Rng,
        what: &str,
        request: Request,
        within_ms: u64,
    ) -> Option<Result<Reply, Refusal>> {
        let entrance = self.any(rng)?;
        self.ask(&entrance, what, request, within_ms).await
    }

    /// Stores content at any door; whether it was acknowledged.
    async fn put_blob(&self, rng: &mut Rng, content: &Bytes) -> bool {
        let Some(entrance) = self.any(rng) else { return false };
        let put = spawn_at(entrance.node, entrance.handle.put_blob(content.clone()));
        let answer = SimRuntime::timeout(BLOB_WITHIN, put).await;
        let digest = match answer {
            Ok(Ok(Ok(digest))) if self.is_open(&entrance) => digest,
            Ok(Ok(Ok(_) | Err(_)) | Err(_)) | Err(_) => return false,
        };
        if digest != Digest::of(content) {
            let what = format!("{} stored {digest} for other content", entrance.node);
            self.world().complain(Law::Blob, what);
        }
        self.world().ask(|judges| {
            judges.blobs.stored(digest);
            Ok(())
        });
        self.world().count(|tally| tally.blobs += 1);
        true
    }
}

/// How long to wait for what is promised within so many milliseconds of the door's own clock.
fn with_slack(within_ms: u64) -> Duration {
    let within = Duration::from_millis(within_ms);
    within + within / SLACK_PART + SLACK
}

/// The number that a record holds, if it is one.
fn number_in(record: &KvRecord) -> Option<u64> {
    std::str::from_utf8(&record.value.0).ok()?.parse().ok()
}

/// Everybody begins, until the front's requests are over; `rate` requests a second among owners
/// and callers.
pub(crate) fn begin(front: &Front, rng: &mut Rng, rate: u64) {
    drop(SimRuntime::spawn(arrive(front.clone(), rng.fork(), rate)));
    drop(SimRuntime::spawn(swaps::operate(front.clone(), rng.fork())));
    // All clients together ask as often as owners and callers do.
    let pause = Duration::from_micros(1_000_000 * CLIENTS / rate.max(1));
    for number in 1..=CLIENTS {
        drop(SimRuntime::spawn(keys::client(front.clone(), rng.fork(), number, pause)));
    }
    for _ in 0..CONTENDERS {
        drop(SimRuntime::spawn(locks::contend(front.clone(), rng.fork())));
    }
    for number in 0..WATCHERS {
        drop(SimRuntime::spawn(watchers::watch(front.clone(), rng.fork(), number)));
    }
    for number in 0..WORKERS {
        let name = format!("outside-{number}");
        drop(SimRuntime::spawn(workers::work(front.clone(), rng.fork(), name)));
    }
}

async fn arrive(front: Front, mut rng: Rng, rate: u64) {
    let mean_us = 1_000_000 / rate.max(1);
    let mut count = 0_u64;
    while !front.is_over() {
        SimRuntime::sleep(Duration::from_micros(1 + rng.below(2 * mean_us))).await;
        count += 1;
        let (front, own) = (front.clone(), rng.fork());
        match rng.below(100) {
            0..60 => drop(SimRuntime::spawn(tasks::inline(front, own, count))),
            60..64 => drop(SimRuntime::spawn(tasks::with_blob(front, own, count))),
            64..74 => drop(SimRuntime::spawn(tasks::outside(front, own, count))),
            _call => drop(SimRuntime::spawn(calls::call(front, own, count))),
        }
    }
}
