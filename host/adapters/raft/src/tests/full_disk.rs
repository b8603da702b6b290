//! A full disk on one node: nothing stops, nothing is lost, and the node comes back
//! by itself when there is space.

use std::time::Duration;

use openraft_rt::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use quorate_types::NodeId;

use super::cluster::Cluster;
use crate::propose::ProposeError;

/// Tasks of this size fill half a segment after some 140.
const INPUT_BYTES: usize = 60_000;

async fn cluster() -> Cluster<SimRuntime> {
    let mut cluster = Cluster::raft(3, 1).await;
    cluster.submit(5).await;
    cluster.settle().await;
    cluster.input_bytes = INPUT_BYTES;
    cluster
}

fn fill(cluster: &Cluster<SimRuntime>, id: NodeId) {
    cluster.disk(id).memory().fill_after(1_000);
}

#[test]
fn a_follower_with_a_full_disk_falls_behind_and_catches_up() {
    SimRuntime::with_seed(7).block_on(async {
        let mut cluster = cluster().await;
        let follower = cluster.follower().await;
        fill(&cluster, follower);
        cluster.submit(250).await;
        let (applied, others) = (cluster.applied(follower), cluster.leader().await);
        assert!(applied < cluster.applied(others), "it has no room for them");
        assert!(cluster.told(follower).failed.is_empty(), "and has not failed");
        cluster.disk(follower).memory().free_up();
        cluster.settle().await;
    });
}

#[test]
fn a_leader_with_a_full_disk_refuses_by_name_and_serves_again() {
    SimRuntime::with_seed(7).block_on(async {
        let mut cluster = cluster().await;
        let leader = cluster.leader().await;
        fill(&cluster, leader);
        let refused = loop {
            let command = cluster.submission();
            if let Err(error) = cluster.handle(leader).propose(command).await {
                break error;
            }
        };
        assert_eq!(refused, ProposeError::DiskFull);
        SimRuntime::sleep(Duration::from_secs(10)).await;
        assert!(cluster.told(leader).failed.is_empty(), "it goes on leading");
        assert_eq!(cluster.leader().await, leader);
        cluster.handle(leader).read_barrier().await.unwrap();
        cluster.disk(leader).memory().free_up();
        SimRuntime::sleep(Duration::from_secs(3)).await;
        cluster.submit(5).await;
        cluster.settle().await;
    });
}

#[test]
fn with_every_disk_full_leaders_are_still_elected() {
    SimRuntime::with_seed(7).block_on(async {
        let mut cluster = cluster().await;
        for id in cluster.ids() {
            fill(&cluster, id);
        }
        let mut refused = false;
        while !refused {
            let (leader, command) = (cluster.leader().await, cluster.submission());
            refused = cluster.handle(leader).propose(command).await == Err(ProposeError::DiskFull);
        }
        let old = cluster.leader().await;
        cluster.kill(old, None);
        // On a full disk the new leader's first entry is not taken by its followers, so it leads
        // without a commit until there is space.
        cluster.leader().await;
        for id in cluster.ids() {
            cluster.disk(id).memory().free_up();
        }
        cluster.boot(old).await;
        SimRuntime::sleep(Duration::from_secs(3)).await;
        cluster.submit(5).await;
        cluster.settle().await;
    });
}
