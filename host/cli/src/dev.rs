//! `quorate dev`: a local cluster that stays up until interrupted.

use std::time::Duration;

use anyhow::Context as _;

use crate::args::DevArgs;
use crate::context::{self, Context};
use crate::launch::Launch;
use crate::local::{Layout, LocalAgent, LocalCluster};
use crate::output::Output;

/// A fresh cluster elects and registers within a second; a slow disk takes longer.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Nodes hand over and close their logs within this span.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Runs it to its end, with a runtime of its own.
pub(crate) fn run(args: &DevArgs, launch: &Launch, output: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(stay(args, launch, output))
}

async fn stay(args: &DevArgs, launch: &Launch, output: Output) -> anyhow::Result<()> {
    let layout = Layout {
        nodes: args.nodes,
        dir: args.data.clone(),
        first_api_port: args.port,
        agents: (1..=args.nodes).map(agents).collect(),
    };
    let mut cluster = LocalCluster::lay_out(&layout, launch.clone())?;
    cluster.start()?;
    let ready = cluster.wait_all_ready(READY_WITHIN);
    tokio::select! {
        ready = ready => ready?,
        word = tokio::signal::ctrl_c() => return word.context("cannot wait for an interrupt"),
    }
    let urls = cluster.urls();
    let context = Context { urls: urls.clone(), token: Some(cluster.token().to_owned()) };
    let file = context::path()?;
    context.write(&file)?;
    output.line(&format!(
        "{} nodes on this machine, data in {}",
        args.nodes,
        cluster.dir().display()
    ))?;
    output.line(&format!("url    {}", urls.join(",")))?;
    output.line(&format!("token  {}", cluster.token()))?;
    output.line(&format!("Both are in {}, so that in another terminal", file.display()))?;
    output.line("  quorate cluster status")?;
    output.line("works as it is. Interrupt to stop.")?;
    tokio::signal::ctrl_c().await.context("cannot wait for an interrupt")?;
    output.line("stopping")?;
    cluster.stop(STOP_WITHIN);
    Ok(())
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
