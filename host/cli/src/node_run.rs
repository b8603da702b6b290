//! `quorate node run`: one node until it is told to stop, or its log fails.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use quorate_api::{ApiOptions, serve};
use quorate_node::{Node, NodeConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::args::NodeRunArgs;
use crate::launch::Launch;
use crate::output::Output;

/// How often the node is asked whether its log has failed.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// Runs it to its end, with a runtime of its own.
pub(crate) fn run(args: &NodeRunArgs, launch: &Launch, _output: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run_node(args, launch))
}

async fn run_node(args: &NodeRunArgs, launch: &Launch) -> anyhow::Result<()> {
    let config = NodeConfig::read(&args.file)?;
    let token = quorate_node::read_token(&config.api.token_file)?;
    let listen = config.api.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!(
            "api.listen {listen} cannot be used; choose another port in {}",
            args.file.display()
        )
    })?;
    let node = Node::start(&config, launch.faults()).await?;
    tracing::info!(node = %config.id(), api = %listen, "node started");
    let mut options = ApiOptions::new(&token);
    options.builtins = builtin_policies();
    let (close, closing) = oneshot::channel::<()>();
    let door = tokio::spawn(serve(listener, node.door(), options, async {
        // A dropped sender says the same as a sent word.
        closing.await.ok();
    }));
    let why = until_stopped(&node, args.tied).await?;
    drop(close);
    door.await.context("the HTTP door broke")??;
    let failure = node.failure();
    tracing::info!(why, "node stops");
    node.stop().await;
    match failure {
        Some(failure) => anyhow::bail!("the node's log has failed: {failure}"),
        None => Ok(()),
    }
}

/// Waits for a signal, for the process that this one is tied to, or for a failed log.
async fn until_stopped(node: &Node, tied: bool) -> anyhow::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let untied = untied(tied)?;
    tokio::pin!(untied);
    let mut check = tokio::time::interval(CHECK_EVERY);
    loop {
        tokio::select! {
            _word = interrupt.recv() => return Ok("interrupted"),
            _word = terminate.recv() => return Ok("terminated"),
            () = &mut untied => return Ok("the process that started it is gone"),
            _tick = check.tick() => {
                if node.failure().is_some() {
                    return Ok("its log has failed");
                }
            }
        }
    }
}

/// Ends when standard input closes; never, where this node is not tied to anyone.
fn untied(tied: bool) -> anyhow::Result<impl Future<Output = ()>> {
    let (tell, told) = oneshot::channel::<()>();
    let mut keep = Some(tell);
    if tied {
        let tell = keep.take();
        std::thread::Builder::new().name("quorate-tie".to_owned()).spawn(move || {
            let mut nothing = [0; 64];
            while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
            drop(tell);
        })?;
    }
    Ok(async move {
        told.await.ok();
        drop(keep);
    })
}

fn builtin_policies() -> BTreeMap<String, Bytes> {
    quorate_node::builtin_balancers()
        .map(|(name, bytes)| (name.to_owned(), Bytes::from_static(bytes)))
        .collect()
}
