//! What only a leader does, and forgets when it leads no more: it keeps the clock
//! of every lease, proposes the verdicts that heartbeats and membership call for,
//! and takes what the system machine decided into the shard.
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

use quorate_ledger::{Ledger, NodeDown, Outcome, ShardCommand, SystemCommand};
use quorate_types::clocks::Clocks;
use quorate_types::kv::LeaseId;
use quorate_types::view::LeaseView;
use quorate_types::{
    AgentId, EventKind, Incarnation, Index, NodeId, TaskId, TaskState, Time, Token,
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

/// A leader's memory.
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
    sweeping: bool,
    burying: BTreeMap<NodeId, Time>,
    /// Until then nothing is proposed.
    rest: Option<Time>,
    pub(crate) offers: Offers,
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
    fn start_clocks(&mut self, now: Now, lease: &LeaseView, view: &Ledger) {
        self.renew(now, lease);
        let Some(timeouts) = view.timeouts(lease.task) else { return };
        let after = |ms: u64| now.mono + Duration::from_millis(ms);
        if let Some(ms) = timeouts.start_ms {
            self.starts.set((lease.task, lease.token), after(ms));
        }
        let outside = view.agent(lease.agent).is_some_and(|agent| !agent.spec.hosted);
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
    pub(crate) fn begin_leading(&mut self, now: Now) {
        tracing::info!(node = %self.config.node, term = %self.leadership.term, "leading");
        let mut leading = Leading::default();
        leading.see(now, self.view.time());
        // What can be given away is looked at once, even if no entry follows.
        leading.placement.stale = true;
        for lease in self.view.leases() {
            leading.start_clocks(now, &lease, &self.view);
        }
        leading.kv.follow(now, &self.view);
        self.leading = Some(leading);
    }

    /// The time that a leader stamps into entries and compares ledger times with.
    pub(crate) fn stamped(&self, now: Now) -> Now {
        let expected = self.leading.as_ref().map_or(now.wall, |leading| leading.expected(now));
        Now { wall: now.wall.max(expected), ..now }
    }

    pub(crate) fn end_leading(&mut self) {
        tracing::info!(node = %self.config.node, term = %self.leadership.term, "leading no more");
        self.leading = None;
        self.forget_swaps();
    }

    /// Follows leases as entries give and end them.
    pub(crate) fn observe_as_leader(&mut self, now: Now, index: Index, events: &[EventKind]) {
        let Some(leading) = &mut self.leading else { return };
        leading.see(now, self.view.time());
        leading.kv.follow(now, &self.view);
        leading.placement.stale = true;
        for event in events {
            let EventKind::Task { task, state, agent, .. } = event else { continue };
            let leases = (*task, Token(0))..=(*task, Token(u64::MAX));
            for clocks in [&mut leading.terms, &mut leading.starts, &mut leading.runs] {
                clocks.stop_range(leases.clone());
            }
            if *state == TaskState::Leased {
                if let Some(lease) = self.view.lease(*task) {
                    leading.start_clocks(now, &lease, &self.view);
                }
                leading.assigned += 1;
                if let Some(agent) = agent {
                    leading.offers.granted(*agent, index);
                }
            }
            leading.placement.observe(now, *task, *state);
        }
    }

    pub(crate) fn renew_agents(&mut self, now: Now, agents: &[(AgentId, Incarnation)]) {
        let Some(leading) = &mut self.leading else { return };
        for (agent, incarnation) in agents {
            for lease in self.view.leases_of(*agent) {
                if lease.incarnation == *incarnation {
                    leading.renew(now, &lease);
                }
            }
        }
    }

    pub(crate) fn stop_start_clocks(&mut self, leases: &[(TaskId, Token)]) {
        let Some(leading) = &mut self.leading else { return };
        for (task, token) in leases {
            leading.started(*task, *token);
        }
    }

    pub(crate) fn take_offer(
        &mut self,
        now: Now,
        _from: NodeId,
        agent: AgentId,
        incarnation: Incarnation,
        open: u32,
        as_of: Index,
    ) {
        let Some(leading) = &mut self.leading else { return };
        leading.offers.take(now.mono, agent, (incarnation, open), as_of);
        leading.placement.stale = true;
    }

    pub(crate) fn settle_leading(&mut self, now: Now) {
        let now = self.stamped(now);
        let Some(leading) = &mut self.leading else { return };
        if leading.rest.is_some_and(|until| until > now.mono) {
            return;
        }
        leading.rest = None;
        self.adopt(now);
        self.bury(now);
        self.expire(now);
        self.sweep(now);
        self.place(now);
    }

    fn propose_as_leader(
        &mut self,
        now: Now,
        command: impl Into<quorate_ledger::Command>,
        proposal: Proposal,
    ) {
        let ticket = self.propose(now, command);
        if let Some(leading) = &mut self.leading {
            leading.proposals.insert(ticket, proposal);
        }
    }

    fn adopt(&mut self, now: Now) {
        if self.leading.as_ref().is_none_or(|leading| leading.adopting) {
            return;
        }
        // One at a time: the next look at the view shows what is still to be adopted.
        if let Some(command) = self.view.pending_adoptions().into_iter().next() {
            if let Some(leading) = &mut self.leading {
                leading.adopting = true;
            }
            self.propose_as_leader(now, command, Proposal::Adopt);
        }
    }

    /// Nodes that membership holds to be down and the ledger does not.
    fn bury(&mut self, now: Now) {
        let dead: Vec<(NodeId, Incarnation)> = self
            .view
            .nodes()
            .filter(|node| node.down.is_none() && node.id != self.config.node)
            .filter(|node| self.is_down(node.id))
            .map(|node| (node.id, node.incarnation))
            .collect();
        let Some(leading) = &mut self.leading else { return };
        leading.burying.retain(|node, _again| dead.iter().any(|(id, _life)| id == node));
        for (node, incarnation) in dead {
            let Some(leading) = &mut self.leading else { return };
            if leading.burying.get(&node).is_some_and(|again| *again > now.mono) {
                continue;
            }
            leading.burying.insert(node, now.mono + PROPOSE_AGAIN);
            let reason = format!("node {node} is down");
            let command = SystemCommand::NodeDown(NodeDown { node, incarnation, reason });
            self.propose_as_leader(now, command, Proposal::NodeDown(node));
        }
    }

    fn expire(&mut self, now: Now) {
        let Some(leading) = &mut self.leading else { return };
        leading.offers.expire(now.mono);
        // Looked at again if the verdict is not committed meanwhile.
        let again = now.mono + PROPOSE_AGAIN;
        let silent = leading.terms.run_out(now.mono, again, EXPIRED_BATCH);
        let idle = leading.starts.run_out(now.mono, again, EXPIRED_BATCH);
        let long = leading.runs.run_out(now.mono, again, EXPIRED_BATCH);
        self.take_back(now, silent, "no sign of life from its agent for the lease's term");
        self.take_back(now, idle, "its agent did not start it within its start timeout");
        self.take_back(now, long, "the attempt ran longer than its run timeout");
        self.expire_kv(now);
    }

    fn take_back(&mut self, now: Now, leases: Vec<(TaskId, Token)>, reason: &str) {
        if !leases.is_empty() {
            let command = ShardCommand::Expire { leases, reason: reason.to_owned() };
            self.propose_as_leader(now, command, Proposal::Expire);
        }
    }

    fn expire_kv(&mut self, now: Now) {
        let Some(leading) = &mut self.leading else { return };
        let silent = leading.kv.run_out(now, &self.view);
        if !silent.is_empty() {
            let command = ShardCommand::KvExpire(silent.clone());
            self.propose_as_leader(now, command, Proposal::KvExpire(silent));
        }
    }

    fn sweep(&mut self, now: Now) {
        let due = self.view.next_due().is_some_and(|time| time <= now.wall);
        let Some(leading) = &mut self.leading else { return };
        if due && !leading.sweeping {
            leading.sweeping = true;
            self.propose_as_leader(now, ShardCommand::Sweep, Proposal::Sweep);
        }
    }

    fn place(&mut self, now: Now) {
        for placed in self.place_ready(now) {
            let command = ShardCommand::Assign(placed.assignments.clone());
            self.propose_as_leader(now, command, Proposal::Assign(placed));
        }
    }

    pub(crate) fn leader_proposed(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: Result<(Index, Outcome), LogSetback>,
    ) {
        let Some(leading) = &mut self.leading else { return };
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
            Proposal::KvExpire(leases) => leading.kv.judged(&leases),
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
