//! Requests under way. Whoever must answer is found here: this node, another by
//! name, or whoever leads; when the leader changes or is lost, the request goes to
//! the next one, which is safe because every request is idempotent.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_ledger::Outcome;
use quorate_types::clocks::Clocks;
use quorate_types::limits::COMMAND_BYTES_MAX;
use quorate_types::{GroupId, Index, Lane, NodeId, Refusal, Request, Time};

use crate::frame::{self, Control, Done, Errand, Setback};
use crate::io::{AskId, Effect, LogSetback, Now, Ticket, WorkId};
use crate::kernel::Kernel;
pub(crate) use crate::target::Target;

/// Requests under way at a node. A batch of 1,024 submissions of 64 KiB each would be the worst;
/// the doors bound bodies, this bounds their number. What the node asks for itself is not refused:
/// it is one ask for its life, each agent, each piece of work in hand and each member of a swap or
/// a gathering, all of which are bounded where they begin.
pub(crate) const ASKS_MAX: usize = 16_384;
/// A request that waits for a leader, or whose frame may be lost, is tried again after this span.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// Where a leader is known that does not take it: it has just been elected, or has just gone, which
/// is over in a round trip or two.
const RETRY_LEADER_AFTER: Duration = Duration::from_millis(3);
const RESEND_AFTER: Duration = Duration::from_millis(1000);
/// Longest that a peer's request is kept, whatever deadline it names.
const WITHIN_MAX: Duration = Duration::from_secs(120);

/// What this node itself asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// A number for its life.
    NodeUp,
    /// A record of a local agent, by its place in the configuration.
    Register(usize),
    /// That the end of a piece of work be recorded.
    Finish(WorkId),
    /// A peer's word on a component, for the swap of this ask.
    Prepare(u64),
    /// A peer's status, for the gathering of this ask.
    Status(u64),
    /// Which of its blobs may go.
    Collect,
    /// How far this group's log must be applied, for reads.
    Barrier(GroupId),
    /// A member's word that it may be removed, for the removal of this ask.
    Leave(u64),
    /// That the voters of the ask be reserved, before they change.
    Reserve(u64),
    /// That they alone stay reserved, after they have.
    Settle(u64),
    /// The feature level of a cluster that has just begun.
    Raise,
    /// A group's share of the request of this ask.
    Share(u64, usize),
}

/// Who waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Door(AskId),
    Peer(NodeId, u64),
    Own(Own),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for a leader, or to be tried again at this time.
    Parked(Time),
    /// Sent to this node at this time.
    Sent(NodeId, Time),
    /// This node has it: in the log, at a barrier, or with a part of the kernel.
    Here,
}

#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) origin: Origin,
    pub(crate) target: Target,
    pub(crate) errand: Errand,
    pub(crate) deadline: Time,
    pub(crate) stage: Stage,
    /// An earlier try was not answered, so that nobody knows whether it was done.
    pub(crate) is_open: bool,
}

impl Ask {
    /// When time moves it on: to another try, or to its end.
    fn due(&self) -> Time {
        match self.stage {
            Stage::Parked(until) => self.deadline.min(until),
            Stage::Sent(_to, at) => self.deadline.min(at + RESEND_AFTER),
            Stage::Here => self.deadline,
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    pub(crate) table: BTreeMap<u64, Ask>,
    tickets: BTreeMap<Ticket, u64>,
    /// Every ask by when time moves it on.
    due: Clocks<u64>,
    doors: BTreeMap<AskId, u64>,
    next: u64,
}

impl Asks {
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.due.first()
    }

    pub(crate) fn bind(&mut self, ticket: Ticket, id: u64) {
        self.tickets.insert(ticket, id);
    }

    pub(crate) fn unbind(&mut self, ticket: Ticket) -> Option<u64> {
        self.tickets.remove(&ticket)
    }

    /// Until an ask's deadline.
    pub(crate) fn left(&self, now: Now, id: u64) -> Option<Duration> {
        Some(self.table.get(&id)?.deadline.since(now.mono))
    }

    fn insert(&mut self, ask: Ask) -> u64 {
        self.next += 1;
        let id = self.next;
        self.due.set(id, ask.due());
        if let Origin::Door(door) = ask.origin {
            self.doors.insert(door, id);
        }
        self.table.insert(id, ask);
        id
    }

    fn remove(&mut self, id: u64) -> Option<Ask> {
        let ask = self.table.remove(&id)?;
        self.due.stop(id);
        if let Origin::Door(door) = ask.origin {
            self.doors.remove(&door);
        }
        Some(ask)
    }

    fn set_stage(&mut self, id: u64, stage: Stage) {
        if let Some(ask) = self.table.get_mut(&id) {
            ask.is_open |= matches!(ask.stage, Stage::Sent(..));
            ask.stage = stage;
            self.due.set(id, ask.due());
        }
    }
}

impl Kernel {
    pub(crate) fn ask_from_door(
        &mut self,
        now: Now,
        door: AskId,
        request: Request,
        within: Duration,
    ) {
        let request = self.complete_request(request);
        let origin = Origin::Door(door);
        match self.target_of(&request) {
            Ok(target) => self.begin(now, origin, target, Errand::Door(Box::new(request)), within),
            Err(refusal) => self.effects.push_back(Effect::Answer(door, Err(refusal))),
        }
    }

    pub(crate) fn ask_from_peer(
        &mut self,
        now: Now,
        from: NodeId,
        (id, group): (u64, Option<GroupId>),
        errand: Errand,
        within_ms: u64,
    ) {
        let within = Duration::from_millis(within_ms);
        let target = group.map_or(Target::Node(self.config.node), Target::Leader);
        self.begin(now, Origin::Peer(from, id), target, errand, within);
    }

    pub(crate) fn forget_door(&mut self, door: AskId) {
        if let Some(id) = self.asks.doors.get(&door).copied() {
            self.asks.remove(id);
            self.forget_parts(id);
        }
    }

    /// Takes an errand on. It ends with exactly one `finish`.
    pub(crate) fn begin(
        &mut self,
        now: Now,
        origin: Origin,
        target: Target,
        errand: Errand,
        within: Duration,
    ) {
        let deadline = now.mono + within.min(WITHIN_MAX);
        let stage = Stage::Parked(now.mono);
        let ask = Ask { origin, target, errand, deadline, stage, is_open: false };
        let full = match origin {
            Origin::Door(_) | Origin::Peer(..) => self.asks.table.len() >= ASKS_MAX,
            Origin::Own(_) => false,
        };
        let id = self.asks.insert(ask);
        if full {
            let busy =
                Refusal::Busy { what: "the node's table of requests".into(), retry_after_ms: 100 };
            self.finish(now, id, Err(Setback::Refused(busy)));
        } else {
            self.advance(now, id);
        }
    }

    /// Moves a parked or sent ask on.
    fn advance(&mut self, now: Now, id: u64) {
        let Some(ask) = self.asks.table.get(&id) else { return };
        let to = match ask.target {
            Target::Node(node) => Some(node),
            Target::Leader(group) => self.leader(group),
        };
        match (to, ask.origin) {
            (Some(node), _origin) if node == self.config.node => {
                self.asks.set_stage(id, Stage::Here);
                self.carry_out(now, id);
            }
            (hint, Origin::Peer(..)) => self.finish(now, id, Err(Setback::NotLeader(hint))),
            (Some(node), Origin::Door(_) | Origin::Own(_)) if self.up.contains(&node) => {
                let left = ask.deadline.since(now.mono);
                let within_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                let group = match ask.target {
                    Target::Leader(group) => Some(group),
                    Target::Node(_) => None,
                };
                let frame = Control::Ask { id, group, errand: ask.errand.clone(), within_ms };
                self.asks.set_stage(id, Stage::Sent(node, now.mono));
                self.send_control(node, &frame);
            }
            (Some(node), Origin::Door(_) | Origin::Own(_)) if ask.target == Target::Node(node) => {
                let why = format!("node {node} is not connected");
                self.finish(now, id, Err(Setback::Refused(Refusal::Unavailable(why))));
            }
            (_unreachable, Origin::Door(_) | Origin::Own(_)) => self.park(now, id),
        }
    }

    pub(crate) fn park(&mut self, now: Now, id: u64) {
        let target = self.asks.table.get(&id).map(|ask| ask.target);
        let led = matches!(target, Some(Target::Leader(group)) if self.leader(group).is_some());
        let after = if led { RETRY_LEADER_AFTER } else { RETRY_AFTER };
        self.asks.set_stage(id, Stage::Parked(now.mono + after));
    }

    pub(crate) fn answer_from_peer(
        &mut self,
        now: Now,
        from: NodeId,
        id: u64,
        result: Result<Done, Setback>,
    ) {
        let sent_there = |ask: &Ask| matches!(ask.stage, Stage::Sent(to, _) if to == from);
        if !self.asks.table.get(&id).is_some_and(sent_there) {
            return;
        }
        match result {
            Err(Setback::NotLeader(_hint)) => self.park(now, id),
            Ok(done) => self.finish(now, id, Ok(done)),
            Err(refused) => self.finish(now, id, Err(refused)),
        }
    }

    /// Sends again what was under way when the leader changed.
    pub(crate) fn redirect_asks(&mut self, now: Now) {
        let moved: Vec<u64> = self
            .asks
            .table
            .iter()
            .filter(|(_id, ask)| match (ask.target, ask.stage) {
                (Target::Leader(group), Stage::Sent(to, _at)) => Some(to) != self.leader(group),
                (Target::Leader(_), Stage::Parked(_until)) => true,
                (Target::Node(_), _) | (Target::Leader(_), Stage::Here) => false,
            })
            .map(|(id, _ask)| *id)
            .collect();
        for id in moved {
            self.advance(now, id);
        }
    }

    /// What was sent to a lost node is tried again elsewhere, or ends.
    pub(crate) fn asks_lost_node(&mut self, now: Now, node: NodeId) {
        let there = |ask: &Ask| matches!(ask.stage, Stage::Sent(to, _) if to == node);
        let lost: Vec<u64> =
            self.asks.table.iter().filter(|(_id, ask)| there(ask)).map(|(id, _ask)| *id).collect();
        for id in lost {
            match self.asks.table.get(&id).map(|ask| ask.target) {
                Some(Target::Node(_)) => {
                    let why = format!("node {node} was lost");
                    self.finish(now, id, Err(Setback::Refused(Refusal::Unavailable(why))));
                }
                Some(Target::Leader(_)) | None => self.park(now, id),
            }
        }
        // A lost peer waits for nothing any more.
        let theirs = |ask: &Ask| matches!(ask.origin, Origin::Peer(peer, _) if peer == node);
        let gone = self.asks.table.extract_if(.., |_id, ask| theirs(ask));
        let gone: Vec<u64> = gone.map(|(id, _ask)| id).collect();
        for id in gone {
            self.asks.due.stop(id);
            self.forget_parts(id);
        }
    }

    pub(crate) fn settle_asks(&mut self, now: Now) {
        // Each of these is over, or due later, once it was dealt with.
        while let Some(id) = self.asks.due.take(now.mono) {
            let Some(ask) = self.asks.table.get(&id) else {
                unreachable!("ask {id} is due and not in the table")
            };
            if ask.deadline > now.mono {
                self.advance(now, id);
                continue;
            }
            let refusal = match ask.stage {
                Stage::Parked(_) => Refusal::Unavailable("none is known here".to_owned()),
                Stage::Sent(to, _) => Refusal::Timeout(format!("node {to} did not answer")),
                Stage::Here if self.waits_for_leader(id) => {
                    Refusal::Unavailable("none is known here".to_owned())
                }
                Stage::Here => Refusal::Timeout("the log did not commit it in time".to_owned()),
            };
            self.finish(now, id, Err(Setback::Refused(refusal)));
        }
    }

    /// Ends an ask: whoever waits is told.
    pub(crate) fn finish(&mut self, now: Now, id: u64, result: Result<Done, Setback>) {
        if self.is_no_word(id, &result) {
            self.asks.set_stage(id, Stage::Parked(now.mono + RETRY_AFTER));
            return;
        }
        let Some(ask) = self.asks.remove(id) else { return };
        self.forget_parts(id);
        match ask.origin {
            Origin::Door(door) => {
                self.effects.push_back(Effect::Answer(door, for_door(result)));
            }
            Origin::Peer(peer, id) => {
                let frame = frame::encode_answer(id, result);
                self.effects.push_back(Effect::Send(peer, Lane::Control, frame));
            }
            Origin::Own(own) => self.own_finished(now, own, &ask, result),
        }
    }

    /// A refusal as busy says that nothing was done. Of what may have been done by an earlier try
    /// that would be false; so it is tried again, until it is answered or its deadline says that
    /// nobody knows.
    fn is_no_word(&self, id: u64, result: &Result<Done, Setback>) -> bool {
        if !matches!(result, Err(Setback::Refused(Refusal::Busy { .. }))) {
            return false;
        }
        let Some(ask) = self.asks.table.get(&id) else { return false };
        ask.is_open && matches!(ask.origin, Origin::Door(_) | Origin::Own(Own::Share(..)))
    }

    /// A proposal ended: one of an ask, or one of the leader's own.
    pub(crate) fn proposed(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: Result<(Index, Outcome), LogSetback>,
    ) {
        if let Some(asks) = self.kv.answered_by(ticket) {
            return self.kv_proposed(now, asks, result);
        }
        if self.members_proposed(now, ticket, &result) {
            return;
        }
        let Some(id) = self.asks.tickets.remove(&ticket) else {
            self.leader_proposed(now, ticket, result);
            return;
        };
        match result {
            Ok((_index, outcome)) => self.outcome(now, id, outcome),
            Err(setback) => self.log_setback(now, id, setback),
        }
    }

    /// A barrier ended.
    pub(crate) fn barrier_passed(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: Result<Index, LogSetback>,
    ) {
        let Some(id) = self.asks.tickets.remove(&ticket) else { return };
        match result {
            Ok(index) => self.finish(now, id, Ok(Done::Barrier(index))),
            Err(setback) => self.log_setback(now, id, setback),
        }
    }

    /// What other parts of the kernel keep of an ask that is over.
    fn forget_parts(&mut self, id: u64) {
        self.forget_poll(id);
        self.reads.forget(id);
        self.partings.forget(id);
    }

    pub(crate) fn log_setback(&mut self, now: Now, id: u64, setback: LogSetback) {
        let Some(ask) = self.asks.table.get(&id) else { return };
        match (setback, ask.origin) {
            (LogSetback::Busy, _origin) => {
                let busy = Refusal::Busy { what: "the log".to_owned(), retry_after_ms: 20 };
                self.finish(now, id, Err(Setback::Refused(busy)));
            }
            (LogSetback::DiskFull, _origin) => {
                let what = "the leader's disk".to_owned();
                let full = Refusal::Busy { what, retry_after_ms: 1_000 };
                self.finish(now, id, Err(Setback::Refused(full)));
            }
            (LogSetback::TooLarge, _origin) => {
                let limit = u64::try_from(COMMAND_BYTES_MAX).unwrap_or(u64::MAX);
                let what = "the request as it would lie in the log".to_owned();
                let refusal = Refusal::TooLarge { what, got: limit + 1, limit };
                self.finish(now, id, Err(Setback::Refused(refusal)));
            }
            // The node that has the asker tries again; it knows the asker's deadline.
            (LogSetback::NotLeader | LogSetback::Unknown, Origin::Peer(..)) => {
                self.finish(now, id, Err(Setback::NotLeader(None)));
            }
            (LogSetback::NotLeader, Origin::Door(_) | Origin::Own(_)) => self.park(now, id),
            (LogSetback::Unknown, Origin::Door(_) | Origin::Own(_)) => {
                if let Some(ask) = self.asks.table.get_mut(&id) {
                    ask.is_open = true;
                }
                self.park(now, id);
            }
        }
    }

    pub(crate) fn propose_for(
        &mut self,
        now: Now,
        (id, group): (u64, GroupId),
        command: impl Into<quorate_ledger::Command>,
    ) {
        let ticket = self.propose(now, group, command);
        self.asks.bind(ticket, id);
    }

    pub(crate) fn barrier_for(&mut self, id: u64, group: GroupId) {
        let ticket = self.ticket();
        self.asks.bind(ticket, id);
        self.effects.push_back(Effect::Barrier(ticket, group));
    }
}

/// What a peer answered is not of the kind that was asked for. It is taken for no answer.
pub(crate) fn misfit(answer: &impl std::fmt::Debug) -> Refusal {
    tracing::warn!(?answer, "a peer answered with something else than it was asked for");
    Refusal::Unavailable("what answered is of another kind".to_owned())
}

fn for_door(result: Result<Done, Setback>) -> Result<quorate_types::Reply, Refusal> {
    match result {
        Ok(Done::Door(reply)) => Ok(*reply),
        // No door asks for what nodes do: the peer is at fault, and it is safe to ask again.
        Ok(other @ (Done::NodeUp(_) | Done::Barrier(_) | Done::Unused(_))) => Err(misfit(&other)),
        Err(Setback::Refused(refusal)) => Err(refusal),
        Err(Setback::NotLeader(_)) => Err(Refusal::Unavailable("the leader changed".to_owned())),
    }
}
