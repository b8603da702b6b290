//! The loop: wait for an input or for the kernel's timer, hand over what is there,
//! settle, carry out what comes of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::{AsyncRuntime, Instant, Oneshot, OneshotSender};
use quorate_kernel::io::Input;
use quorate_kernel::{Effect, Kernel, LogSetback, Now, Ticket, WorkFault, WorkId, WorkOrder};
use quorate_raft::{ProposeError, Raft, ReadError};
use quorate_types::limits::INLINE_BYTES_MAX;
use quorate_types::{Digest, Disk, GroupId, Payload, Time, Wire};

use crate::blobs::{BlobExchange, collect};
use crate::groups::Groups;
use crate::guests::Guests;
use crate::handle::{Handle, Waiting};
use crate::post::Mailbox;

/// Inputs taken in one step. Bounds how long effects wait behind inputs.
const STEP_INPUTS: usize = 256;
/// Between two steps that only a timer caused: the pause in which other tasks run.
const TIMER_REST: Duration = Duration::from_millis(1);

/// Gives wall time, microseconds since 1970-01-01 UTC. An argument, since a clock
/// is one of the things that `sim` makes up.
pub type WallClock = Arc<dyn Fn() -> Time + Send + Sync>;

/// What a crank turns.
pub struct Parts<RT: AsyncRuntime, D: Disk, W: Wire> {
    /// Where its inputs arrive.
    pub mailbox: Mailbox,
    /// The replicated groups.
    pub groups: Groups<RT, D>,
    /// Content.
    pub blobs: BlobExchange<RT, D, W>,
    /// Other nodes.
    pub wire: W,
    /// Agents and policies.
    pub guests: Arc<dyn Guests>,
    /// Wall time.
    pub wall: WallClock,
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Clone for Parts<RT, D, W> {
    fn clone(&self) -> Self {
        Self {
            mailbox: self.mailbox.clone(),
            groups: self.groups.clone(),
            blobs: self.blobs.clone(),
            wire: self.wire.clone(),
            guests: Arc::clone(&self.guests),
            wall: Arc::clone(&self.wall),
        }
    }
}

type CancelSender<RT> = <<RT as AsyncRuntime>::Oneshot as Oneshot>::Sender<()>;

/// The loop's own state.
pub struct Crank<RT: AsyncRuntime, D: Disk, W: Wire> {
    kernel: Kernel,
    parts: Parts<RT, D, W>,
    waiting: Arc<Mutex<Waiting<RT>>>,
    works: BTreeMap<WorkId, CancelSender<RT>>,
    origin: RT::Instant,
    /// Dropped with the loop, which ends the walk over the blobs.
    _turning: CancelSender<RT>,
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> std::fmt::Debug for Crank<RT, D, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crank").field("kernel", &self.kernel).finish_non_exhaustive()
    }
}

impl<RT: AsyncRuntime, D: Disk, W: Wire> Crank<RT, D, W> {
    /// Begins to turn, and gives the node's handle. `make` builds the kernel at the loop's
    /// first moment. The loop ends when the handle's `stop` is called or the log has failed.
    pub fn start(parts: Parts<RT, D, W>, make: impl FnOnce(Now) -> Kernel) -> Handle<RT, D, W> {
        let origin = <RT::Instant as Instant>::now();
        let kernel = make(Now { mono: Time::ZERO, wall: (parts.wall)() });
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let handle = Handle::new(parts.clone(), Arc::clone(&waiting));
        let (turning, ended) = <RT::Oneshot as Oneshot>::channel();
        drop(RT::spawn(collect::walk(parts.clone(), ended)));
        let works = BTreeMap::new();
        let crank = Self { kernel, parts, waiting, works, origin, _turning: turning };
        drop(RT::spawn(crank.turn()));
        handle
    }

    fn now(&self) -> Now {
        let span = <RT::Instant as Instant>::now() - self.origin;
        Now { mono: Time::ZERO + span, wall: (self.parts.wall)() }
    }

    async fn turn(mut self) {
        // The runtime swallows a task's panic. A node whose kernel is gone would go on leading,
        // look healthy and answer nothing: it is told to stop instead.
        let _fall = Fall(self.parts.mailbox.clone());
        let mut rest = Duration::ZERO;
        loop {
            let first = match self.next_input(rest).await {
                Next::Input(input) => Some(input),
                Next::Timer => None,
                Next::Closed => break,
            };
            // What is due and stays due waits for something that another task must do.
            rest = if first.is_none() { TIMER_REST } else { Duration::ZERO };
            let now = self.now();
            if let Some(input) = first {
                self.take(now, input);
            }
            for _ in 1..STEP_INPUTS {
                let Some(input) = self.parts.mailbox.inputs.try_pop() else { break };
                self.take(now, input);
            }
            self.kernel.settle(now);
            while let Some(effect) = self.kernel.poll_effect() {
                self.carry_out(effect);
            }
            self.publish();
        }
        self.end();
    }

    async fn next_input(&mut self, rest: Duration) -> Next {
        let inputs = self.parts.mailbox.inputs.clone();
        if inputs.is_closed() {
            return Next::Closed;
        }
        let Some(due) = self.kernel.poll_timeout() else {
            return inputs.pop().await.map_or(Next::Closed, Next::Input);
        };
        let now = self.now().mono;
        let due = due.max(now + rest);
        if due <= now {
            return inputs.try_pop().map_or(Next::Timer, Next::Input);
        }
        let sleep = RT::sleep(due.since(now));
        match RT::select2(inputs.pop(), sleep).await {
            openraft_rt::Select2::First(input) => input.map_or(Next::Closed, Next::Input),
            openraft_rt::Select2::Second(()) => Next::Timer,
        }
    }

    fn take(&mut self, now: Now, input: Input) {
        if let Input::WorkEnded(work, _result) = &input {
            self.works.remove(work);
        }
        if let Input::GroupMembers { group: GroupId::SYSTEM, voters, .. } = &input {
            self.parts.blobs.set_keepers(voters.iter().copied().collect());
        }
        self.kernel.handle(now, input);
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Answer(id, result) => self.with_waiting(|waiting| waiting.answer(id, result)),
            Effect::Tell(id, event) => self.with_waiting(|waiting| waiting.tell(id, event)),
            Effect::Send(to, lane, frame) => {
                if let Err(error) = self.parts.wire.send(to, lane, frame) {
                    tracing::debug!(%to, ?lane, %error, "a frame was not taken");
                }
            }
            Effect::Propose(ticket, group, command) => self.propose(ticket, group, command),
            Effect::Barrier(ticket, group) => self.barrier(ticket, group),
            Effect::ChangeGroup(ticket, group, change) => {
                let (raft, inputs) = (self.raft(group), self.parts.mailbox.inputs.clone());
                let blobs = self.parts.blobs.clone();
                drop(RT::spawn(async move {
                    let leave = async || blobs.leave().await;
                    let result = crate::members::change(&raft, group, change, leave).await;
                    inputs.push_always(Input::GroupChanged(ticket, result));
                }));
            }
            Effect::StartWork(work, order) => self.start_work(work, *order),
            Effect::CancelWork(work) => {
                if let Some(cancel) = self.works.remove(&work) {
                    // Refused where the work ended by itself in this very moment.
                    cancel.send(()).ok();
                }
            }
            Effect::Prepare(ticket, digest) => self.prepare(ticket, digest),
            Effect::Stop(why) => self.parts.mailbox.fail(why),
            Effect::DropBlobs(unused) => {
                let blobs = self.parts.blobs.clone();
                drop(RT::spawn(async move { blobs.drop_unused(unused).await }));
            }
        }
    }

    fn with_waiting(&self, act: impl FnOnce(&mut Waiting<RT>)) {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn raft(&self, group: GroupId) -> Raft<RT, D> {
        let Some(raft) = self.parts.groups.get(group) else {
            unreachable!("the kernel knows its groups from the same layout: {group}")
        };
        raft.clone()
    }

    fn propose(&self, ticket: Ticket, group: GroupId, command: Bytes) {
        let (raft, inputs) = (self.raft(group), self.parts.mailbox.inputs.clone());
        drop(RT::spawn(async move {
            let result = raft.propose(command).await.map_err(|error| match error {
                ProposeError::NotLeader { .. } => LogSetback::NotLeader,
                ProposeError::Busy(_) => LogSetback::Busy,
                ProposeError::DiskFull => LogSetback::DiskFull,
                ProposeError::TooLarge { .. } => LogSetback::TooLarge,
                ProposeError::Stopped | ProposeError::Unknown => LogSetback::Unknown,
            });
            inputs.push_always(Input::Proposed(ticket, result));
        }));
    }

    fn barrier(&self, ticket: Ticket, group: GroupId) {
        let (raft, inputs) = (self.raft(group), self.parts.mailbox.inputs.clone());
        drop(RT::spawn(async move {
            let result = raft.read_barrier().await.map_err(|error| match error {
                ReadError::NotLeader { .. } => LogSetback::NotLeader,
                ReadError::Busy(_) => LogSetback::Busy,
                ReadError::NoQuorum | ReadError::Stopped => LogSetback::Unknown,
            });
            inputs.push_always(Input::Barrier(ticket, result));
        }));
    }

    fn start_work(&mut self, work: WorkId, order: WorkOrder) {
        let (sender, cancelled) = <RT::Oneshot as Oneshot>::channel();
        self.works.insert(work, sender);
        let inputs = self.parts.mailbox.inputs.clone();
        let is_task = order.task.is_some();
        let running = self.parts.guests.run(order);
        let blobs = self.parts.blobs.clone();
        drop(RT::spawn(async move {
            let run = async move {
                let output = running.await?;
                fit(&blobs, output, is_task).await
            };
            if let openraft_rt::Select2::First(result) = RT::select2(Box::pin(run), cancelled).await
            {
                inputs.push_always(Input::WorkEnded(work, result));
            }
        }));
    }

    fn prepare(&self, ticket: Ticket, digest: Digest) {
        let (blobs, guests) = (self.parts.blobs.clone(), Arc::clone(&self.parts.guests));
        let inputs = self.parts.mailbox.inputs.clone();
        drop(RT::spawn(async move {
            let result = match blobs.get(digest).await {
                Ok(component) => guests.prepare(digest, component).await,
                Err(refusal) => Err(refusal.to_string()),
            };
            inputs.push_always(Input::Prepared(ticket, digest, result));
        }));
    }

    fn publish(&self) {
        let ready = self.kernel.ready();
        let figures = self.kernel.figures();
        self.with_waiting(|waiting| waiting.publish(ready, figures));
    }

    fn end(&mut self) {
        self.works.clear();
        self.parts.blobs.end_walks();
        self.with_waiting(Waiting::end);
    }
}

/// Tells the node when the loop ends by a panic.
struct Fall(Mailbox);

impl Drop for Fall {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the kernel has panicked".to_owned());
        }
    }
}

enum Next {
    Input(Input),
    Timer,
    Closed,
}

/// Output in the form its reader takes: a task's record holds little, a call's reply is inline.
async fn fit<RT: AsyncRuntime, D: Disk, W: Wire>(
    blobs: &BlobExchange<RT, D, W>,
    output: Payload,
    is_task: bool,
) -> Result<Payload, WorkFault> {
    let again = |refusal: quorate_types::Refusal| WorkFault {
        message: format!("its output could not be kept: {refusal}"),
        retry: true,
    };
    match output {
        Payload::Inline(bytes) if is_task && bytes.len() > INLINE_BYTES_MAX => {
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let digest = blobs.put(bytes).await.map_err(again)?;
            Ok(Payload::Blob { digest, size })
        }
        Payload::Blob { digest, .. } if !is_task => {
            blobs.get(digest).await.map(Payload::Inline).map_err(again)
        }
        as_it_is @ (Payload::Inline(_) | Payload::Blob { .. }) => Ok(as_it_is),
    }
}

/// How long a stopped node waits for its log to close.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(5);
