//! What goes wrong while the demo runs: the leader is killed, the policy swapped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use quorate_client::PolicySource;
use quorate_types::NodeId;
use quorate_types::door::Consistency;
use tokio::sync::Mutex;

use super::stage::Stage;
use crate::local::LocalCluster;

/// The kill waits until the leader's agents hold so many leases.
const LEASES_AT_KILL: u64 = 10;
/// Kill and swap wait until so many calls are in flight.
const CALLS_IN_FLIGHT: u64 = 32;
/// Between two looks at the cluster while waiting for the right moment.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A moment that has not come by then does not come.
const MOMENT_WITHIN: Duration = Duration::from_secs(60);
/// The killed node stays away for so long.
const DEAD_FOR: Duration = Duration::from_secs(2);
const READY_WITHIN: Duration = Duration::from_secs(30);

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) leader_kills: u64,
    pub(crate) leases_at_kill: u64,
    pub(crate) calls_at_kill: u64,
    pub(crate) policy_swaps: u64,
    pub(crate) calls_at_swap: u64,
}

/// Kills the leader when a quarter is done, swaps the policy when half is; the killed node comes
/// back meanwhile.
pub(crate) async fn direct(
    stage: Arc<Stage>,
    cluster: Arc<Mutex<LocalCluster>>,
    total: usize,
) -> anyhow::Result<Done> {
    let mut done = Done::default();
    stage.wait_heard(total / 4).await?;
    let killed = kill_leader(&stage, &cluster, &mut done).await?;
    let returning = tokio::spawn(bring_back(Arc::clone(&stage), cluster, killed));
    stage.wait_heard(total / 2).await?;
    swap(&stage, &mut done).await?;
    returning.await??;
    Ok(done)
}

async fn kill_leader(
    stage: &Stage,
    cluster: &Mutex<LocalCluster>,
    done: &mut Done,
) -> anyhow::Result<NodeId> {
    stage.note("waiting for the moment to kill the leader");
    let moment = async {
        loop {
            let calls = stage.tally.in_flight.load(Ordering::Relaxed);
            if calls >= CALLS_IN_FLIGHT
                && let Ok(Some(leader)) = leader(stage).await
                && let Ok(leases) = leases_of(stage, leader).await
                && leases >= LEASES_AT_KILL
            {
                return (leader, leases);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let (leader, leases) = tokio::time::timeout(MOMENT_WITHIN, moment)
        .await
        .context("the leader never held enough leases with enough calls in flight")?;
    let at = usize::try_from(leader.0.saturating_sub(1))?;
    done.calls_at_kill = stage.tally.in_flight.load(Ordering::Relaxed);
    let killed = cluster.lock().await.kill_node(at)?;
    stage.record().killed = Some(killed);
    done.leader_kills = 1;
    done.leases_at_kill = leases;
    stage.note(format!("killed {leader}, the leader, holding {leases} leases"));
    Ok(leader)
}

async fn bring_back(
    stage: Arc<Stage>,
    cluster: Arc<Mutex<LocalCluster>>,
    node: NodeId,
) -> anyhow::Result<()> {
    let at = usize::try_from(node.0.saturating_sub(1))?;
    tokio::time::sleep(DEAD_FOR).await;
    let mut cluster = cluster.lock().await;
    cluster.start_node(at)?;
    cluster.wait_ready(at, READY_WITHIN).await.context("the killed node did not come back")?;
    stage.note(format!("{node} is back"));
    Ok(())
}

/// Who leads, as most nodes that answer say.
pub(crate) async fn leader(stage: &Stage) -> anyhow::Result<Option<NodeId>> {
    let nodes = stage.client.cluster().await?;
    let says = |view: &quorate_types::view::NodeView| view.groups.first()?.leader;
    let leaders: Vec<NodeId> = nodes.iter().filter_map(says).collect();
    let votes = |node: &NodeId| leaders.iter().filter(|other| *other == node).count();
    Ok(leaders.iter().copied().max_by_key(votes).filter(|node| votes(node) * 2 > leaders.len()))
}

async fn leases_of(stage: &Stage, node: NodeId) -> anyhow::Result<u64> {
    let agents = stage.client.agents(&[], Consistency::Stale).await?;
    let held = agents.iter().filter(|agent| agent.spec.node == node).map(|agent| agent.leases);
    Ok(held.map(u64::from).sum())
}

async fn swap(stage: &Stage, done: &mut Done) -> anyhow::Result<()> {
    let moment = async {
        while stage.tally.in_flight.load(Ordering::Relaxed) < CALLS_IN_FLIGHT {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(MOMENT_WITHIN, moment).await.context("too few calls were in flight")?;
    done.calls_at_swap = stage.tally.in_flight.load(Ordering::Relaxed);
    let policy = apply(stage, "load-aware").await?;
    done.policy_swaps = 1;
    stage.note(policy);
    Ok(())
}

/// Applies a built-in policy, and says what came of it.
pub(crate) async fn apply(stage: &Stage, name: &str) -> anyhow::Result<String> {
    let source = PolicySource::Builtin(name.to_owned());
    let view = stage
        .client
        .apply_policy("balancer", source, false)
        .await
        .with_context(|| format!("the policy {name} cannot be applied"))?;
    stage.record().policies.insert(view.epoch, view.name.clone());
    Ok(format!("{} is epoch {} since log index {}", view.name, view.epoch, view.index))
}
