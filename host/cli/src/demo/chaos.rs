//! What goes wrong while the demo runs: the leader is killed, the policy swapped.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use quorate_client::PolicySource;
use quorate_types::NodeId;
use tokio::sync::Mutex;

use super::feed::{self, Stored};
use super::stage::Stage;
use crate::local::LocalCluster;

/// The kill waits until the leader's agents hold so many leases.
const LEASES_AT_KILL: usize = 10;
/// Kill and swap wait until so many calls are in flight.
const CALLS_IN_FLIGHT: u64 = 32;
/// Between two looks at the cluster while waiting for the right moment.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A moment that has not come by then does not come.
const MOMENT_WITHIN: Duration = Duration::from_secs(60);
/// Who leads is asked again after so long.
const LEADER_KNOWN_FOR: Duration = Duration::from_millis(500);
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

/// Kills the leader after a quarter of the work and swaps the policy after half; the killed node
/// comes back meanwhile. The feed goes on only as far as leaves work for what is still to come.
pub(crate) async fn direct(
    stage: Arc<Stage>,
    cluster: Arc<Mutex<LocalCluster>>,
    total: usize,
    (id, content): (u32, Bytes),
) -> anyhow::Result<Done> {
    let mut done = Done::default();
    stage.open_gate(total / 4);
    let probe = feed::upload(&stage, id, content).await?;
    stage.wait_heard(total / 5).await?;
    enough_calls(&stage).await?;
    stage.open_gate(total - total / 8);
    let killed = kill_leader(&stage, &cluster, probe, &mut done).await?;
    let returning = tokio::spawn(bring_back(Arc::clone(&stage), cluster, killed));
    stage.wait_heard(total / 2).await?;
    swap(&stage, &mut done).await?;
    stage.open_gate(total);
    returning.await??;
    Ok(done)
}

async fn kill_leader(
    stage: &Stage,
    cluster: &Mutex<LocalCluster>,
    probe: Stored,
    done: &mut Done,
) -> anyhow::Result<NodeId> {
    stage.note("waiting for the moment to kill the leader");
    let moment = async {
        loop {
            let leader = leader(stage).await.ok().flatten();
            let Some(leader) = leader else {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            let ripe = |stage: &Stage| {
                stage.tally.in_flight() >= CALLS_IN_FLIGHT
                    && stage.record().leases_on(leader) >= LEASES_AT_KILL
            };
            // The leader is asked for again now and then: it may be another meanwhile.
            match tokio::time::timeout(LEADER_KNOWN_FOR, stage.until(ripe)).await {
                Ok(ripe) => return ripe.map(|()| leader),
                Err(_elapsed) => {}
            }
        }
    };
    // Taken before the moment, which does not last.
    let mut cluster = cluster.lock().await;
    let leader = tokio::time::timeout(MOMENT_WITHIN, moment)
        .await
        .context("the leader never held enough leases with enough calls in flight")??;
    done.leases_at_kill = u64::try_from(stage.record().leases_on(leader))?;
    done.calls_at_kill = stage.tally.in_flight();
    let killed = cluster.kill_node(place_of(leader)?)?;
    done.leader_kills = 1;
    stage.note(format!("killed {leader}, the leader, holding {} leases", done.leases_at_kill));
    feed::submit_stored(stage, &[probe]).await?;
    stage.record().failover = Some(killed.elapsed());
    Ok(leader)
}

/// A node's place in the local cluster: ids count from 1.
fn place_of(node: NodeId) -> anyhow::Result<usize> {
    Ok(usize::try_from(node.0.saturating_sub(1))?)
}

async fn bring_back(
    stage: Arc<Stage>,
    cluster: Arc<Mutex<LocalCluster>>,
    node: NodeId,
) -> anyhow::Result<()> {
    let at = place_of(node)?;
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

/// Waits until enough calls are in flight.
async fn enough_calls(stage: &Stage) -> anyhow::Result<()> {
    let enough = stage.tally.until_in_flight(CALLS_IN_FLIGHT);
    tokio::time::timeout(MOMENT_WITHIN, enough).await.context("too few calls were in flight")?
}

async fn swap(stage: &Stage, done: &mut Done) -> anyhow::Result<()> {
    enough_calls(stage).await?;
    done.calls_at_swap = stage.tally.in_flight();
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
