//! `quorate node run`: one node until it is told to stop, or its log fails.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use quorate_api::{ApiOptions, ServeError, serve};
use quorate_node::{Node, NodeConfig};
use quorate_types::NodeId;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::exit::{Exit, ended};
use crate::launch::Launch;
use crate::output::Output;
use crate::run_args::NodeRunArgs;
use crate::signals::Signals;

/// How often the node is asked whether it has failed.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// What is told once the node takes requests.
#[derive(Serialize)]
struct Serving {
    node: NodeId,
    api: String,
}

/// Runs it to its end, with a runtime of its own.
pub(crate) fn run(args: &NodeRunArgs, launch: &Launch, output: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(run_node(args, launch, output));
    // Whoever was told twice to stop does not wait for a stuck disk.
    runtime.shutdown_background();
    ended
}

async fn run_node(args: &NodeRunArgs, launch: &Launch, output: Output) -> anyhow::Result<()> {
    let mut words = Words { signals: Signals::listen()?, tie: tie(args.tied)? };
    let config = NodeConfig::read(&args.file)?;
    let token = quorate_node::read_token(&config.api.token_file)?;
    let listen = config.api.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!(
            "api.listen {listen} cannot be used; choose another port in {}",
            args.file.display()
        )
    })?;
    let node = tokio::select! {
        started = Node::start(&config, launch.faults()) => started?,
        why = words.next() => {
            tracing::info!(why, "node stops before it has started");
            return Ok(());
        }
    };
    tracing::info!(node = %config.id(), api = %listen, "node started");
    let door = Door::open(listener, &node, &token);
    let serving = Serving { node: config.id(), api: format!("http://{}", listen) };
    output.next(&serving, |serving| format!("{} serves {}", serving.node, serving.api))?;

    let why = until_stopped(&node, &mut words).await;
    tracing::info!(why, "node stops");
    let failure = node.failure();
    let stop = async {
        let closed = door.close().await;
        node.stop().await;
        closed
    };
    tokio::select! {
        closed = stop => closed?,
        why = words.next() => {
            tracing::warn!(why, "node stops at once; requests under way are cut off");
            let what = "told twice to stop: ended without waiting for what was under way";
            return Err(ended(Exit::Failed, what, ""));
        }
    }
    match failure {
        Some(failure) => anyhow::bail!("the node cannot go on: {failure}"),
        None => Ok(()),
    }
}

/// The HTTP door while it is open.
struct Door {
    close: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Door {
    fn open(listener: TcpListener, node: &Node, token: &str) -> Self {
        let mut options = ApiOptions::new(token);
        options.builtins = builtin_policies();
        let (close, closing) = oneshot::channel();
        let served = tokio::spawn(serve(listener, node.door(), options, async {
            // A dropped sender says the same as a sent word.
            closing.await.ok();
        }));
        Self { close, served }
    }

    async fn close(self) -> anyhow::Result<()> {
        drop(self.close);
        Ok(self.served.await.context("the HTTP door broke")??)
    }
}

/// Everything that asks this process to end.
struct Words {
    signals: Signals,
    tie: Tie,
}

impl Words {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            word = self.signals.next() => word,
            () = self.tie.cut() => "the process that started it is gone",
        }
    }
}

/// Waits for a word, or for a failure.
async fn until_stopped(node: &Node, words: &mut Words) -> &'static str {
    let mut check = tokio::time::interval(CHECK_EVERY);
    loop {
        tokio::select! {
            word = words.next() => return word,
            _tick = check.tick() => {
                if node.failure().is_some() {
                    return "it cannot go on";
                }
            }
        }
    }
}

/// Standard input, where this process ends with the one that holds its other end.
struct Tie(Option<oneshot::Receiver<()>>);

fn tie(tied: bool) -> anyhow::Result<Tie> {
    if !tied {
        return Ok(Tie(None));
    }
    let (tell, told) = oneshot::channel::<()>();
    std::thread::Builder::new().name("quorate-tie".to_owned()).spawn(move || {
        let mut nothing = [0; 64];
        while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
        drop(tell);
    })?;
    Ok(Tie(Some(told)))
}

impl Tie {
    /// Returns once, when standard input closes; never, where this process is not tied to anyone.
    async fn cut(&mut self) {
        match &mut self.0 {
            Some(told) => {
                // The sender goes without a word.
                told.await.ok();
                self.0 = None;
            }
            None => std::future::pending().await,
        }
    }
}

fn builtin_policies() -> BTreeMap<String, Bytes> {
    quorate_node::builtin_balancers()
        .map(|(name, bytes)| (name.to_owned(), Bytes::from_static(bytes)))
        .collect()
}
