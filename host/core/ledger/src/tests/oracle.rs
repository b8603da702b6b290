//! What must hold of every history, known from the commands proposed and the events
//! told alone: the oracle keeps no ledger of its own and shares no code with it.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{
    AgentId, EventKind, Incarnation, Index, PolicyEpoch, TaskId, TaskState, Time, Token,
};

use crate::{Assignment, Ledger, Outcome, SLOT_BALANCER, ShardCommand, Standing, Unassigned};

#[derive(Default)]
pub(super) struct Oracle {
    /// As the events tell.
    states: BTreeMap<TaskId, TaskState>,
    /// Who holds a task, as the events tell.
    holders: BTreeMap<TaskId, (AgentId, Token)>,
    completed: BTreeSet<TaskId>,
    newest_token: Token,
    newest_time: Time,
    /// The newest life adopted, and whether it had ended, as the commands tell.
    lives: BTreeMap<AgentId, (Incarnation, bool)>,
    /// The newest state of the system machine that lives were adopted from.
    adopted_from: Index,
    /// The newest epoch adopted, as the commands tell.
    epoch: PolicyEpoch,
}

impl Oracle {
    /// The legal steps. Anything else is a lost task, a second completion or a step out of an end.
    fn step(&mut self, event: &EventKind) {
        let EventKind::Task { task, state, agent, token, .. } = event else { return };
        use TaskState::{Cancelled, Completed, DeadLetter, Leased, Queued, Retrying};
        let before = self.states.insert(*task, *state);
        let legal = match before {
            None => *state == Queued,
            Some(Queued | Retrying) => matches!(*state, Leased | DeadLetter | Cancelled),
            Some(Leased) => *state != Leased,
            Some(Completed | DeadLetter | Cancelled) => false,
        };
        assert!(legal, "{task} went from {before:?} to {state}");
        if *state == Completed {
            assert!(self.completed.insert(*task), "{task} completed twice");
        }
        let told = agent.zip(*token);
        if *state == Leased {
            self.holders.extend(told.map(|held| (*task, held)));
        } else {
            assert_eq!(self.holders.remove(task), told, "who lost {task}");
        }
    }

    /// What was just applied, its outcome and its events.
    pub(super) fn saw(
        &mut self,
        command: Option<&ShardCommand>,
        outcome: &Outcome,
        events: &[EventKind],
    ) {
        match (command, outcome) {
            (Some(ShardCommand::Assign(chosen)), Outcome::Assigned(answers)) => {
                for (chosen, answer) in chosen.iter().zip(answers) {
                    self.assigned(chosen, answer);
                }
            }
            (Some(ShardCommand::AdoptAgents { from, agents }), _) if *from >= self.adopted_from => {
                self.adopted_from = *from;
                for adoption in agents {
                    let ended = adoption.standing != Standing::Live;
                    let life = (adoption.incarnation, ended);
                    let newest = self.lives.entry(adoption.agent).or_default();
                    *newest = (*newest).max(life);
                }
            }
            (Some(ShardCommand::AdoptPolicy(adoption)), _) => {
                self.epoch = self.epoch.max(adoption.epoch);
            }
            _other => {}
        }
        for event in events {
            entitled(command, event);
            self.step(event);
        }
    }

    fn assigned(&mut self, chosen: &Assignment, answer: &Result<Token, Unassigned>) {
        let Ok(token) = answer else { return };
        assert!(*token > self.newest_token, "tokens grow");
        self.newest_token = *token;
        let life = (chosen.incarnation, false);
        assert_eq!(
            self.lives.get(&chosen.agent),
            Some(&life),
            "a life not on record was given work"
        );
        assert_eq!(chosen.policy_epoch, self.epoch, "an epoch not on record gave work");
    }

    /// Holds the whole ledger against what was told.
    pub(super) fn check(&mut self, ledger: &Ledger) {
        assert!(ledger.time() >= self.newest_time, "ledger time ran back");
        self.newest_time = ledger.time();
        for (id, state) in &self.states {
            match ledger.task(*id) {
                Some(task) => assert_eq!(task.state, *state, "watchers of {id} know"),
                None => assert!(state.is_final() && ledger.was_forgotten(*id), "{id} was lost"),
            }
        }
        assert_eq!(ledger.adopted_epoch(SLOT_BALANCER), self.epoch);
        let leases = ledger.leases().map(|lease| {
            let recorded = ledger.assignable(lease.agent);
            assert_eq!(recorded, Some(lease.incarnation), "a fenced life holds {}", lease.task);
            (lease.task, (lease.agent, lease.token))
        });
        assert_eq!(leases.collect::<BTreeMap<_, _>>(), self.holders);
        if Ledger::adoptions(ledger, ledger).is_empty() {
            for agent in ledger.system.agents.values() {
                let life = agent.retired.is_none().then_some(agent.incarnation);
                assert_eq!(ledger.assignable(agent.id), life, "nothing is left to adopt");
            }
        }
        in_one_place_each(ledger);
    }
}

/// Whoever ends an attempt holds its token (which `step` compares with the lease's).
fn entitled(command: Option<&ShardCommand>, event: &EventKind) {
    let EventKind::Task { task: ended, token: Some(of), .. } = event else { return };
    match command {
        Some(
            ShardCommand::Complete { task, token, .. } | ShardCommand::Fail { task, token, .. },
        ) => assert_eq!((ended, of), (task, token), "ended under another token"),
        Some(ShardCommand::Expire { leases, .. }) => {
            assert!(leases.contains(&(*ended, *of)), "{ended} expired under another token");
        }
        _other => {}
    }
}

/// Every record stands in the places of its state and in no other.
fn in_one_place_each(ledger: &Ledger) {
    assert_eq!(ledger.system.names.len(), ledger.system.agents.len(), "a name an agent");
    let places = &ledger.shard.places;
    let ready = places.queues.values().flat_map(|queue| {
        let waiting = queue.waiting.iter().map(|(_from, _priority, id)| *id);
        queue.ready.iter().map(|(_priority, id)| *id).chain(waiting)
    });
    let ready: Vec<_> = ready.collect();
    let leased: Vec<_> = places.leases.values().flatten().copied().collect();
    let ended: Vec<_> = places.expires.iter().map(|(_at, id)| *id).collect();
    let all = [&ready, &leased, &ended].map(|place| place.iter().copied());
    let all: Vec<_> = all.into_iter().flatten().collect();
    let once: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(all.len(), once.len(), "a task in two places");
    assert!(once.iter().eq(ledger.shard.tasks.keys()), "a task in no place");
    let counted: u64 = ledger.namespaces().flat_map(|name| ledger.counts(name).into_values()).sum();
    assert_eq!(usize::try_from(counted), Ok(all.len()), "the census");
    for (place, wanted) in [
        (&ready, [TaskState::Queued, TaskState::Retrying].as_slice()),
        (&leased, &[TaskState::Leased]),
        (&ended, &[TaskState::Completed, TaskState::DeadLetter, TaskState::Cancelled]),
    ] {
        for id in place {
            let state = ledger.task(*id).map(|task| task.state);
            assert!(state.is_some_and(|state| wanted.contains(&state)), "{id} is {state:?}");
        }
    }
}
