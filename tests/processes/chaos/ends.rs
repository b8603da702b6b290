//! The end of a run: load has stopped and all is healed. Every acknowledged task must
//! have been completed, under the one lease whose completion was acknowledged; every
//! node must hold the same state, and its directory must be sound.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use quorate_types::door::{Consistency, TaskFilter};
use quorate_types::history::{Asked, End, History};
use quorate_types::{Digest, Index, Payload, TaskId, TaskState, Time};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::history::caller::Caller;
use crate::stage::quorate;
use crate::town::Town;
use crate::work::{Books, Record};

const WITHIN: Duration = Duration::from_secs(120);
const PAGE: u32 = 1_000;
/// Who reads all keys at the end.
const READERS: usize = 16;

/// What came of the tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tasks {
    pub(crate) acknowledged: usize,
    pub(crate) completions: usize,
    /// Acknowledged and not completed.
    pub(crate) lost: Vec<String>,
    /// Completed more than once, or under another lease than the ledger has.
    pub(crate) twice: Vec<String>,
    /// What the event stream owes.
    pub(crate) untold: Vec<String>,
}

/// What the ledger has of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) state: TaskState,
    pub(crate) result: Option<String>,
}

/// Waits until no task is left to be done, and compares.
pub(crate) async fn tasks(town: &Town, books: &Books) -> Result<Tasks, String> {
    let until = Instant::now() + WITHIN;
    loop {
        let kept = all_tasks(town).await?;
        let done = kept.values().all(|task| task.state == TaskState::Completed) && {
            let record = books.record();
            record.broken.is_some()
                || record.acked.iter().all(|task| record.told.contains_key(task))
        };
        if done || Instant::now() >= until {
            return Ok(compare(&books.record(), &kept));
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn all_tasks(town: &Town) -> Result<BTreeMap<TaskId, Kept>, String> {
    let mut kept = BTreeMap::new();
    let namespace = "default".to_owned();
    let mut filter = TaskFilter { namespace, limit: PAGE, ..TaskFilter::default() };
    loop {
        let page = town.client.tasks(&filter, Consistency::Linearizable).await;
        let page = page.map_err(|error| format!("tasks cannot be listed: {error}"))?;
        for task in page.tasks {
            let result = task.result.map(|result| match result {
                Payload::Inline(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Payload::Blob { digest, .. } => digest.to_string(),
            });
            kept.insert(task.id, Kept { state: task.state, result });
        }
        filter.cursor = page.cursor;
        if filter.cursor.is_none() {
            return Ok(kept);
        }
    }
}

/// The outside's book against the ledger.
pub(crate) fn compare(record: &Record, kept: &BTreeMap<TaskId, Kept>) -> Tasks {
    let mut tasks = Tasks {
        acknowledged: record.acked.len(),
        completions: record.completed.len(),
        ..Tasks::default()
    };
    for task in &record.acked {
        match kept.get(task) {
            Some(Kept { state: TaskState::Completed, .. }) => {}
            Some(kept) => tasks.lost.push(format!("{task} is {}", kept.state)),
            None => tasks.lost.push(format!("{task} is not there")),
        }
    }
    for (task, tokens) in record.told.iter().filter(|(_task, tokens)| tokens.len() > 1) {
        tasks.twice.push(format!("{task}: the stream told of {tokens:?}"));
    }
    match &record.broken {
        Some(why) => tasks.untold.push(format!("the event stream ended: {why}")),
        None => {
            let untold = record.acked.iter().filter(|task| !record.told.contains_key(task));
            tasks.untold.extend(untold.map(|task| format!("{task}: no event of its completion")));
        }
    }
    for (task, tokens) in &record.completed {
        let result = kept.get(task).and_then(|kept| kept.result.as_deref());
        let told = tokens.iter().map(ToString::to_string).collect::<Vec<_>>();
        if told.len() != 1 || result != Some(told[0].as_str()) {
            tasks.twice.push(format!("{task}: {told:?} were acknowledged, {result:?} is kept"));
        }
    }
    tasks
}

/// Reads every key that was ever asked for, as one more part of the history.
pub(crate) async fn read_all(town: &Town, begun: Instant, history: &mut History) {
    let keys: Vec<String> = history.by_key().into_keys().map(str::to_owned).collect();
    let mut running = JoinSet::new();
    for (reader, part) in keys.chunks(keys.len().div_ceil(READERS).max(1)).enumerate() {
        let part = part.to_vec();
        let within = Duration::from_secs(10);
        let urls = town.cluster.urls();
        let mut caller = Caller::new(&urls, town.cluster.token(), reader, within);
        running.spawn(async move {
            let mut read = Vec::new();
            for key in part {
                let called = Time::ZERO + begun.elapsed();
                let end = caller.ask(&key, &Asked::Get).await;
                assert_ne!(end, End::Failed, "all is healed, and {key} cannot be read");
                read.push((key, called, end, Time::ZERO + begun.elapsed()));
            }
            read
        });
    }
    while let Some(read) = running.join_next().await {
        for (key, called, end, returned) in read.expect("no panic") {
            let place = history.call(u32::MAX, &key, Asked::Get, called);
            history.end(place, end, returned);
        }
    }
}

/// What is wrong with the directories of nodes that have stopped, as `quorate` itself says.
pub(crate) fn directories(town: &Town) -> Vec<String> {
    let verify = |directory: &PathBuf| {
        let (code, said) = quorate(&format!("storage verify {}", directory.display()), &[], "");
        (code != Some(0)).then(|| format!("{}: {said}", directory.display()))
    };
    town.directories().iter().filter_map(verify).collect()
}

/// Panics that nodes have written down, whatever became of them.
pub(crate) fn panics(town: &Town) -> Vec<String> {
    let mut found = Vec::new();
    for at in 0..town.nodes {
        let text = std::fs::read_to_string(town.cluster.log_file(at)).unwrap_or_default();
        let mut lines = text.lines();
        while let Some(line) = lines.by_ref().find(|line| line.contains("panicked at")) {
            let why = lines.next().unwrap_or_default();
            found.push(format!("the node at place {at}: {line} {why}"));
        }
    }
    found
}

/// The state that all nodes hold once they have applied the same.
pub(crate) async fn one_state(town: &Town) -> Result<(Index, Digest), String> {
    let until = Instant::now() + WITHIN;
    loop {
        let views = town.all().await.unwrap_or_default();
        let mut states = BTreeMap::<Index, Vec<Digest>>::new();
        for group in views.iter().flat_map(|view| &view.groups) {
            states.entry(group.applied_index).or_default().push(group.state_digest);
        }
        for (index, digests) in &states {
            if digests.iter().any(|digest| *digest != digests[0]) {
                return Err(format!("nodes hold different states at {index}: {digests:?}"));
            }
        }
        if let [(index, digests)] = &states.iter().collect::<Vec<_>>()[..]
            && digests.len() == town.nodes
        {
            return Ok((**index, digests[0]));
        }
        if Instant::now() >= until {
            return Err(format!("nodes did not come to one index: {states:?}"));
        }
        sleep(Duration::from_millis(200)).await;
    }
}
