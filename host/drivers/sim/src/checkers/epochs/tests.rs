use quorate_ledger::PolicyAdoption;
use quorate_types::{LoadReading, NodeId, Token};

use super::*;

const SYSTEM: GroupId = GroupId::SYSTEM;
const SHARD: GroupId = GroupId(1);
const AGENT: AgentId = AgentId(7);

fn up(life: u64) -> EventKind {
    let name = "worker".to_owned();
    EventKind::AgentUp { agent: AGENT, incarnation: Incarnation(life), node: NodeId(1), name }
}

fn down(life: u64) -> EventKind {
    let reason = "gone".to_owned();
    EventKind::AgentDown { agent: AGENT, incarnation: Incarnation(life), reason }
}

fn task(state: TaskState) -> EventKind {
    EventKind::Task {
        task: TaskId(1),
        namespace: "default".to_owned(),
        state,
        agent: Some(AGENT),
        token: Some(Token(1)),
        attempt: 1,
        policy_epoch: None,
        reason: None,
        result: None,
        labels: BTreeMap::new(),
    }
}

fn adopt(from: u64, life: u64, standing: Standing) -> Command {
    let (incarnation, reason) = (Incarnation(life), String::new());
    let agents = vec![AgentAdoption { agent: AGENT, incarnation, standing, reason }];
    ShardCommand::AdoptAgents { from: Index(from), agents }.into()
}

fn assign(life: u64) -> Command {
    let assignment = Assignment {
        task: TaskId(1),
        agent: AGENT,
        incarnation: Incarnation(life),
        policy_epoch: PolicyEpoch(0),
        policy: "native".to_owned(),
        fallback: false,
        candidates: 1,
        reading: LoadReading::default(),
        term_ms: 1,
    };
    ShardCommand::Assign(vec![assignment]).into()
}

/// The agent's first life began at 3 of the system group, its second at 8.
fn two_lives() -> Epochs {
    let mut judge = Epochs::default();
    assert_eq!(judge.see(SYSTEM, Index(3), None, &[up(1)]), Ok(()));
    assert_eq!(judge.see(SYSTEM, Index(8), None, &[down(1), up(2)]), Ok(()));
    judge
}

fn law(verdict: Verdict) -> Option<Law> {
    verdict.err().map(|breach| breach.law)
}

#[test]
fn what_the_system_group_never_decided_is_seen() {
    let seen = |from, life, standing| {
        law(two_lives().see(SHARD, Index(1), Some(&adopt(from, life, standing)), &[]))
    };
    assert_eq!(seen(5, 1, Standing::Live), None);
    assert_eq!(seen(9, 2, Standing::Live), None);
    assert_eq!(seen(2, 1, Standing::Forgotten), None);
    assert_eq!(seen(9, 1, Standing::Live), Some(Law::Adoption));
    assert_eq!(seen(5, 2, Standing::Live), Some(Law::Adoption));
    assert_eq!(seen(5, 1, Standing::Retired), Some(Law::Adoption));
    assert_eq!(seen(5, 1, Standing::Forgotten), Some(Law::Adoption));
}

#[test]
fn an_older_word_after_a_newer_one_is_passed_over_and_its_effect_is_seen() {
    let mut judge = two_lives();
    assert_eq!(judge.see(SHARD, Index(1), Some(&adopt(9, 2, Standing::Live)), &[]), Ok(()));
    assert_eq!(judge.see(SHARD, Index(2), Some(&adopt(5, 1, Standing::Live)), &[]), Ok(()));
    let leased = [task(TaskState::Leased)];
    assert_eq!(judge.see(SHARD, Index(3), Some(&assign(2)), &leased), Ok(()));
    assert_eq!(law(judge.see(SHARD, Index(4), Some(&assign(1)), &leased)), Some(Law::Adoption));
    let state = Ledger::new(&quorate_types::Faults::none());
    assert_eq!(law(judge.compare(SHARD, &state)), Some(Law::Adoption), "it has adopted nobody");
}

#[test]
fn a_lease_that_outlives_its_life_is_seen() {
    let lives = || {
        let mut judge = two_lives();
        let first = adopt(5, 1, Standing::Live);
        assert_eq!(judge.see(SHARD, Index(1), Some(&first), &[]), Ok(()));
        let leased = [task(TaskState::Leased)];
        assert_eq!(judge.see(SHARD, Index(2), Some(&assign(1)), &leased), Ok(()));
        judge
    };
    let second = adopt(8, 2, Standing::Live);
    let queued = [task(TaskState::Queued)];
    assert_eq!(lives().see(SHARD, Index(3), Some(&second), &queued), Ok(()));
    assert_eq!(law(lives().see(SHARD, Index(3), Some(&second), &[])), Some(Law::Adoption));
}

#[test]
fn a_policy_that_was_not_activated_is_seen() {
    let policy = PolicyAdoption {
        slot: "balancer".to_owned(),
        epoch: PolicyEpoch(1),
        name: "round-robin".to_owned(),
    };
    let policy = ShardCommand::AdoptPolicy(policy).into();
    let seen = Epochs::default().see(SHARD, Index(1), Some(&policy), &[]);
    assert_eq!(law(seen), Some(Law::Adoption));
}
