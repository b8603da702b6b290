//! Agents that are at home here: those this node hosts, and outside workers that
//! wait at its door. The ledger says which leases they hold; this room sees that
//! the work begins, and that its end is recorded.
//!
//! A node's life has a number from the log. When the log says that this life has
//! ended (others held the node for dead), everything here is fenced: the work is
//! dropped and a new life begins.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::view::{LeaseGrant, LeaseView};
use quorate_types::{
    AgentId, AgentSpec, EventKind, GroupId, Incarnation, NodeId, Refusal, Reply, Request,
    TaskState, Time,
};

use crate::asks::{Ask, Origin, Own, Target, misfit};
use crate::frame::{Control, Done, Errand, Setback};
use crate::io::{Effect, KernelConfig, Now, WorkId, WorkOrder};
use crate::kernel::Kernel;
use crate::outside::Outsiders;
use crate::residents::Residents;
use crate::works::{LeaseKey, Works};

/// Own errands end when this span passes without an answer.
pub(crate) const OWN_WITHIN: Duration = Duration::from_secs(30);
/// What this node asks of the log for itself is begun again this long after it came to nothing,
/// not at once: what refuses at once would go round for ever. An election's time.
const OWN_AGAIN: Duration = Duration::from_millis(200);
/// Leases of agents at home are renewed this often: a tenth of the default term.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Starts told in one frame: at about 20 B each it stays below 128 KiB.
const STARTS_BATCH: usize = 4096;

/// Who is at home.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) residents: Residents,
    pub(crate) works: Works,
    pub(crate) outside: Outsiders,
    boot: u64,
    next_work: u64,
    /// When this life's number is asked for again, and a record of each local agent by its place.
    announce_at: Option<Time>,
    register_at: BTreeMap<usize, Time>,
    alive_at: Time,
    /// Leases with a start timeout whose agents have begun, still to be told.
    started: Vec<LeaseKey>,
}

impl Home {
    pub(crate) fn new(config: &KernelConfig) -> Self {
        Self {
            incarnation: None,
            residents: Residents::new(config.agents.iter().map(|agent| agent.slots)),
            works: Works::default(),
            outside: Outsiders::default(),
            boot: config.boot,
            next_work: 0,
            announce_at: None,
            register_at: BTreeMap::new(),
            alive_at: Time::ZERO,
            started: Vec::new(),
        }
    }

    pub(crate) fn work_id(&mut self) -> WorkId {
        self.next_work += 1;
        WorkId(self.next_work)
    }

    /// A new leader knows nothing of offers and heartbeats yet.
    pub(crate) fn tell_leader_again(&mut self) {
        self.alive_at = Time::ZERO;
        self.outside.repeat_at = Time::ZERO;
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let again = self.register_at.values().copied().chain(self.announce_at).min();
        let times =
            [self.outside.poll_timeout(), self.works.next_due(), again, Some(self.alive_at)];
        times.into_iter().flatten().min()
    }
}

impl Kernel {
    /// Asks the log for this life's number.
    pub(crate) fn announce(&mut self, now: Now) {
        let errand = Errand::NodeUp {
            api: self.config.api.clone(),
            shards: self.config.layout.shards_count(),
            boot: self.home.boot,
        };
        let leader = Target::Leader(GroupId::SYSTEM);
        self.begin(now, Origin::Own(Own::NodeUp), leader, errand, OWN_WITHIN);
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
        let leader = Target::Leader(GroupId::SYSTEM);
        self.begin(now, Origin::Own(Own::Register(at)), leader, errand, OWN_WITHIN);
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
                Ok(other @ (Done::Door(_) | Done::Barrier(_) | Done::Unused(_))) => {
                    self.not_numbered(now, Setback::Refused(misfit(&other)));
                }
                Err(setback) => self.not_numbered(now, setback),
            },
            Own::Register(at) => match result {
                Ok(Done::Door(reply)) => {
                    let Reply::Registered(agent, incarnation) = *reply else {
                        self.not_registered(now, at, Setback::Refused(misfit(&reply)));
                        return;
                    };
                    self.home.residents.begin_life(at, agent, incarnation);
                    self.follow_lives();
                    self.reconcile_home(now);
                }
                Ok(other @ (Done::NodeUp(_) | Done::Barrier(_) | Done::Unused(_))) => {
                    self.not_registered(now, at, Setback::Refused(misfit(&other)));
                }
                Err(setback) => self.not_registered(now, at, setback),
            },
            Own::Finish(work) => self.end_recorded(now, work, result),
            Own::Leave(id) => self.member_may_leave(now, id, ask.target, result),
            Own::Prepare(swap) => self.peer_prepared(now, swap, ask.target, result),
            Own::Status(gathering) => self.status_gathered(now, gathering, result),
            Own::Collect => self.unused_answered(result),
            Own::Barrier(group) => self.barrier_told(now, group, result),
            Own::Reserve(of) => self.voters_reserved(now, of, result),
            Own::Settle(of) => self.voters_settled(now, of, &result),
            Own::Raise => self.founding_raised(now, &result),
            Own::Share(of, share) => self.share_ended(now, of, share, result),
        }
    }

    fn not_numbered(&mut self, now: Now, setback: Setback) {
        if let Some(why) = last_word(&setback) {
            // It could serve nobody, and asking again changes nothing.
            self.effects.push_back(Effect::Stop(format!("the log refused this node: {why}")));
            return;
        }
        tracing::debug!(?setback, "this life has no number yet");
        self.home.announce_at = Some(now.mono + OWN_AGAIN);
    }

    fn not_registered(&mut self, now: Now, at: usize, setback: Setback) {
        if let Some(why) = last_word(&setback) {
            // It is not fit, or another life of this node, or of the agent elsewhere, came first.
            let agent = self.config.agents.get(at).map(|agent| agent.name.as_str());
            tracing::error!(agent, %why, "a hosted agent was not registered");
            return;
        }
        tracing::debug!(?setback, agent = at, "a hosted agent is not registered yet");
        self.home.register_at.insert(at, now.mono + OWN_AGAIN);
    }

    /// Begins again what this node asked for itself in vain, once its pause is over.
    fn ask_again(&mut self, now: Now) {
        if self.home.announce_at.take_if(|at| *at <= now.mono).is_some() {
            self.announce(now);
        }
        let due = self.home.register_at.iter().filter(|(_place, at)| **at <= now.mono);
        let due: Vec<usize> = due.map(|(place, _at)| *place).collect();
        for place in due {
            self.home.register_at.remove(&place);
            self.register(now, place);
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
        let running: Vec<WorkId> = self.home.works.leases().map(|(_lease, work)| work).collect();
        for work in running {
            self.drop_task_work(work);
        }
        self.home.residents.end_lives();
        self.home.incarnation = None;
        self.home.register_at.clear();
        self.home.boot = self.rng.next_u64();
        self.announce(now);
    }

    /// Entries of a group were applied that told these events.
    pub(crate) fn follow_leases(&mut self, now: Now, group: GroupId, events: &[EventKind]) {
        if group == GroupId::SYSTEM && self.is_life_over() {
            self.life_ended(now);
        }
        let here = self.config.node;
        let came =
            |event: &EventKind| matches!(event, EventKind::AgentUp { node, .. } if *node == here);
        if events.is_empty() {
            // A snapshot may have taken the entries' place.
            self.follow_lives();
            self.reconcile_home(now);
        } else if events.iter().any(came) && self.follow_lives() {
            self.reconcile_home(now);
        }
        for event in events {
            let EventKind::Task { task, state, agent: Some(agent), token: Some(token), .. } = event
            else {
                continue;
            };
            let lease = (*task, *token);
            if *state == TaskState::Leased {
                self.lease_given(now, *agent, lease);
            } else {
                self.home.outside.lease_ended(*agent, lease);
                if let Some(work) = self.home.works.of_lease(lease) {
                    self.drop_task_work(work);
                }
            }
        }
    }

    /// Takes on the lives that the log gave this node's agents beyond those that it was told of:
    /// a registration that is sent again may be committed twice, each copy numbers a life, and the
    /// answer to the first may be the one that arrives. True where there was one.
    fn follow_lives(&mut self) -> bool {
        let Some(life) = self.home.incarnation else { return false };
        let (view, node) = (&self.view, self.config.node);
        let newer: Vec<_> = self
            .home
            .residents
            .lives()
            .filter_map(|(at, agent, told)| {
                let record = view.agent(agent)?;
                let spec = &record.spec;
                let ours = spec.hosted && spec.node == node && spec.node_incarnation == life;
                (ours && record.retired.is_none() && record.incarnation > told).then_some((
                    at,
                    agent,
                    record.incarnation,
                ))
            })
            .collect();
        for (at, agent, incarnation) in &newer {
            tracing::info!(%agent, %incarnation, "a hosted agent was registered more than once");
            self.home.residents.begin_life(*at, *agent, *incarnation);
        }
        !newer.is_empty()
    }

    fn is_life_over(&self) -> bool {
        let Some(life) = self.home.incarnation else { return false };
        self.view.node(self.config.node).is_some_and(|node| {
            node.incarnation > life || node.incarnation == life && node.down.is_some()
        })
    }

    fn lease_given(&mut self, now: Now, agent: AgentId, (task, token): LeaseKey) {
        // The view may be ahead of the event; what ended the lease meanwhile is told next.
        let Some(lease) = self.view.lease(task).filter(|lease| lease.token == token) else {
            return;
        };
        if let Some(at) = self.home.residents.place_of(agent, lease.incarnation) {
            self.start_task(now, at, &lease);
        } else if self.home.outside.lease_given(agent, lease.incarnation, (task, token)) {
            self.answer_worker(now, agent);
        }
    }

    /// Brings what runs here in line with the leases of record, all at once.
    fn reconcile_home(&mut self, now: Now) {
        let lives: Vec<_> = self.home.residents.lives().collect();
        for (at, agent, incarnation) in lives {
            let held: Vec<LeaseView> = self
                .view
                .leases_of(agent)
                .filter(|lease| lease.incarnation == incarnation)
                .collect();
            for lease in held {
                self.start_task(now, at, &lease);
            }
        }
        let current = |(task, token): LeaseKey| {
            self.view.lease(task).is_some_and(|lease| lease.token == token)
        };
        let works = self.home.works.leases();
        let ended: Vec<WorkId> =
            works.filter(|(lease, _work)| !current(*lease)).map(|(_lease, work)| work).collect();
        for work in ended {
            self.drop_task_work(work);
        }
        self.reconcile_outside(now);
    }

    /// Begins the task of a lease, unless it has begun.
    fn start_task(&mut self, now: Now, at: usize, lease: &LeaseView) {
        let (task, key) = (lease.task, (lease.task, lease.token));
        if self.home.works.of_lease(key).is_some() {
            return;
        }
        let Some(LeaseGrant { spec, .. }) = self.view.grant(task) else { return };
        let work = self.home.work_id();
        let ends = spec.timeouts.run_ms.map(|ms| now.mono + Duration::from_millis(ms));
        self.home.works.begin(work, at, key, now.mono, ends);
        self.home.residents.task_begun(at);
        self.note_starts(&[key]);
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

    pub(crate) fn settle_home(&mut self, now: Now) {
        self.ask_again(now);
        self.move_works_on(now);
        self.end_polls(now);
        self.tell_alive(now);
        self.tell_starts(now);
        self.tell_offers(now);
        for (agent, reading) in self.home.residents.news() {
            self.members.publish_reading(agent, reading);
            self.readings_changed.insert(agent);
        }
    }

    fn tell_alive(&mut self, now: Now) {
        if self.home.alive_at > now.mono {
            return;
        }
        self.home.alive_at = now.mono + ALIVE_EVERY;
        let busy = self.home.residents.busy();
        if !busy.is_empty() {
            self.tell_leaders(now, &Control::Alive(busy));
        }
        let hosted = self.home.works.leases().map(|(lease, _work)| lease);
        let held: Vec<_> = hosted.chain(self.home.outside.delivered().copied()).collect();
        self.note_starts(&held);
    }

    /// The agents that hold these leases have begun.
    pub(crate) fn note_starts(&mut self, leases: &[LeaseKey]) {
        let view = &self.view;
        let awaited = leases.iter().filter(|(task, _token)| {
            view.timeouts(*task).is_some_and(|timeouts| timeouts.start_ms.is_some())
        });
        self.home.started.extend(awaited);
    }

    fn tell_starts(&mut self, now: Now) {
        let started = std::mem::take(&mut self.home.started);
        for some in started.chunks(STARTS_BATCH) {
            self.tell_leaders(now, &Control::Started(some.to_vec()));
        }
    }

    /// Tells every node that leads a shard. Where no leader is known it is told again when one is.
    pub(crate) fn tell_leaders(&mut self, now: Now, frame: &Control) {
        let shards = self.config.layout.shards();
        let leaders: BTreeSet<NodeId> = shards.filter_map(|shard| self.leader(shard)).collect();
        for node in leaders {
            if node != self.config.node {
                self.send_control(node, frame);
                continue;
            }
            match frame {
                Control::Alive(agents) => self.renew_agents(now, agents),
                Control::Started(leases) => self.stop_start_clocks(leases),
                Control::Offer { agent, incarnation, open, as_of } => {
                    self.take_offer(now, *agent, *incarnation, *open, as_of);
                }
                Control::Ask { .. } | Control::Answer { .. } => {
                    unreachable!("asks have a table of their own")
                }
            }
        }
    }
}

/// A refusal that asking again would not change.
fn last_word(setback: &Setback) -> Option<&Refusal> {
    match setback {
        Setback::Refused(
            why @ (Refusal::Invalid(_)
            | Refusal::Across(_)
            | Refusal::Conflict(_)
            | Refusal::TooLarge { .. }),
        ) => Some(why),
        Setback::Refused(
            Refusal::NotFound(_)
            | Refusal::Busy { .. }
            | Refusal::Unavailable(_)
            | Refusal::Timeout(_)
            | Refusal::Agent(_)
            | Refusal::Compacted(_),
        )
        | Setback::NotLeader(_) => None,
    }
}
