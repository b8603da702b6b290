//! What only a group's leader does, and forgets when it leads no more. The leader of
//! the system group proposes what membership calls for. The leader of a shard keeps
//! the clock of every lease, proposes the verdicts that heartbeats call for, gives
//! the leases, and takes what the system machine decided into the shard.
//!
//! A lease's clock is in the leader's memory: heartbeats never enter the log, only
//! the verdict that one is overdue does. A task with a start timeout has a second
//! clock, from its lease to the word that its agent has begun; when it runs out the
//! attempt counts as lost, not as failed. So it is with the run timeout of a task
//! that a worker outside has, from its lease; a node holds its own agents to theirs
//! itself. A new leader gives every live lease its
//! full times. A clock jump changes nothing, since the clocks here are monotonic.
//!
//! Ledger time is what leaders stamped, and one whose clock was ahead may have left
//! it in the future. So ledger time goes on from where it stands, by the monotonic
//! clock, for as long as the wall clock is behind it: otherwise whatever waits for
//! its time would wait until the wall clock has caught up.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_ledger::{Ledger, NodeDown, Outcome, ShardCommand, SystemCommand, Views};
use quorate_types::clocks::Clocks;
use quorate_types::kv::LeaseId;
use quorate_types::view::LeaseView;
use quorate_types::{
    AgentId, EventKind, GroupId, Incarnation, Index, NodeId, Role, TaskId, TaskState, Time, Token,
};

use crate::io::{LogSetback, Now, Ticket};
use crate::kernel::Kernel;
use crate::kv::KvClocks;
use crate::offers::Offers;
use crate::placement::{Placed, Placement};
use crate::works::LeaseKey;

/// A verdict that was not committed is proposed again after this span.
const PROPOSE_AGAIN: Duration = Duration::from_millis(500);
/// After the log refused a proposal the leader rests: a log that is being opened again refuses at
/// once, and proposing at once again would go round for as long as that takes.
const REST: Duration = Duration::from_millis(20);
/// Leases ended by one entry; keeps the entry far below `COMMAND_BYTES_MAX`.
const EXPIRED_BATCH: usize = 1024;

/// What a ticket of the leader's own was for.
#[derive(Debug)]
enum Proposal {
    Assign(Placed),
    Adopt,
    NodeDown(NodeId),
    Expire,
    Sweep,
    KvExpire(Vec<LeaseId>),
}

/// A leader's memory of one group.
#[derive(Debug, Default)]
pub(crate) struct Leading {
    /// Ledger time as it was last seen ahead of expectation, and the monotonic time of that.
    ledger_time: (Time, Time),
    /// Until when each lease lives without a further sign of life.
    terms: Clocks<LeaseKey>,
    /// Until when each task with a start timeout must have been started.
    starts: Clocks<LeaseKey>,
    /// Until when each task with a run timeout must be finished by its worker outside.
    runs: Clocks<LeaseKey>,
    proposals: BTreeMap<Ticket, Proposal>,
    adopting: bool,
    /// The system machine may have decided something that the shard has not adopted.
    adopt_stale: bool,
    sweeping: bool,
    burying: BTreeMap<NodeId, Time>,
    /// Until then nothing is proposed.
    rest: Option<Time>,
    pub(crate) kv: KvClocks,
    pub(crate) placement: Placement,
    /// Leases given since this node began to lead.
    pub(crate) assigned: u64,
}

impl Leading {
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        if self.rest.is_some() {
            return self.rest;
        }
        let burial = self.burying.values().min().copied();
        let ready = self.placement.poll_timeout();
        let clocks = [&self.terms, &self.starts, &self.runs].map(Clocks::first);
        clocks.into_iter().chain([burial, ready, self.kv.first()]).flatten().min()
    }

    /// What ledger time has become by the time that has passed since it was seen.
    fn expected(&self, now: Now) -> Time {
        let (seen, at) = self.ledger_time;
        seen + now.mono.since(at)
    }

    fn see(&mut self, now: Now, ledger: Time) {
        if ledger > self.expected(now) {
            self.ledger_time = (ledger, now.mono);
        }
    }

    pub(crate) fn renew(&mut self, now: Now, lease: &LeaseView) {
        let until = now.mono + Duration::from_millis(lease.term_ms);
        self.terms.set((lease.task, lease.token), until);
    }

    /// A lease was given, or this node has begun to lead while it runs.
    fn start_clocks(&mut self, now: Now, lease: &LeaseView, view: &Views) {
        self.renew(now, lease);
        let Some(timeouts) = view.timeouts(lease.task) else { return };
        let after = |ms: u64| now.mono + Duration::from_millis(ms);
        if let Some(ms) = timeouts.start_ms {
            self.starts.set((lease.task, lease.token), after(ms));
        }
        // One that the system group's state here does not show yet is held to its time as well.
        let outside = view.agent(lease.agent).is_none_or(|agent| !agent.spec.hosted);
        if let Some(ms) = timeouts.run_ms.filter(|_ms| outside) {
            self.runs.set((lease.task, lease.token), after(ms));
        }
    }

    /// The agent has spoken under this lease, so it has started.
    pub(crate) fn started(&mut self, task: TaskId, token: Token) {
        self.starts.stop((task, token));
    }
}

impl Kernel {
    pub(crate) fn begin_leading(&mut self, now: Now, group: GroupId) {
        let term = self.leadership.get(&group).map(|led| led.term).unwrap_or_default();
        tracing::info!(node = %self.config.node, %group, %term, "leading");
        let mut leading = Leading { adopt_stale: true, ..Leading::default() };
        // What can be given away is looked at once, even if no entry follows.
        leading.placement.stale = true;
        if let Some(view) = self.view.group(group) {
            leading.see(now, view.time());
            leading.kv.follow(now, view);
            for lease in view.leases() {
                leading.start_clocks(now, &lease, &self.view);
            }
        }
        self.leading.insert(group, leading);
    }

    /// The time that a group's leader stamps into entries and compares ledger times with.
    pub(crate) fn stamped(&self, now: Now, group: GroupId) -> Now {
        let expected = self.leading.get(&group).map_or(now.wall, |leading| leading.expected(now));
        Now { wall: now.wall.max(expected), ..now }
    }

    pub(crate) fn end_leading(&mut self, group: GroupId) {
        tracing::info!(node = %self.config.node, %group, "leading no more");
        self.leading.remove(&group);
        if self.leading.is_empty() {
            self.offers = Offers::default();
        }
        if group == GroupId::SYSTEM {
            self.forget_swaps();
        }
    }

    /// Follows leases as entries of any group give and end them.
    pub(crate) fn observe_as_leader(
        &mut self,
        now: Now,
        (group, index): (GroupId, Index),
        events: &[EventKind],
        agents_changed: bool,
    ) {
        let slot = |event: &EventKind| matches!(event, EventKind::Policy { .. });
        let decided = agents_changed || events.is_empty() || events.iter().any(slot);
        let decided = decided && group == GroupId::SYSTEM;
        for leading in self.leading.values_mut() {
            // An agent may have a slot free, another shard less to do, the system another word.
            leading.placement.stale = true;
            leading.adopt_stale |= decided;
        }
        if self.leading.is_empty() {
            return;
        }
        for event in events {
            let EventKind::Task { task, state, agent, .. } = event else { continue };
            if *state == TaskState::Leased
                && let Some(agent) = agent
            {
                self.offers.granted(*agent, (group, index));
            }
            self.follow_lease(now, group, *task, *state);
        }
        if let Some(leading) = self.leading.get_mut(&group)
            && let Some(view) = self.view.group(group)
        {
            leading.see(now, view.time());
            leading.kv.follow(now, view);
        }
    }

    fn follow_lease(&mut self, now: Now, group: GroupId, task: TaskId, state: TaskState) {
        let Some(leading) = self.leading.get_mut(&group) else { return };
        let leases = (task, Token(0))..=(task, Token(u64::MAX));
        for clocks in [&mut leading.terms, &mut leading.starts, &mut leading.runs] {
            clocks.stop_range(leases.clone());
        }
        if state == TaskState::Leased {
            if let Some(lease) = self.view.lease(task) {
                leading.start_clocks(now, &lease, &self.view);
            }
            leading.assigned += 1;
        }
        leading.placement.observe(now, task, state);
    }

    pub(crate) fn renew_agents(&mut self, now: Now, agents: &[(AgentId, Incarnation)]) {
        for (group, leading) in &mut self.leading {
            let Some(view) = self.view.group(*group) else { continue };
            for (agent, incarnation) in agents {
                for lease in view.leases_of(*agent) {
                    if lease.incarnation == *incarnation {
                        leading.renew(now, &lease);
                    }
                }
            }
        }
    }

    pub(crate) fn stop_start_clocks(&mut self, leases: &[(TaskId, Token)]) {
        for (task, token) in leases {
            let group = self.config.layout.of_task(*task);
            if let Some(leading) = group.and_then(|group| self.leading.get_mut(&group)) {
                leading.started(*task, *token);
            }
        }
    }

    pub(crate) fn take_offer(
        &mut self,
        now: Now,
        agent: AgentId,
        incarnation: Incarnation,
        open: u32,
        as_of: &[(GroupId, Index)],
    ) {
        if self.leading.is_empty() {
            return;
        }
        self.offers.take(now.mono, agent, (incarnation, open), as_of);
        self.placements_stale();
    }

    /// What was looked at may have changed in every shard.
    pub(crate) fn placements_stale(&mut self) {
        for leading in self.leading.values_mut() {
            leading.placement.stale = true;
        }
    }

    pub(crate) fn settle_leading(&mut self, now: Now) {
        self.offers.expire(now.mono);
        for group in self.config.layout.groups() {
            let now = self.stamped(now, group);
            let Some(leading) = self.leading.get_mut(&group) else { continue };
            if leading.rest.is_some_and(|until| until > now.mono) {
                continue;
            }
            leading.rest = None;
            let role = self.config.layout.role(group);
            if role != Role::Shard {
                self.bury(now, group);
            }
            if role != Role::System {
                self.adopt(now, group);
                self.expire(now, group);
                self.sweep(now, group);
                self.place(now, group);
            }
        }
    }

    fn propose_as_leader(
        &mut self,
        now: Now,
        group: GroupId,
        command: impl Into<quorate_ledger::Command>,
        proposal: Proposal,
    ) {
        let ticket = self.propose(now, group, command);
        if let Some(leading) = self.leading.get_mut(&group) {
            leading.proposals.insert(ticket, proposal);
            self.proposing.insert(ticket, group);
        }
    }

    fn adopt(&mut self, now: Now, group: GroupId) {
        let Some(leading) = self.leading.get_mut(&group) else { return };
        if leading.adopting || !leading.adopt_stale {
            return;
        }
        let Some(shard) = self.view.group(group) else { return };
        // One at a time: the next look shows what is still to be adopted.
        if let Some(command) = Ledger::adoptions(self.view.system(), shard).into_iter().next() {
            leading.adopting = true;
            self.propose_as_leader(now, group, command, Proposal::Adopt);
        } else {
            leading.adopt_stale = false;
        }
    }

    /// Nodes that membership holds to be down and the ledger does not.
    fn bury(&mut self, now: Now, group: GroupId) {
        let dead: Vec<(NodeId, Incarnation)> = self
            .view
            .nodes()
            .filter(|node| node.down.is_none() && node.id != self.config.node)
            .filter(|node| self.is_down(node.id))
            .map(|node| (node.id, node.incarnation))
            .collect();
        let Some(leading) = self.leading.get_mut(&group) else { return };
        leading.burying.retain(|node, _again| dead.iter().any(|(id, _life)| id == node));
        for (node, incarnation) in dead {
            let Some(leading) = self.leading.get_mut(&group) else { return };
            if leading.burying.get(&node).is_some_and(|again| *again > now.mono) {
                continue;
            }
            leading.burying.insert(node, now.mono + PROPOSE_AGAIN);
            let reason = format!("node {node} is down");
            let command = SystemCommand::NodeDown(NodeDown { node, incarnation, reason });
            self.propose_as_leader(now, group, command, Proposal::NodeDown(node));
        }
    }

    fn expire(&mut self, now: Now, group: GroupId) {
        let Some(leading) = self.leading.get_mut(&group) else { return };
        // Looked at again if the verdict is not committed meanwhile.
        let again = now.mono + PROPOSE_AGAIN;
        let silent = leading.terms.run_out(now.mono, again, EXPIRED_BATCH);
        let idle = leading.starts.run_out(now.mono, again, EXPIRED_BATCH);
        let long = leading.runs.run_out(now.mono, again, EXPIRED_BATCH);
        self.take_back(now, group, silent, "no sign of life from its agent for the lease's term");
        self.take_back(now, group, idle, "its agent did not start it within its start timeout");
        self.take_back(now, group, long, "the attempt ran longer than its run timeout");
        self.expire_kv(now, group);
    }

    fn take_back(&mut self, now: Now, group: GroupId, leases: Vec<LeaseKey>, reason: &str) {
        if !leases.is_empty() {
            let command = ShardCommand::Expire { leases, reason: reason.to_owned() };
            self.propose_as_leader(now, group, command, Proposal::Expire);
        }
    }

    fn expire_kv(&mut self, now: Now, group: GroupId) {
        let Some(leading) = self.leading.get_mut(&group) else { return };
        let Some(view) = self.view.group(group) else { return };
        let silent = leading.kv.run_out(now, view);
        if !silent.is_empty() {
            let command = ShardCommand::KvExpire(silent.clone());
            self.propose_as_leader(now, group, command, Proposal::KvExpire(silent));
        }
    }

    fn sweep(&mut self, now: Now, group: GroupId) {
        let due = self.view.group(group).and_then(|view| view.next_due());
        let due = due.is_some_and(|time| time <= now.wall);
        let Some(leading) = self.leading.get_mut(&group) else { return };
        if due && !leading.sweeping {
            leading.sweeping = true;
            self.propose_as_leader(now, group, ShardCommand::Sweep, Proposal::Sweep);
        }
    }

    fn place(&mut self, now: Now, group: GroupId) {
        for placed in self.place_ready(now, group) {
            let command = ShardCommand::Assign(placed.assignments.clone());
            self.propose_as_leader(now, group, command, Proposal::Assign(placed));
        }
    }

    pub(crate) fn leader_proposed(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: Result<(Index, Outcome), LogSetback>,
    ) {
        let Some(group) = self.proposing.remove(&ticket) else { return };
        let Some(leading) = self.leading.get_mut(&group) else { return };
        let Some(proposal) = leading.proposals.remove(&ticket) else { return };
        if let Err(setback) = &result {
            tracing::debug!(?proposal, ?setback, "a leader's proposal came to nothing");
            leading.rest = Some(now.mono + REST);
        }
        match proposal {
            Proposal::Adopt => leading.adopting = false,
            Proposal::Sweep => leading.sweeping = false,
            Proposal::NodeDown(node) => {
                leading.burying.insert(node, now.mono + PROPOSE_AGAIN);
            }
            Proposal::Expire => {}
            Proposal::KvExpire(leases) if result.is_ok() => leading.kv.judged(&leases),
            // This verdict, or one before it, may be committed yet: a sign of life that is
            // acknowledged now would be worth nothing. It is proposed again, until one is applied.
            Proposal::KvExpire(_) => {}
            Proposal::Assign(placed) => {
                let tokens = match result {
                    Ok((_index, Outcome::Assigned(tokens))) => tokens,
                    Ok(_) | Err(_) => Vec::new(),
                };
                leading.placement.placed(now, placed, &tokens);
            }
        }
    }
}
