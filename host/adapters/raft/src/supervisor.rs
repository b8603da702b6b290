//! Watches over a group's openraft: tells who leads, restarts an instance that
//! leads without being heard, and says when the group has failed.
//!
//! A leader that speaks but hears nobody keeps its followers from electing (its
//! heartbeats renew their leases) while nothing commits; seen to last for ever.
//! So a leader whose last quorum is too long ago ends its own instance and
//! begins another over the same log, as a follower.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::{ChangeMembers, ServerState};
use openraft_rt::{AsyncRuntime, Instant, Select3, WatchReceiver, WatchSender};
use quorate_types::{Disk, GroupId, NodeId, Term};

use crate::compaction;
use crate::hand_off::best_successor;
use crate::instance::{Instance, Opener, Slot};
use crate::members::{Standing, Turn};
use crate::observer::Observer;
use crate::types::{OneshotRx, leader_of};

/// The watchdog looks this many times within its limit.
const LOOKS: u32 = 4;

type WatchTx<RT, T> = <<RT as AsyncRuntime>::Watch as openraft_rt::Watch>::Sender<T>;

/// What the group's handle and its supervisor tell each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    /// A change of the group's members is under way on this node.
    pub(crate) changing: Arc<AtomicBool>,
    /// The present instance leads and is of no use; begin another.
    pub(crate) restart: Arc<AtomicBool>,
}

/// Why a watch over one instance ended.
enum End {
    /// Asked to, or nobody holds the group any more.
    Stopped,
    /// openraft stopped by itself.
    Failed(String),
    /// It leads, and no quorum has answered for too long.
    Unheard(Duration),
    /// It has begun to hand over and nobody took it.
    Stuck,
}

/// The task that watches.
pub(crate) struct Supervisor<RT: AsyncRuntime, D: Disk> {
    group: GroupId,
    opener: Opener<RT, D>,
    slot: Arc<Slot<RT, D>>,
    observer: Arc<dyn Observer>,
    /// Last told: who leads, in which term.
    told: (Option<NodeId>, Term),
    told_members: Standing,
    flags: Flags,
    /// When leadership was last given away because of the disk.
    gave_way: Option<RT::Instant>,
    /// The term that this node leads, and since when: before its first quorum a leader is given
    /// as long as after any other.
    leads_since: Option<(u64, RT::Instant)>,
}

impl<RT: AsyncRuntime, D: Disk> Supervisor<RT, D> {
    pub(crate) fn new(
        group: GroupId,
        opener: Opener<RT, D>,
        slot: Arc<Slot<RT, D>>,
        observer: Arc<dyn Observer>,
        flags: Flags,
    ) -> Self {
        let (told, told_members) = ((None, Term(0)), Standing::default());
        let (gave_way, leads_since) = (None, None);
        Self { group, opener, slot, observer, told, told_members, flags, gave_way, leads_since }
    }

    /// Until the group is stopped or fails; `ended` tells when all of it is over.
    pub(crate) async fn run(mut self, mut stop: OneshotRx<RT, ()>, ended: WatchTx<RT, bool>) {
        while let Some(instance) = self.slot.current() {
            match self.watch(&instance, &mut stop).await {
                End::Stopped => {
                    self.slot.end();
                    self.finish(&instance).await;
                }
                End::Failed(reason) => {
                    self.slot.end();
                    self.finish(&instance).await;
                    self.fail(reason);
                }
                End::Unheard(age) => {
                    tracing::warn!(group = %self.group, ?age, "leads unheard; restarts");
                    self.restart(&instance).await;
                }
                End::Stuck => {
                    tracing::warn!(group = %self.group, "nobody took over; restarts");
                    self.restart(&instance).await;
                }
            }
        }
        if ended.send(true).is_err() {
            tracing::trace!(group = %self.group, "nobody waited for the end");
        }
    }

    async fn restart(&mut self, instance: &Instance<RT, D>) {
        self.slot.pause();
        self.finish(instance).await;
        match self.opener.reopen().await {
            Ok(next) => self.slot.run(next),
            Err(error) => {
                self.slot.end();
                self.fail(error.to_string());
            }
        }
    }

    async fn watch(&mut self, instance: &Instance<RT, D>, stop: &mut OneshotRx<RT, ()>) -> End {
        let mut server = instance.server_metrics();
        let limit = self.opener.timing.watchdog();
        let look = limit.min(self.opener.timing.stall()) / LOOKS;
        loop {
            self.tell(instance);
            if let Err(fatal) = &instance.metrics().borrow_watched().running_state {
                return self.failed(fatal.to_string());
            }
            if let Some(age) = self.unheard_for(instance).filter(|age| *age > limit) {
                return End::Unheard(age);
            }
            if self.flags.restart.swap(false, Ordering::AcqRel) && leads(instance) {
                return End::Stuck;
            }
            self.give_way(instance).await;
            self.finish_joint_step(instance);
            let (log, size) = (&self.opener.log, self.opener.log_size);
            compaction::by_size(self.group, size, log, instance).await;
            match RT::select3(&mut *stop, server.changed(), RT::sleep(look)).await {
                Select3::First(_stopped_or_dropped) => return End::Stopped,
                Select3::Second(Err(_gone)) => return self.failed("openraft ended".to_owned()),
                Select3::Second(Ok(())) | Select3::Third(()) => {}
            }
        }
    }

    fn failed(&self, otherwise: String) -> End {
        End::Failed(self.opener.machine.failure().unwrap_or(otherwise))
    }

    /// How long this node has led without a quorum's answer; none while it does not lead or is a
    /// quorum by itself.
    fn unheard_for(&mut self, instance: &Instance<RT, D>) -> Option<Duration> {
        let metrics = instance.metrics();
        let metrics = metrics.borrow_watched();
        let alone = metrics.membership_config.voter_ids().count() <= 1;
        if metrics.state != ServerState::Leader || alone {
            self.leads_since = None;
            return None;
        }
        let now = RT::Instant::now();
        let (term, since) = self.leads_since.unwrap_or((metrics.current_term, now));
        let since = if term == metrics.current_term { since } else { now };
        self.leads_since = Some((metrics.current_term, since));
        let acked = metrics.last_quorum_acked.map_or(since, |acked| acked.into_inner());
        Some(now.saturating_duration_since(acked.max(since)))
    }

    /// Hands over when the disk has stood still for too long while the others answer: what this
    /// node proposes is committed by the others, but it could not lead through the next fault, and
    /// with five voters a second such node would stop the group.
    async fn give_way(&mut self, instance: &Instance<RT, D>) {
        let limit = self.opener.timing.stall();
        let now = RT::Instant::now();
        let waits = self.gave_way.is_some_and(|at| now.saturating_duration_since(at) < limit * 2);
        let stalled = self.opener.log.unsynced_for().filter(|age| *age > limit);
        let Some(age) = stalled.filter(|_| !waits && leads(instance)) else { return };
        let Some(next) = best_successor(instance, self.opener.node) else { return };
        self.gave_way = Some(now);
        tracing::warn!(group = %self.group, ?age, %next, "the disk stands still; hands over");
        if let Err(error) = instance.trigger().transfer_leader(next.0).await {
            tracing::debug!(group = %self.group, %error, "hands over after the end");
            return;
        }
        let (flags, instance) = (self.flags.clone(), instance.clone());
        drop(RT::spawn(async move {
            RT::sleep(limit).await;
            if leads(&instance) {
                flags.restart.store(true, Ordering::Release);
            }
        }));
    }

    /// A leader that finds the voters in a joint step finishes it, unless it is at it: whoever
    /// began the change is gone.
    fn finish_joint_step(&self, instance: &Instance<RT, D>) {
        if !leads(instance) || !Standing::of(instance).is_joint() {
            return;
        }
        let Some(turn) = Turn::take(&self.flags.changing) else { return };
        let (group, instance) = (self.group, instance.clone());
        drop(RT::spawn(async move {
            let finish = ChangeMembers::AddVoterIds(std::collections::BTreeSet::new());
            match instance.change_membership(finish, true).await {
                Ok(_committed) => tracing::info!(%group, "finished another leader's joint step"),
                // Not committed yet, or no leader any more: the next look sees.
                Err(error) => tracing::debug!(%group, %error, "a joint step is not finished yet"),
            }
            drop(turn);
        }));
    }

    fn tell(&mut self, instance: &Instance<RT, D>) {
        if let Some((leader, term)) = known_leader(instance) {
            self.tell_leader(leader, term);
        }
        let standing = Standing::of(instance);
        if standing != self.told_members {
            let voters: Vec<NodeId> = standing.voters().into_iter().collect();
            let learners: Vec<NodeId> = standing.learners.iter().copied().collect();
            self.observer.membership(self.group, &voters, &learners);
            self.told_members = standing;
        }
    }

    fn tell_leader(&mut self, leader: Option<NodeId>, term: Term) {
        if self.told != (leader, term) {
            self.told = (leader, term);
            self.observer.leadership(self.group, leader, term);
        }
    }

    /// Ends an instance and waits until nothing of it touches the log any more.
    async fn finish(&mut self, instance: &Instance<RT, D>) {
        self.leads_since = None;
        self.tell_leader(None, self.told.1);
        if let Err(error) = instance.shutdown().await {
            tracing::warn!(group = %self.group, %error, "openraft did not end in order");
        }
    }

    fn fail(&self, reason: String) {
        tracing::error!(group = %self.group, %reason, "the group has failed on this node");
        self.observer.failed(self.group, reason);
    }
}

fn leads<RT: AsyncRuntime, D: Disk>(instance: &Instance<RT, D>) -> bool {
    instance.metrics().borrow_watched().state == ServerState::Leader
}

/// Who leads and in which term; none while that cannot be said, which the next change mends.
///
/// openraft publishes the leader as it stands beside the vote as it was last *flushed*, so the two
/// may be of different terms. It publishes a matching pair too, a moment later.
fn known_leader<RT: AsyncRuntime, D: Disk>(
    instance: &Instance<RT, D>,
) -> Option<(Option<NodeId>, Term)> {
    let (leader, vote) = {
        let server = instance.server_metrics();
        let server = server.borrow_watched();
        (server.current_leader.map(NodeId), server.vote)
    };
    let flushed = Term(vote.leader_id.term);
    if leader.is_none() || leader == leader_of(&vote) {
        return Some((leader, flushed));
    }
    let metrics = instance.metrics();
    let metrics = metrics.borrow_watched();
    let current = Term(metrics.current_term);
    let matches = metrics.current_leader.map(NodeId) == leader && current >= flushed;
    matches.then_some((leader, current))
}
