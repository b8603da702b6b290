//! A door that works, in memory, on one node: enough of a cluster for every route
//! to be asked in earnest. It keeps its promises (keys, tokens, lives, order of
//! events), so that a scenario shows what a user would see.

mod inside;

use std::collections::VecDeque;
use std::future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use quorate_types::door::{Borrowed, Pending, Source};
use quorate_types::kv::{Changes, KvWatch};
use quorate_types::view::{CallEvent, CallSpec};
use quorate_types::{
    AgentId, Digest, Door, Event, GroupId, Index, Layout, Payload, PolicyEpoch, Refusal, Reply,
    Request, Revision, TaskSpec,
};
use tokio::sync::watch;

pub(crate) use inside::Inside;

/// The door; clones share everything.
#[derive(Clone)]
pub(crate) struct Toy(Arc<Shared>);

struct Shared {
    inside: Mutex<Inside>,
    changed: watch::Sender<u64>,
}

impl Default for Toy {
    fn default() -> Self {
        Self(Arc::new(Shared {
            inside: Mutex::new(Inside::default()),
            changed: watch::Sender::new(0),
        }))
    }
}

impl Toy {
    /// What it remembers.
    pub(crate) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.inside.lock().expect("no test panics while it looks")
    }

    /// Does all this at once, before anyone sees it.
    pub(crate) fn act(&self, act: impl FnOnce(&mut Inside)) {
        act(&mut self.inside());
        self.tell();
    }

    pub(crate) fn tell(&self) {
        self.0.changed.send_modify(|count| *count += 1);
    }

    /// Refuses the next question.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.inside().refusals.push_back(refusal);
    }

    /// Returns when this holds.
    pub(crate) async fn until(&self, holds: impl Fn(&Inside) -> bool) {
        let mut changed = self.0.changed.subscribe();
        while !holds(&self.inside()) {
            changed.changed().await.expect("the toy outlives the test");
        }
    }

    async fn answer(self, request: Request) -> Result<Reply, Refusal> {
        let Request::Take { agent, incarnation, max, wait_ms, .. } = request else {
            let answer = self.inside().answer(request);
            self.tell();
            return answer;
        };
        let mut changed = self.0.changed.subscribe();
        let end = tokio::time::Instant::now() + Duration::from_millis(wait_ms);
        loop {
            let leases = self.inside().take(agent, incarnation, max)?;
            if !leases.is_empty() {
                self.tell();
                return Ok(Reply::Leases(leases));
            }
            if tokio::time::timeout_at(end, changed.changed()).await.is_err() {
                return Ok(Reply::Leases(Vec::new()));
            }
        }
    }
}

impl Door for Toy {
    fn backup(&self, blobs: bool) -> Box<dyn Source<Result<Bytes, Refusal>>> {
        let mut inside = self.inside();
        let pieces = match inside.refusals.pop_front() {
            Some(refusal) => vec![Err(refusal)],
            None => {
                // The toy has lost its blobs: what is asked for with them breaks off.
                let lost = Refusal::Unavailable("the disk".to_owned());
                let rest = if blobs { Err(lost) } else { Ok(Bytes::from_static(b" and shards")) };
                vec![Ok(Bytes::from_static(b"system")), rest]
            }
        };
        Box::new(Pieces(pieces.into()))
    }

    fn ask(&self, request: Request, deadline_ms: u64) -> Pending<Result<Reply, Refusal>> {
        let mut inside = self.inside();
        inside.asked.push((request.clone(), deadline_ms));
        let refusal = inside.refusals.pop_front();
        drop(inside);
        self.tell();
        let toy = self.clone();
        Box::pin(async move {
            match refusal {
                Some(refusal) => Err(refusal),
                None => toy.answer(request).await,
            }
        })
    }

    fn call(&self, call: CallSpec) -> Box<dyn Source<Result<CallEvent, Refusal>>> {
        let mut inside = self.inside();
        let attempts = u32::try_from(inside.calls.len()).expect("few") + 1;
        let done = CallEvent::Done { agent: AgentId(3), policy_epoch: PolicyEpoch(2), attempts };
        let body = call.body.clone();
        let known = |name: &str| call.capabilities.first().is_some_and(|first| first == name);
        let mut script: VecDeque<Result<CallEvent, Refusal>> = VecDeque::new();
        let mut stays = false;
        if let Some(refusal) = inside.refusals.pop_front() {
            script.push_back(Err(refusal));
        } else if known("echo") {
            script.extend([Ok(CallEvent::Chunk(body)), Ok(done)]);
        } else if known("letters") {
            let letter = |at| Ok(CallEvent::Chunk(body.slice(at..=at)));
            script.extend((0..body.len()).map(letter));
            script.push_back(Ok(done));
        } else if known("broken") {
            script.push_back(Ok(CallEvent::Chunk(body)));
            script.push_back(Err(Refusal::Agent("it trapped".to_owned())));
        } else if known("silent") {
            stays = true;
        } else {
            script.push_back(Err(Refusal::NotFound(format!(
                "an agent with {:?}",
                call.capabilities
            ))));
        }
        inside.calls.push(call);
        drop(inside);
        self.tell();
        Box::new(Script { toy: self.clone(), script, stays })
    }

    fn put_blob(&self, content: Bytes) -> Pending<Result<Digest, Refusal>> {
        let digest = Digest::of(&content);
        self.inside().blobs.insert(digest, content);
        Box::pin(future::ready(Ok(digest)))
    }

    fn get_blob(&self, digest: Digest) -> Pending<Result<Bytes, Refusal>> {
        let found = self.inside().blobs.get(&digest).cloned();
        let none = || Refusal::NotFound(format!("the blob {digest}"));
        Box::pin(future::ready(found.ok_or_else(none)))
    }

    fn events(&self, after: Option<Revision>) -> Box<dyn Source<Result<Event, Refusal>>> {
        let inside = self.inside();
        let now = inside.events.last().map(|event| event.revision.clone());
        let place = |revision: &Revision| revision.at(GroupId::SYSTEM).unwrap_or((Index(0), 0));
        let lost = after.as_ref().is_some_and(|after| place(after).0.0 < inside.compacted);
        let after = place(&after.or(now).unwrap_or_default());
        Box::new(Feed { toy: self.clone(), after, lost })
    }

    fn layout(&self) -> Layout {
        Layout::ONE
    }

    fn kv_watch(&self, watch: KvWatch) -> Box<dyn Source<Result<Changes, Refusal>>> {
        Box::new(KvFeed { toy: self.clone(), watch })
    }

    fn ready(&self) -> Result<(), String> {
        self.inside().not_ready.clone().map_or(Ok(()), Err)
    }

    fn metrics(&self) -> String {
        format!("quorate_tasks {}\n", self.inside().tasks.len())
    }
}

struct Script {
    toy: Toy,
    script: VecDeque<Result<CallEvent, Refusal>>,
    stays: bool,
}

struct Pieces(VecDeque<Result<Bytes, Refusal>>);

impl Source<Result<Bytes, Refusal>> for Pieces {
    fn next(&mut self) -> Borrowed<'_, Option<Result<Bytes, Refusal>>> {
        Box::pin(future::ready(self.0.pop_front()))
    }
}

impl Source<Result<CallEvent, Refusal>> for Script {
    fn next(&mut self) -> Borrowed<'_, Option<Result<CallEvent, Refusal>>> {
        if self.stays {
            return Box::pin(future::pending());
        }
        Box::pin(future::ready(self.script.pop_front()))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if self.stays || !self.script.is_empty() {
            self.toy.inside().calls_dropped += 1;
            self.toy.tell();
        }
    }
}

struct Feed {
    toy: Toy,
    after: (Index, u32),
    lost: bool,
}

impl Feed {
    async fn read(&mut self) -> Option<Result<Event, Refusal>> {
        if self.lost {
            return Some(Err(Refusal::Compacted(format!("what follows {}", self.after.0))));
        }
        let mut changed = self.toy.0.changed.subscribe();
        loop {
            let place = |event: &Event| event.revision.at(GroupId::SYSTEM);
            let later = |event: &&Event| place(event) > Some(self.after);
            let next = self.toy.inside().events.iter().find(later).cloned();
            if let Some(event) = next {
                self.after = place(&event).unwrap_or(self.after);
                return Some(Ok(event));
            }
            changed.changed().await.ok()?;
        }
    }
}

impl Source<Result<Event, Refusal>> for Feed {
    fn next(&mut self) -> Borrowed<'_, Option<Result<Event, Refusal>>> {
        Box::pin(self.read())
    }
}

struct KvFeed {
    toy: Toy,
    watch: KvWatch,
}

impl KvFeed {
    async fn read(&mut self) -> Option<Result<Changes, Refusal>> {
        let mut changed = self.toy.0.changed.subscribe();
        loop {
            let from_now_on = self.watch.after.is_none();
            let found = self.toy.inside().ledger.kv_changes(&self.watch, 2);
            match found {
                Ok(changes) => {
                    self.watch.after = Some(changes.seen);
                    if from_now_on || !changes.changes.is_empty() {
                        return Some(Ok(changes));
                    }
                }
                Err(refusal) => return Some(Err(refusal)),
            }
            changed.changed().await.ok()?;
        }
    }
}

impl Source<Result<Changes, Refusal>> for KvFeed {
    fn next(&mut self) -> Borrowed<'_, Option<Result<Changes, Refusal>>> {
        Box::pin(self.read())
    }
}

/// A task for agents with this capability.
pub(crate) fn task(capability: &str, input: &str) -> TaskSpec {
    TaskSpec {
        capabilities: vec![capability.to_owned()],
        input: Payload::Inline(Bytes::copy_from_slice(input.as_bytes())),
        ..TaskSpec::default()
    }
}
