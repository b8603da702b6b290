//! Policies as the log activates them.
//!
//! A swap: every live member fetches, checks and compiles the component (*prepare*);
//! one entry of the system group activates it; each shard adopts the epoch with
//! another entry, and from that index on every assignment there carries it. A member that reports *not ready*
//! blocks with its reason unless forced; one that is down never blocks, and catches
//! up when it applies the entry. Where the component cannot be had then, since no
//! peer is up yet that has it, it is prepared again until it can.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_dispatch::PolicyRef;
use quorate_ledger::{Activate, SLOT_BALANCER, SystemCommand};
use quorate_types::view::{NodeView, PolicyView};
use quorate_types::{Digest, GroupId, NodeId, PolicyEpoch, Refusal, Reply, Request, Time};

use crate::asks::{Origin, Own, Target};
use crate::frame::{Done, Errand, Setback};
use crate::io::{Effect, Now, Ticket};
use crate::kernel::Kernel;

/// A member has this long to say whether a component fits.
const PREPARE_WITHIN: Duration = Duration::from_secs(20);
/// A member has this long to say how it stands.
const STATUS_WITHIN: Duration = Duration::from_millis(1000);
/// A component that could not be prepared is prepared again after this span, and after twice as
/// long each time it cannot, up to the longest: one that is not fit costs a compilation each time.
const CATCH_UP_AGAIN: Duration = Duration::from_secs(1);
const CATCH_UP_AGAIN_MAX: Duration = Duration::from_secs(64);
/// The world that a balancer is of.
const WORLD_BALANCER: &str = "quorate:balancer/policy@0.1.0-dev";

#[derive(Debug)]
struct Swap {
    slot: String,
    name: String,
    digest: Digest,
    force: bool,
    waiting: BTreeSet<NodeId>,
    activated: Option<PolicyEpoch>,
}

#[derive(Debug)]
struct Gathering {
    waiting: usize,
    nodes: Vec<NodeView>,
}

/// Why a preparation was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A swap that this node leads.
    Swap(u64),
    /// A leader asked.
    Asked(u64),
    /// The log activated what is not here yet.
    CatchUp,
}

/// Swaps and gatherings under way, and what members said of the components in use.
#[derive(Debug, Default)]
pub(crate) struct Swaps {
    swaps: BTreeMap<u64, Swap>,
    gatherings: BTreeMap<u64, Gathering>,
    preparing: BTreeMap<Ticket, Cause>,
    reports: BTreeMap<Digest, BTreeMap<NodeId, String>>,
    /// The component in use is not here: when it is prepared again, and the pause before that.
    behind: Option<(Time, Duration)>,
}

impl Swaps {
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.behind.map(|(again, _pause)| again)
    }
}

impl Kernel {
    pub(crate) fn begin_swap(
        &mut self,
        now: Now,
        ask: u64,
        slot: String,
        name: String,
        digest: Digest,
        force: bool,
    ) {
        if slot != SLOT_BALANCER {
            let why = format!("there is no slot `{slot}`; the slots are: {SLOT_BALANCER}");
            self.finish(now, ask, Err(Setback::Refused(Refusal::Invalid(why))));
            return;
        }
        let mut waiting: BTreeSet<NodeId> =
            self.config.members.keys().copied().filter(|node| self.up.contains(node)).collect();
        let peers: Vec<NodeId> = waiting.iter().copied().collect();
        waiting.insert(self.config.node);
        let request = Request::PreparePolicy { slot: slot.clone(), digest };
        self.swaps.swaps.insert(ask, Swap { slot, name, digest, force, waiting, activated: None });
        self.prepare(digest, Cause::Swap(ask));
        for peer in peers {
            let errand = Errand::Door(Box::new(request.clone()));
            let origin = Origin::Own(Own::Prepare(ask));
            self.begin(now, origin, Target::Node(peer), errand, PREPARE_WITHIN);
        }
    }

    pub(crate) fn prepare_for(&mut self, now: Now, ask: u64, slot: &str, digest: Digest) {
        if slot == SLOT_BALANCER {
            self.prepare(digest, Cause::Asked(ask));
        } else {
            let why = format!("there is no slot `{slot}` here");
            self.finish(now, ask, Err(Setback::Refused(Refusal::Invalid(why))));
        }
    }

    fn prepare(&mut self, digest: Digest, cause: Cause) {
        let ticket = self.ticket();
        self.swaps.preparing.insert(ticket, cause);
        self.effects.push_back(Effect::Prepare(ticket, digest));
    }

    pub(crate) fn prepared(
        &mut self,
        now: Now,
        ticket: Ticket,
        digest: Digest,
        result: Result<(), String>,
    ) {
        let Some(cause) = self.swaps.preparing.remove(&ticket) else { return };
        match cause {
            Cause::Swap(ask) => self.member_prepared(now, ask, self.config.node, result),
            Cause::Asked(ask) => {
                let answer = match result {
                    Ok(()) => Ok(Done::Door(Box::new(Reply::Done))),
                    Err(why) => Err(Setback::Refused(Refusal::Invalid(why))),
                };
                self.finish(now, ask, answer);
            }
            Cause::CatchUp if digest == self.policy.digest => self.caught_up(now, result),
            Cause::CatchUp => {}
        }
    }

    fn caught_up(&mut self, now: Now, result: Result<(), String>) {
        match result {
            Ok(()) => {
                // The native fallback has answered so far; the component does from here on.
                self.swaps.behind = None;
                self.use_policy(self.policy.clone());
            }
            Err(why) => {
                let last = self.swaps.behind.map(|(_again, pause)| pause * 2);
                let pause = last.unwrap_or(CATCH_UP_AGAIN).min(CATCH_UP_AGAIN_MAX);
                self.swaps.behind = Some((now.mono + pause, pause));
                let policy = &self.policy.name;
                tracing::warn!(
                    policy,
                    why,
                    ?pause,
                    "the component in use is not here; trying again"
                );
            }
        }
    }

    /// A peer came up, which may have the component that is not here.
    pub(crate) fn catch_up_with_peer(&mut self, now: Now) {
        if self.swaps.behind.is_some() {
            self.swaps.behind = Some((now.mono, CATCH_UP_AGAIN / 2));
        }
    }

    pub(crate) fn settle_swaps(&mut self, now: Now) {
        let due = self.swaps.behind.filter(|(again, _pause)| *again <= now.mono);
        let Some((_again, pause)) = due else { return };
        // Looked at again even if no word of this preparation comes.
        self.swaps.behind = Some((now.mono + CATCH_UP_AGAIN_MAX, pause));
        self.prepare(self.policy.digest, Cause::CatchUp);
    }

    pub(crate) fn peer_prepared(
        &mut self,
        now: Now,
        swap: u64,
        target: Target,
        result: Result<Done, Setback>,
    ) {
        let Target::Node(node) = target else { return };
        match result {
            Ok(Done::Door(reply)) if *reply == Reply::Done => {
                self.member_prepared(now, swap, node, Ok(()));
            }
            Ok(_) => {
                let why = "it answered something else".to_owned();
                self.member_prepared(now, swap, node, Err(why));
            }
            Err(Setback::Refused(Refusal::Unavailable(_))) => {
                // It went down meanwhile, and what is down never blocks.
                self.member_prepared(now, swap, node, Ok(()));
            }
            Err(Setback::Refused(refusal)) => {
                self.member_prepared(now, swap, node, Err(refusal.to_string()));
            }
            Err(Setback::NotLeader(_)) => {
                self.member_prepared(now, swap, node, Err("it did not answer".to_owned()));
            }
        }
    }

    fn member_prepared(&mut self, now: Now, ask: u64, node: NodeId, result: Result<(), String>) {
        let Some(swap) = self.swaps.swaps.get_mut(&ask) else { return };
        let report = match &result {
            Ok(()) => "ready".to_owned(),
            Err(why) => why.clone(),
        };
        self.swaps.reports.entry(swap.digest).or_default().insert(node, report);
        if let Err(why) = result
            && !swap.force
        {
            self.swaps.swaps.remove(&ask);
            let why = format!(
                "node {node} is not ready for the component: {why}; apply with `--force` to let it \
                 run the native fallback"
            );
            self.finish(now, ask, Err(Setback::Refused(Refusal::Conflict(why))));
            return;
        }
        swap.waiting.remove(&node);
        if swap.waiting.is_empty() {
            let activate = Activate {
                slot: swap.slot.clone(),
                name: swap.name.clone(),
                digest: swap.digest,
                world: WORLD_BALANCER.to_owned(),
                config: bytes::Bytes::new(),
            };
            let at = (ask, GroupId::SYSTEM);
            self.propose_for(now, at, SystemCommand::ActivatePolicy(activate));
        }
    }

    /// The log activated what a swap of this leader asked for; adoption is still to come. The
    /// swap has ended when this node has applied it in every shard.
    pub(crate) fn swap_activated(&mut self, now: Now, ask: u64, epoch: PolicyEpoch) {
        if let Some(swap) = self.swaps.swaps.get_mut(&ask) {
            swap.activated = Some(epoch);
        }
        self.finish_adopted_swaps(now);
    }

    fn finish_adopted_swaps(&mut self, now: Now) {
        let adopted = self.view.adopted_epoch(SLOT_BALANCER);
        let done: Vec<u64> = self
            .swaps
            .swaps
            .iter()
            .filter(|(_ask, swap)| swap.activated.is_some_and(|epoch| epoch <= adopted))
            .map(|(ask, _swap)| *ask)
            .collect();
        for ask in done {
            let slot = self.swaps.swaps.remove(&ask).map(|swap| swap.slot).unwrap_or_default();
            let view = self.policy_views().into_iter().find(|view| view.slot == slot);
            let result = match view {
                Some(view) => Ok(Done::Door(Box::new(Reply::Applied(Box::new(view))))),
                None => Err(Setback::Refused(Refusal::NotFound(format!("slot {slot}")))),
            };
            self.finish(now, ask, result);
        }
    }

    /// Follows the policy that the system group has activated. A shard gives no lease by it until it
    /// has adopted it.
    pub(crate) fn follow_policy(&mut self, now: Now) {
        if let Some(policy) = self.view.policy(SLOT_BALANCER)
            && policy.epoch != self.policy.epoch
        {
            let policy = PolicyRef {
                name: policy.name.clone(),
                digest: policy.digest,
                epoch: policy.epoch,
                config: policy.config.to_vec(),
            };
            tracing::info!(policy = policy.name, epoch = %policy.epoch, "policy activated");
            self.swaps.behind = None;
            if !self.source.ready(&policy.digest) {
                self.prepare(policy.digest, Cause::CatchUp);
            }
            self.use_policy(policy);
        }
        self.finish_adopted_swaps(now);
    }

    fn use_policy(&mut self, policy: PolicyRef) {
        self.calls.set_policy(policy.clone());
        for leading in self.leading.values_mut() {
            leading.placement.set_policy(policy.epoch);
        }
        self.policy = policy;
    }

    pub(crate) fn forget_swaps(&mut self) {
        self.swaps.swaps.clear();
    }

    pub(crate) fn policy_views(&self) -> Vec<PolicyView> {
        let mut views = self.view.policies();
        for view in &mut views {
            if let Some(reports) = self.swaps.reports.get(&view.digest) {
                view.nodes.clone_from(reports);
            }
        }
        views
    }

    /// Asks every reachable member how it stands.
    pub(crate) fn gather_status(&mut self, now: Now, ask: u64) {
        let peers: Vec<NodeId> = self.up.iter().copied().collect();
        let gathering = Gathering { waiting: peers.len(), nodes: vec![self.node_view()] };
        self.swaps.gatherings.insert(ask, gathering);
        for peer in peers {
            let errand = Errand::Door(Box::new(Request::NodeStatus));
            let origin = Origin::Own(Own::Status(ask));
            self.begin(now, origin, Target::Node(peer), errand, STATUS_WITHIN);
        }
        self.end_gathering(now, ask);
    }

    pub(crate) fn status_gathered(&mut self, now: Now, ask: u64, result: Result<Done, Setback>) {
        let Some(gathering) = self.swaps.gatherings.get_mut(&ask) else { return };
        gathering.waiting -= 1;
        if let Ok(Done::Door(reply)) = result
            && let Reply::Node(view) = *reply
        {
            gathering.nodes.push(view);
        }
        self.end_gathering(now, ask);
    }

    fn end_gathering(&mut self, now: Now, ask: u64) {
        if self.swaps.gatherings.get(&ask).is_some_and(|gathering| gathering.waiting == 0)
            && let Some(mut gathering) = self.swaps.gatherings.remove(&ask)
        {
            gathering.nodes.sort_by_key(|view| view.node);
            if let Some(level) = self.asked_level(ask) {
                return self.levels_gathered(now, ask, level, &gathering.nodes);
            }
            let reply = Reply::Cluster(gathering.nodes);
            self.finish(now, ask, Ok(Done::Door(Box::new(reply))));
        }
    }
}
