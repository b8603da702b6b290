//! What each request becomes at the node that answers it: an entry to propose, a
//! barrier and a look at the view, or an answer at once.

use std::time::Duration;

use quorate_ledger::{Agent, NodeUp, Outcome, RetireAgent, ShardCommand, SystemCommand};
use quorate_types::door::{AgentFilter, Consistency};
use quorate_types::view::{AgentView, GroupView, MemberView, NodeView, TaskPage};
use quorate_types::{
    AgentId, GroupId, Incarnation, LoadReading, NodeId, Refusal, Reply, Request, TaskId, Token,
};

use crate::asks::{Origin, Target};
use crate::frame::{Done, Errand, Setback};
use crate::io::{GroupChange, Now};
use crate::kernel::Kernel;
use crate::outside::Poll;

fn reply(reply: Reply) -> Result<Done, Setback> {
    Ok(Done::Door(Box::new(reply)))
}

fn refuse(refusal: Refusal) -> Result<Done, Setback> {
    Err(Setback::Refused(refusal))
}

impl Kernel {
    /// Fills in what only the node at whose door the request stands can know.
    pub(crate) fn complete_request(&self, request: Request) -> Request {
        let Request::Register(mut spec) = request else { return request };
        spec.node = self.config.node;
        spec.node_incarnation = self.home.incarnation.unwrap_or_default();
        spec.hosted = false;
        Request::Register(spec)
    }

    /// Does the errand of an ask that this node must answer.
    pub(crate) fn carry_out(&mut self, now: Now, id: u64) {
        let Some(ask) = self.asks.table.get(&id) else { return };
        let origin = ask.origin;
        // What only a leader does is sent to leaders; a peer that does not know better is told.
        let group = match ask.target {
            Target::Leader(group) => Some(group),
            Target::Node(_) => None,
        };
        // The hot path: what it brings is not copied to be looked at.
        if let (true, Some(group)) = (ask.errand.is_about_keys(), group) {
            return self.kv_requested(id, group);
        }
        match (ask.errand.clone(), group) {
            (Errand::NodeUp { api, shards, boot }, Some(group @ GroupId::SYSTEM)) => {
                let node = match origin {
                    Origin::Peer(peer, _id) => peer,
                    Origin::Door(_) | Origin::Own(_) => self.config.node,
                };
                let named = self.config.members.get(&node);
                let name = named.map_or_else(|| node.to_string(), |member| member.name.clone());
                let up = NodeUp { node, name, api, shards, boot };
                self.propose_for(now, (id, group), SystemCommand::NodeUp(up));
            }
            (Errand::Barrier, Some(group)) => self.barrier_for(id, group),
            (Errand::Unused(_), _) => self.read_fresh(id, self.config.layout.groups()),
            (Errand::Door(request), Some(group)) if self.is_of_group(&request, group) => {
                self.carry_out_as_leader(now, id, group, *request);
            }
            (Errand::Door(request), None) => self.carry_out_here(now, id, *request),
            (Errand::Door(_) | Errand::NodeUp { .. }, Some(group)) => {
                let why = format!("group {group} does not do what was asked of it");
                self.finish(now, id, refuse(Refusal::Invalid(why)));
            }
            (Errand::Leave, _) => self.change_group_for(id, GroupId::SYSTEM, GroupChange::Leave),
            (Errand::NodeUp { .. } | Errand::Barrier, None) => {
                self.finish(now, id, Err(Setback::NotLeader(None)));
            }
        }
    }

    /// What a group's leader does: most of it goes to the log.
    fn carry_out_as_leader(&mut self, now: Now, id: u64, group: GroupId, request: Request) {
        let at = (id, group);
        match request {
            Request::Submit(batch) => {
                for submission in &batch {
                    let (node, trace) = (self.config.node, submission.spec.trace);
                    tracing::debug!(%node, %group, %trace, "submission proposed");
                }
                self.propose_for(now, at, ShardCommand::Submit(batch));
            }
            Request::Cancel(task) => self.propose_for(now, at, ShardCommand::Cancel(task)),
            Request::Complete(task, token, result) => {
                self.propose_for(now, at, ShardCommand::Complete { task, token, result });
            }
            Request::Fail(task, token, error, retry) => {
                self.propose_for(now, at, ShardCommand::Fail { task, token, error, retry });
            }
            Request::Register(spec) => {
                self.propose_for(now, at, SystemCommand::RegisterAgent(spec));
            }
            Request::Deregister(agent, incarnation) => {
                let reason = "deregistered".to_owned();
                let retire = RetireAgent { agent, incarnation, reason };
                self.propose_for(now, at, SystemCommand::RetireAgent(retire));
            }
            Request::Kv(_) => self.kv_requested(id, group),
            Request::KvKeep(_) => self.read_fresh(id, std::iter::once(group)),
            Request::Renew(task, token) => {
                let result = self.renew_lease(now, group, task, token);
                self.finish(now, id, result.map_or_else(refuse, |ms| reply(Reply::Renewed(ms))));
            }
            Request::Beat(agent, incarnation, _reading) => {
                self.renew_agents(now, &[(agent, incarnation)]);
                self.finish(now, id, reply(Reply::Done));
            }
            Request::Membership(request) => self.carry_out_membership(now, at, request),
            Request::ApplyPolicy { slot, name, digest, force } => {
                self.begin_swap(now, id, slot, name, digest, force);
            }
            here @ (Request::Task(..)
            | Request::Tasks(..)
            | Request::Agents(..)
            | Request::Why(..)
            | Request::Policies(_)
            | Request::KvRead(..)
            | Request::Fresh(_)
            | Request::Take { .. }
            | Request::Members
            | Request::NodeStatus
            | Request::Cluster
            | Request::PreparePolicy { .. }) => self.carry_out_here(now, id, here),
        }
    }

    /// What any node does from what it has.
    fn carry_out_here(&mut self, now: Now, id: u64, request: Request) {
        let layout = self.config.layout;
        match request {
            Request::Submit(batch) => self.part_submissions(now, id, batch),
            Request::Kv(requests) => self.part_kv(now, id, requests),
            Request::KvRead(reads, consistency) => {
                let groups = reads.iter().flat_map(|read| read.groups(layout));
                self.read(now, id, consistency, groups);
            }
            Request::Task(task, consistency) | Request::Why(task, consistency) => {
                match layout.of_task(task) {
                    Some(group) => self.read(now, id, consistency, std::iter::once(group)),
                    None => {
                        self.finish(now, id, refuse(Refusal::NotFound(format!("task {task}"))));
                    }
                }
            }
            Request::Tasks(_, consistency) => self.read(now, id, consistency, layout.shards()),
            Request::Agents(_, consistency) | Request::Policies(consistency) => {
                self.read(now, id, consistency, layout.groups());
            }
            Request::Fresh(groups) => {
                match groups.iter().find(|group| layout.groups().all(|known| known != **group)) {
                    None => self.read(now, id, Consistency::Linearizable, groups.into_iter()),
                    Some(group) => {
                        self.finish(now, id, refuse(Refusal::NotFound(format!("group {group}"))));
                    }
                }
            }
            Request::Beat(agent, incarnation, reading) => {
                self.beat(now, id, (agent, incarnation), reading, false);
            }
            Request::Take { agent, incarnation, max, wait_ms, holding } => {
                let wait = Duration::from_millis(wait_ms);
                let poll = Poll { ask: id, max, holding };
                self.open_poll(now, (agent, incarnation), poll, wait);
            }
            Request::Members => {
                let members = self.member_views();
                self.finish(now, id, reply(Reply::Members(members)));
            }
            Request::NodeStatus => {
                let status = self.node_view();
                self.finish(now, id, reply(Reply::Node(status)));
            }
            Request::Cluster => self.gather_status(now, id),
            Request::PreparePolicy { slot, digest } => self.prepare_for(now, id, &slot, digest),
            Request::Cancel(_)
            | Request::Complete(..)
            | Request::Fail(..)
            | Request::Register(_)
            | Request::Deregister(..)
            | Request::Renew(..)
            | Request::KvKeep(_)
            | Request::Membership(_)
            | Request::ApplyPolicy { .. } => {
                // A peer asked any node for what a leader does.
                self.finish(now, id, Err(Setback::NotLeader(None)));
            }
        }
    }

    fn read(
        &mut self,
        now: Now,
        id: u64,
        consistency: Consistency,
        groups: impl Iterator<Item = GroupId>,
    ) {
        let mut groups = groups.peekable();
        match consistency {
            Consistency::Linearizable if groups.peek().is_some() => self.read_fresh(id, groups),
            // Who asks for nothing has it at once.
            Consistency::Linearizable => self.answer_read(now, id, false),
            Consistency::Stale => self.answer_read(now, id, true),
        }
    }

    /// What the log said to an ask's entry.
    pub(crate) fn outcome(&mut self, now: Now, id: u64, outcome: Outcome) {
        let result = match outcome {
            Outcome::Done => reply(Reply::Done),
            Outcome::NodeUp(incarnation) => Ok(Done::NodeUp(incarnation)),
            Outcome::Registered(agent, incarnation) => reply(Reply::Registered(agent, incarnation)),
            Outcome::Submitted(each) => reply(Reply::Submitted(each)),
            Outcome::Activated(epoch, _index) => return self.swap_activated(now, id, epoch),
            Outcome::Refused(refusal) => refuse(refusal),
            Outcome::Assigned(_)
            | Outcome::Requeued { .. }
            | Outcome::Swept { .. }
            | Outcome::Kv(_) => {
                unreachable!("no ask proposes what only a leader does, or by itself what waits")
            }
        };
        self.finish(now, id, result);
    }

    /// Answers a read from the view.
    pub(crate) fn answer_read(&mut self, now: Now, id: u64, stale: bool) {
        let Some(ask) = self.asks.table.get(&id) else { return };
        let request = match &ask.errand {
            Errand::Door(request) => request,
            Errand::Unused(blobs) => return self.finish(now, id, Ok(self.read_unused(blobs))),
            Errand::NodeUp { .. } | Errand::Barrier | Errand::Leave => {
                unreachable!("no read of the view")
            }
        };
        let result = match request.as_ref() {
            Request::Task(task, _) => self.read_task(*task, stale),
            Request::Tasks(filter, _) => match self.view.tasks(filter) {
                Ok(page) => reply(Reply::Tasks(TaskPage { stale, ..page })),
                Err(refusal) => refuse(refusal),
            },
            Request::Why(task, _) => self.read_why(*task),
            Request::Agents(filter, _) => reply(Reply::Agents(self.read_agents(filter))),
            Request::Policies(_) => reply(Reply::Policies(self.policy_views())),
            Request::KvRead(reads, _) => reply(self.kv_found(reads, stale)),
            Request::Fresh(_) => reply(Reply::Done),
            Request::KvKeep(lease) => {
                let lease = *lease;
                self.kv_renew(now, lease).map_or_else(refuse, |ms| reply(Reply::Renewed(ms)))
            }
            Request::Beat(agent, incarnation, reading) => {
                let (life, reading) = ((*agent, *incarnation), *reading);
                return self.beat(now, id, life, reading, true);
            }
            Request::Submit(_)
            | Request::Kv(_)
            | Request::Cancel(_)
            | Request::Register(_)
            | Request::Deregister(..)
            | Request::Take { .. }
            | Request::Renew(..)
            | Request::Complete(..)
            | Request::Fail(..)
            | Request::Membership(_)
            | Request::Members
            | Request::Cluster
            | Request::NodeStatus
            | Request::ApplyPolicy { .. }
            | Request::PreparePolicy { .. } => unreachable!("not a read of the view"),
        };
        self.finish(now, id, result);
    }

    fn read_task(&self, task: TaskId, stale: bool) -> Result<Done, Setback> {
        match self.view.task(task) {
            Some(view) => reply(Reply::Task(Box::new(view), stale)),
            None if self.view.was_forgotten(task) => {
                refuse(Refusal::NotFound(format!("task {task} has ended and its record")))
            }
            None => refuse(Refusal::NotFound(format!("task {task}"))),
        }
    }

    fn read_why(&self, task: TaskId) -> Result<Done, Setback> {
        match self.view.why(task) {
            Some(why) => reply(Reply::Why(why)),
            None => refuse(Refusal::NotFound(format!("task {task}"))),
        }
    }

    fn read_agents(&self, filter: &AgentFilter) -> Vec<AgentView> {
        let mut views = self.view.agent_views(filter);
        for view in &mut views {
            view.reading = self.reading(view.id);
        }
        views
    }

    pub(crate) fn reading(&self, agent: AgentId) -> Option<LoadReading> {
        self.members.reading(agent).map(|(reading, _received)| reading)
    }

    fn member_views(&self) -> Vec<MemberView> {
        let one = |(node, info): (&NodeId, &crate::io::MemberInfo)| {
            let record = self.view.node(*node);
            MemberView {
                node: *node,
                name: info.name.clone(),
                peer: info.peer.clone(),
                address: info.address.clone(),
                api: record.and_then(|record| record.api.clone()),
                status: self.status_word(*node).to_owned(),
                incarnation: record.map_or(Incarnation(0), |record| record.incarnation),
            }
        };
        self.config.members.iter().map(one).collect()
    }

    pub(crate) fn node_view(&self) -> NodeView {
        let group = |group: GroupId| {
            let led = self.leadership.get(&group).copied().unwrap_or_default();
            GroupView {
                group,
                leader: led.leader,
                term: led.term,
                voters: self.members_desk.voters(group),
                learners: self.members_desk.learners(group),
                applied_index: self.applied.get(&group).copied().unwrap_or_default(),
                state_digest: self.view.group(group).map(|view| view.digest()).unwrap_or_default(),
            }
        };
        NodeView {
            node: self.config.node,
            groups: self.config.layout.groups().map(group).collect(),
            feature_level: self.view.system().feature_level(),
            knows_level: self.view.system().knows_level(),
        }
    }

    /// An outside agent lives. `fresh` says that what is known here is recent enough.
    fn beat(
        &mut self,
        now: Now,
        id: u64,
        (agent, incarnation): (AgentId, Incarnation),
        reading: Option<LoadReading>,
        fresh: bool,
    ) {
        let record = self.view.agent(agent);
        let over = |record: &Agent| {
            record.incarnation > incarnation
                || record.incarnation == incarnation && record.retired.is_some()
        };
        match record {
            Some(record) if record.incarnation == incarnation && !over(record) => {
                if let Some(reading) = reading {
                    self.members.publish_reading(agent, reading);
                }
                self.part_beat(now, id, agent, incarnation);
            }
            // Its registration may not be applied here yet.
            None if !fresh => self.read_fresh(id, std::iter::once(GroupId::SYSTEM)),
            Some(record) if !fresh && !over(record) => {
                self.read_fresh(id, std::iter::once(GroupId::SYSTEM));
            }
            None => self.finish(now, id, refuse(Refusal::NotFound(format!("agent {agent}")))),
            Some(_over) => {
                let why = format!(
                    "agent {agent} in life {incarnation} is no longer of record; register it again"
                );
                self.finish(now, id, refuse(Refusal::Conflict(why)));
            }
        }
    }

    fn renew_lease(
        &mut self,
        now: Now,
        group: GroupId,
        task: TaskId,
        token: Token,
    ) -> Result<u64, Refusal> {
        let lease =
            self.view.lease(task).filter(|lease| lease.token == token).ok_or_else(|| {
                Refusal::Conflict(format!(
                    "lease {token} of task {task} has ended; take the task anew"
                ))
            })?;
        if let Some(leading) = self.leading.get_mut(&group) {
            leading.renew(now, &lease);
            leading.started(task, token);
        }
        Ok(lease.term_ms)
    }
}
