//! Groups that grow, shrink and replace their dead, and what they refuse.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::EntryPayload;
use openraft_rt::{AsyncRuntime, Instant};
use openraft_rt_sim::SimRuntime;
use openraft_rt_tokio::TokioRuntime;
use quorate_ledger::{Command, Outcome, RosterMember, SystemCommand};
use quorate_types::{Gone, GroupId, Lane, NodeId, Time};

use super::cluster::{Cluster, GROUP, task_of};
use super::scenarios::on_both_runtimes;
use crate::members::MembersError;
use crate::message::{Append, Message, encode};
use crate::types::{CommittedLeaderId, Entry, LogId, Membership, Vote};

on_both_runtimes!(
    a_group_grows_to_seven_and_shrinks_to_three_under_load,
    a_dead_member_is_replaced,
    a_leader_that_leaves_hands_over_first,
    a_joint_step_is_finished_by_whoever_leads_next,
    what_a_group_may_not_become_is_refused_by_name,
    a_voter_that_the_list_does_not_name_is_taken_by_nobody,
    a_frame_of_another_group_is_dropped,
);

fn set(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

impl<RT: AsyncRuntime> Cluster<RT> {
    /// Asks whoever leads for this change until it is made.
    async fn change<F>(&self, change: impl Fn(crate::Raft<RT, super::slow_disk::SlowDisk<RT>>) -> F)
    where
        F: Future<Output = Result<(), MembersError>>,
    {
        let deadline = RT::Instant::now() + Duration::from_secs(60);
        loop {
            let leader = self.leader().await;
            match change(self.handle(leader)).await {
                Ok(()) => return,
                Err(
                    error @ (MembersError::NotLeader { .. }
                    | MembersError::UnderWay
                    | MembersError::NoQuorum),
                ) => {
                    assert!(RT::Instant::now() < deadline, "{error}");
                    RT::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn add(&mut self, id: u64) {
        self.join(NodeId(id)).await;
        self.change(|raft| async move { raft.add_learner(NodeId(id)).await }).await;
    }

    async fn vote_with(&self, ids: &[u64]) {
        self.change(|raft| {
            let voters = set(ids);
            async move { raft.change_voters(voters).await }
        })
        .await;
    }

    /// The voters change while tasks are submitted.
    async fn vote_under_load(&mut self, ids: &[u64]) {
        let leader = self.leader().await;
        let (raft, voters) = (self.handle(leader), set(ids));
        let changing = RT::spawn(async move { raft.change_voters(voters).await });
        self.submit(20).await;
        // A leader that was to leave has handed over, which the wait below goes on with.
        drop(changing.await);
        self.vote_with(ids).await;
    }

    async fn until_voters(&self, ids: &[u64]) {
        let voters: Vec<NodeId> = set(ids).into_iter().collect();
        self.until("the voters", |cluster| {
            let mut statuses = cluster.live().into_iter().map(|id| cluster.status(id));
            statuses.all(|status| status.voters == voters && !status.joint)
        })
        .await;
    }
}

async fn a_group_grows_to_seven_and_shrinks_to_three_under_load<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(20).await;
    for id in 4..=7 {
        cluster.add(id).await;
        cluster.submit(5).await;
    }
    cluster.vote_under_load(&[1, 2, 3, 4, 5]).await;
    cluster.until_voters(&[1, 2, 3, 4, 5]).await;
    cluster.vote_under_load(&[1, 2, 3, 4, 5, 6, 7]).await;
    // Three of seven may go.
    for id in [2, 4, 6] {
        cluster.kill(NodeId(id), Some(Gone::Refused));
    }
    cluster.submit(20).await;
    for id in [2, 4, 6] {
        cluster.boot(NodeId(id)).await;
    }
    cluster.vote_under_load(&[3, 4, 5, 6, 7]).await;
    cluster.vote_under_load(&[5, 6, 7]).await;
    cluster.until_voters(&[5, 6, 7]).await;
    for id in 1..=4 {
        cluster.change(|raft| async move { raft.remove_learner(NodeId(id)).await }).await;
        cluster.kill(NodeId(id), Some(Gone::Closed));
    }
    cluster.submit(10).await;
    cluster.settle().await;
    assert_eq!(cluster.acked.len(), 20 + 20 + 20 + 20 + 20 + 20 + 20 + 10);
}

async fn a_dead_member_is_replaced<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(10).await;
    let dead = cluster.follower().await;
    cluster.kill(dead, Some(Gone::Refused));
    cluster.add(4).await;
    let mut voters = BTreeSet::from([NodeId(4)]);
    voters.extend(cluster.live());
    let ids: Vec<u64> = voters.iter().map(|id| id.0).collect();
    cluster.vote_under_load(&ids).await;
    cluster.change(|raft| async move { raft.remove_learner(dead).await }).await;
    // One more may go now.
    let next = cluster.follower().await;
    cluster.kill(next, Some(Gone::Timeout));
    cluster.submit(10).await;
    cluster.boot(next).await;
    cluster.until_voters(&ids).await;
    cluster.settle().await;
}

async fn a_leader_that_leaves_hands_over_first<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(5, 1).await;
    cluster.submit(5).await;
    let leaving = cluster.leader().await;
    let rest: BTreeSet<NodeId> = cluster.ids().into_iter().filter(|id| *id != leaving).collect();
    let voters: BTreeSet<NodeId> = rest.into_iter().take(3).collect();
    let answer = cluster.handle(leaving).change_voters(voters.clone()).await;
    let Err(MembersError::NotLeader { leader: Some(next) }) = answer else { panic!("{answer:?}") };
    assert!(voters.contains(&next));
    let ids: Vec<u64> = voters.iter().map(|id| id.0).collect();
    cluster.vote_with(&ids).await;
    cluster.until_voters(&ids).await;
    assert!(cluster.status(leaving).learners.contains(&leaving), "it follows still");
    cluster.submit(5).await;
    cluster.settle().await;
}

async fn a_joint_step_is_finished_by_whoever_leads_next<RT: AsyncRuntime>() {
    for round in 0..6_u64 {
        let mut cluster = Cluster::<RT>::raft(3, round).await;
        cluster.submit(3).await;
        cluster.add(4).await;
        cluster.add(5).await;
        let leader = cluster.leader().await;
        let raft = cluster.handle(leader);
        let all = set(&[1, 2, 3, 4, 5]);
        let changing = RT::spawn({
            let all = all.clone();
            async move { raft.change_voters(all).await }
        });
        RT::sleep(Duration::from_micros(200 * round)).await;
        cluster.kill(leader, Some(Gone::Refused));
        drop(changing);
        cluster.submit(3).await;
        let whole =
            |cluster: &Cluster<RT>| cluster.live().into_iter().all(|id| !cluster.status(id).joint);
        cluster.until("no joint step", whole).await;
        cluster.boot(leader).await;
        cluster.vote_with(&[1, 2, 3, 4, 5]).await;
        cluster.until_voters(&[1, 2, 3, 4, 5]).await;
        cluster.settle().await;
    }
}

async fn what_a_group_may_not_become_is_refused_by_name<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(1).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let raft = cluster.handle(leader);
    let voters = |ids: &[u64]| raft.change_voters(set(ids));
    assert_eq!(voters(&[]).await, Err(MembersError::Empty));
    assert_eq!(voters(&[1, 2]).await, Err(MembersError::Even(2)));
    assert_eq!(voters(&[1, 2, 3, 4]).await, Err(MembersError::Even(4)));
    let many: Vec<u64> = (1..=9).collect();
    assert_eq!(voters(&many).await, Err(MembersError::TooMany { got: 9 }));
    assert_eq!(voters(&[1, 2, 4]).await, Err(MembersError::Unknown(NodeId(4))));
    assert_eq!(raft.remove_learner(leader).await, Err(MembersError::Voter(leader)));
    assert_eq!(raft.remove_learner(NodeId(9)).await, Ok(()), "it is not there, as was asked");
    let there = cluster.handle(follower).add_learner(NodeId(4)).await;
    assert_eq!(there, Err(MembersError::NotLeader { leader: Some(leader) }));
    // A learner that never came would hold up every commit of five.
    raft.add_learner(NodeId(4)).await.unwrap();
    raft.add_learner(NodeId(5)).await.unwrap();
    cluster.input_bytes = 8;
    for _ in 0..11 {
        let commands: Vec<_> = (0..100).map(|_| cluster.submission()).collect();
        for answer in raft.propose_batch(&commands).await.unwrap() {
            cluster.acked.push(task_of(&answer.unwrap().1));
        }
    }
    let behind = voters(&[1, 2, 3, 4, 5]).await;
    assert!(matches!(behind, Err(MembersError::Behind { entries: 1_100.., .. })), "{behind:?}");
    // While one change waits, another is told so.
    let waiting = RT::spawn(raft.clone().changed(&[1, 2, 3, 4, 5]));
    RT::sleep(Duration::from_millis(20)).await;
    assert_eq!(voters(&[1, 2, 3]).await, Err(MembersError::UnderWay));
    let waited = waiting.await;
    assert!(matches!(waited, Ok(Err(MembersError::Behind { .. }))));
    cluster.isolate(leader);
    let alone = voters(&[leader.0]).await;
    assert!(
        matches!(alone, Err(MembersError::NoQuorum | MembersError::NotLeader { .. })),
        "{alone:?}"
    );
}

impl<RT: AsyncRuntime> crate::Raft<RT, super::slow_disk::SlowDisk<RT>> {
    /// A future that owns what it needs.
    fn changed(self, ids: &[u64]) -> impl Future<Output = Result<(), MembersError>> + use<RT> {
        let voters = set(ids);
        async move { self.change_voters(voters).await }
    }
}

async fn a_voter_that_the_list_does_not_name_is_taken_by_nobody<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(1).await;
    let leader = cluster.leader().await;
    let member = |id: u64| RosterMember {
        id: NodeId(id),
        name: format!("node-{id}"),
        peer: format!("peer-{id}"),
        address: format!("127.0.0.1:{}", 7_000 + id),
    };
    let seed = SystemCommand::SeedMembers((1..=3).map(member).collect());
    let seed = Command::from(seed).encode(Time(1));
    let (_index, outcome) = cluster.handle(leader).propose(seed).await.unwrap();
    assert_eq!(outcome, Outcome::Done);
    cluster.settle().await;
    let leader = cluster.leader().await;
    let refused = cluster.handle(leader).add_learner(NodeId(4)).await;
    assert_eq!(refused, Err(MembersError::Unadmitted(NodeId(4))));
    // A leader that does it all the same is not followed.
    let follower = cluster.follower().await;
    let status = cluster.status(follower);
    let prev = LogId::new(CommittedLeaderId::new(status.term.0), status.last_log.0 - 1);
    let next = LogId::new(CommittedLeaderId::new(status.term.0), status.last_log.0);
    let strange = Membership::new_with_defaults(vec![BTreeSet::from([1, 2, 3, 4])], []);
    let append = Append {
        vote: Vote::new_committed(status.term.0, leader.0),
        prev: Some(prev),
        commit: None,
        entries: vec![Entry { log_id: next, payload: EntryPayload::Membership(strange) }],
    };
    let frame = encode(GROUP, 1, &Message::Append(append));
    cluster.handle(follower).deliver(leader, Lane::Append, frame).await;
    // Once it is admitted it may be.
    let admit = Command::from(SystemCommand::AdmitMember(member(4))).encode(Time(2));
    cluster.handle(leader).propose(admit).await.unwrap();
    cluster.settle().await;
    assert_eq!(cluster.status(follower).voters, [1, 2, 3].map(NodeId));
    cluster.add(4).await;
    cluster.vote_with(&[2, 3, 4]).await;
    cluster.until_voters(&[2, 3, 4]).await;
    cluster.submit(3).await;
    cluster.settle().await;
}

async fn a_frame_of_another_group_is_dropped<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(3).await;
    cluster.settle().await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let before = cluster.status(follower);
    let append = Append {
        vote: Vote::new_committed(before.term.0 + 7, leader.0),
        prev: None,
        commit: None,
        entries: Vec::new(),
    };
    for lane in [Lane::Append, Lane::Vote] {
        let frame = encode(GroupId(GROUP.0 + 1), 1, &Message::Append(append.clone()));
        cluster.handle(follower).deliver(leader, lane, frame).await;
    }
    cluster.submit(3).await;
    cluster.settle().await;
    assert_eq!(cluster.status(follower).term, before.term, "nobody heard of the other term");
}
