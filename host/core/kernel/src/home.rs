//! Agents that are at home here: those this node hosts, and outside workers that
//! wait at its door. The ledger says which leases they hold; this room sees that
//! the work begins, and that its end is recorded.
//!
//! A node's life has a number from the log. When the log says that this life has
//! ended (others held the node for dead), everything here is fenced: the work is
//! dropped and a new life begins.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::view::{LeaseGrant, LeaseView};
use quorate_types::{
    AgentId, AgentSpec, Incarnation, LoadReading, Payload, Refusal, Reply, Request, TaskId, Time,
    Token,
};

use crate::asks::{Ask, Origin, Own, Target};
use crate::frame::{Control, Done, Errand, Setback};
use crate::io::{Effect, KernelConfig, Now, WorkFault, WorkId, WorkOrder};
use crate::kernel::Kernel;
use crate::outside::Outside;

/// Own errands are begun again when this span ends without an answer.
const OWN_WITHIN: Duration = Duration::from_secs(30);
/// An end that the log could not take is sent again after this span, not at once: a full log
/// refuses at once.
const RECORD_AGAIN: Duration = Duration::from_millis(20);
/// Leases of agents at home are renewed this often: a tenth of the default term.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Starts told in one frame: at about 20 B each it stays below 128 KiB.
const STARTS_BATCH: usize = 4096;

/// A hosted agent's standing in the log.
#[derive(Debug, Default)]
pub(crate) struct Hosted {
    pub(crate) life: Option<(AgentId, Incarnation)>,
    pub(crate) calls: u32,
    pub(crate) tasks: u32,
    latency_us: u64,
    success_ppm: u32,
    told: Option<LoadReading>,
}

/// A leased task in the hands of a hosted agent.
#[derive(Debug)]
pub(crate) struct TaskWork {
    agent: usize,
    task: TaskId,
    token: Token,
    begun: Time,
    ends: Option<Time>,
    /// Its end, on its way to the log.
    ended: Option<Request>,
    /// When that end is sent again, after the log could not take it.
    again: Option<Time>,
}

/// Who is at home.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) hosted: Vec<Hosted>,
    pub(crate) tasks: BTreeMap<WorkId, TaskWork>,
    by_lease: BTreeMap<(TaskId, Token), WorkId>,
    pub(crate) outside: BTreeMap<AgentId, Outside>,
    boot: u64,
    next_work: u64,
    alive_at: Time,
    pub(crate) offers_at: Time,
    /// Leases with a start timeout whose agents have begun, still to be told.
    started: Vec<(TaskId, Token)>,
}

impl Home {
    pub(crate) fn new(config: &KernelConfig) -> Self {
        let hosted = config
            .agents
            .iter()
            .map(|_agent| Hosted { success_ppm: 1_000_000, ..Hosted::default() })
            .collect();
        Self {
            incarnation: None,
            hosted,
            tasks: BTreeMap::new(),
            by_lease: BTreeMap::new(),
            outside: BTreeMap::new(),
            boot: config.boot,
            next_work: 0,
            alive_at: Time::ZERO,
            offers_at: Time::ZERO,
            started: Vec::new(),
        }
    }

    pub(crate) fn work_id(&mut self) -> WorkId {
        self.next_work += 1;
        WorkId(self.next_work)
    }

    /// Which hosted agent this life of an agent of record is.
    pub(crate) fn hosted_as(&self, agent: AgentId, incarnation: Incarnation) -> Option<usize> {
        self.hosted.iter().position(|hosted| hosted.life == Some((agent, incarnation)))
    }

    /// A new leader knows nothing of offers and heartbeats yet.
    pub(crate) fn tell_leader_again(&mut self) {
        self.alive_at = Time::ZERO;
        self.offers_at = Time::ZERO;
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let waiting = self.outside.values().flat_map(|agent| &agent.polls).map(|poll| poll.until);
        let offers = self.polled().then_some(self.offers_at);
        let ends = self.tasks.values().flat_map(|work| [work.ends, work.again]).flatten();
        waiting.chain(offers).chain(ends).chain([self.alive_at]).min()
    }

    fn polled(&self) -> bool {
        self.outside.values().any(|agent| !agent.polls.is_empty())
    }
}

impl Hosted {
    /// Folds one finished piece of work in: an eighth of the new, seven of the old.
    fn learn(&mut self, took: Duration, ok: bool) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latency_us = if self.latency_us == 0 {
            took
        } else {
            self.latency_us - self.latency_us / 8 + took / 8
        };
        self.success_ppm = self.success_ppm - self.success_ppm / 8 + if ok { 125_000 } else { 0 };
    }

    fn reading(&self, slots: u32) -> LoadReading {
        let in_flight = self.tasks + self.calls;
        LoadReading {
            in_flight,
            load: 10 * in_flight / slots.max(1),
            latency_us: self.latency_us,
            success_ppm: self.success_ppm.min(1_000_000),
        }
    }
}

impl Kernel {
    /// Asks the log for this life's number.
    pub(crate) fn announce(&mut self, now: Now) {
        let errand = Errand::NodeUp { api: self.config.api.clone(), boot: self.home.boot };
        self.begin(now, Origin::Own(Own::NodeUp), Target::Leader, errand, OWN_WITHIN);
    }

    fn register(&mut self, now: Now, at: usize) {
        let (Some(local), Some(life)) = (self.config.agents.get(at), self.home.incarnation) else {
            return;
        };
        let spec = AgentSpec {
            namespace: local.namespace.clone(),
            name: local.name.clone(),
            node: self.config.node,
            node_incarnation: life,
            capabilities: local.capabilities.clone(),
            slots: local.slots,
            hosted: true,
        };
        let errand = Errand::Door(Box::new(Request::Register(spec)));
        self.begin(now, Origin::Own(Own::Register(at)), Target::Leader, errand, OWN_WITHIN);
    }

    /// An errand of this node's own ended.
    pub(crate) fn own_finished(
        &mut self,
        now: Now,
        own: Own,
        ask: &Ask,
        result: Result<Done, Setback>,
    ) {
        match own {
            Own::NodeUp => match result {
                Ok(Done::NodeUp(incarnation)) => self.life_begins(now, incarnation),
                Ok(Done::Door(_)) => unreachable!("a life is answered with its number"),
                Err(setback) => {
                    tracing::debug!(?setback, "this life has no number yet");
                    self.announce(now);
                }
            },
            Own::Register(at) => match result {
                Ok(Done::Door(reply)) => {
                    if let Reply::Registered(agent, incarnation) = *reply
                        && let Some(hosted) = self.home.hosted.get_mut(at)
                    {
                        hosted.life = Some((agent, incarnation));
                        hosted.told = None;
                        self.reconcile_home(now);
                    }
                }
                Ok(Done::NodeUp(_)) => unreachable!("a registration is answered with an agent"),
                Err(Setback::Refused(Refusal::Conflict(why))) => {
                    // Another life of this node, or of the agent elsewhere, came first.
                    tracing::warn!(agent = at, why, "a hosted agent was not registered");
                }
                Err(setback) => {
                    tracing::debug!(?setback, agent = at, "a hosted agent is not registered yet");
                    self.register(now, at);
                }
            },
            Own::Finish(work) => self.end_recorded(now, work, result),
            Own::Prepare(swap) => self.peer_prepared(now, swap, ask.target, result),
            Own::Status(gathering) => self.status_gathered(now, gathering, result),
        }
    }

    fn life_begins(&mut self, now: Now, incarnation: Incarnation) {
        if self.home.incarnation == Some(incarnation) {
            return;
        }
        tracing::info!(node = %self.config.node, %incarnation, "life numbered");
        self.home.incarnation = Some(incarnation);
        for at in 0..self.config.agents.len() {
            self.register(now, at);
        }
    }

    /// The log has ended this life: nothing that runs here counts any more.
    fn life_ended(&mut self, now: Now) {
        tracing::warn!(node = %self.config.node, "held for dead by the log; beginning a new life");
        let running: Vec<WorkId> = self.home.tasks.keys().copied().collect();
        for work in running {
            self.drop_task_work(work);
        }
        for hosted in &mut self.home.hosted {
            hosted.life = None;
        }
        self.home.incarnation = None;
        self.home.boot = self.rng.next_u64();
        self.announce(now);
    }

    /// Brings what runs here in line with the leases of record.
    pub(crate) fn reconcile_home(&mut self, now: Now) {
        if let Some(life) = self.home.incarnation
            && let Some(node) = self.view.node(self.config.node)
            && (node.incarnation != life || node.down.is_some())
            && node.incarnation >= life
        {
            self.life_ended(now);
            return;
        }
        for at in 0..self.home.hosted.len() {
            self.reconcile_agent(now, at);
        }
        let ended: Vec<WorkId> = self
            .home
            .tasks
            .iter()
            .filter(|(_id, work)| {
                self.view.lease(work.task).is_none_or(|lease| lease.token != work.token)
            })
            .map(|(id, _work)| *id)
            .collect();
        for work in ended {
            self.drop_task_work(work);
        }
        self.answer_polls(now);
    }

    fn reconcile_agent(&mut self, now: Now, at: usize) {
        let Some((agent, incarnation)) = self.home.hosted[at].life else { return };
        let held = self.view.leases_count(agent);
        if held == usize::try_from(self.home.hosted[at].tasks).unwrap_or(usize::MAX)
            && self.view.leases_of(agent).all(|lease| self.home.by_lease.contains_key(&key(&lease)))
        {
            return;
        }
        let fresh: Vec<LeaseView> = self
            .view
            .leases_of(agent)
            .filter(|lease| lease.incarnation == incarnation)
            .filter(|lease| !self.home.by_lease.contains_key(&key(lease)))
            .collect();
        for lease in fresh {
            self.start_task(now, at, &lease);
        }
    }

    fn start_task(&mut self, now: Now, at: usize, lease: &LeaseView) {
        let Some(LeaseGrant { spec, .. }) = self.view.grant(lease.task) else { return };
        let work = self.home.work_id();
        let ends = spec.timeouts.run_ms.map(|ms| now.mono + Duration::from_millis(ms));
        let (task, token) = (lease.task, lease.token);
        self.home.tasks.insert(
            work,
            TaskWork { agent: at, task, token, begun: now.mono, ends, ended: None, again: None },
        );
        self.home.by_lease.insert((task, token), work);
        self.note_starts(&[(task, token)]);
        self.home.hosted[at].tasks += 1;
        let order = WorkOrder {
            agent: at,
            task: Some(task),
            id: task.to_string(),
            attempt: lease.attempt,
            capability: spec.capabilities.first().cloned().unwrap_or_default(),
            content_type: spec.content_type,
            input: spec.input,
            trace: spec.trace,
        };
        self.effects.push_back(Effect::StartWork(work, Box::new(order)));
    }

    fn drop_task_work(&mut self, work: WorkId) {
        let Some(gone) = self.home.tasks.remove(&work) else { return };
        self.home.by_lease.remove(&(gone.task, gone.token));
        self.home.hosted[gone.agent].tasks -= 1;
        if gone.ended.is_none() {
            self.effects.push_back(Effect::CancelWork(work));
        }
    }

    /// An agent ended a piece of work: a task's end goes to the log, a call's to its caller.
    pub(crate) fn work_ended(
        &mut self,
        now: Now,
        work: WorkId,
        result: Result<Payload, WorkFault>,
    ) {
        let Some(running) = self.home.tasks.get_mut(&work) else {
            self.call_ended(now, work, result);
            return;
        };
        let took = now.mono.since(running.begun);
        self.home.hosted[running.agent].learn(took, result.is_ok());
        let request = match result {
            Ok(output) => Request::Complete(running.task, running.token, output),
            Err(fault) => Request::Fail(running.task, running.token, fault.message, fault.retry),
        };
        running.ends = None;
        running.ended = Some(request.clone());
        self.record_end(now, work, request);
    }

    fn record_end(&mut self, now: Now, work: WorkId, request: Request) {
        let errand = Errand::Door(Box::new(request));
        self.begin(now, Origin::Own(Own::Finish(work)), Target::Leader, errand, OWN_WITHIN);
    }

    fn end_recorded(&mut self, now: Now, work: WorkId, result: Result<Done, Setback>) {
        match result {
            Ok(_done) => self.drop_task_work(work),
            Err(Setback::Refused(
                why @ (Refusal::Conflict(_) | Refusal::NotFound(_) | Refusal::Invalid(_)),
            )) => {
                // Fenced: the task was given to another meanwhile, or is no more.
                tracing::info!(%why, "the end of a piece of work was not recorded");
                self.drop_task_work(work);
            }
            Err(Setback::Refused(_) | Setback::NotLeader(_)) => {
                if let Some(work) = self.home.tasks.get_mut(&work) {
                    work.again = Some(now.mono + RECORD_AGAIN);
                }
            }
        }
    }

    pub(crate) fn settle_home(&mut self, now: Now) {
        self.end_overdue(now);
        self.record_again(now);
        self.answer_polls(now);
        self.tell_alive(now);
        self.tell_starts(now);
        self.tell_offers(now);
        for at in 0..self.home.hosted.len() {
            self.tell_reading(at);
        }
    }

    fn record_again(&mut self, now: Now) {
        let mut due = Vec::new();
        for (id, work) in &mut self.home.tasks {
            if work.again.is_some_and(|again| again <= now.mono) {
                work.again = None;
                due.extend(work.ended.clone().map(|request| (*id, request)));
            }
        }
        for (work, request) in due {
            self.record_end(now, work, request);
        }
    }

    fn end_overdue(&mut self, now: Now) {
        let overdue: Vec<WorkId> = self
            .home
            .tasks
            .iter()
            .filter(|(_id, work)| work.ends.is_some_and(|ends| ends <= now.mono))
            .map(|(id, _work)| *id)
            .collect();
        for work in overdue {
            self.effects.push_back(Effect::CancelWork(work));
            let message = "the attempt ran longer than its run timeout".to_owned();
            self.work_ended(now, work, Err(WorkFault { message, retry: true }));
        }
    }

    fn tell_alive(&mut self, now: Now) {
        if self.home.alive_at > now.mono {
            return;
        }
        self.home.alive_at = now.mono + ALIVE_EVERY;
        let busy: Vec<(AgentId, Incarnation)> = self
            .home
            .hosted
            .iter()
            .filter(|hosted| hosted.tasks > 0)
            .filter_map(|hosted| hosted.life)
            .collect();
        if !busy.is_empty() {
            self.tell_leader(now, Control::Alive(busy));
        }
        let hosted = self.home.by_lease.keys();
        let outside = self.home.outside.values().flat_map(|agent| &agent.delivered);
        let held: Vec<_> = hosted.chain(outside).copied().collect();
        self.note_starts(&held);
    }

    /// The agents that hold these leases have begun.
    pub(crate) fn note_starts(&mut self, leases: &[(TaskId, Token)]) {
        let view = &self.view;
        let awaited = leases.iter().filter(|(task, _token)| {
            view.timeouts(*task).is_some_and(|timeouts| timeouts.start_ms.is_some())
        });
        self.home.started.extend(awaited);
    }

    fn tell_starts(&mut self, now: Now) {
        let started = std::mem::take(&mut self.home.started);
        for some in started.chunks(STARTS_BATCH) {
            self.tell_leader(now, Control::Started(some.to_vec()));
        }
    }

    pub(crate) fn tell_leader(&mut self, now: Now, frame: Control) {
        match self.leadership.leader {
            Some(node) if node == self.config.node => match frame {
                Control::Alive(agents) => self.renew_agents(now, &agents),
                Control::Started(leases) => self.stop_start_clocks(&leases),
                Control::Offer { agent, incarnation, open, as_of } => {
                    self.take_offer(now, node, agent, incarnation, open, as_of);
                }
                Control::Ask { .. } | Control::Answer { .. } => {
                    unreachable!("asks have a table of their own")
                }
            },
            Some(node) => self.send_control(node, &frame),
            // Told again when a leader is known.
            None => {}
        }
    }

    fn tell_reading(&mut self, at: usize) {
        let slots = self.config.agents[at].slots;
        let hosted = &mut self.home.hosted[at];
        let Some((agent, _incarnation)) = hosted.life else { return };
        let reading = hosted.reading(slots);
        if hosted.told != Some(reading) {
            hosted.told = Some(reading);
            self.members.publish_reading(agent, reading);
            self.registry_stale = true;
        }
    }

    pub(crate) fn learn_call(&mut self, at: usize, took: Duration, ok: bool) {
        self.home.hosted[at].learn(took, ok);
    }
}

pub(crate) fn key(lease: &LeaseView) -> (TaskId, Token) {
    (lease.task, lease.token)
}
