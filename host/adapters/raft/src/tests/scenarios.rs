//! What a group does when things go right, and when one thing goes wrong.

use std::time::Duration;

use bytes::Bytes;
use openraft_rt::{AsyncRuntime, Instant};
use openraft_rt_sim::SimRuntime;
use openraft_rt_tokio::TokioRuntime;
use quorate_types::limits::{COMMAND_BYTES_MAX, INLINE_BYTES_MAX};
use quorate_types::{Faults, Gone, Index, NodeId};

use super::cluster::{Cluster, Settings, task_of};
use crate::hand_off::TransferError;
use crate::propose::{ProposeError, ReadError};
use crate::settings::{Compaction, Profile};

macro_rules! on_both_runtimes {
    ($($scenario:ident),+ $(,)?) => {
        mod on_tokio {
            use openraft_rt::AsyncRuntime;

            $(#[test]
            fn $scenario() {
                super::TokioRuntime::new(2).block_on(super::$scenario::<super::TokioRuntime>());
            })+
        }
        mod under_a_seed {
            use openraft_rt::AsyncRuntime;

            $(#[test]
            fn $scenario() {
                super::SimRuntime::with_seed(7).block_on(super::$scenario::<super::SimRuntime>());
            })+
        }
    };
}

pub(super) use on_both_runtimes;

on_both_runtimes!(
    three_nodes_elect_commit_and_agree,
    a_single_voter_commits_alone,
    proposals_together_keep_their_order,
    the_leaders_death_is_survived_by_hand_off,
    the_leaders_death_is_survived_by_timers,
    all_nodes_restart_from_their_disks,
    a_follower_far_behind_is_sent_a_snapshot,
    a_leader_cut_off_refuses_and_steps_aside,
    a_leader_that_hears_nobody_does_not_block_the_others,
    reads_are_confirmed_by_a_quorum_and_only_on_the_leader,
    leadership_moves_on_request,
    a_leader_that_ends_in_order_hands_over,
    an_unknown_command_stops_the_group_and_is_never_skipped,
    a_disk_that_fails_stops_only_its_node,
    what_may_not_be_proposed_is_refused_by_name,
);

async fn three_nodes_elect_commit_and_agree<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(20).await;
    cluster.settle().await;
    let leader = cluster.leader().await;
    for id in cluster.ids() {
        let status = cluster.status(id);
        assert_eq!(status.voters, cluster.ids());
        assert_eq!((status.leader, status.leads), (Some(leader), id == leader));
        let told = cluster.told(id);
        assert_eq!(told.leadership.last(), Some(&(Some(leader), status.term)));
        assert_eq!((told.applied, told.events), (status.applied, 20), "one event a task");
        assert_eq!(told.failed, [] as [String; 0]);
    }
    assert!(cluster.status(leader).quorum_ack_age.unwrap() < Duration::from_secs(1));
}

async fn a_single_voter_commits_alone<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(1, 1).await;
    cluster.submit(3).await;
    // Longer than the watchdog gives a leader of several.
    RT::sleep(Profile::Default.timing().watchdog() * 2).await;
    cluster.submit(1).await;
    cluster.settle().await;
    assert_eq!(cluster.told(NodeId(1)).leadership.len(), 1, "it led all the time");
    cluster.handle(NodeId(1)).read_barrier().await.unwrap();
}

async fn proposals_together_keep_their_order<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(1).await;
    let leader = cluster.leader().await;
    let commands: Vec<Bytes> = (0..100).map(|_| cluster.submission()).collect();
    let answers = cluster.handle(leader).propose_batch(&commands).await.unwrap();
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();
    assert!(answers.windows(2).all(|pair| pair[0].0.0 + 1 == pair[1].0.0), "{answers:?}");
    let tasks: Vec<_> = answers.iter().map(|(_, outcome)| task_of(outcome)).collect();
    assert!(tasks.is_sorted());
    cluster.acked.extend(tasks);
    cluster.settle().await;
}

async fn the_leaders_death_is_survived_by_hand_off<RT: AsyncRuntime>() {
    let elapsed = time_without_leader::<RT>(Gone::Refused).await;
    // By timers it takes at least the lease and the shortest election timeout, 450 ms.
    assert!(elapsed < Duration::from_millis(300), "{elapsed:?}");
}

async fn the_leaders_death_is_survived_by_timers<RT: AsyncRuntime>() {
    let elapsed = time_without_leader::<RT>(Gone::Timeout).await;
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

/// From the leader's power loss to the next acknowledgement; then it comes back.
async fn time_without_leader<RT: AsyncRuntime>(gone: Gone) -> Duration {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(10).await;
    let dead = cluster.leader().await;
    let since = RT::Instant::now();
    cluster.kill(dead, Some(gone));
    cluster.submit(1).await;
    let elapsed = RT::Instant::now() - since;
    println!("{gone:?}: {elapsed:?} to the next acknowledgement");
    assert_ne!(cluster.leader().await, dead);
    cluster.submit(9).await;
    cluster.boot(dead).await;
    cluster.settle().await;
    assert_eq!(cluster.acked.len(), 20);
    elapsed
}

async fn all_nodes_restart_from_their_disks<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(30).await;
    cluster.settle().await;
    let leader = cluster.leader().await;
    let before = cluster.status(leader);
    for id in cluster.ids() {
        cluster.kill(id, None);
    }
    for id in cluster.ids() {
        cluster.boot(id).await;
    }
    cluster.submit(1).await;
    cluster.settle().await;
    let leader = cluster.leader().await;
    let after = cluster.status(leader);
    assert!(after.term > before.term, "nobody came back as leader of its old term");
    assert!(after.last_log > before.last_log, "the log went on, it did not begin again");
    assert_eq!(cluster.told(leader).events, 31, "what was committed was applied once more");
}

async fn a_follower_far_behind_is_sent_a_snapshot<RT: AsyncRuntime>() {
    let compaction = Compaction { entries_per_snapshot: 50, entries_kept: 10 };
    let settings = Settings { compaction, ..Settings::default() };
    let mut cluster = Cluster::<RT>::start(3, 1, settings).await;
    cluster.submit(5).await;
    let away = cluster.follower().await;
    cluster.kill(away, Some(Gone::Timeout));
    cluster.submit(60).await;
    // 3.75 MiB: the snapshot comes in four pieces.
    cluster.input_bytes = INLINE_BYTES_MAX;
    cluster.submit(60).await;
    cluster.input_bytes = 0;
    cluster.submit(100).await;
    let leader = cluster.leader().await;
    cluster.until("the log cut", |c| c.status(leader).purged > Index(120)).await;
    cluster.boot(away).await;
    cluster.settle().await;
    assert!(!cluster.told(away).restored.is_empty(), "it came by snapshot");
    // And a node that restarts begins with its own.
    cluster.kill(away, Some(Gone::Timeout));
    cluster.boot(away).await;
    assert!(cluster.told(away).restored[0] > Index(120));
    cluster.submit(1).await;
    cluster.settle().await;
}

async fn a_leader_cut_off_refuses_and_steps_aside<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(5).await;
    let old = cluster.leader().await;
    let term = cluster.status(old).term;
    cluster.isolate(old);
    // Taken while its lease ran, so nobody can say what becomes of it; but it does not hang.
    let (command, raft) = (cluster.submission(), cluster.handle(old));
    let taken = RT::timeout(Duration::from_secs(10), raft.propose(command)).await.unwrap();
    assert_eq!(taken, Err(ProposeError::Unknown));
    let restarted = |c: &Cluster<RT>| {
        let told = c.told(old).leadership;
        told.contains(&(Some(old), term)) && told.last().is_some_and(|(leader, _)| leader.is_none())
    };
    cluster.until("its restart", restarted).await;
    let command = cluster.submission();
    let refused = cluster.handle(old).propose(command).await;
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: None }));
    cluster.submit(5).await;
    cluster.heal();
    cluster.settle().await;
    assert!(cluster.status(old).term > term);
}

async fn a_leader_that_hears_nobody_does_not_block_the_others<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(5).await;
    let deaf = cluster.leader().await;
    let since = RT::Instant::now();
    // Its heartbeats go on and renew the others' leases.
    cluster.deafen(deaf);
    cluster
        .until("another leader", |c| c.ids().into_iter().any(|id| id != deaf && c.status(id).leads))
        .await;
    cluster.submit(5).await;
    let elapsed = RT::Instant::now() - since;
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
    cluster.heal();
    cluster.settle().await;
}

async fn reads_are_confirmed_by_a_quorum_and_only_on_the_leader<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(5).await;
    let leader = cluster.leader().await;
    let raft = cluster.handle(leader);
    let index = raft.read_barrier().await.unwrap();
    assert!(raft.view().index() <= index && raft.view().task(cluster.acked[4]).is_some());
    let follower = cluster.follower().await;
    let refused = cluster.handle(follower).read_barrier().await;
    assert_eq!(refused, Err(ReadError::NotLeader { leader: Some(leader) }));
    cluster.isolate(leader);
    let alone = raft.read_barrier().await;
    assert!(
        matches!(alone, Err(ReadError::NoQuorum | ReadError::NotLeader { leader: None })),
        "{alone:?}"
    );
}

async fn leadership_moves_on_request<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(5).await;
    let (old, new) = (cluster.leader().await, cluster.follower().await);
    let refused = cluster.handle(new).transfer_to(old).await;
    assert_eq!(refused, Err(TransferError::NotLeader));
    let nobody = NodeId(9);
    let refused = cluster.handle(old).transfer_to(nobody).await;
    assert_eq!(refused, Err(TransferError::NotVoter(nobody)));
    cluster.handle(old).transfer_to(new).await.unwrap();
    assert_eq!(cluster.leader().await, new);
    cluster.submit(5).await;
    cluster.settle().await;
}

async fn a_leader_that_ends_in_order_hands_over<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(5).await;
    let old = cluster.leader().await;
    let raft = cluster.handle(old);
    cluster.stop(old).await;
    assert_eq!(raft.propose(Bytes::new()).await, Err(ProposeError::Stopped));
    assert_eq!(raft.read_barrier().await, Err(ReadError::Stopped));
    raft.shutdown().await; // Twice is no more than once.
    cluster.submit(5).await;
    cluster.boot(old).await;
    cluster.settle().await;
}

async fn an_unknown_command_stops_the_group_and_is_never_skipped<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(5).await;
    cluster.settle().await;
    let leader = cluster.leader().await;
    let raft = cluster.handle(leader);
    let nonsense = Bytes::from_static(b"a command of kind 0x6120, unknown");
    assert_eq!(raft.propose(nonsense).await, Err(ProposeError::Unknown));
    let failed = |c: &Cluster<RT>| c.ids().into_iter().all(|id| !c.told(id).failed.is_empty());
    cluster.until("all stopped", failed).await;
    for id in cluster.ids() {
        let told = cluster.told(id);
        assert!(told.failed[0].contains("cannot be applied"), "{}", told.failed[0]);
        assert_eq!(cluster.applied(id), told.applied);
        assert_eq!(cluster.handle(id).propose(Bytes::new()).await, Err(ProposeError::Stopped));
    }
    cluster.judge();
}

async fn a_disk_that_fails_stops_only_its_node<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(5).await;
    let broken = cluster.follower().await;
    cluster.disk(broken).memory().fail_syncs_after(0);
    cluster.submit(5).await;
    cluster.until("its failure", |c| !c.told(broken).failed.is_empty()).await;
    cluster.kill(broken, Some(Gone::Closed));
    cluster.submit(5).await;
    cluster.settle().await;
    cluster.boot(broken).await;
    cluster.settle().await;
}

async fn what_may_not_be_proposed_is_refused_by_name<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(1).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let command = cluster.submission();
    let refused = cluster.handle(follower).propose(command).await;
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(leader) }));
    let got = COMMAND_BYTES_MAX + 1;
    let refused = cluster.handle(leader).propose(Bytes::from(vec![0; got])).await;
    assert_eq!(refused, Err(ProposeError::TooLarge { got, limit: COMMAND_BYTES_MAX }));
    let many = vec![Bytes::new(); 5_000];
    let refused = cluster.handle(leader).propose_batch(&many).await;
    assert_eq!(refused, Err(ProposeError::Busy(0)));
    cluster.submit(1).await;
    cluster.settle().await;
}

/// The planted fault reaches openraft: the simulator must be able to switch it on.
#[test]
fn a_restored_leader_can_be_planted() {
    SimRuntime::with_seed(3).block_on(async {
        let faults = Faults { leader_restore: true, ..Faults::none() };
        let settings = Settings { faults, ..Settings::default() };
        let mut cluster = Cluster::<SimRuntime>::start(3, 3, settings).await;
        cluster.submit(3).await;
        let leader = cluster.leader().await;
        let term = cluster.status(leader).term;
        cluster.kill(leader, None);
        cluster.boot(leader).await;
        cluster
            .until("it leads its old term", |c| {
                let status = c.status(leader);
                (status.leads, status.term) == (true, term)
            })
            .await;
    });
}
