//! A load on a few keys whose calls and returns are written down.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_client::{ClientError, Link};
use quorate_types::Time;
use quorate_types::door::Consistency;
use quorate_types::history::{Asked, End, History};
use quorate_types::kv::{Expect, Op, OpDone};
use quorate_types::problem::ProblemKind;
use quorate_types::rng::Rng;
use tokio::task::JoinSet;

use super::caller::Caller;
use super::meter::Meter;

const SPACE: &str = "default";

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Clients, each with a connection of its own.
    pub(crate) clients: u32,
    /// Keys at a time.
    pub(crate) keys: u64,
    /// After so long they are other keys; what has no end makes a key dear to judge.
    pub(crate) turn: Duration,
    /// Whether keys are taken away too.
    pub(crate) deletes: bool,
    /// Draws what is asked.
    pub(crate) seed: u64,
}

/// How a client asks.
#[derive(Debug)]
pub(crate) enum Asker {
    /// Over the native stream, which asks again by itself and is heard once.
    Stream(Link),
    /// Over HTTP.
    Http(Caller),
}

/// What is written down, by clients that run until it is taken.
#[derive(Debug)]
pub(crate) struct Recorder {
    history: Mutex<History>,
    pub(crate) begun: Instant,
    meter: Arc<Meter>,
    stopped: AtomicBool,
}

impl Recorder {
    pub(crate) fn new(meter: Arc<Meter>) -> Arc<Self> {
        let (history, stopped) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { history, begun: Instant::now(), meter, stopped })
    }

    /// Has these clients ask from now on.
    pub(crate) fn start(self: &Arc<Self>, askers: Vec<Asker>, load: Load) -> JoinSet<()> {
        assert_eq!(askers.len(), usize::try_from(load.clients).expect("few"));
        (0..)
            .zip(askers)
            .map(|(number, asker)| one_client(asker, Arc::clone(self), load, number))
            .collect()
    }

    /// Lets each client end what it asked last. What they asked and were told.
    pub(crate) async fn stop(&self, mut running: JoinSet<()>) -> History {
        self.stopped.store(true, Ordering::Relaxed);
        while let Some(ended) = running.join_next().await {
            ended.expect("no panic");
        }
        self.with(|history, _now| std::mem::take(history))
    }

    fn now(&self) -> Time {
        Time::ZERO + self.begun.elapsed()
    }

    fn with<T>(&self, act: impl FnOnce(&mut History, Time) -> T) -> T {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that times grow in the order of the list.
        act(&mut history, self.now())
    }
}

async fn one_client(mut asker: Asker, recorder: Arc<Recorder>, load: Load, number: u32) {
    let mut rng = Rng::new(load.seed ^ u64::from(number) << 32);
    let mut name = number;
    let mut versions = BTreeMap::new();
    let (mut nth, mut turn) = (0_u64, 0);
    while !recorder.stopped.load(Ordering::Relaxed) {
        nth += 1;
        let now = recorder.begun.elapsed().as_millis() / load.turn.as_millis().max(1);
        if now != turn {
            turn = now;
            versions.clear();
        }
        let key = format!("app/{turn}.{}", rng.below(load.keys));
        let value = format!("{number}.{nth}");
        let asked = match rng.below(20) {
            0..8 => Asked::Get,
            8..15 => Asked::Put(value),
            15..19 => Asked::PutIf { version: versions.get(&key).copied().unwrap_or(0), value },
            _rest if load.deletes => Asked::Delete,
            _rest => Asked::Get,
        };
        let place = recorder.with(|history, now| history.call(name, &key, asked.clone(), now));
        let end = match &mut asker {
            Asker::Stream(link) => ask(link, &key, asked).await,
            Asker::Http(caller) => caller.ask(&key, &asked).await,
        };
        match &end {
            End::Found(found) => {
                versions.insert(key, found.as_ref().map_or(0, |(_value, version)| *version));
            }
            End::Put(version) => {
                versions.insert(key, *version);
            }
            // What it asked may be done later, beside what it asks next: that is another client.
            End::Unknown => name += load.clients,
            End::Mismatch | End::Deleted(_) | End::Failed => {}
        }
        let served = !matches!(end, End::Unknown | End::Failed);
        recorder.with(|history, now| history.end(place, end, now));
        recorder.meter.served(u64::from(served));
    }
}

async fn ask(link: &Link, key: &str, asked: Asked) -> End {
    let put = |value: String, expect| Op::Put {
        key: key.to_owned(),
        value: value.as_str().into(),
        lease: None,
        expect,
    };
    let op = match asked {
        Asked::Get => {
            let read = link.get(SPACE, key, Consistency::Linearizable).await;
            // A read that failed has changed nothing.
            return read.map_or(End::Failed, |(record, _as_of)| {
                End::Found(record.map(|record| {
                    (String::from_utf8_lossy(&record.value.0).into_owned(), record.version)
                }))
            });
        }
        Asked::Put(value) => put(value, None),
        Asked::PutIf { version, value } => put(value, Some(Expect::Version(version))),
        Asked::Delete => Op::Delete { key: key.to_owned(), expect: None },
    };
    match link.op(SPACE, op).await {
        Ok(OpDone::Put { version, .. }) => End::Put(version),
        Ok(OpDone::Deleted { count, .. }) => End::Deleted(count > 0),
        Ok(OpDone::Got(_)) => unreachable!("reads go beside the log"),
        Err(error) => of_error(&error),
    }
}

fn of_error(error: &ClientError) -> End {
    match error.kind() {
        Some(ProblemKind::Conflict) => End::Mismatch,
        Some(ProblemKind::Busy | ProblemKind::Invalid | ProblemKind::TooLarge) => End::Failed,
        Some(_) | None => End::Unknown,
    }
}
