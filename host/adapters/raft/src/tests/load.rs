//! What slows a group down, and what must not.

use std::time::Duration;

use futures::future::join_all;
use openraft_rt::{AsyncRuntime, Instant};
use openraft_rt_sim::SimRuntime;
use openraft_rt_tokio::TokioRuntime;
use quorate_types::limits::INLINE_BYTES_MAX;
use quorate_types::{Gone, Index, Lane, NodeId};

use super::cluster::{Cluster, Settings};
use super::scenarios::on_both_runtimes;
use crate::hand_off::TransferError;
use crate::settings::{Compaction, LogSize, Profile};

on_both_runtimes!(
    a_slow_follower_never_slows_the_majority,
    a_follower_far_behind_catches_up_while_others_go_on,
    a_leader_whose_disk_stands_still_hands_over,
    many_reads_share_a_confirmation,
    a_hand_over_that_nobody_takes_does_not_stop_the_group,
    a_snapshot_goes_on_where_the_connection_broke,
    a_large_log_is_cut_by_its_size,
);

/// How long it takes to submit so many tasks, one after the other.
async fn time_of<RT: AsyncRuntime>(cluster: &mut Cluster<RT>, count: usize) -> Duration {
    let since = RT::Instant::now();
    cluster.submit(count).await;
    RT::Instant::now() - since
}

async fn a_slow_follower_never_slows_the_majority<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(20).await;
    let slow = cluster.follower().await;
    let before = time_of(&mut cluster, 100).await;
    cluster.disk(slow).slow_down(Duration::from_millis(100));
    let while_slow = time_of(&mut cluster, 100).await;
    cluster.disk(slow).stand_still(true);
    let while_still = time_of(&mut cluster, 100).await;
    println!(
        "100 commits: {before:?}, {while_slow:?} beside a slow disk, {while_still:?} a still one"
    );
    // One commit that waited for it would cost 50 ms, a hundred of them five seconds.
    let most = 2 * before + Duration::from_millis(200);
    assert!(while_slow < most && while_still < most, "{before:?} {while_slow:?} {while_still:?}");
    cluster.disk(slow).stand_still(false);
    cluster.disk(slow).slow_down(Duration::ZERO);
    cluster.settle().await;
}

async fn a_follower_far_behind_catches_up_while_others_go_on<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(1).await;
    let away = cluster.follower().await;
    cluster.kill(away, Some(Gone::Timeout));
    // 20 MiB of entries: several windows of what may be under way at once.
    cluster.input_bytes = INLINE_BYTES_MAX;
    cluster.submit(320).await;
    cluster.input_bytes = 0;
    cluster.boot(away).await;
    let since = RT::Instant::now();
    let goal = cluster.status(cluster.leader().await).last_log;
    while cluster.status(away).last_log < goal {
        cluster.submit(1).await;
    }
    let elapsed = RT::Instant::now() - since;
    println!("20 MiB behind, caught up in {elapsed:?}");
    assert_eq!(cluster.told(away).restored, [] as [Index; 0], "it came by appends");
    // An append that its lane refuses costs a back-off of 200 ms, and each window had one.
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    cluster.settle().await;
}

async fn a_leader_whose_disk_stands_still_hands_over<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(10).await;
    let stalled = cluster.leader().await;
    cluster.disk(stalled).stand_still(true);
    let since = RT::Instant::now();
    let (command, raft) = (cluster.submission(), cluster.handle(stalled));
    let proposal = RT::spawn(async move { raft.propose(command).await });
    let another = |c: &Cluster<RT>| {
        let others = c.live().into_iter().filter(|id| *id != stalled);
        others.map(|id| c.status(id)).any(|status| status.leads)
    };
    cluster.until("another leader", another).await;
    let elapsed = RT::Instant::now() - since;
    println!("another leads {elapsed:?} after the disk stood still");
    let stall = Profile::Default.timing().stall();
    assert!(elapsed > stall && elapsed < stall * 4, "{elapsed:?}");
    cluster.submit(10).await;
    cluster.disk(stalled).stand_still(false);
    drop(proposal.await);
    cluster.settle().await;
}

async fn many_reads_share_a_confirmation<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(5).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let raft = cluster.handle(leader);
    let (before, _) = cluster.carried(follower, Lane::Vote);
    let since = RT::Instant::now();
    let reads = join_all((0..1_000).map(|_| raft.read_barrier())).await;
    let elapsed = RT::Instant::now() - since;
    let (after, _) = cluster.carried(follower, Lane::Vote);
    let least = cluster.status(leader).applied;
    assert!(reads.iter().all(|read| read.as_ref().is_ok_and(|index| *index <= least)));
    let frames = after - before;
    println!("1,000 reads in {elapsed:?} by {frames} heartbeats");
    assert!(frames < 100, "{frames} heartbeats");
}

async fn a_hand_over_that_nobody_takes_does_not_stop_the_group<RT: AsyncRuntime>() {
    let mut cluster = Cluster::<RT>::raft(3, 1).await;
    cluster.submit(5).await;
    let (leader, away) = (cluster.leader().await, cluster.follower().await);
    cluster.isolate(away);
    let late = cluster.handle(leader).transfer_to(away).await;
    assert_eq!(late, Err(TransferError::Late(away)));
    let since = RT::Instant::now();
    cluster.submit(5).await;
    let elapsed = RT::Instant::now() - since;
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    cluster.heal();
    cluster.settle().await;
}

async fn a_snapshot_goes_on_where_the_connection_broke<RT: AsyncRuntime>() {
    const PIECES: usize = 8;
    let compaction = Compaction { entries_per_snapshot: 50, entries_kept: 10 };
    // Eight pieces a second: the break falls in the middle.
    let snapshot_bytes_per_s = Some(8 << 20);
    let settings = Settings { compaction, snapshot_bytes_per_s, ..Settings::default() };
    let mut cluster = Cluster::<RT>::start(3, 1, settings).await;
    cluster.submit(5).await;
    let away = cluster.follower().await;
    cluster.kill(away, Some(Gone::Timeout));
    cluster.input_bytes = INLINE_BYTES_MAX;
    cluster.submit(16 * PIECES).await;
    cluster.input_bytes = 0;
    cluster.submit(100).await;
    let leader = cluster.leader().await;
    let cut = |c: &Cluster<RT>| c.status(leader).purged > Index(16 * 8);
    cluster.until("the log cut", cut).await;
    let since = RT::Instant::now();
    cluster.boot(away).await;
    let come =
        |pieces: usize| move |c: &Cluster<RT>| c.carried(away, Lane::Snapshot).1 > pieces << 20;
    cluster.until("half of it", come(PIECES / 2)).await;
    cluster.part(leader, away);
    RT::sleep(Duration::from_millis(500)).await;
    cluster.heal();
    cluster.settle().await;
    let elapsed = RT::Instant::now() - since;
    let (frames, bytes) = cluster.carried(away, Lane::Snapshot);
    println!("{frames} frames, {bytes} bytes, {elapsed:?}");
    assert!(!cluster.told(away).restored.is_empty(), "it came by snapshot");
    assert!(bytes < (PIECES + 2) << 20, "{bytes} bytes: it was begun again");
    assert!(elapsed > Duration::from_millis(900), "{elapsed:?}: faster than the pace");
}

async fn a_large_log_is_cut_by_its_size<RT: AsyncRuntime>() {
    let log_size = LogSize { bytes_per_snapshot: 2 << 20, bytes_kept: 1 << 20 };
    let settings = Settings { log_size, ..Settings::default() };
    let mut cluster = Cluster::<RT>::start(3, 1, settings).await;
    cluster.input_bytes = INLINE_BYTES_MAX;
    // 6.25 MiB in a hundred entries: far from what counts entries alone.
    cluster.submit(100).await;
    let nodes = cluster.ids();
    let cut = |c: &Cluster<RT>| {
        nodes.iter().map(|id| c.status(*id)).all(|status| {
            // The newest 1 MiB has 16 entries, and less than 2 MiB may follow the snapshot.
            status.snapshot > Index(60) && status.purged.0 + 17 > status.snapshot.0.min(84)
        })
    };
    cluster.until("cut by size", cut).await;
    let away = NodeId(1);
    cluster.kill(away, None);
    cluster.boot(away).await;
    cluster.input_bytes = 0;
    cluster.submit(3).await;
    cluster.settle().await;
}
