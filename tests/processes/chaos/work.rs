//! Tasks: who submits them, the processes that do them, and what the outside knows of
//! both. A worker is this program again; it prints each completion that the cluster
//! has acknowledged, and may be killed at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_client::{Client, ClientOptions, EventStream, Seen};
use quorate_types::http::Register;
use quorate_types::rng::Rng;
use quorate_types::{EventKind, Payload, TaskId, TaskSpec, TaskState, Token};
use tokio::time::MissedTickBehavior;

use crate::history::meter::Meter;
use crate::plan::shuffle;

/// The first word of a worker's command line.
pub(crate) const WORKER: &str = "--worker";
/// Tasks submitted at once.
const BATCH: u64 = 10;
/// Leases that a worker holds at once.
const SLOTS: u32 = 16;
/// A worker asks another node sooner than the lease of its work ends.
const PATIENCE: Duration = Duration::from_secs(4);

/// What the outside knows.
#[derive(Default)]
pub(crate) struct Record {
    /// Submissions that the cluster acknowledged.
    pub(crate) acked: BTreeSet<TaskId>,
    /// Completions that it acknowledged, by task.
    pub(crate) completed: BTreeMap<TaskId, BTreeSet<Token>>,
    /// Completions that the event stream has told of, by task.
    pub(crate) told: BTreeMap<TaskId, Vec<Option<Token>>>,
    /// Why the stream ended, which goes on without a gap whatever happens to nodes.
    pub(crate) broken: Option<String>,
}

/// What submitters and workers share.
#[derive(Clone)]
pub(crate) struct Books {
    record: Arc<Mutex<Record>>,
    meter: Arc<Meter>,
}

impl Books {
    pub(crate) fn new(meter: Arc<Meter>) -> Self {
        Self { record: Arc::default(), meter }
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Submits at this pace until told to stop.
pub(crate) async fn submit(client: Client, books: Books, a_second: u64, stop: Arc<AtomicBool>) {
    let every = Duration::from_secs(BATCH) / u32::try_from(a_second.max(1)).expect("few");
    let mut pace = tokio::time::interval(every);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let specs = (0..BATCH).map(|_| spec()).collect();
        // What has no answer may have been taken; nobody was told so.
        let Ok(answers) = client.submit_many(specs).await else { continue };
        let acked: Vec<TaskId> =
            answers.into_iter().flatten().map(|submitted| submitted.id).collect();
        books.meter.served(u64::try_from(acked.len()).expect("few"));
        books.record().acked.extend(acked);
    }
}

/// Writes down what the event stream tells of completions, for ever.
pub(crate) async fn watch(mut events: EventStream, books: Books) {
    while let Some(seen) = events.next().await {
        match seen {
            Ok(Seen {
                kind: EventKind::Task { task, state: TaskState::Completed, token, .. },
                ..
            }) => books.record().told.entry(task).or_default().push(token),
            Ok(_other) => {}
            Err(error) => books.record().broken = Some(error.to_string()),
        }
    }
}

fn spec() -> TaskSpec {
    TaskSpec { capabilities: vec!["echo".to_owned()], ..TaskSpec::default() }
}

/// The processes that work.
pub(crate) struct Workers {
    urls: String,
    token: String,
    books: Books,
    running: BTreeMap<usize, Child>,
    count: usize,
}

impl Workers {
    /// Starts so many.
    pub(crate) fn start(urls: &[String], token: &str, books: Books, count: usize) -> Self {
        let running = BTreeMap::new();
        let mut workers =
            Self { urls: urls.join(","), token: token.to_owned(), books, running, count };
        workers.fill();
        workers
    }

    /// Starts those that do not run.
    pub(crate) fn fill(&mut self) {
        for number in 0..self.count {
            if !self.running.contains_key(&number) {
                self.running.insert(number, self.one(number));
            }
        }
    }

    fn one(&self, number: usize) -> Child {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args([WORKER, &number.to_string()])
            .env("QUORATE_URL", &self.urls)
            .env("QUORATE_TOKEN", &self.token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let out = child.stdout.take().expect("piped");
        let books = self.books.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let done = line.split_once(' ').expect("a task and a token");
                let (task, token) = (done.0.parse().expect("a task"), done.1.parse());
                let token = token.expect("a token");
                books.record().completed.entry(task).or_default().insert(token);
                books.meter.served(1);
            }
        });
        child
    }

    /// Kills three of ten, of those that are drawn.
    pub(crate) fn kill_some(&mut self, rng: &mut Rng) {
        let mut numbers: Vec<usize> = self.running.keys().copied().collect();
        shuffle(&mut numbers, rng);
        for number in numbers.into_iter().take((3 * self.count).div_ceil(10)) {
            if let Some(child) = self.running.remove(&number) {
                end(child);
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        std::mem::take(&mut self.running).into_values().for_each(end);
    }
}

fn end(mut child: Child) {
    child.kill().ok();
    child.wait().ok();
}

/// A worker's life: it registers, works, and registers again where it was given up.
pub(crate) async fn worker(number: &str) {
    // It ends with whoever started it, which holds the other end.
    std::thread::spawn(|| {
        std::io::stdin().lines().for_each(drop);
        std::process::exit(0);
    });
    let variable = |name| std::env::var(name).expect("a worker is told where to work");
    let urls: Vec<String> = variable("QUORATE_URL").split(',').map(str::to_owned).collect();
    let mut options = ClientOptions::new(urls, Some(variable("QUORATE_TOKEN")));
    options.timeout = PATIENCE;
    let client = Client::new(options).expect("a client");
    let agent = Register {
        namespace: "default".to_owned(),
        name: format!("worker-{number}"),
        capabilities: vec!["echo".to_owned()],
        slots: SLOTS,
    };
    loop {
        let Ok(registered) = client.register(&agent).await else { continue };
        loop {
            let wait = Duration::from_millis(500);
            let taken = client.take(registered.id, registered.incarnation, &[], SLOTS, wait).await;
            // Fenced, or nobody to ask: a new life.
            let Ok(leases) = taken else { break };
            for grant in leases {
                let (task, token) = (grant.lease.task, grant.lease.token);
                // The result says under which lease it was made.
                let result = Payload::Inline(token.to_string().into());
                if client.complete(task, token, result).await.is_ok() {
                    let line = format!("{task} {token}\n");
                    std::io::stdout().write_all(line.as_bytes()).expect("whoever started it reads");
                }
            }
        }
    }
}
