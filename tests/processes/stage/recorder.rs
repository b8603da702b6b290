//! A load on a few keys whose calls and returns are written down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quorate_client::{Client, ClientError, Link};
use quorate_types::Time;
use quorate_types::door::Consistency;
use quorate_types::history::{Asked, End, History};
use quorate_types::kv::{Expect, Op, OpDone};
use quorate_types::problem::ProblemKind;
use quorate_types::rng::Rng;

const SPACE: &str = "default";

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Clients, each with a connection of its own.
    pub(crate) clients: u32,
    /// Keys.
    pub(crate) keys: u64,
    /// Until then they ask.
    pub(crate) span: Duration,
    /// Whether keys are taken away too.
    pub(crate) deletes: bool,
    /// Draws what is asked.
    pub(crate) seed: u64,
}

struct Recorder {
    history: Mutex<History>,
    begun: Instant,
}

impl Recorder {
    fn now(&self) -> Time {
        Time::ZERO + self.begun.elapsed()
    }

    fn with<T>(&self, act: impl FnOnce(&mut History, Time) -> T) -> T {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that times grow in the order of the list.
        act(&mut history, self.now())
    }
}

/// Runs a load to its end, and gives what its clients asked and were told.
pub(crate) async fn record(client: &Client, load: Load) -> History {
    let recorder = Arc::new(Recorder { history: Mutex::default(), begun: Instant::now() });
    let mut running = tokio::task::JoinSet::new();
    for number in 0..load.clients {
        let link = client.connect_stream().await.expect("connected");
        let recorder = Arc::clone(&recorder);
        running.spawn(async move { one_client(link, &recorder, load, number).await });
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no panic");
    }
    recorder.with(|history, _now| std::mem::take(history))
}

async fn one_client(link: Link, recorder: &Recorder, load: Load, number: u32) {
    let mut rng = Rng::new(load.seed ^ u64::from(number) << 32);
    let mut name = number;
    let mut versions = BTreeMap::new();
    let mut nth = 0_u64;
    while recorder.begun.elapsed() < load.span {
        nth += 1;
        let key = format!("app/{}", rng.below(load.keys));
        let value = format!("{number}.{nth}");
        let asked = match rng.below(20) {
            0..8 => Asked::Get,
            8..15 => Asked::Put(value),
            15..19 => Asked::PutIf { version: versions.get(&key).copied().unwrap_or(0), value },
            _rest if load.deletes => Asked::Delete,
            _rest => Asked::Get,
        };
        let place = recorder.with(|history, now| history.call(name, &key, asked.clone(), now));
        let end = ask(&link, &key, asked).await;
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
        recorder.with(|history, now| history.end(place, end, now));
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
