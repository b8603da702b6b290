//! What the toy remembers, and the rules by which it changes.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_ledger::{Command, Ledger, Outcome, ShardCommand};
use quorate_types::door::{Consistency, TaskFilter};
use quorate_types::view::{
    AgentView, CallSpec, Decision, GroupView, LeaseGrant, LeaseView, MemberView, NodeView,
    PolicyView, Submitted, TaskPage, TaskView, Why,
};
use quorate_types::{
    AgentId, AgentSpec, CapabilitySet, Digest, Event, EventKind, Faults, GroupId, Incarnation,
    Index, LoadReading, NodeId, Payload, PolicyEpoch, Refusal, Reply, Request, Revision,
    Submission, TaskId, TaskSpec, TaskState, Term, Time, Token,
};

/// What a lease lasts, milliseconds; nothing here lets one end.
const TERM_MS: u64 = 5_000;

/// What it remembers.
pub(crate) struct Inside {
    /// Every task.
    pub(crate) tasks: BTreeMap<TaskId, TaskView>,
    /// Every agent.
    pub(crate) agents: BTreeMap<AgentId, AgentView>,
    /// All that happened.
    pub(crate) events: Vec<Event>,
    /// Events up to this index are forgotten.
    pub(crate) compacted: u64,
    /// Every call that came.
    pub(crate) calls: Vec<CallSpec>,
    /// Calls that were dropped before their end.
    pub(crate) calls_dropped: usize,
    /// Every question that came, with its deadline.
    pub(crate) asked: Vec<(Request, u64)>,
    /// Answers to the next questions, in place of the true ones.
    pub(crate) refusals: VecDeque<Refusal>,
    /// Whether the node says that it is ready.
    pub(crate) not_ready: Option<String>,
    /// Every blob.
    pub(crate) blobs: BTreeMap<Digest, Bytes>,
    /// Keys, leases, locks and elections.
    pub(crate) ledger: Ledger,
    policies: BTreeMap<String, PolicyView>,
    keys: BTreeMap<(String, String), TaskId>,
    tokens: u64,
}

impl Default for Inside {
    fn default() -> Self {
        Self {
            tasks: BTreeMap::new(),
            agents: BTreeMap::new(),
            events: Vec::new(),
            compacted: 0,
            calls: Vec::new(),
            calls_dropped: 0,
            asked: Vec::new(),
            refusals: VecDeque::new(),
            not_ready: None,
            blobs: BTreeMap::new(),
            ledger: Ledger::new(&Faults::none()),
            policies: BTreeMap::new(),
            keys: BTreeMap::new(),
            tokens: 0,
        }
    }
}

impl Inside {
    /// The true answer.
    pub(crate) fn answer(&mut self, request: Request) -> Result<Reply, Refusal> {
        match request {
            Request::Submit(batch) => {
                Ok(Reply::Submitted(batch.into_iter().map(|one| self.submit(one)).collect()))
            }
            Request::Task(id, consistency) => {
                let task = self.task(id)?.clone();
                Ok(Reply::Task(Box::new(task), consistency == Consistency::Stale))
            }
            Request::Tasks(filter, consistency) => {
                Ok(Reply::Tasks(self.list(&filter, consistency)))
            }
            Request::Why(id, _) => self.why(id).map(Reply::Why),
            Request::Cancel(id) => self.end(id, None, TaskState::Cancelled, None),
            Request::Register(spec) => Ok(self.register(spec)),
            Request::Beat(agent, life, reading) => {
                self.life(agent, life)?.reading = reading;
                Ok(Reply::Done)
            }
            Request::Deregister(agent, life) => {
                self.life(agent, life)?;
                self.agents.remove(&agent);
                Ok(Reply::Done)
            }
            Request::Agents(filter, _) => {
                let wanted: CapabilitySet = filter.capabilities.into();
                let has = |agent: &&AgentView| {
                    let namespace = &agent.spec.namespace;
                    filter.namespace.as_ref().is_none_or(|named| named == namespace)
                        && agent.spec.capabilities.covers(&wanted)
                };
                Ok(Reply::Agents(self.agents.values().filter(has).cloned().collect()))
            }
            Request::Renew(id, token) => {
                self.held(id, token)?;
                Ok(Reply::Renewed(TERM_MS))
            }
            Request::Complete(id, token, result) => {
                self.end(id, Some(token), TaskState::Completed, Some(result))
            }
            Request::Fail(id, token, reason, retry) => self.fail(id, token, reason, retry),
            Request::Members => Ok(Reply::Members(vec![member()])),
            Request::Cluster => Ok(Reply::Cluster(vec![self.node()])),
            Request::Policies(_) => Ok(Reply::Policies(self.policies.values().cloned().collect())),
            Request::ApplyPolicy { slot, name, digest, .. } => self.apply(slot, name, digest),
            Request::Kv(requests) => Ok(self.kv(ShardCommand::Kv(requests))),
            Request::KvRead(reads, consistency) => {
                let found = reads.iter().map(|read| self.ledger.kv_read(read)).collect();
                Ok(Reply::KvFound(found, consistency == Consistency::Stale))
            }
            Request::KvKeep(lease) => self
                .ledger
                .kv_lease_ttl(lease)
                .map(Reply::Renewed)
                .ok_or_else(|| Refusal::NotFound(format!("lease {lease}"))),
            Request::Membership(_)
            | Request::Fresh(_)
            | Request::Take { .. }
            | Request::NodeStatus
            | Request::PreparePolicy { .. } => {
                Err(Refusal::Invalid("no door asks this here".to_owned()))
            }
        }
    }

    /// What an entry about keys comes to.
    pub(crate) fn kv(&mut self, command: ShardCommand) -> Reply {
        let entry = Command::from(command).encode(Time(1));
        let index = Index(self.ledger.index().0 + 1);
        let applied = self.ledger.apply(index, &entry).expect("an entry of our own");
        if let Outcome::Kv(answers) = applied.outcome { Reply::Kv(answers) } else { Reply::Done }
    }

    fn happen(&mut self, kind: EventKind) {
        let index = Index(self.events.len() as u64 + 1);
        let mut revision = Revision::default();
        revision.advance(GroupId::SYSTEM, (index, 0));
        self.events.push(Event { revision, kind });
    }

    fn task(&mut self, id: TaskId) -> Result<&mut TaskView, Refusal> {
        self.tasks.get_mut(&id).ok_or_else(|| Refusal::NotFound(format!("task {id}")))
    }

    fn changed(&mut self, id: TaskId, token: Option<Token>) {
        let task = self.tasks[&id].clone();
        self.happen(EventKind::Task {
            task: id,
            namespace: task.spec.namespace,
            state: task.state,
            agent: task.lease.as_ref().map(|lease| lease.agent),
            token: token.or(task.lease.as_ref().map(|lease| lease.token)),
            attempt: task.attempts,
            policy_epoch: task.lease.map(|lease| lease.policy_epoch),
            reason: task.error,
            result: task.result,
            labels: task.spec.labels,
        });
    }

    fn submit(&mut self, Submission { spec, nonce }: Submission) -> Result<Submitted, Refusal> {
        assert_ne!(nonce, (0, 0, 0), "a door tells submissions without keys apart");
        if let Some(key) = &spec.idempotency_key {
            let scoped = (spec.namespace.clone(), key.clone());
            if let Some(id) = self.keys.get(&scoped) {
                // A trace says who asked when, not what was asked.
                let known = TaskSpec { trace: spec.trace, ..self.tasks[id].spec.clone() };
                if known == spec {
                    return Ok(Submitted { id: *id, existed: true });
                }
                return Err(Refusal::Conflict(format!("key `{key}` belongs to another body")));
            }
            self.keys.insert(scoped, TaskId::new(0, self.tasks.len() as u64 + 1));
        }
        let id = TaskId::new(0, self.tasks.len() as u64 + 1);
        let task = TaskView {
            id,
            spec,
            state: TaskState::Queued,
            attempts: 0,
            failures: 0,
            lease: None,
            result: None,
            error: None,
            created: Time::from_millis(1),
            finished: None,
        };
        self.tasks.insert(id, task);
        self.changed(id, None);
        Ok(Submitted { id, existed: false })
    }

    fn list(&self, filter: &TaskFilter, consistency: Consistency) -> TaskPage {
        let mut page = TaskPage { stale: consistency == Consistency::Stale, ..TaskPage::default() };
        let after: u64 = filter.cursor.as_ref().map_or(0, |text| text.parse().expect("ours"));
        for task in self.tasks.values().filter(|task| task.spec.namespace == filter.namespace) {
            *page.counts.entry(task.state).or_default() += 1;
            let fits = filter.state.is_none_or(|state| state == task.state)
                && filter.queue.as_ref().is_none_or(|queue| *queue == task.spec.queue)
                && task.id.0 > after;
            if fits && page.tasks.len() < filter.limit as usize {
                page.tasks.push(task.clone());
            } else if fits && page.cursor.is_none() {
                page.cursor = page.tasks.last().map(|last| last.id.0.to_string());
            }
        }
        page
    }

    fn why(&mut self, id: TaskId) -> Result<Why, Refusal> {
        let task = self.task(id)?;
        let decision = |lease: &LeaseView| Decision {
            agent: lease.agent,
            policy_epoch: lease.policy_epoch,
            policy: "round-robin".to_owned(),
            fallback: false,
            candidates: 1,
            reading: LoadReading { success_ppm: 1_000_000, ..LoadReading::default() },
            token: lease.token,
            at: Time::from_millis(1),
            ended: None,
        };
        Ok(Why {
            task: id,
            trace: task.spec.trace,
            waits: task.lease.is_none().then(|| "no agent has offered a slot".to_owned()),
            decisions: task.lease.iter().map(decision).collect(),
        })
    }

    fn register(&mut self, mut spec: AgentSpec) -> Reply {
        (spec.node, spec.node_incarnation) = (NodeId(1), Incarnation(1));
        let same = |agent: &&AgentView| {
            (&agent.spec.namespace, &agent.spec.name) == (&spec.namespace, &spec.name)
        };
        let known = self.agents.values().find(same).map(|agent| (agent.id, agent.incarnation.0));
        let (id, life) = known.unwrap_or((AgentId(self.agents.len() as u64 + 1), 0));
        let incarnation = Incarnation(life + 1);
        let name = spec.name.clone();
        self.agents.insert(id, AgentView { id, incarnation, spec, leases: 0, reading: None });
        self.happen(EventKind::AgentUp { agent: id, incarnation, node: NodeId(1), name });
        Reply::Registered(id, incarnation)
    }

    fn life(&mut self, id: AgentId, life: Incarnation) -> Result<&mut AgentView, Refusal> {
        let none = || Refusal::NotFound(format!("agent {id}"));
        let agent = self.agents.get_mut(&id).ok_or_else(none)?;
        if agent.incarnation != life {
            return Err(Refusal::Conflict(format!("{id} lives as {}", agent.incarnation)));
        }
        Ok(agent)
    }

    pub(super) fn take(
        &mut self,
        agent: AgentId,
        incarnation: Incarnation,
        max: u32,
    ) -> Result<Vec<LeaseGrant>, Refusal> {
        let has = self.life(agent, incarnation)?.spec.capabilities.clone();
        let wanted = |task: &&mut TaskView| {
            task.state == TaskState::Queued && has.covers(&task.spec.capabilities.clone().into())
        };
        let mut grants = Vec::new();
        for task in self.tasks.values_mut().filter(wanted).take(max as usize) {
            self.tokens += 1;
            task.attempts += 1;
            task.state = TaskState::Leased;
            let lease = LeaseView {
                task: task.id,
                agent,
                incarnation,
                token: Token(self.tokens),
                policy_epoch: PolicyEpoch(1),
                term_ms: TERM_MS,
                attempt: task.attempts,
            };
            task.lease = Some(lease.clone());
            grants.push(LeaseGrant { lease, spec: task.spec.clone() });
        }
        for grant in &grants {
            self.changed(grant.lease.task, None);
        }
        Ok(grants)
    }

    fn held(&mut self, id: TaskId, token: Token) -> Result<&mut TaskView, Refusal> {
        let task = self.task(id)?;
        match &task.lease {
            Some(lease) if lease.token == token => Ok(task),
            Some(_) | None => Err(Refusal::Conflict(format!("token {token} holds {id} no more"))),
        }
    }

    fn end(
        &mut self,
        id: TaskId,
        token: Option<Token>,
        state: TaskState,
        result: Option<Payload>,
    ) -> Result<Reply, Refusal> {
        let task = match token {
            Some(token) => self.held(id, token)?,
            None => self.task(id)?,
        };
        (task.state, task.lease, task.result) = (state, None, result);
        task.finished = Some(Time::from_millis(2));
        self.changed(id, token);
        Ok(Reply::Done)
    }

    fn fail(
        &mut self,
        id: TaskId,
        token: Token,
        reason: String,
        retry: bool,
    ) -> Result<Reply, Refusal> {
        let task = self.held(id, token)?;
        task.failures += 1;
        task.lease = None;
        task.error = Some(reason);
        task.state = if retry { TaskState::Queued } else { TaskState::DeadLetter };
        self.changed(id, Some(token));
        Ok(Reply::Done)
    }

    fn apply(&mut self, slot: String, name: String, digest: Digest) -> Result<Reply, Refusal> {
        if !self.blobs.contains_key(&digest) {
            return Err(Refusal::NotFound(format!("the blob {digest}")));
        }
        let epoch = self.policies.get(&slot).map_or(1, |policy| policy.epoch.0 + 1);
        let policy = PolicyView {
            slot: slot.clone(),
            name,
            digest,
            epoch: PolicyEpoch(epoch),
            index: Index(self.events.len() as u64 + 1),
            adopted: BTreeMap::from([(GroupId::SYSTEM, Index(self.events.len() as u64 + 2))]),
            nodes: BTreeMap::from([(NodeId(1), "ready".to_owned())]),
            decisions: BTreeMap::from([(PolicyEpoch(epoch), 7)]),
        };
        self.policies.insert(slot, policy.clone());
        Ok(Reply::Applied(Box::new(policy)))
    }

    fn node(&self) -> NodeView {
        let group = GroupView {
            group: GroupId::SYSTEM,
            leader: Some(NodeId(1)),
            term: Term(1),
            learners: Vec::new(),
            voters: vec![NodeId(1)],
            applied_index: Index(self.events.len() as u64),
            state_digest: Digest::of(b"state"),
        };
        NodeView { node: NodeId(1), groups: vec![group], feature_level: 1, knows_level: 1 }
    }
}

fn member() -> MemberView {
    MemberView {
        node: NodeId(1),
        name: "one".to_owned(),
        peer: "12D3KooW".to_owned(),
        address: "/ip4/127.0.0.1/tcp/1".to_owned(),
        api: None,
        status: "alive".to_owned(),
        incarnation: Incarnation(1),
    }
}
