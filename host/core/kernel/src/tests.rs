//! One kernel, bare: the log is a ledger that commits at once, time is a number.

mod blobs;
mod ends;
mod kv;
mod lives;
mod members;
mod outside;
mod shards;
mod swaps;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_dispatch::NativeSource;
use quorate_ledger::{Command, Ledger, Outcome};
use quorate_types::door::Consistency;
use quorate_types::view::{CallEvent, CallSpec, LeaseGrant};
use quorate_types::{
    AgentId, AgentSpec, CallId, CapabilitySet, Digest, Faults, GroupId, Incarnation, Index, Lane,
    Layout, NodeId, Payload, Refusal, Reply, Request, Submission, TaskId, TaskSpec, TaskState,
    Term, Time, Timeouts, TraceId,
};

use crate::io::{
    AskId, Effect, GroupChange, GroupSetback, Input, KernelConfig, LocalAgent, MemberInfo, Now,
    Ticket, WorkId, WorkOrder,
};
use crate::kernel::Kernel;

const NODE: NodeId = NodeId(1);
const TERM: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_secs(5);

/// A kernel that leads a cluster of one, with what came out of it.
struct One {
    kernel: Kernel,
    /// Each group's, and the index of its last entry.
    ledgers: BTreeMap<GroupId, (Ledger, u64)>,
    now: Time,
    next_ask: u64,
    answers: Vec<(AskId, Result<Reply, Refusal>)>,
    told: Vec<Result<CallEvent, Refusal>>,
    /// While it is there the log takes proposals and commits none.
    held: Option<Vec<Effect>>,
    /// Whether what is applied comes without its events, as from a snapshot.
    mute: bool,
    /// How often the kernel was asked to settle while time passed.
    steps: u32,
    work: Vec<(WorkId, WorkOrder)>,
    dropped: Vec<Digest>,
    /// Frames to other nodes, but those of gossip.
    sent: Vec<(NodeId, Lane, Bytes)>,
    /// Why no component can be prepared, where none can.
    unprepared: Option<String>,
    prepared: u32,
    /// Changes of groups; each is made at once.
    changes: Vec<GroupChange>,
    /// What the next changes come to instead.
    setbacks: Vec<GroupSetback>,
    stopped: Option<String>,
}

impl One {
    fn with_agents(agents: &[&str]) -> Self {
        let default: Vec<_> = agents.iter().map(|capability| ("default", *capability)).collect();
        Self::with_agents_of(&default)
    }

    /// Hosted agents by (namespace, capability).
    fn with_agents_of(agents: &[(&str, &str)]) -> Self {
        let mut one = Self::made(agents, &[NODE]);
        one.lead(true);
        one
    }

    /// A kernel that follows no leader yet, in a cluster of these members.
    fn made(agents: &[(&str, &str)], members: &[NodeId]) -> Self {
        Self::laid_out(Layout::ONE, agents, members)
    }

    fn laid_out(layout: Layout, agents: &[(&str, &str)], members: &[NodeId]) -> Self {
        let info = |node: &NodeId| MemberInfo {
            name: format!("node-{}", node.0),
            peer: format!("peer-{}", node.0),
            address: format!("127.0.0.1:{}", 7_000 + node.0),
        };
        let agents = agents.iter().map(|(namespace, capability)| LocalAgent {
            name: format!("{capability}-agent"),
            namespace: (*namespace).to_owned(),
            capabilities: CapabilitySet::from(vec![(*capability).to_owned()]),
            slots: 2,
        });
        let config = KernelConfig {
            node: NODE,
            layout,
            members: members.iter().map(|node| (*node, info(node))).collect(),
            api: None,
            boot: 1,
            seed: 7,
            agents: agents.collect(),
            lease_term: TERM,
            raises_when_founding: false,
            spreads_leaders: true,
        };
        let now = Time::from_millis(1_000);
        Self {
            kernel: Kernel::new(config, Box::new(NativeSource), Now { mono: now, wall: now }),
            ledgers: layout
                .groups()
                .map(|group| (group, (Ledger::of(layout, group, &Faults::none()), 0)))
                .collect(),
            now,
            next_ask: 0,
            answers: Vec::new(),
            told: Vec::new(),
            held: None,
            mute: false,
            steps: 0,
            work: Vec::new(),
            dropped: Vec::new(),
            sent: Vec::new(),
            unprepared: None,
            prepared: 0,
            changes: Vec::new(),
            setbacks: Vec::new(),
            stopped: None,
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.now, wall: self.now }
    }

    /// The ledger of the system group, which in most tests is the only one.
    fn ledger(&self) -> &Ledger {
        &self.ledgers[&GroupId::SYSTEM].0
    }

    fn index(&self, group: GroupId) -> u64 {
        self.ledgers[&group].1
    }

    fn lead(&mut self, leads: bool) {
        let leader = leads.then_some(NODE);
        let groups: Vec<GroupId> = self.ledgers.keys().copied().collect();
        for group in groups {
            self.give(Input::Leadership { group, leader, term: Term(1) });
        }
    }

    /// Gives an input and carries out all that comes of it.
    fn give(&mut self, input: Input) {
        let mut inputs = vec![input];
        while !inputs.is_empty() {
            for input in inputs.drain(..) {
                self.kernel.handle(self.now(), input);
            }
            self.kernel.settle(self.now());
            inputs = self.carry_out();
        }
    }

    fn carry_out(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        while let Some(effect) = self.kernel.poll_effect() {
            if let (Some(held), Effect::Propose(..)) = (&mut self.held, &effect) {
                held.push(effect);
                continue;
            }
            match effect {
                Effect::Propose(ticket, group, entry) => {
                    inputs.extend(self.commit(ticket, group, &entry));
                }
                Effect::Barrier(ticket, group) => {
                    let (_ledger, index) = &self.ledgers[&group];
                    inputs.push(Input::Barrier(ticket, Ok(Index(*index))));
                }
                Effect::Answer(id, result) => self.answers.push((id, result)),
                Effect::Tell(_call, event) => self.told.push(event),
                Effect::StartWork(work, order) => self.work.push((work, *order)),
                Effect::CancelWork(gone) => self.work.retain(|(work, _order)| *work != gone),
                Effect::Stop(why) => self.stopped = Some(why),
                Effect::DropBlobs(blobs) => self.dropped.extend(blobs),
                Effect::Prepare(ticket, digest) => {
                    self.prepared += 1;
                    let result = self.unprepared.clone().map_or(Ok(()), Err);
                    inputs.push(Input::Prepared(ticket, digest, result));
                }
                Effect::ChangeGroup(ticket, _group, change) => {
                    self.changes.push(change);
                    let result = self.setbacks.pop().map_or(Ok(()), Err);
                    inputs.push(Input::GroupChanged(ticket, result));
                }
                Effect::Send(_to, Lane::Gossip, _frame) => {}
                Effect::Send(to, lane, frame) => self.sent.push((to, lane, frame)),
            }
        }
        inputs
    }

    /// The log commits what it held.
    fn release(&mut self) {
        for effect in self.held.take().unwrap_or_default() {
            let Effect::Propose(ticket, group, entry) = effect else { continue };
            for input in self.commit(ticket, group, &entry) {
                self.give(input);
            }
        }
    }

    fn commit(&mut self, ticket: Ticket, group: GroupId, entry: &[u8]) -> [Input; 2] {
        let (ledger, last) = self.ledgers.get_mut(&group).expect("a group of the layout");
        *last += 1;
        let index = Index(*last);
        let applied = ledger.apply(index, entry).expect("a known entry");
        let view = Arc::new(ledger.clone());
        let outcome = applied.outcome;
        let events = if self.mute { Vec::new() } else { applied.events };
        [
            Input::Applied { group, index, events, view },
            Input::Proposed(ticket, Ok((index, outcome))),
        ]
    }

    /// Another node's entry is applied here.
    fn apply(&mut self, command: impl Into<Command>) -> Outcome {
        let entry = command.into().encode(self.now);
        let [applied, proposed] = self.commit(Ticket(0), GroupId::SYSTEM, &entry);
        self.give(applied);
        let Input::Proposed(_ticket, Ok((_index, outcome))) = proposed else {
            unreachable!("a commit is told last")
        };
        outcome
    }

    /// Lets time pass, stopping wherever the kernel wants to be asked.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            let due = self.kernel.poll_timeout().unwrap_or(end);
            self.now = due.max(self.now + Duration::from_millis(1)).min(end);
            self.steps += 1;
            self.kernel.settle(self.now());
            for input in self.carry_out() {
                self.give(input);
            }
        }
    }

    fn ask(&mut self, request: Request) -> AskId {
        self.next_ask += 1;
        let id = AskId(self.next_ask);
        self.give(Input::Ask { id, request, within: WITHIN });
        id
    }

    fn answer(&mut self, id: AskId) -> Option<Result<Reply, Refusal>> {
        let at = self.answers.iter().position(|(answered, _)| *answered == id)?;
        Some(self.answers.remove(at).1)
    }

    fn reply(&mut self, request: Request) -> Reply {
        let id = self.ask(request);
        self.answer(id).expect("answered at once").expect("not refused")
    }

    fn submit(&mut self, capability: &str) -> TaskId {
        self.submit_spec(task(capability))
    }

    fn submit_spec(&mut self, spec: TaskSpec) -> TaskId {
        let nonce = (1, 1, self.next_ask);
        let Reply::Submitted(each) = self.reply(Request::Submit(vec![Submission { spec, nonce }]))
        else {
            panic!("a submission is answered with its tasks");
        };
        each[0].as_ref().expect("taken").id
    }

    fn state(&mut self, task: TaskId) -> TaskState {
        let reply = self.reply(Request::Task(task, Consistency::Linearizable));
        let Reply::Task(view, false) = reply else { panic!("{reply:?}") };
        view.state
    }

    fn register(&mut self, capability: &str) -> (AgentId, Incarnation) {
        let spec = AgentSpec {
            namespace: "default".to_owned(),
            name: "outside".to_owned(),
            node: NodeId(0),
            node_incarnation: Incarnation(0),
            capabilities: CapabilitySet::from(vec![capability.to_owned()]),
            slots: 4,
            hosted: false,
        };
        let reply = self.reply(Request::Register(spec));
        let Reply::Registered(agent, incarnation) = reply else { panic!("{reply:?}") };
        (agent, incarnation)
    }

    fn take(&mut self, (agent, incarnation): (AgentId, Incarnation), wait_ms: u64) -> AskId {
        self.ask(Request::Take { agent, incarnation, max: 1, wait_ms, holding: None })
    }

    fn leases(&mut self, id: AskId) -> Vec<LeaseGrant> {
        let reply = self.answer(id).expect("answered").expect("not refused");
        let Reply::Leases(grants) = reply else { panic!("{reply:?}") };
        grants
    }
}

fn task(capability: &str) -> TaskSpec {
    TaskSpec { capabilities: vec![capability.to_owned()], ..TaskSpec::default() }
}

#[test]
fn a_task_goes_to_a_hosted_agent_and_its_result_into_the_log() {
    let mut one = One::with_agents(&["echo"]);
    let task = one.submit("echo");
    assert_eq!(one.state(task), TaskState::Leased);
    let (work, order) = one.work.pop().expect("work was handed over");
    assert_eq!((order.task, order.attempt), (Some(task), 1));
    one.give(Input::WorkEnded(work, Ok(Payload::Inline("done".into()))));
    assert_eq!(one.state(task), TaskState::Completed);
}

#[test]
fn work_of_one_namespace_never_reaches_an_agent_of_another() {
    let mut one = One::with_agents_of(&[("theirs", "echo")]);
    let ours = one.submit_spec(TaskSpec { namespace: "ours".to_owned(), ..task("echo") });
    one.pass(TERM);
    assert_eq!(one.state(ours), TaskState::Queued, "an able agent has nothing to do");
    assert!(one.work.is_empty());
    let Reply::Why(why) = one.reply(Request::Why(ours, Consistency::Linearizable)) else {
        panic!("asked why")
    };
    let waits = why.waits.expect("it waits");
    assert!(waits.contains("namespace `ours`") && waits.contains("other namespaces"), "{waits}");

    let foreign = CallSpec { namespace: "ours".to_owned(), ..call("echo") };
    one.give(Input::Call { id: CallId(1), spec: Box::new(foreign) });
    one.pass(Duration::from_millis(600));
    assert!(matches!(&one.told[..], [Err(Refusal::Timeout(why))] if why.contains("`ours`")));

    let theirs = one.submit_spec(TaskSpec { namespace: "theirs".to_owned(), ..task("echo") });
    assert_eq!(one.state(theirs), TaskState::Leased, "among its own it is given work");
}

#[test]
fn slots_are_never_exceeded() {
    let mut one = One::with_agents(&["echo"]);
    let tasks: Vec<TaskId> = (0..5).map(|_| one.submit("echo")).collect();
    assert_eq!(one.work.len(), 2, "two slots");
    let (work, _order) = one.work.remove(0);
    one.give(Input::WorkEnded(work, Ok(Payload::default())));
    assert_eq!(one.work.len(), 2, "the free slot was given away");
    let queued = tasks.iter().filter(|task| one.state(**task) == TaskState::Queued).count();
    assert_eq!(queued, 2);
}

#[test]
fn a_silent_workers_lease_ends_and_its_late_completion_is_refused() {
    let mut one = One::with_agents(&[]);
    let worker = one.register("echo");
    let poll = one.take(worker, 1_000);
    let task = one.submit("echo");
    let first = one.leases(poll).remove(0);
    assert_eq!(first.lease.task, task);
    one.pass(TERM + Duration::from_secs(1));
    assert_eq!(one.state(task), TaskState::Queued, "requeued when its term had passed");

    let poll = one.take(worker, 1_000);
    let second = one.leases(poll).remove(0);
    assert!(second.lease.token > first.lease.token, "a newer token fences the older one");
    let late = one.ask(Request::Complete(task, first.lease.token, Payload::default()));
    assert!(matches!(one.answer(late), Some(Err(Refusal::Conflict(_)))));
    let Reply::Done = one.reply(Request::Complete(task, second.lease.token, Payload::default()))
    else {
        panic!("the holder completes");
    };
    assert_eq!(one.state(task), TaskState::Completed);
}

#[test]
fn heartbeats_keep_a_lease_alive_without_an_entry_in_the_log() {
    let mut one = One::with_agents(&[]);
    let worker = one.register("echo");
    let poll = one.take(worker, 1_000);
    let task = one.submit("echo");
    assert_eq!(one.leases(poll).len(), 1);
    let before = one.index(GroupId::SYSTEM);
    for _ in 0..5 {
        one.pass(TERM / 2);
        let Reply::Done = one.reply(Request::Beat(worker.0, worker.1, None)) else {
            panic!("a heartbeat is taken");
        };
    }
    assert_eq!(one.index(GroupId::SYSTEM), before);
    assert_eq!(one.state(task), TaskState::Leased);
}

/// A task that its agent must start within this many milliseconds.
fn prompt_task(capability: &str, start_ms: u64) -> TaskSpec {
    let timeouts = Timeouts { start_ms: Some(start_ms), ..Timeouts::default() };
    TaskSpec { timeouts, ..task(capability) }
}

#[test]
fn a_task_that_is_leased_and_not_started_goes_back_as_a_lost_attempt() {
    let mut one = One::with_agents(&[]);
    let worker = one.register("echo");
    let task = one.submit_spec(prompt_task("echo", 300));
    one.held = Some(Vec::new());
    let poll = one.take(worker, 50);
    one.pass(Duration::from_millis(60));
    assert!(one.leases(poll).is_empty(), "the worker went away before its lease was committed");
    one.release();
    assert_eq!(one.state(task), TaskState::Leased);

    for _ in 0..3 {
        let Reply::Done = one.reply(Request::Beat(worker.0, worker.1, None)) else {
            panic!("a heartbeat is taken");
        };
        one.pass(Duration::from_millis(120));
    }
    assert_eq!(one.state(task), TaskState::Queued, "heartbeats of its agent start nothing");
    let view = one.ledger().task(task).expect("a record");
    assert_eq!((view.attempts, view.failures), (1, 0), "the attempt is lost, and no failure");
    let Reply::Why(why) = one.reply(Request::Why(task, Consistency::Linearizable)) else {
        panic!("asked why")
    };
    let ended = why.decisions[0].ended.as_deref();
    assert!(ended.is_some_and(|how| how.contains("did not start it")), "{ended:?}");
}

#[test]
fn a_task_that_was_started_in_time_is_left_alone() {
    let mut one = One::with_agents(&["echo"]);
    let hosted = one.submit_spec(prompt_task("echo", 100));
    let worker = one.register("sing");
    let poll = one.take(worker, 1_000);
    let taken = one.submit_spec(prompt_task("sing", 100));
    assert_eq!(one.leases(poll).len(), 1);
    one.pass(Duration::from_secs(1));
    let both = [hosted, taken].map(|task| one.state(task));
    assert_eq!(both, [TaskState::Leased; 2]);

    one.lead(false);
    one.lead(true);
    one.pass(Duration::from_secs(1));
    let both = [hosted, taken].map(|task| one.state(task));
    assert_eq!(both, [TaskState::Leased; 2], "a new leader is told what has started");
    let attempts = [hosted, taken].map(|task| one.ledger().task(task).map(|view| view.attempts));
    assert_eq!(attempts, [Some(1); 2], "and nothing was begun twice");
}

#[test]
fn a_lease_committed_after_its_worker_hung_up_waits_for_its_next_poll() {
    let mut one = One::with_agents(&[]);
    let worker = one.register("echo");
    let task = one.submit("echo");
    one.held = Some(Vec::new());
    let gone = one.take(worker, 10_000);
    one.give(Input::Forget(gone));
    one.release();
    assert_eq!(one.state(task), TaskState::Leased);
    let poll = one.take(worker, 1_000);
    let [LeaseGrant { lease, .. }] = &one.leases(poll)[..] else { panic!("one lease") };
    assert_eq!(lease.task, task);

    let poll = one.take(worker, 100);
    one.pass(Duration::from_millis(150));
    assert!(one.leases(poll).is_empty(), "it is told once");
}

#[test]
fn leases_that_a_snapshot_brings_are_begun_and_those_it_lacks_are_dropped() {
    let mut one = One::with_agents(&["echo"]);
    let worker = one.register("sing");
    one.mute = true;
    let poll = one.take(worker, 1_000);
    let (hosted, taken) = (one.submit("echo"), one.submit("sing"));
    assert_eq!(one.work.len(), 1, "the hosted agent has its work");
    assert_eq!(one.leases(poll)[0].lease.task, taken);
    let Reply::Done = one.reply(Request::Cancel(hosted)) else { panic!("cancelled") };
    assert!(one.work.is_empty(), "work that nobody wants is cancelled");
}

#[test]
fn a_task_that_may_not_start_yet_is_leased_at_its_time() {
    let mut one = One::with_agents(&["echo"]);
    let not_before = Some(one.now + Duration::from_millis(500));
    let later = |capability| TaskSpec { not_before, ..task(capability) };
    let (able, unable) = (one.submit_spec(later("echo")), one.submit_spec(later("sing")));
    one.pass(Duration::from_millis(490));
    assert_eq!(one.state(able), TaskState::Queued);
    one.pass(Duration::from_millis(20));
    assert_eq!(one.state(able), TaskState::Leased);

    one.steps = 0;
    one.pass(Duration::from_secs(2));
    assert_eq!(one.state(unable), TaskState::Queued);
    assert!(one.steps < 500, "{} steps while nobody can take what is due", one.steps);
}

#[test]
fn a_long_poll_ends_empty_when_its_wait_does() {
    let mut one = One::with_agents(&[]);
    let worker = one.register("echo");
    let poll = one.take(worker, 200);
    assert!(one.answer(poll).is_none(), "it waits");
    one.pass(Duration::from_millis(250));
    assert!(one.leases(poll).is_empty());
}

#[test]
fn a_request_waits_for_a_leader_and_ends_without_one() {
    let mut one = One::with_agents(&[]);
    one.lead(false);
    let waits = one.ask(Request::Policies(Consistency::Linearizable));
    assert!(one.answer(waits).is_none(), "no leader yet");
    one.lead(true);
    one.pass(Duration::from_millis(100));
    assert!(matches!(one.answer(waits), Some(Ok(Reply::Policies(_)))));

    one.lead(false);
    let lost = one.ask(Request::Policies(Consistency::Linearizable));
    one.pass(WITHIN);
    assert!(matches!(one.answer(lost), Some(Err(Refusal::Unavailable(_)))));
}

fn call(capability: &str) -> CallSpec {
    CallSpec {
        namespace: "default".to_owned(),
        capabilities: vec![capability.to_owned()],
        content_type: String::new(),
        body: "ask".into(),
        deadline_ms: 500,
        idempotent: true,
        trace: TraceId(1),
    }
}

#[test]
fn a_call_is_answered_by_an_agent_and_leaves_no_trace_in_the_log() {
    let mut one = One::with_agents(&["search"]);
    let before = one.index(GroupId::SYSTEM);
    one.give(Input::Call { id: CallId(1), spec: Box::new(call("search")) });
    let (work, order) = one.work.pop().expect("work was handed over");
    assert_eq!((order.task, order.input), (None, Payload::Inline("ask".into())));
    one.give(Input::WorkEnded(work, Ok(Payload::Inline("reply".into()))));
    assert_eq!(one.told.len(), 2, "{:?}", one.told);
    assert_eq!(one.told[0], Ok(CallEvent::Chunk("reply".into())));
    assert!(matches!(one.told[1], Ok(CallEvent::Done { attempts: 1, .. })));
    assert_eq!(one.index(GroupId::SYSTEM), before);
}

#[test]
fn a_call_that_nobody_can_answer_ends_at_its_deadline() {
    let mut one = One::with_agents(&["search"]);
    one.give(Input::Call { id: CallId(1), spec: Box::new(call("sing")) });
    assert!(one.told.is_empty());
    one.pass(Duration::from_millis(600));
    assert!(matches!(&one.told[..], [Err(Refusal::Timeout(why))] if why.contains("sing")));
}
