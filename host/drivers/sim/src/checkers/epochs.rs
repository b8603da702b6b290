//! Acts across groups: the system group decides which life of an agent lives, and
//! each shard adopts that with an entry of its own, fenced by the index that it was
//! read at (DESIGN, section 4).
//!
//! The judge reads the entries themselves. It keeps the system group's decisions by
//! their index and each shard's record by the rules written again, and holds that
//!
//! * what a shard adopts is what the system group had decided at the index that the
//!   entry names, and an older word never takes the place of a newer one;
//! * from such an entry on no lease of another life is left, and none is given;
//! * no policy is adopted that was not activated;
//! * the state that came of it agrees.

use std::collections::BTreeMap;

use quorate_ledger::{AgentAdoption, Assignment, Command, Ledger, ShardCommand, Standing};
use quorate_types::{
    AgentId, EventKind, GroupId, Incarnation, Index, PolicyEpoch, TaskId, TaskState,
};

use crate::law::{Law, Verdict};

/// An agent's newest life, and whether it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    incarnation: Incarnation,
    live: bool,
}

#[derive(Default)]
struct Shard {
    /// The system group's index that was adopted from last.
    from: Index,
    lives: BTreeMap<AgentId, Life>,
    leases: BTreeMap<TaskId, (AgentId, Incarnation)>,
    /// Whether something was adopted since the record was compared with the state.
    is_new: bool,
}

#[derive(Default)]
pub(crate) struct Epochs {
    /// What the system group decided of each agent, from which index on.
    decided: BTreeMap<AgentId, BTreeMap<Index, Life>>,
    activated: PolicyEpoch,
    shards: BTreeMap<GroupId, Shard>,
}

impl Epochs {
    /// An entry of any group, in its log's order, once, with what came of it.
    pub(crate) fn see(
        &mut self,
        group: GroupId,
        index: Index,
        entry: Option<&Command>,
        events: &[EventKind],
    ) -> Verdict {
        if group == GroupId::SYSTEM {
            events.iter().for_each(|event| self.decide(index, event));
        }
        let shard = self.shards.entry(group).or_default();
        let mut adopted: &[AgentAdoption] = &[];
        let mut chosen: &[Assignment] = &[];
        if let Some(Command::Shard(command)) = entry {
            match command {
                ShardCommand::AdoptAgents { from, agents } if *from >= shard.from => {
                    adopted = agents;
                    (shard.from, shard.is_new) = (*from, true);
                    for adoption in agents {
                        shard.adopt(&self.decided, (index, *from), adoption)?;
                    }
                }
                ShardCommand::AdoptAgents { .. } => shard.is_new = true,
                ShardCommand::AdoptPolicy(policy) if policy.epoch > self.activated => {
                    let (epoch, newest) = (policy.epoch, self.activated);
                    return Law::Adoption.broken(format!(
                        "epoch {epoch} is adopted at {index}, and {newest} is the newest activated"
                    ));
                }
                ShardCommand::Assign(assignments) => chosen = assignments,
                ShardCommand::AdoptPolicy(_)
                | ShardCommand::Submit(_)
                | ShardCommand::Complete { .. }
                | ShardCommand::Fail { .. }
                | ShardCommand::Expire { .. }
                | ShardCommand::Cancel(_)
                | ShardCommand::Sweep
                | ShardCommand::Kv(_)
                | ShardCommand::KvExpire(_) => {}
            }
        }
        events.iter().try_for_each(|event| shard.follow(index, event, chosen))?;
        adopted.iter().try_for_each(|adoption| shard.is_fenced(index, adoption.agent))
    }

    fn decide(&mut self, index: Index, event: &EventKind) {
        let (agent, incarnation, live) = match event {
            EventKind::AgentUp { agent, incarnation, .. } => (*agent, *incarnation, true),
            EventKind::AgentDown { agent, incarnation, .. } => (*agent, *incarnation, false),
            EventKind::Policy { epoch, step, .. } => {
                if step == "activated" {
                    self.activated = *epoch;
                }
                return;
            }
            EventKind::Task { .. } => return,
        };
        self.decided.entry(agent).or_default().insert(index, Life { incarnation, live });
    }

    /// A group's state after all that was seen of it.
    pub(crate) fn compare(&mut self, group: GroupId, view: &Ledger) -> Verdict {
        let Some(shard) = self.shards.get_mut(&group).filter(|shard| shard.is_new) else {
            return Ok(());
        };
        shard.is_new = false;
        for (agent, life) in &shard.lives {
            let (right, got) = (life.live.then_some(life.incarnation), view.assignable(*agent));
            if right != got {
                let at = view.index();
                return Law::Adoption.broken(format!(
                    "{agent} may hold leases in life {got:?} at {at}, and was adopted as {right:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Shard {
    fn adopt(
        &mut self,
        decided: &BTreeMap<AgentId, BTreeMap<Index, Life>>,
        (index, from): (Index, Index),
        adoption: &AgentAdoption,
    ) -> Verdict {
        let agent = adoption.agent;
        let history = decided.get(&agent);
        let right =
            history.and_then(|lives| lives.range(..=from).next_back()).map(|(_, life)| *life);
        let told = match adoption.standing {
            Standing::Live => Some(Life { incarnation: adoption.incarnation, live: true }),
            Standing::Retired => Some(Life { incarnation: adoption.incarnation, live: false }),
            Standing::Forgotten => None,
        };
        if told != right {
            return Law::Adoption.broken(format!(
                "{agent} is adopted at {index} as {told:?}; the system group had {right:?} at {from}"
            ));
        }
        let Some(life) = told else {
            self.lives.remove(&agent);
            return Ok(());
        };
        let before = self.lives.insert(agent, life);
        let goes_back = before.is_some_and(|before| {
            let ended = before.incarnation == life.incarnation && !before.live && life.live;
            before.incarnation > life.incarnation || ended
        });
        if goes_back {
            return Law::Adoption
                .broken(format!("{agent} goes back at {index} from {before:?} to {life:?}"));
        }
        Ok(())
    }

    fn follow(&mut self, index: Index, event: &EventKind, chosen: &[Assignment]) -> Verdict {
        let EventKind::Task { task, state, agent, .. } = event else { return Ok(()) };
        let (TaskState::Leased, Some(agent)) = (state, agent) else {
            self.leases.remove(task);
            return Ok(());
        };
        let is_it = |one: &&Assignment| one.task == *task && one.agent == *agent;
        let Some(incarnation) = chosen.iter().find(is_it).map(|one| one.incarnation) else {
            let what = format!("{task} is leased to {agent} at {index}, and nobody assigned it");
            return Law::Adoption.broken(what);
        };
        let recorded = self.lives.get(agent).copied();
        if recorded != Some(Life { incarnation, live: true }) {
            return Law::Adoption.broken(format!(
                "{task} is leased at {index} to {agent} in life {incarnation}; adopted is {recorded:?}"
            ));
        }
        self.leases.insert(*task, (*agent, incarnation));
        Ok(())
    }

    /// No lease of another life is left.
    fn is_fenced(&self, index: Index, agent: AgentId) -> Verdict {
        let covered = self.lives.get(&agent).filter(|life| life.live).map(|life| life.incarnation);
        let stray = self
            .leases
            .iter()
            .find(|(_, (holder, life))| *holder == agent && Some(*life) != covered);
        match stray {
            None => Ok(()),
            Some((task, (_, life))) => Law::Adoption.broken(format!(
                "{task} is still leased to {agent} in life {life} after {covered:?} was adopted at \
                 {index}"
            )),
        }
    }
}

#[cfg(test)]
#[path = "epochs/tests.rs"]
mod tests;
