//! What only a leader does, and forgets when it leads no more: it keeps the clock
//! of every lease, proposes the verdicts that heartbeats and membership call for,
//! and takes what the system machine decided into the shard.
//!
//! A lease's clock is in the leader's memory: heartbeats never enter the log, only
//! the verdict that one is overdue does. A new leader gives every live lease one
//! full term. A clock jump changes nothing, since the clocks here are monotonic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_ledger::{NodeDown, Outcome, ShardCommand, SystemCommand};
use quorate_types::view::LeaseView;
use quorate_types::{
    AgentId, EventKind, Incarnation, Index, NodeId, TaskId, TaskState, Time, Token,
};

use crate::io::{LogSetback, Now, Ticket};
use crate::kernel::Kernel;
use crate::placement::{Placed, Placement};

/// A verdict that was not committed is proposed again after this span.
const PROPOSE_AGAIN: Duration = Duration::from_millis(500);
/// After the log refused a proposal the leader rests: a log that is being opened again refuses at
/// once, and proposing at once again would go round for as long as that takes.
const REST: Duration = Duration::from_millis(20);
/// Leases ended by one entry; keeps the entry far below `COMMAND_BYTES_MAX`.
const EXPIRED_BATCH: usize = 1024;
/// An offer that is not repeated within this span is over.
const OFFER_FOR: Duration = Duration::from_millis(1500);

/// What a ticket of the leader's own was for.
#[derive(Debug)]
enum Proposal {
    Assign(Placed),
    Adopt,
    NodeDown(NodeId),
    Expire(Vec<(TaskId, Token)>),
    Sweep,
}

/// Free slots that an outside agent waits with.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) incarnation: Incarnation,
    pub(crate) open: u32,
    until: Time,
    /// Leases committed after the offer was made, by index.
    granted: Vec<Index>,
}

impl Offer {
    /// Leases that may still be given for this offer.
    pub(crate) fn left(&self) -> u32 {
        self.open.saturating_sub(u32::try_from(self.granted.len()).unwrap_or(u32::MAX))
    }
}

/// A leader's memory.
#[derive(Debug, Default)]
pub(crate) struct Leading {
    clocks: BTreeMap<(TaskId, Token), Time>,
    by_time: BTreeSet<(Time, TaskId, Token)>,
    proposals: BTreeMap<Ticket, Proposal>,
    adopting: bool,
    sweeping: bool,
    burying: BTreeMap<NodeId, Time>,
    /// Until then nothing is proposed.
    rest: Option<Time>,
    pub(crate) offers: BTreeMap<AgentId, Offer>,
    pub(crate) placement: Placement,
    /// Leases given since this node began to lead.
    pub(crate) assigned: u64,
}

impl Leading {
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        if self.rest.is_some() {
            return self.rest;
        }
        let lease = self.by_time.first().map(|(time, _task, _token)| *time);
        let burial = self.burying.values().min().copied();
        let ready = self.placement.poll_timeout();
        [lease, burial, ready].into_iter().flatten().min()
    }

    pub(crate) fn renew(&mut self, now: Now, lease: &LeaseView) {
        let key = (lease.task, lease.token);
        let until = now.mono + Duration::from_millis(lease.term_ms);
        if let Some(before) = self.clocks.insert(key, until) {
            self.by_time.remove(&(before, lease.task, lease.token));
        }
        self.by_time.insert((until, lease.task, lease.token));
    }

    fn stop_clocks(&mut self, task: TaskId) {
        let from = (task, Token(0));
        let ended: Vec<_> = self
            .clocks
            .range(from..=(task, Token(u64::MAX)))
            .map(|(key, until)| (*key, *until))
            .collect();
        for ((task, token), until) in ended {
            self.clocks.remove(&(task, token));
            self.by_time.remove(&(until, task, token));
        }
    }
}

impl Kernel {
    pub(crate) fn begin_leading(&mut self, now: Now) {
        tracing::info!(node = %self.config.node, term = %self.leadership.term, "leading");
        let mut leading = Leading::default();
        for lease in self.view.leases() {
            leading.renew(now, &lease);
        }
        self.leading = Some(leading);
        self.registry_stale = true;
    }

    pub(crate) fn end_leading(&mut self) {
        tracing::info!(node = %self.config.node, term = %self.leadership.term, "leading no more");
        self.leading = None;
        self.forget_swaps();
    }

    /// Follows leases as entries give and end them.
    pub(crate) fn observe_as_leader(&mut self, now: Now, index: Index, events: &[EventKind]) {
        let Some(leading) = &mut self.leading else { return };
        for event in events {
            let EventKind::Task { task, state, agent, .. } = event else { continue };
            leading.stop_clocks(*task);
            if *state == TaskState::Leased {
                if let Some(lease) = self.view.lease(*task) {
                    leading.renew(now, &lease);
                }
                leading.assigned += 1;
                if let Some(offer) = agent.and_then(|agent| leading.offers.get_mut(&agent)) {
                    offer.granted.push(index);
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
        let mut granted =
            leading.offers.remove(&agent).map_or_else(Vec::new, |offer| offer.granted);
        if open == 0 {
            return;
        }
        granted.retain(|index| *index > as_of);
        let until = now.mono + OFFER_FOR;
        leading.offers.insert(agent, Offer { incarnation, open, until, granted });
    }

    pub(crate) fn settle_leading(&mut self, now: Now) {
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
        leading.offers.retain(|_agent, offer| offer.until > now.mono);
        let mut overdue = Vec::new();
        while let Some((time, task, token)) = leading.by_time.first().copied() {
            if time > now.mono || overdue.len() >= EXPIRED_BATCH {
                break;
            }
            // Looked at again if the verdict is not committed meanwhile.
            let again = now.mono + PROPOSE_AGAIN;
            leading.by_time.remove(&(time, task, token));
            leading.by_time.insert((again, task, token));
            leading.clocks.insert((task, token), again);
            overdue.push((task, token));
        }
        if !overdue.is_empty() {
            let reason = "no sign of life from its agent for the lease's term".to_owned();
            let command = ShardCommand::Expire { leases: overdue.clone(), reason };
            self.propose_as_leader(now, command, Proposal::Expire(overdue));
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
            Proposal::Expire(_leases) => {}
            Proposal::Assign(placed) => {
                let tokens = match result {
                    Ok((_index, Outcome::Assigned(tokens))) => tokens,
                    Ok(_) | Err(_) => Vec::new(),
                };
                leading.placement.placed(now, placed, &tokens);
            }
        }
        self.registry_stale = true;
    }
}
