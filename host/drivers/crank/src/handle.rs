//! The node as its doors see it: a `Door` over the kernel's mailbox.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::{AsyncRuntime, Oneshot, OneshotSender};
use quorate_kernel::io::Input;
use quorate_kernel::{AskId, Figure};
use quorate_ledger::Views;
use quorate_types::door::{Borrowed, Pending, Source};
use quorate_types::kv::{Changes, KvWatch};
use quorate_types::metrics::Page;
use quorate_types::view::{CallEvent, CallSpec};
use quorate_types::{
    CallId, Digest, Disk, Door, Event, Layout, Refusal, Reply, Request, Revision, Wire,
};

use crate::backup::{Backup, Origin};
use crate::crank::{Parts, STOP_WITHIN};
use crate::groups::Groups;
use crate::queue::Queue;
use crate::watching::KvWatching;

type Answer = Result<Reply, Refusal>;
type AnswerSender<RT> = <<RT as AsyncRuntime>::Oneshot as Oneshot>::Sender<Answer>;
type CallItem = Result<CallEvent, Refusal>;

/// Parts of one reply that wait for a slow caller: 64 chunks of 1 MiB, the largest reply.
const CALL_EVENTS_MAX: usize = 66;

/// Writes figures on a page.
pub type Figures = Box<dyn Fn(&mut Page) + Send + Sync>;

/// Whose backups a node gives.
pub type AskOrigin = Box<dyn Fn() -> Origin + Send + Sync>;

/// Who waits at the door for the kernel's word.
pub(crate) struct Waiting<RT: AsyncRuntime> {
    asks: BTreeMap<AskId, AnswerSender<RT>>,
    calls: BTreeMap<CallId, Queue<CallItem>>,
    next: u64,
    ended: bool,
    ready: Result<(), String>,
    figures: Vec<Figure>,
}

impl<RT: AsyncRuntime> Default for Waiting<RT> {
    fn default() -> Self {
        Self {
            asks: BTreeMap::new(),
            calls: BTreeMap::new(),
            next: 0,
            ended: false,
            ready: Err("the node is starting".to_owned()),
            figures: Vec::new(),
        }
    }
}

impl<RT: AsyncRuntime> Waiting<RT> {
    pub(crate) fn answer(&mut self, id: AskId, result: Answer) {
        if let Some(sender) = self.asks.remove(&id) {
            // The asker may have gone in this very moment.
            drop(sender.send(result));
        }
    }

    pub(crate) fn tell(&mut self, id: CallId, event: CallItem) {
        let last = !matches!(event, Ok(CallEvent::Chunk(_)));
        let Some(queue) = self.calls.get(&id) else { return };
        if queue.push(event).is_err() {
            queue.push_always(Err(Refusal::Timeout("the caller reads too slowly".to_owned())));
        }
        if last {
            queue.close();
            self.calls.remove(&id);
        }
    }

    pub(crate) fn publish(&mut self, ready: Result<(), String>, figures: Vec<Figure>) {
        self.ready = ready;
        self.figures = figures;
    }

    /// The node stops: everybody is told.
    pub(crate) fn end(&mut self) {
        let stopped = || Refusal::Unavailable("this node is stopping".to_owned());
        self.ended = true;
        self.ready = Err("the node is stopping".to_owned());
        for (_id, sender) in std::mem::take(&mut self.asks) {
            drop(sender.send(Err(stopped())));
        }
        for (_id, queue) in std::mem::take(&mut self.calls) {
            queue.push_always(Err(stopped()));
            queue.close();
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// A running node. Clones share it; `stop` ends it.
pub struct Handle<RT: AsyncRuntime, D: Disk, W: Wire> {
    parts: Parts<RT, D, W>,
    waiting: Arc<Mutex<Waiting<RT>>>,
    more_figures: Arc<OnceLock<Figures>>,
    origin: Arc<OnceLock<AskOrigin>>,
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Clone for Handle<RT, D, W> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
            waiting: Arc::clone(&self.waiting),
            more_figures: Arc::clone(&self.more_figures),
            origin: Arc::clone(&self.origin),
        }
    }
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> std::fmt::Debug for Handle<RT, D, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("mailbox", &self.parts.mailbox).finish_non_exhaustive()
    }
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Handle<RT, D, W> {
    pub(crate) fn new(parts: Parts<RT, D, W>, waiting: Arc<Mutex<Waiting<RT>>>) -> Self {
        Self { parts, waiting, more_figures: Arc::default(), origin: Arc::default() }
    }

    /// What `/metrics` says besides the kernel's figures: rooms that only a driver knows.
    pub fn add_figures(&self, figures: Figures) {
        assert!(self.more_figures.set(figures).is_ok(), "a driver adds its figures once");
    }

    /// Whose backups this node gives; before it is told, it gives none.
    pub fn name_origin(&self, origin: AskOrigin) {
        assert!(self.origin.set(origin).is_ok(), "a node has one origin");
    }

    pub(crate) fn origin(&self) -> Option<Origin> {
        self.origin.get().map(|ask| ask())
    }

    pub(crate) fn parts(&self) -> &Parts<RT, D, W> {
        &self.parts
    }

    /// The state this node has applied.
    pub fn views(&self) -> Views {
        self.parts.groups.views()
    }

    /// The replicated groups.
    pub fn groups(&self) -> &Groups<RT, D> {
        &self.parts.groups
    }

    /// Content.
    pub fn blobs(&self) -> &crate::BlobExchange<RT, D, W> {
        &self.parts.blobs
    }

    /// Why the log has stopped for good, if it has.
    pub fn failure(&self) -> Option<String> {
        self.parts.mailbox.failure().map(str::to_owned)
    }

    /// Ends the node in order: whoever waits is told, the log is closed.
    pub async fn stop(&self) {
        self.parts.mailbox.inputs.close();
        self.parts.mailbox.changed.close();
        if RT::timeout(STOP_WITHIN, self.parts.groups.shutdown()).await.is_err() {
            tracing::warn!("the log did not close in time");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<RT>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the kernel when the asker goes away before its answer.
struct Asker<RT: AsyncRuntime, D: Disk, W: Wire> {
    handle: Handle<RT, D, W>,
    id: AskId,
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Drop for Asker<RT, D, W> {
    fn drop(&mut self) {
        if self.handle.lock().asks.remove(&self.id).is_some() {
            self.handle.parts.mailbox.inputs.push_always(Input::Forget(self.id));
        }
    }
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Door for Handle<RT, D, W> {
    fn ask(&self, request: Request, deadline_ms: u64) -> Pending<Answer> {
        let handle = self.clone();
        Box::pin(async move {
            let (sender, receiver) = <RT::Oneshot as Oneshot>::channel();
            let id = {
                let mut waiting = handle.lock();
                if waiting.ended {
                    return Err(Refusal::Unavailable("this node is stopping".to_owned()));
                }
                let id = AskId(waiting.number());
                waiting.asks.insert(id, sender);
                id
            };
            let asker = Asker { handle, id };
            let within = Duration::from_millis(deadline_ms);
            let input = Input::Ask { id, request, within };
            if asker.handle.parts.mailbox.inputs.push(input).is_err() {
                let what = "the node's mailbox".to_owned();
                return Err(Refusal::Busy { what, retry_after_ms: 50 });
            }
            receiver.await.unwrap_or_else(|_stopped| {
                Err(Refusal::Unavailable("this node is stopping".to_owned()))
            })
        })
    }

    fn call(&self, call: CallSpec) -> Box<dyn Source<CallItem>> {
        let queue = Queue::new(CALL_EVENTS_MAX);
        let id = {
            let mut waiting = self.lock();
            let id = CallId(waiting.number());
            if waiting.ended {
                queue.push_always(Err(Refusal::Unavailable("this node is stopping".to_owned())));
                queue.close();
            } else {
                waiting.calls.insert(id, queue.clone());
            }
            id
        };
        let input = Input::Call { id, spec: Box::new(call) };
        if self.parts.mailbox.inputs.push(input).is_err() {
            self.lock().calls.remove(&id);
            let what = "the node's mailbox".to_owned();
            queue.push_always(Err(Refusal::Busy { what, retry_after_ms: 50 }));
            queue.close();
        }
        Box::new(Caller { handle: self.clone(), id, queue })
    }

    fn put_blob(&self, content: Bytes) -> Pending<Result<Digest, Refusal>> {
        let blobs = self.parts.blobs.clone();
        Box::pin(async move { blobs.put(content).await })
    }

    fn get_blob(&self, digest: Digest) -> Pending<Result<Bytes, Refusal>> {
        let blobs = self.parts.blobs.clone();
        Box::pin(async move { blobs.get(digest).await })
    }

    fn events(&self, after: Option<Revision>) -> Box<dyn Source<Result<Event, Refusal>>> {
        Box::new(self.parts.mailbox.events.watch(after))
    }

    fn layout(&self) -> Layout {
        self.parts.groups.layout()
    }

    fn kv_watch(&self, watch: KvWatch) -> Box<dyn Source<Result<Changes, Refusal>>> {
        let (groups, changed) = (self.parts.groups.clone(), self.parts.mailbox.changed.clone());
        let group = watch.group(self.layout());
        Box::new(KvWatching::new(watch, changed, move || groups.view(group)))
    }

    fn backup(&self, blobs: bool) -> Box<dyn Source<Result<Bytes, Refusal>>> {
        Box::new(Backup::new(self.clone(), blobs))
    }

    fn ready(&self) -> Result<(), String> {
        match self.failure() {
            Some(why) => Err(why),
            None => self.lock().ready.clone(),
        }
    }

    fn metrics(&self) -> String {
        let mut page = Page::default();
        // Taken out, so that nothing waits for a page to be written.
        let figures = self.lock().figures.clone();
        for Figure { name, help, value } in figures {
            page.figure(name, help, value);
        }
        let inputs = self.parts.mailbox.inputs.len();
        page.gauge("quorate_kernel_inputs_waiting", "Inputs that wait for the kernel.", inputs);
        if let Some(more) = self.more_figures.get() {
            more(&mut page);
        }
        page.into_text()
    }
}

/// A caller's end of a call.
struct Caller<RT: AsyncRuntime, D: Disk, W: Wire> {
    handle: Handle<RT, D, W>,
    id: CallId,
    queue: Queue<CallItem>,
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Source<CallItem> for Caller<RT, D, W> {
    fn next(&mut self) -> Borrowed<'_, Option<CallItem>> {
        Box::pin(self.queue.pop())
    }
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Drop for Caller<RT, D, W> {
    fn drop(&mut self) {
        if self.handle.lock().calls.remove(&self.id).is_some() {
            self.handle.parts.mailbox.inputs.push_always(Input::CancelCall(self.id));
        }
    }
}
