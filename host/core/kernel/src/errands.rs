//! What each request becomes at the node that answers it: an entry to propose, a
//! barrier and a look at the view, or an answer at once.

use std::time::Duration;

use quorate_ledger::{NodeUp, Outcome, RetireAgent, ShardCommand, SystemCommand};
use quorate_types::door::{AgentFilter, Consistency};
use quorate_types::view::{AgentView, GroupView, MemberView, NodeView, TaskPage};
use quorate_types::{
    AgentId, GroupId, Incarnation, LoadReading, NodeId, Refusal, Reply, Request, TaskId, Token,
};

use crate::asks::Origin;
use crate::frame::{Done, Errand, Setback};
use crate::io::Now;
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
        match ask.errand.clone() {
            Errand::NodeUp { api, boot } => self.number_node(now, id, origin, api, boot),
            Errand::Unused(_) => self.barrier_for(id),
            Errand::Door(request) => self.carry_out_request(now, id, *request),
        }
    }

    fn number_node(&mut self, now: Now, id: u64, origin: Origin, api: Option<String>, boot: u64) {
        let node = match origin {
            Origin::Peer(peer, _id) => peer,
            Origin::Door(_) | Origin::Own(_) => self.config.node,
        };
        let name =
            self.config.members.get(&node).map_or_else(|| node.to_string(), |m| m.name.clone());
        self.propose_for(now, id, SystemCommand::NodeUp(NodeUp { node, name, api, boot }));
    }

    fn carry_out_request(&mut self, now: Now, id: u64, request: Request) {
        match request {
            Request::Submit(batch) => {
                for submission in &batch {
                    let (node, trace) = (self.config.node, submission.spec.trace);
                    tracing::debug!(%node, %trace, "submission proposed");
                }
                self.propose_for(now, id, ShardCommand::Submit(batch));
            }
            Request::Cancel(task) => self.propose_for(now, id, ShardCommand::Cancel(task)),
            Request::Complete(task, token, result) => {
                self.propose_for(now, id, ShardCommand::Complete { task, token, result });
            }
            Request::Fail(task, token, error, retry) => {
                self.propose_for(now, id, ShardCommand::Fail { task, token, error, retry });
            }
            Request::Register(spec) => {
                self.propose_for(now, id, SystemCommand::RegisterAgent(spec));
            }
            Request::Deregister(agent, incarnation) => {
                let reason = "deregistered".to_owned();
                let retire = RetireAgent { agent, incarnation, reason };
                self.propose_for(now, id, SystemCommand::RetireAgent(retire));
            }
            Request::Kv(requests) => self.kv_requested(now, id, &requests),
            Request::KvKeep(_) => self.barrier_for(id),
            Request::Task(_, consistency)
            | Request::KvRead(_, consistency)
            | Request::Tasks(_, consistency)
            | Request::Agents(_, consistency)
            | Request::Why(_, consistency)
            | Request::Policies(consistency) => match consistency {
                Consistency::Linearizable => self.barrier_for(id),
                Consistency::Stale => self.answer_read(now, id, true),
            },
            Request::Beat(agent, incarnation, reading) => {
                let result = self.beat(now, agent, incarnation, reading);
                self.finish(now, id, result.map_or_else(refuse, |()| reply(Reply::Done)));
            }
            Request::Renew(task, token) => {
                let result = self.renew_lease(now, task, token);
                self.finish(now, id, result.map_or_else(refuse, |ms| reply(Reply::Renewed(ms))));
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
            Request::ApplyPolicy { slot, name, digest, force } => {
                self.begin_swap(now, id, slot, name, digest, force);
            }
            Request::PreparePolicy { slot, digest } => self.prepare_for(now, id, &slot, digest),
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
            Errand::NodeUp { .. } => unreachable!("a life is numbered by the log"),
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
            Request::KvKeep(lease) => {
                let lease = *lease;
                self.kv_renew(now, lease).map_or_else(refuse, |ms| reply(Reply::Renewed(ms)))
            }
            Request::Submit(_)
            | Request::Kv(_)
            | Request::Cancel(_)
            | Request::Register(_)
            | Request::Beat(..)
            | Request::Deregister(..)
            | Request::Take { .. }
            | Request::Renew(..)
            | Request::Complete(..)
            | Request::Fail(..)
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
        let group = GroupView {
            group: GroupId::SYSTEM,
            leader: self.leadership.leader,
            term: self.leadership.term,
            voters: self.config.members.keys().copied().collect(),
            applied_index: self.applied,
            state_digest: self.view.digest(),
        };
        NodeView { node: self.config.node, groups: vec![group] }
    }

    fn beat(
        &mut self,
        now: Now,
        agent: AgentId,
        incarnation: Incarnation,
        reading: Option<LoadReading>,
    ) -> Result<(), Refusal> {
        match self.view.agent(agent) {
            None => return Err(Refusal::NotFound(format!("agent {agent}"))),
            Some(record) if record.retired.is_some() || record.incarnation != incarnation => {
                return Err(Refusal::Conflict(format!(
                    "agent {agent} in life {incarnation} is no longer of record; register it again"
                )));
            }
            Some(_record) => {}
        }
        self.renew_agents(now, &[(agent, incarnation)]);
        if let Some(reading) = reading {
            self.members.publish_reading(agent, reading);
        }
        Ok(())
    }

    fn renew_lease(&mut self, now: Now, task: TaskId, token: Token) -> Result<u64, Refusal> {
        let lease =
            self.view.lease(task).filter(|lease| lease.token == token).ok_or_else(|| {
                Refusal::Conflict(format!(
                    "lease {token} of task {task} has ended; take the task anew"
                ))
            })?;
        if let Some(leading) = &mut self.leading {
            leading.renew(now, &lease);
            leading.started(task, token);
        }
        Ok(lease.term_ms)
    }
}
