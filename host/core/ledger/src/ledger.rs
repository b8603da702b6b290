//! The replicated state of one group: entries in, outcomes and events out. It has
//! both machines; which of them its entries may speak to is the group's role.

use quorate_types::{AgentId, Digest, Faults, GroupId, Index, Layout, Role, Time};

use crate::bounds::{ADOPTIONS_MAX, Bounds, FEATURE_LEVEL_KNOWN};
use crate::command::{
    AgentAdoption, Command, PolicyAdoption, ShardCommand, Standing, SystemCommand,
};
use crate::outcome::{Applied, ApplyError};
use crate::set_hash::{Mark, SetHash};
use crate::shard::{Moment, Shard};
use crate::system::System;

/// The slot whose epoch every assignment carries.
pub const SLOT_BALANCER: &str = "balancer";

/// The state after some prefix of the log. A clone is cheap and independent.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(crate) index: Index,
    pub(crate) time: Time,
    pub(crate) system: System,
    pub(crate) shard: Shard,
    role: Role,
    /// The highest feature level of this program; no part of the state.
    known: u32,
}

impl Ledger {
    /// The state before the first entry, in a cluster of one group.
    pub fn new(faults: &Faults) -> Self {
        Self::of(Layout::ONE, GroupId::SYSTEM, faults)
    }

    /// The state of this group before its first entry.
    pub fn of(layout: Layout, group: GroupId, faults: &Faults) -> Self {
        let role = layout.role(group);
        Self { role, ..Self::with_bounds(group, faults, Bounds::default()) }
    }

    pub(crate) fn with_bounds(group: GroupId, faults: &Faults, bounds: Bounds) -> Self {
        Self {
            index: Index(0),
            time: Time::ZERO,
            system: System::new(bounds),
            shard: Shard::new(group, faults, bounds),
            role: Role::Both,
            known: faults.feature_level_known.unwrap_or(FEATURE_LEVEL_KNOWN),
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
            && raised > self.known
        {
            return Err(ApplyError::Level { raised, known: self.known });
        }
        // What an older program would stop at, this one does not go past either: the state follows
        // what the cluster agreed on, whoever applies it.
        let level = command.level();
        if level > self.known {
            return Err(ApplyError::Level { raised: level, known: self.known });
        }
        if level > self.feature_level() {
            return Err(ApplyError::Early { level, agreed: self.feature_level() });
        }
        self.admit(&command)?;
        self.index = index;
        self.advance(stamp);
        let at = Moment { now: self.time, index };
        Ok(match command {
            Command::System(command) => self.apply_system(at, command),
            Command::Shard(command) => self.apply_shard(at, command),
        })
    }

    /// Whether this group carries the machine that a command is for.
    fn admit(&self, command: &Command) -> Result<(), ApplyError> {
        match (self.role, command) {
            (Role::Both, _)
            | (Role::System, Command::System(_))
            | (Role::Shard, Command::Shard(_)) => Ok(()),
            (role @ (Role::System | Role::Shard), _) => Err(ApplyError::Role { role }),
        }
    }

    fn apply_system(&mut self, at: Moment, command: SystemCommand) -> Applied {
        let mut events = Vec::new();
        let outcome = self.system.apply(at, command, &mut events);
        Applied { outcome, events }
    }

    fn apply_shard(&mut self, at: Moment, command: ShardCommand) -> Applied {
        let mut events = Vec::new();
        let outcome = self.shard.apply(at, command, &mut events);
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

    /// The group whose state this is.
    pub const fn group(&self) -> GroupId {
        self.shard.group
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

    /// The highest feature level that this program knows.
    pub const fn knows_level(&self) -> u32 {
        self.known
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
        sum.add(Mark::of("ledger", &(self.group(), self.index, self.time)));
        sum.digest()
    }

    /// What a shard must yet adopt of what the system machine has decided; nothing most of the time.
    /// Whoever leads the shard proposes these until there are none. The whole may take more than one
    /// round: one entry carries a bounded number of agents. A state of the system machine from
    /// before what the shard has recorded gives none. Looks at every agent.
    pub fn adoptions(system: &Self, shard: &Self) -> Vec<ShardCommand> {
        let from = system.index;
        let (system, shard) = (&system.system, &shard.shard);
        let mut commands = Vec::new();
        if from < shard.counters.adopted_from {
            return commands;
        }
        let lost = shard.agents.keys().filter(|agent| !system.agents.contains_key(*agent));
        let agents = system.agents.keys().chain(lost);
        let agents = agents.filter_map(|agent| adoption(system, shard, *agent));
        let agents: Vec<_> = agents.take(ADOPTIONS_MAX).collect();
        if !agents.is_empty() {
            commands.push(ShardCommand::AdoptAgents { from, agents });
        }
        let newer = system.policies.values();
        let newer = newer.filter(|policy| policy.epoch > shard.adopted_epoch(&policy.slot));
        commands.extend(newer.map(|policy| {
            ShardCommand::AdoptPolicy(PolicyAdoption {
                slot: policy.slot.clone(),
                epoch: policy.epoch,
                name: policy.name.clone(),
            })
        }));
        commands
    }
}

/// What a shard must record of an agent, where it has not.
fn adoption(system: &System, shard: &Shard, id: AgentId) -> Option<AgentAdoption> {
    let recorded = shard.agents.get(&id);
    let Some(agent) = system.agents.get(&id) else {
        return recorded.map(|recorded| AgentAdoption {
            agent: id,
            incarnation: recorded.incarnation,
            standing: Standing::Forgotten,
            reason: "its agent is no longer of record".to_owned(),
        });
    };
    let (live, incarnation) = (agent.retired.is_none(), agent.incarnation);
    if recorded.is_some_and(|recorded| (recorded.incarnation, recorded.live) == (incarnation, live))
    {
        return None;
    }
    let (standing, reason) = match &agent.retired {
        Some(retired) => (Standing::Retired, retired.reason.clone()),
        None => (Standing::Live, "its agent registered again".to_owned()),
    };
    Some(AgentAdoption { agent: id, incarnation, standing, reason })
}
