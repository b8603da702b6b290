//! The command line: noun, then verb. Each `--help` ends with examples.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use quorate_types::{AgentId, Digest, TaskId, TaskState};

use crate::cluster_args::{ClusterVerb, MemberVerb};
use crate::key_args::{ElectArgs, KvVerb, LockArgs};
use crate::output::Format;
use crate::run_args::{DemoArgs, DevArgs, NodeVerb};
use crate::sim_args::SimVerb;
use crate::verbs::storage::StorageVerb;

/// Agents, tasks and calls on a cluster that survives its nodes.
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  quorate demo                                  a real job on a real cluster, checked at its end
  quorate dev                                   a local cluster that stays up
  quorate task submit --capability echo --input hello --wait
  quorate call echo --input hello

Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict, 5 denied, 6 no quorum or timeout,
7 check failed."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// A node's HTTP door; several, so that another is asked when one does not answer.
    #[arg(long, global = true, env = "QUORATE_URL", value_delimiter = ',', value_name = "URL")]
    pub(crate) url: Vec<String>,
    /// The cluster's token.
    #[arg(long, global = true, env = "QUORATE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Whose tasks and agents.
    #[arg(short, long, global = true, env = "QUORATE_NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,
    /// How answers are shown.
    #[arg(short, long, global = true, env = "QUORATE_OUTPUT", value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Seconds within which an answer is wanted.
    #[arg(
        long, global = true, env = "QUORATE_TIMEOUT", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=300), value_name = "SECONDS"
    )]
    pub(crate) timeout: u64,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Durable work: submit it, see it, wait for it.
    #[command(subcommand)]
    Task(TaskVerb),
    /// Call an agent and print its reply.
    Call(CallArgs),
    /// Keys: read them, put them, watch them.
    #[command(subcommand)]
    Kv(KvVerb),
    /// Run a command while holding a lock.
    Lock(LockArgs),
    /// Lead while you live; see who leads.
    Elect(ElectArgs),
    /// Who works.
    #[command(subcommand)]
    Agent(AgentVerb),
    /// What chooses who works.
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// Groups, leaders and the digests of their state.
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Nodes, as the answering one sees them.
    #[command(subcommand)]
    Member(MemberVerb),
    /// What happens, in the order of the log, until interrupted.
    Events(EventsArgs),
    /// One node.
    #[command(subcommand)]
    Node(NodeVerb),
    /// A local cluster that stays up until interrupted.
    Dev(DevArgs),
    /// Run a real job on a real cluster, kill its leader, swap its policy, check every result.
    Demo(DemoArgs),
    /// The same code under simulated time, disk and network.
    #[command(subcommand)]
    Sim(SimVerb),
    /// A data directory whose node is stopped: what lies in it, and whether it is sound.
    #[command(subcommand)]
    Storage(StorageVerb),
}

/// What can be done with tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskVerb {
    /// Submit a task; returns when a quorum has it on disk.
    #[command(after_help = "\
Examples:
  quorate task submit --capability echo --input hello
  quorate task submit --capability index --file main.rs --key main.rs --wait
  quorate task submit --spec task.json
  producer | quorate task submit --capability echo --file -")]
    Submit(SubmitArgs),
    /// List tasks, in order of their ids.
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  quorate task ls --state queued
  quorate task ls --queue default --limit 500 -o jsonl"
    )]
    Ls(TaskLsArgs),
    /// Show one task, its result included.
    #[command(after_help = "Example:\n  quorate task get t0000000000000001 -o json")]
    Get {
        /// The task.
        id: TaskId,
        /// Accept what the answering node has applied, without asking the leader.
        #[arg(long)]
        stale: bool,
    },
    /// Explain each routing decision: who could, what the policy knew, who was chosen.
    #[command(after_help = "Example:\n  quorate task why t0000000000000001")]
    Why {
        /// The task.
        id: TaskId,
        /// Accept what the answering node has applied, without asking the leader.
        #[arg(long)]
        stale: bool,
    },
    /// Follow a task until it ends; exits 1 if it did not complete.
    #[command(after_help = "Example:\n  quorate task watch t0000000000000001")]
    Watch {
        /// The task.
        id: TaskId,
    },
    /// Cancel a task; what its agent still delivers is refused.
    #[command(after_help = "Example:\n  quorate task cancel t0000000000000001")]
    Cancel {
        /// The task.
        id: TaskId,
    },
}

/// A task as described on the command line.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// A capability that its agent must have; several are all needed.
    #[arg(short, long = "capability", required_unless_present = "spec")]
    pub(crate) capabilities: Vec<String>,
    /// The input, as text.
    #[arg(short, long, group = "content")]
    pub(crate) input: Option<String>,
    /// The input, from a file, `-` for standard input; stored as a blob above 64 KiB.
    #[arg(short, long, group = "content", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The whole task as JSON from a file, `-` for standard input, as the HTTP door takes it.
    #[arg(
        long, value_name = "FILE",
        conflicts_with_all = ["capabilities", "content", "queue", "priority", "key", "labels", "content_type"]
    )]
    pub(crate) spec: Option<PathBuf>,
    /// The queue it waits in.
    #[arg(short, long, default_value = "default")]
    pub(crate) queue: String,
    /// 0-9; higher goes first.
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=9))]
    pub(crate) priority: u8,
    /// Idempotency key: the same key with the same task is the same task.
    #[arg(short, long)]
    pub(crate) key: Option<String>,
    /// A label, NAME=VALUE.
    #[arg(short, long = "label", value_parser = label, value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// Media type of the input.
    #[arg(long, default_value = "application/octet-stream")]
    pub(crate) content_type: String,
    /// Follow it until it ends; exits 1 if it did not complete.
    #[arg(short, long)]
    pub(crate) wait: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write a label as NAME=VALUE".to_owned())
}

/// Which tasks to list.
#[derive(Debug, Args)]
pub(crate) struct TaskLsArgs {
    /// In this state.
    #[arg(short, long, value_enum)]
    pub(crate) state: Option<State>,
    /// In this queue.
    #[arg(short, long)]
    pub(crate) queue: Option<String>,
    /// At most this many.
    #[arg(short, long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Go on after a page; the page before ends with its cursor.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// Accept what the answering node has applied, without asking the leader.
    #[arg(long)]
    pub(crate) stale: bool,
}

/// Task states, as typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum State {
    /// Waits for an agent.
    Queued,
    /// An agent holds it.
    Leased,
    /// Failed and waits for its next attempt.
    Retrying,
    /// Done.
    Completed,
    /// Out of attempts, or past its deadline.
    DeadLetter,
    /// Cancelled by its owner.
    Cancelled,
}

impl From<State> for TaskState {
    fn from(state: State) -> Self {
        match state {
            State::Queued => Self::Queued,
            State::Leased => Self::Leased,
            State::Retrying => Self::Retrying,
            State::Completed => Self::Completed,
            State::DeadLetter => Self::DeadLetter,
            State::Cancelled => Self::Cancelled,
        }
    }
}

/// A call.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quorate call echo --input hello
  quorate call search --file query.json --deadline-ms 2000
  quorate call tail --stream")]
pub(crate) struct CallArgs {
    /// A capability that the agent must have; several are all needed.
    #[arg(required = true)]
    pub(crate) capabilities: Vec<String>,
    /// The body, as text.
    #[arg(short, long, group = "content")]
    pub(crate) input: Option<String>,
    /// The body, from a file, `-` for standard input.
    #[arg(short, long, group = "content", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Media type of the body.
    #[arg(long, default_value = "application/octet-stream")]
    pub(crate) content_type: String,
    /// Within this span there is a reply or an error; --timeout by default.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=300_000))]
    pub(crate) deadline_ms: Option<u64>,
    /// The call may run twice: repeat it when its node dies half-way.
    #[arg(long)]
    pub(crate) idempotent: bool,
    /// Print the reply as it comes.
    #[arg(long)]
    pub(crate) stream: bool,
}

/// What can be done with agents.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentVerb {
    /// List agents with their load.
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  quorate agent ls
  quorate agent ls --capability index --capability rust"
    )]
    Ls {
        /// Only those that have it; several are all needed.
        #[arg(short, long = "capability")]
        capabilities: Vec<String>,
        /// Accept what the answering node has applied, without asking the leader.
        #[arg(long)]
        stale: bool,
    },
    /// Retire an agent; its leases are requeued.
    #[command(visible_alias = "delete", after_help = "Example:\n  quorate agent rm a3")]
    Rm {
        /// The agent.
        id: AgentId,
    },
}

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// List slots and what is in them.
    #[command(visible_alias = "list", after_help = "Example:\n  quorate policy ls -o json")]
    Ls {
        /// Accept what the answering node has applied, without asking the leader.
        #[arg(long)]
        stale: bool,
    },
    /// Put a policy in a slot; returns when every shard has adopted it.
    #[command(after_help = "\
Examples:
  quorate policy apply load-aware --slot balancer
  quorate policy apply ./mine.wasm --slot balancer")]
    Apply(ApplyArgs),
}

/// A policy and its slot.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// A component file, or the name of a policy that ships with the node.
    #[arg(value_name = "FILE|NAME", required_unless_present = "digest")]
    pub(crate) policy: Option<String>,
    /// A component that the cluster holds as a blob.
    #[arg(long, conflicts_with = "policy", requires = "name")]
    pub(crate) digest: Option<Digest>,
    /// The slot.
    #[arg(short, long, default_value = "balancer")]
    pub(crate) slot: String,
    /// What to call it; a file's stem by default.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Apply although a live member is not ready; it runs the native fallback and says so.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Which events.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quorate events
  quorate events --after 0-160.0 -o jsonl")]
pub(crate) struct EventsArgs {
    /// Go on after this revision; from now on by default.
    #[arg(long, value_name = "REVISION")]
    pub(crate) after: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_examples() {
        fn leaves(command: &clap::Command, without: &mut Vec<String>) {
            let verbs: Vec<_> = command.get_subcommands().collect();
            let shows =
                command.get_after_help().is_some_and(|help| help.to_string().contains("Example"));
            if verbs.is_empty() && !shows {
                without.push(command.get_name().to_owned());
            }
            verbs.into_iter().for_each(|verb| leaves(verb, without));
        }
        let mut without = Vec::new();
        leaves(&Cli::command(), &mut without);
        assert_eq!(without, Vec::<String>::new());
    }

    #[test]
    fn a_task_needs_a_capability_or_a_spec() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("quorate task submit --capability echo --input hi -o json").is_ok());
        assert!(parse("quorate task submit --input hi").is_err(), "nobody could do it");
        assert!(parse("quorate task submit --spec t.json --input hi").is_err(), "two inputs");
    }
}
