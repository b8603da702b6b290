//! The system machine: nodes, agents of record, slots, the feature level.
//!
//! A start of a node, a registration and an activation each begin a new epoch that
//! fences the ones before. What that means for tasks is the shard's to adopt.

use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use quorate_types::{
    AgentId, AgentSpec, Digest, EventKind, GroupId, Incarnation, Index, NodeId, PolicyEpoch,
    Refusal, Time,
};

use crate::bounds::{
    BUSY_RETRY_MS, Bounds, FEATURE_LEVEL_FIRST, SLOTS_MAX, check_agent, check_policy, clip,
};
use crate::command::{Activate, NodeDown, NodeUp, RetireAgent, SystemCommand};
use crate::outcome::Outcome;
use crate::roster::Roster;
use crate::set_hash::{Mark, SetHash, canonical};
use crate::shard::Moment;

/// A node of record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its life, from 1.
    pub incarnation: Incarnation,
    /// Its name in the cluster file.
    pub name: String,
    /// Where its API listens, if others may know.
    pub api: Option<String>,
    /// Drawn by the node when it started.
    pub boot: u64,
    /// Why this life has ended, if it has.
    pub down: Option<String>,
}

/// How an agent's life ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retired {
    /// Ledger time.
    pub at: Time,
    /// Why.
    pub reason: String,
}

/// An agent of record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its life, from 1.
    pub incarnation: Incarnation,
    /// As registered.
    pub spec: AgentSpec,
    /// Set once this life has ended.
    pub retired: Option<Retired>,
}

/// What is in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The slot.
    pub slot: String,
    /// What is plugged in.
    pub name: String,
    /// The component, a blob.
    pub digest: Digest,
    /// The WIT world it was built for.
    pub world: String,
    /// What it is opened with.
    pub config: Bytes,
    /// Its activation, from 1. Epoch 0 is the native answer, before any activation.
    pub epoch: PolicyEpoch,
    /// The log index that activated it.
    pub index: Index,
}

/// The counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counters {
    /// Commands up to this level may be proposed.
    pub(crate) feature_level: u32,
    /// Agents numbered so far; the first is 1.
    pub(crate) agents: u64,
    /// How many shards the cluster has; 0 before the first node has said so.
    pub(crate) shards: u16,
}

canonical!(Node { id, incarnation, name, api, boot, down });
canonical!(Retired { at, reason });
canonical!(Agent { id, incarnation, spec, retired });
canonical!(Policy { slot, name, digest, world, config, epoch, index });
canonical!(Counters { feature_level, agents, shards });

/// The state of the system machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct System {
    pub(crate) counters: Counters,
    pub(crate) nodes: OrdMap<NodeId, Arc<Node>>,
    pub(crate) agents: OrdMap<AgentId, Arc<Agent>>,
    pub(crate) policies: OrdMap<String, Arc<Policy>>,
    pub(crate) roster: Arc<Roster>,
    /// Agents by namespace and name; derived.
    pub(crate) names: OrdMap<Arc<(String, String)>, AgentId>,
    /// Agents that live; derived.
    pub(crate) live: OrdSet<AgentId>,
    /// Agents that do not, longest retired first; derived.
    retired: OrdSet<(Time, AgentId)>,
    sum: SetHash,
    bounds: Bounds,
}

/// The answer of a step: a refusal changes nothing.
type Step = Result<Outcome, Refusal>;

impl System {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let counters = Counters { feature_level: FEATURE_LEVEL_FIRST, agents: 0, shards: 0 };
        Self { counters, bounds, ..Self::default() }
    }

    /// The transition table.
    pub(crate) fn apply(
        &mut self,
        at: Moment,
        command: SystemCommand,
        events: &mut Vec<EventKind>,
    ) -> Outcome {
        let step = match command {
            SystemCommand::NodeUp(up) => self.node_up(at, up, events),
            SystemCommand::NodeDown(down) => self.node_down(at, down, events),
            SystemCommand::RegisterAgent(spec) => self.register(spec, events),
            SystemCommand::RetireAgent(retire) => self.retire_agent(at, retire, events),
            SystemCommand::ActivatePolicy(activate) => self.activate(at, activate, events),
            SystemCommand::RaiseFeatureLevel(level) => self.raise(level),
            SystemCommand::SeedMembers(members) => self.seed_members(members),
            SystemCommand::AdmitMember(member) => self.admit_member(member),
            SystemCommand::RemoveMember(id) => self.remove_member(at, id, events),
            SystemCommand::ReserveVoters(reservation) => self.reserve_voters(reservation),
        };
        step.unwrap_or_else(Outcome::Refused)
    }

    fn node_up(&mut self, at: Moment, up: NodeUp, events: &mut Vec<EventKind>) -> Step {
        self.expect_member(up.node)?;
        let settled = self.counters.shards;
        if settled != 0 && settled != up.shards {
            return Err(Refusal::Conflict(format!(
                "the cluster has {settled} shards, for good, and node {} is set up with {}; set \
                 `shards = {settled}` under [cluster] in its node file",
                up.node, up.shards
            )));
        }
        self.counters.shards = up.shards;
        let before = self.nodes.get(&up.node).cloned();
        if let Some(node) = before.iter().find(|node| node.down.is_none() && node.boot == up.boot) {
            return Ok(Outcome::NodeUp(node.incarnation));
        }
        let incarnation = Incarnation(before.map_or(0, |node| node.incarnation.0) + 1);
        let NodeUp { node: id, name, api, shards: _, boot } = up;
        self.store_node(Node { id, incarnation, name, api, boot, down: None });
        self.retire_agents_of(at, id, "its node started again", events);
        Ok(Outcome::NodeUp(incarnation))
    }

    fn node_down(&mut self, at: Moment, down: NodeDown, events: &mut Vec<EventKind>) -> Step {
        let NodeDown { node: id, incarnation, reason } = down;
        let node = self.nodes.get(&id).ok_or_else(|| Refusal::NotFound(format!("node {id}")))?;
        if node.incarnation != incarnation {
            return Err(Refusal::Conflict(format!(
                "node {id} is in its life {}, not {incarnation}",
                node.incarnation
            )));
        }
        if node.down.is_none() {
            let reason = clip(reason);
            self.store_node(Node { down: Some(reason.clone()), ..Node::clone(node) });
            self.retire_agents_of(at, id, &format!("its node is down: {reason}"), events);
        }
        Ok(Outcome::Done)
    }

    pub(crate) fn retire_agents_of(
        &mut self,
        at: Moment,
        node: NodeId,
        why: &str,
        events: &mut Vec<EventKind>,
    ) {
        let agents = self.live.iter().filter_map(|id| self.agents.get(id));
        let hosted: Vec<_> = agents.filter(|agent| agent.spec.node == node).cloned().collect();
        for agent in hosted {
            self.retire(at, &agent, why.to_owned(), events);
        }
    }

    fn retire(&mut self, at: Moment, agent: &Agent, reason: String, events: &mut Vec<EventKind>) {
        let retired = Some(Retired { at: at.now, reason: reason.clone() });
        self.store_agent(Agent { retired, ..agent.clone() });
        events.push(EventKind::AgentDown {
            agent: agent.id,
            incarnation: agent.incarnation,
            reason,
        });
    }

    fn register(&mut self, spec: AgentSpec, events: &mut Vec<EventKind>) -> Step {
        check_agent(&spec)?;
        self.check_life(&spec)?;
        let name = (spec.namespace.clone(), spec.name.clone());
        let before = self.names.get(&name).and_then(|id| self.agents.get(id)).cloned();
        let (id, incarnation) = if let Some(before) = before {
            if before.retired.is_none() {
                let reason = "it registered again".to_owned();
                events.push(EventKind::AgentDown {
                    agent: before.id,
                    incarnation: before.incarnation,
                    reason,
                });
            }
            (before.id, Incarnation(before.incarnation.0 + 1))
        } else {
            self.make_room()?;
            self.counters.agents += 1;
            (AgentId(self.counters.agents), Incarnation(1))
        };
        events.push(EventKind::AgentUp {
            agent: id,
            incarnation,
            node: spec.node,
            name: spec.name.clone(),
        });
        self.store_agent(Agent { id, incarnation, spec, retired: None });
        Ok(Outcome::Registered(id, incarnation))
    }

    /// An agent does not outlive its node's life, nor begin after it.
    fn check_life(&self, spec: &AgentSpec) -> Result<(), Refusal> {
        let id = spec.node;
        let node = self.nodes.get(&id).ok_or_else(|| Refusal::NotFound(format!("node {id}")))?;
        if node.incarnation != spec.node_incarnation {
            return Err(Refusal::Conflict(format!(
                "node {id} is in its life {}, not {}",
                node.incarnation, spec.node_incarnation
            )));
        }
        match &node.down {
            Some(reason) => Err(Refusal::Conflict(format!(
                "node {id} was declared down in its life {}: {reason}; it must start a new one",
                node.incarnation
            ))),
            None => Ok(()),
        }
    }

    /// Forgets the longest retired agent when there are too many of record.
    fn make_room(&mut self) -> Result<(), Refusal> {
        if self.agents.len() < self.bounds.agents_max {
            return Ok(());
        }
        let Some((_at, oldest)) = self.retired.get_min().copied() else {
            return Err(Refusal::Busy {
                what: "the registry of agents".to_owned(),
                retry_after_ms: BUSY_RETRY_MS,
            });
        };
        if let Some(agent) = self.agents.remove(&oldest) {
            self.sum.remove(Mark::of("agent", &*agent));
            self.unplace(&agent);
            self.names.remove(&name_of(&agent));
        }
        Ok(())
    }

    fn retire_agent(
        &mut self,
        at: Moment,
        retire: RetireAgent,
        events: &mut Vec<EventKind>,
    ) -> Step {
        let RetireAgent { agent: id, incarnation, reason } = retire;
        let agent = self.agents.get(&id).cloned();
        let agent = agent.ok_or_else(|| Refusal::NotFound(format!("agent {id}")))?;
        if agent.incarnation != incarnation {
            return Err(Refusal::Conflict(format!(
                "agent {id} is in its life {}, not {incarnation}",
                agent.incarnation
            )));
        }
        if agent.retired.is_none() {
            self.retire(at, &agent, clip(reason), events);
        }
        Ok(Outcome::Done)
    }

    fn activate(&mut self, at: Moment, activate: Activate, events: &mut Vec<EventKind>) -> Step {
        check_policy(&activate)?;
        let before = self.policies.get(&activate.slot);
        if before.is_none() && self.policies.len() >= SLOTS_MAX {
            return Err(Refusal::Invalid(format!("there are {SLOTS_MAX} slots in use already")));
        }
        let last = before.map_or(PolicyEpoch(0), |policy| policy.epoch);
        let Activate { slot, name, digest, world, config } = activate;
        let epoch = PolicyEpoch(last.0 + 1);
        let policy = Policy { slot, name, digest, world, config, epoch, index: at.index };
        if let Some(same) = before.filter(|before| {
            ***before == Policy { epoch: before.epoch, index: before.index, ..policy.clone() }
        }) {
            return Ok(Outcome::Activated(same.epoch, same.index));
        }
        events.push(EventKind::Policy {
            slot: policy.slot.clone(),
            name: policy.name.clone(),
            epoch,
            step: "activated".to_owned(),
            group: GroupId::SYSTEM,
        });
        self.store_policy(policy);
        Ok(Outcome::Activated(epoch, at.index))
    }

    fn raise(&mut self, level: u32) -> Step {
        let now = self.counters.feature_level;
        if level < now {
            return Err(Refusal::Conflict(format!(
                "the feature level is {now} and is never lowered"
            )));
        }
        self.counters.feature_level = level;
        Ok(Outcome::Done)
    }
}

fn name_of(agent: &Agent) -> (String, String) {
    (agent.spec.namespace.clone(), agent.spec.name.clone())
}

/// Records, their digest and their places change here and nowhere else.
impl System {
    pub(crate) fn store_node(&mut self, node: Node) {
        self.sum.add(Mark::of("node", &node));
        if let Some(before) = self.nodes.insert(node.id, Arc::new(node)) {
            self.sum.remove(Mark::of("node", &*before));
        }
    }

    pub(crate) fn store_agent(&mut self, agent: Agent) {
        self.sum.add(Mark::of("agent", &agent));
        let agent = Arc::new(agent);
        if let Some(before) = self.agents.insert(agent.id, Arc::clone(&agent)) {
            self.sum.remove(Mark::of("agent", &*before));
            self.unplace(&before);
        } else {
            self.names.insert(Arc::new(name_of(&agent)), agent.id);
        }
        match &agent.retired {
            Some(retired) => self.retired.insert((retired.at, agent.id)).is_some(),
            None => self.live.insert(agent.id).is_some(),
        };
    }

    fn unplace(&mut self, agent: &Agent) {
        match &agent.retired {
            Some(retired) => self.retired.remove(&(retired.at, agent.id)).is_some(),
            None => self.live.remove(&agent.id).is_some(),
        };
    }

    pub(crate) fn store_policy(&mut self, policy: Policy) {
        self.sum.add(Mark::of("policy", &policy));
        if let Some(before) = self.policies.insert(policy.slot.clone(), Arc::new(policy)) {
            self.sum.remove(Mark::of("policy", &*before));
        }
    }

    /// Puts back the counters.
    pub(crate) fn restore_counters(&mut self, counters: Counters) {
        self.counters = counters;
    }

    /// The set hash of all that this machine holds.
    pub(crate) fn sum(&self) -> SetHash {
        let mut sum = self.sum;
        sum.add(Mark::of("system", &self.counters));
        self.add_roster(&mut sum);
        sum
    }

    /// The same, from scratch.
    pub(crate) fn recompute_sum(&self) -> SetHash {
        let mut sum = SetHash::default();
        sum.add(Mark::of("system", &self.counters));
        self.add_roster(&mut sum);
        self.nodes.values().for_each(|node| sum.add(Mark::of("node", &**node)));
        self.agents.values().for_each(|agent| sum.add(Mark::of("agent", &**agent)));
        self.policies.values().for_each(|policy| sum.add(Mark::of("policy", &**policy)));
        sum
    }
}
