//! The replicated state of a group that carries both machines: entries in, outcomes
//! and events out.

use imbl::OrdSet;

use quorate_types::{AgentId, Digest, Faults, Index, Time};

use crate::bounds::{ADOPTIONS_MAX, Bounds, FEATURE_LEVEL_KNOWN};
use crate::command::{
    AgentAdoption, Command, PolicyAdoption, ShardCommand, Standing, SystemCommand,
};
use crate::outcome::{Applied, ApplyError};
use crate::set_hash::{Mark, SetHash};
use crate::shard::{Adopted, Moment, Shard};
use crate::system::{Effects, System};

/// The slot whose epoch every assignment carries.
pub const SLOT_BALANCER: &str = "balancer";

/// The state after some prefix of the log. A clone is cheap and independent.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(crate) index: Index,
    pub(crate) time: Time,
    pub(crate) system: System,
    pub(crate) shard: Shard,
    /// Agents of which system and shard do not think alike; derived.
    pub(crate) unadopted: OrdSet<AgentId>,
}

impl Ledger {
    /// The state before the first entry.
    pub fn new(faults: &Faults) -> Self {
        Self::with_bounds(faults, Bounds::default())
    }

    pub(crate) fn with_bounds(faults: &Faults, bounds: Bounds) -> Self {
        Self {
            index: Index(0),
            time: Time::ZERO,
            system: System::new(bounds),
            shard: Shard::new(faults, bounds),
            unadopted: OrdSet::new(),
        }
    }

    /// Applies the entry at `index`. Indices grow; gaps (entries of the log's own) are fine.
    ///
    /// # Errors
    /// The node must stop; the state is unchanged.
    pub fn apply(&mut self, index: Index, entry: &[u8]) -> Result<Applied, ApplyError> {
        if index <= self.index {
            return Err(ApplyError::Order { last: self.index, got: index });
        }
        let (command, stamp) = Command::decode(entry)?;
        if let Command::System(SystemCommand::RaiseFeatureLevel(raised)) = command
            && raised > FEATURE_LEVEL_KNOWN
        {
            return Err(ApplyError::Level { raised, known: FEATURE_LEVEL_KNOWN });
        }
        self.index = index;
        self.advance(stamp);
        let at = Moment { now: self.time, index };
        Ok(match command {
            Command::System(command) => self.apply_system(at, command),
            Command::Shard(command) => self.apply_shard(at, command),
        })
    }

    fn apply_system(&mut self, at: Moment, command: SystemCommand) -> Applied {
        let mut effects = Effects::default();
        let outcome = self.system.apply(at, command, &mut effects);
        effects.touched.iter().for_each(|agent| self.compare(*agent));
        Applied { outcome, events: effects.events }
    }

    fn apply_shard(&mut self, at: Moment, command: ShardCommand) -> Applied {
        let touched: Vec<AgentId> = if let ShardCommand::AdoptAgents(adoptions) = &command {
            adoptions.iter().map(|adoption| adoption.agent).collect()
        } else {
            Vec::new()
        };
        let mut events = Vec::new();
        let outcome = self.shard.apply(at, command, &mut events);
        touched.into_iter().for_each(|agent| self.compare(agent));
        Applied { outcome, events }
    }

    /// Ledger time never runs back: a leader whose clock is behind does not stop it for long, nor
    /// undo what it did.
    pub(crate) fn advance(&mut self, stamp: Time) {
        if stamp > self.time {
            self.time = stamp;
            self.shard.follow(stamp);
        }
    }

    /// The last entry applied.
    pub const fn index(&self) -> Index {
        self.index
    }

    /// Ledger time: the largest stamp so far.
    pub const fn time(&self) -> Time {
        self.time
    }

    /// Commands up to this level may be proposed.
    pub const fn feature_level(&self) -> u32 {
        self.system.counters.feature_level
    }

    /// A digest of the content, kept up to date with each entry: equal on every replica at one index.
    pub fn digest(&self) -> Digest {
        self.digest_with(self.system.sum(), self.shard.sum())
    }

    /// The same digest, from scratch.
    pub fn recompute_digest(&self) -> Digest {
        self.digest_with(self.system.recompute_sum(), self.shard.recompute_sum())
    }

    fn digest_with(&self, system: SetHash, shard: SetHash) -> Digest {
        let mut sum = system;
        sum.join(shard);
        sum.add(Mark::of("ledger", &(self.index, self.time)));
        sum.digest()
    }

    /// What the shard must yet adopt from the system machine; empty most of the time. Whoever
    /// leads proposes these until they are gone. The whole may take more than one round: one
    /// entry carries a bounded number of agents.
    pub fn pending_adoptions(&self) -> Vec<ShardCommand> {
        let mut commands = Vec::new();
        let agents = self.unadopted.iter().take(ADOPTIONS_MAX);
        let agents: Vec<_> = agents.filter_map(|agent| self.adoption(*agent)).collect();
        if !agents.is_empty() {
            commands.push(ShardCommand::AdoptAgents(agents));
        }
        let newer = self.system.policies.values();
        let newer = newer.filter(|policy| policy.epoch > self.shard.adopted_epoch(&policy.slot));
        commands.extend(newer.map(|policy| {
            ShardCommand::AdoptPolicy(PolicyAdoption {
                slot: policy.slot.clone(),
                epoch: policy.epoch,
                name: policy.name.clone(),
            })
        }));
        commands
    }

    /// What the shard must record of an agent, where it has not.
    fn adoption(&self, id: AgentId) -> Option<AgentAdoption> {
        let recorded = self.shard.agents.get(&id);
        let Some(agent) = self.system.agents.get(&id) else {
            return recorded.map(|recorded| AgentAdoption {
                agent: id,
                incarnation: recorded.incarnation,
                standing: Standing::Forgotten,
                reason: "its agent is no longer of record".to_owned(),
            });
        };
        let (live, incarnation) = (agent.retired.is_none(), agent.incarnation);
        if recorded == Some(&Adopted { agent: id, incarnation, live }) {
            return None;
        }
        let (standing, reason) = match &agent.retired {
            Some(retired) => (Standing::Retired, retired.reason.clone()),
            None => (Standing::Live, "its agent registered again".to_owned()),
        };
        Some(AgentAdoption { agent: id, incarnation, standing, reason })
    }

    fn compare(&mut self, agent: AgentId) {
        if self.adoption(agent).is_some() {
            self.unadopted.insert(agent);
        } else {
            self.unadopted.remove(&agent);
        }
    }

    /// Compares every agent, in a ledger whose records were put back.
    pub(crate) fn find_unadopted(&mut self) {
        let known: Vec<AgentId> =
            self.system.agents.keys().chain(self.shard.agents.keys()).copied().collect();
        known.into_iter().for_each(|agent| self.compare(agent));
    }
}
