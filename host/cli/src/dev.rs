//! `quorate dev`: a local cluster that stays up until interrupted.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::context::{self, Context};
use crate::launch::Launch;
use crate::local::{Layout, LocalAgent, LocalCluster};
use crate::output::Output;
use crate::run_args::DevArgs;
use crate::signals::Signals;

/// A fresh cluster elects and registers within a second; a slow disk takes longer.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Nodes hand over and close their logs within this span.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How often the nodes are looked at while they stop.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The cluster, as a program reads it.
#[derive(Serialize)]
struct Up {
    urls: Vec<String>,
    token: String,
    data: PathBuf,
    context: PathBuf,
}

/// Runs it to its end, with a runtime of its own.
pub(crate) fn run(args: &DevArgs, launch: &Launch, output: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(stay(args, launch, output))
}

async fn stay(args: &DevArgs, launch: &Launch, output: Output) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let layout = Layout {
        nodes: args.nodes,
        dir: args.data.clone(),
        shards: args.shards,
        first_api_port: args.port,
        agents: (1..=args.nodes).map(agents).collect(),
    };
    let mut cluster = LocalCluster::lay_out(&layout, launch.clone())?;
    cluster.start()?;
    let ready = tokio::select! {
        ready = cluster.wait_all_ready(READY_WITHIN) => Some(ready?),
        _word = signals.next() => None,
    };
    if ready.is_some() {
        tell(&cluster, output)?;
        signals.next().await;
    }
    output.line("stopping")?;
    stop(cluster, &mut signals).await;
    Ok(())
}

/// Writes the context file and says where the cluster is.
fn tell(cluster: &LocalCluster, output: Output) -> anyhow::Result<()> {
    let up = Up {
        urls: cluster.urls(),
        token: cluster.token().to_owned(),
        data: cluster.dir().to_owned(),
        context: context::path()?,
    };
    let context = Context { urls: up.urls.clone(), token: Some(up.token.clone()) };
    context.write(&up.context)?;
    output.next(&up, |up| {
        format!(
            "{} nodes on this machine, data in {}\n\
             url    {}\n\
             token  {}\n\
             Both are in {}, so that in another terminal\n\
             \x20 quorate cluster status\n\
             works as it is. Interrupt to stop.",
            up.urls.len(),
            up.data.display(),
            up.urls.join(","),
            up.token,
            up.context.display(),
        )
    })
}

/// Lets the nodes end in order; a second signal, or too long a wait, kills them.
async fn stop(mut cluster: LocalCluster, signals: &mut Signals) {
    cluster.ask_to_stop();
    let deadline = Instant::now() + STOP_WITHIN;
    while !cluster.has_ended() && Instant::now() < deadline {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _word = signals.next() => break,
        }
    }
    // Dropped, it kills what still runs and removes a temporary directory.
    drop(cluster);
}

fn agents(node: u8) -> Vec<LocalAgent> {
    ["code-indexer", "code-searcher"]
        .map(|plugin| LocalAgent {
            name: format!("{plugin}-{node}"),
            plugin: plugin.to_owned(),
            slots: 4,
        })
        .into()
}
