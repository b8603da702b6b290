//! From arguments to an exit code.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command};
use crate::cluster_args::ClusterVerb;
use crate::exit::{Exit, ended, verdict};
use crate::launch::Launch;
use crate::output::{Output, remark};
use crate::run_args::NodeVerb;
use crate::{demo, dev, node_run, sim, verbs};

/// What a node tells of its life by default; its libraries speak up only in trouble.
const NODE_LOG: &str = "info,openraft=warn,libp2p=warn,libp2p_swarm=warn";
/// Filters what is logged, as `tracing` understands it.
const LOG_VARIABLE: &str = "QUORATE_LOG";

/// The program: parses `arguments` (without the program's name), does what they say, prints an
/// error once. `launch` is how a node that it starts must be started.
pub fn main(launch: &Launch, arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(std::iter::once("quorate".into()).chain(arguments)) {
        Ok(cli) => cli,
        // Prints help to standard output with code 0, a usage error to standard error with 2.
        Err(error) => error.exit(),
    };
    match run(cli, launch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

/// Prints an error with its causes and the next command to try; gives its exit code.
pub fn complain(error: &anyhow::Error) -> ExitCode {
    let (exit, next) = verdict(error);
    remark(&format!("error: {error:#}"));
    if !next.is_empty() {
        remark(&format!("next: {next}"));
    }
    exit.into()
}

fn run(cli: Cli, launch: &Launch) -> anyhow::Result<()> {
    let output = Output::new(cli.global.output);
    trace(&cli)?;
    match &cli.command {
        Command::Node(NodeVerb::Run(args)) => node_run::run(args, launch, output),
        Command::Node(NodeVerb::Key { file }) => verbs::key(file, output),
        Command::Dev(args) => dev::run(args, launch, output),
        Command::Demo(args) => demo::run(args, launch, output),
        Command::Sim(verb) => sim::run(verb, launch, output),
        Command::Storage(verb) => verbs::storage::run(verb, output),
        Command::Cluster(ClusterVerb::Restore(args)) => verbs::anew::restore(args, output),
        Command::Cluster(ClusterVerb::Recover(args)) => verbs::anew::recover(args, output),
        Command::Task(_)
        | Command::Call(_)
        | Command::Kv(_)
        | Command::Lock(_)
        | Command::Elect(_)
        | Command::Agent(_)
        | Command::Policy(_)
        | Command::Cluster(_)
        | Command::Member(_)
        | Command::Events(_) => verbs::run(&cli, output),
    }
}

/// Events of this process go to standard error. A node tells of its life, a verb of trouble only.
fn trace(cli: &Cli) -> anyhow::Result<()> {
    let default = if matches!(cli.command, Command::Node(_)) { NODE_LOG } else { "warn" };
    let directives = std::env::var(LOG_VARIABLE).unwrap_or_else(|_unset| default.to_owned());
    let filter = EnvFilter::try_new(&directives).map_err(|error| {
        let what = format!("{LOG_VARIABLE}=`{directives}` is no filter: {error}");
        ended(Exit::Usage, what, format!("{LOG_VARIABLE}=quorate_raft=debug,info"))
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // People read a terminal; whatever keeps the lines reads JSON.
    if std::io::stderr().is_terminal() {
        lines.init();
    } else {
        lines.json().init();
    }
    Ok(())
}
