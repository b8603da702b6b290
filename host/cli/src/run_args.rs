//! The command line of what runs nodes: one, a local cluster, the demo.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What can be done with one node.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Run a node in this process until SIGTERM or SIGINT.
    #[command(after_help = "Example:\n  quorate node run -f node.toml")]
    Run(NodeRunArgs),
    /// Print the peer id of a node's key; makes the key file where there is none.
    #[command(after_help = "Example:\n  quorate node key node.key")]
    Key {
        /// The key file.
        file: PathBuf,
    },
}

/// A node's configuration.
#[derive(Debug, Args)]
pub(crate) struct NodeRunArgs {
    /// The node file, TOML.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Stop when standard input closes, as it does when the process that started this one ends.
    #[arg(long, hide = true)]
    pub(crate) tied: bool,
}

/// A local cluster.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quorate dev
  quorate dev --nodes 5 --data ./cluster --port 7400")]
pub(crate) struct DevArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) nodes: u8,
    /// How many shards share the tasks and keys, each with a leader of its own; fixed when the data
    /// directory is made.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: u16,
    /// Where nodes keep their data; a temporary directory, removed at the end, by default.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The first node's HTTP port, the others' follow; free ports by default.
    #[arg(long)]
    pub(crate) port: Option<u16>,
}

/// The demonstration.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quorate demo
  quorate demo --corpus ~/src --headless -o json
  quorate demo --nodes 5 --seed 7")]
pub(crate) struct DemoArgs {
    /// What to index; by default a seeded sample of the Rust sources that cargo has downloaded.
    #[arg(long, value_name = "DIR")]
    pub(crate) corpus: Option<PathBuf>,
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=9))]
    pub(crate) nodes: u8,
    /// How many shards share the tasks, each with a leader of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: u16,
    /// Draws the sample, the queries and the moments.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// What goes wrong meanwhile.
    #[arg(long, value_enum, default_value = "kill")]
    pub(crate) chaos: Chaos,
    /// No live view.
    #[arg(long)]
    pub(crate) headless: bool,
}

/// What goes wrong in a demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Chaos {
    /// The leader is killed with SIGKILL and started again.
    Kill,
}
