//! The verbs that ask a running cluster.

mod agent;
pub(crate) mod anew;
mod backup;
mod call;
mod cluster;
mod elect;
mod events;
mod kv;
mod lock;
mod membership;
mod policy;
pub(crate) mod storage;
mod task;

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use quorate_client::{Client, ClientOptions};
use quorate_types::door::Consistency;

use crate::args::{Cli, Command, Global};
use crate::context::{self, Context};
use crate::output::Output;

pub(crate) use membership::key;

/// A cluster, and how to show what it answers.
struct Session<'a> {
    client: Client,
    output: Output,
    global: &'a Global,
}

/// Runs one verb to its end.
pub(crate) fn run(cli: &Cli, output: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let session = Session { client: client(&cli.global)?, output, global: &cli.global };
    runtime.block_on(session.run(&cli.command))
}

/// A client of the cluster that flags, variables or the context file name.
pub(crate) fn client(global: &Global) -> anyhow::Result<Client> {
    let file = Context::read(&context::path()?)?;
    let found = Context::resolve(&global.url, global.token.as_deref(), file)?;
    let timeout = Duration::from_secs(global.timeout);
    Ok(Client::new(ClientOptions { urls: found.urls, token: found.token, timeout })?)
}

impl Session<'_> {
    async fn run(&self, command: &Command) -> anyhow::Result<()> {
        match command {
            Command::Task(verb) => self.task(verb).await,
            Command::Call(args) => self.call(args).await,
            Command::Kv(verb) => self.kv(verb).await,
            Command::Lock(args) => self.lock(args).await,
            Command::Elect(args) => self.elect(args).await,
            Command::Agent(verb) => self.agent(verb).await,
            Command::Policy(verb) => self.policy(verb).await,
            Command::Cluster(verb) => self.cluster(verb).await,
            Command::Member(verb) => self.member(verb).await,
            Command::Events(args) => self.events(args).await,
            Command::Node(_)
            | Command::Dev(_)
            | Command::Demo(_)
            | Command::Sim(_)
            | Command::Storage(_) => {
                unreachable!("the program runs these itself")
            }
        }
    }
}

const fn consistency(stale: bool) -> Consistency {
    if stale { Consistency::Stale } else { Consistency::Linearizable }
}

/// What `--input` and `--file` say; nothing where neither is given.
fn content(text: Option<&str>, file: Option<&Path>) -> anyhow::Result<Bytes> {
    match (text, file) {
        (Some(text), _) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        (None, Some(path)) => read(path),
        (None, None) => Ok(Bytes::new()),
    }
}

/// A file, or standard input for `-`.
fn read(path: &Path) -> anyhow::Result<Bytes> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
        return Ok(bytes.into());
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes.into())
}

/// A value where there is one, else a dash.
fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}
