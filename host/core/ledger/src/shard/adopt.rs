//! Adoption: what the system machine decided about agents and slots, recorded here.
//! From such an entry on, nothing is assigned under an older epoch.

use quorate_types::{AgentId, EventKind, Incarnation, Index, PolicyEpoch, TaskId, Token};

use super::{Adopted, AdoptedPolicy, Moment, Shard};
use crate::bounds::clip;
use crate::command::{AgentAdoption, PolicyAdoption, Standing};
use crate::outcome::Outcome;
use crate::rebirth::LEAP;
use crate::set_hash::Mark;

impl Shard {
    /// The life of an agent that may hold leases here.
    pub(crate) fn assignable(&self, agent: AgentId) -> Option<Incarnation> {
        self.agents.get(&agent).filter(|adopted| adopted.live).map(|adopted| adopted.incarnation)
    }

    /// Leases that were ever given to an agent here.
    pub(crate) fn given(&self, agent: AgentId) -> u64 {
        self.agents.get(&agent).map_or(0, |adopted| adopted.given)
    }

    /// One more was.
    pub(super) fn count_given(&mut self, agent: AgentId) {
        if let Some(adopted) = self.agents.get(&agent).copied() {
            self.store_agent(Adopted { given: adopted.given + 1, ..adopted });
        }
    }

    /// The activation recorded for a slot; 0 before the first.
    pub(crate) fn adopted_epoch(&self, slot: &str) -> PolicyEpoch {
        self.policies.get(slot).map_or(PolicyEpoch(0), |adopted| adopted.epoch)
    }

    /// Where an activation was recorded.
    pub(crate) fn adopted_index(&self, slot: &str, epoch: PolicyEpoch) -> Option<Index> {
        let adopted = self.policies.get(slot)?;
        (adopted.epoch == epoch).then_some(adopted.index)
    }

    pub(super) fn adopt_agents(
        &mut self,
        at: Moment,
        from: Index,
        adoptions: Vec<AgentAdoption>,
        events: &mut Vec<EventKind>,
    ) -> Outcome {
        let (mut requeued, mut dead) = (0, 0);
        if from < self.counters.adopted_from {
            return Outcome::Requeued { requeued, dead };
        }
        self.counters.adopted_from = from;
        for adoption in adoptions {
            if self.is_past(&adoption) {
                continue;
            }
            self.record(&adoption);
            let reason = clip(adoption.reason);
            for (id, token) in self.fenced_leases(adoption.agent) {
                match self.lose(at, id, token, &reason, events) {
                    Some(true) => requeued += 1,
                    Some(false) => dead += 1,
                    None => unreachable!("the lease of {id} was just read"),
                }
            }
        }
        Outcome::Requeued { requeued, dead }
    }

    /// Whether the shard has recorded as much or more: an adoption may be proposed twice, and by a
    /// leader that has since been overtaken. An ended life does not begin again.
    fn is_past(&self, adoption: &AgentAdoption) -> bool {
        self.agents.get(&adoption.agent).is_some_and(|recorded| {
            recorded.incarnation > adoption.incarnation
                || recorded.incarnation == adoption.incarnation
                    && !recorded.live
                    && adoption.standing == Standing::Live
        })
    }

    fn record(&mut self, adoption: &AgentAdoption) {
        let (agent, incarnation) = (adoption.agent, adoption.incarnation);
        let given = self.given(agent);
        match adoption.standing {
            Standing::Live => self.store_agent(Adopted { agent, incarnation, live: true, given }),
            Standing::Retired => {
                self.store_agent(Adopted { agent, incarnation, live: false, given });
            }
            Standing::Forgotten => {
                if let Some(before) = self.agents.remove(&agent) {
                    self.sum.remove(Mark::of("adopted-agent", &before));
                }
            }
        }
    }

    /// The leases of an agent that its recorded life does not cover.
    fn fenced_leases(&self, agent: AgentId) -> Vec<(TaskId, Token)> {
        let covered = self.assignable(agent);
        let held = self.places.leases.get(&agent).into_iter().flatten();
        let leases = held.filter_map(|id| self.task(*id)?.lease().map(|lease| (*id, lease)));
        leases
            .filter(|(_id, lease)| covered != Some(lease.incarnation))
            .map(|(id, lease)| (id, lease.token))
            .collect()
    }

    /// The leases that are held here.
    pub(crate) fn held_leases(&self) -> Vec<(TaskId, Token)> {
        let held = self.places.leases.values().flatten();
        held.filter_map(|id| Some((*id, self.task(*id)?.lease()?.token))).collect()
    }

    /// Every recorded life has ended, and later ones are numbered behind a leap.
    pub(crate) fn retire_recorded(&mut self) {
        for adopted in self.agents.clone().values() {
            let incarnation = Incarnation(adopted.incarnation.0 + LEAP);
            self.store_agent(Adopted { incarnation, live: false, ..*adopted });
        }
    }

    pub(super) fn adopt_policy(
        &mut self,
        at: Moment,
        PolicyAdoption { slot, epoch, name }: PolicyAdoption,
        events: &mut Vec<EventKind>,
    ) -> Outcome {
        if epoch > self.adopted_epoch(&slot) {
            self.store_policy(AdoptedPolicy { slot: slot.clone(), epoch, index: at.index });
            events.push(EventKind::Policy {
                slot,
                name,
                epoch,
                step: "adopted".to_owned(),
                group: self.group,
            });
        }
        Outcome::Done
    }

    pub(super) fn drop_oldest_decided(&mut self) {
        let oldest = self.decided.get_min().map(|(epoch, _decided)| *epoch);
        if let Some(before) = oldest.and_then(|epoch| self.decided.remove(&epoch)) {
            self.sum.remove(Mark::of("decided", &before));
        }
    }
}
