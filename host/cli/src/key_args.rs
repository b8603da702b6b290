//! The command line of keys, locks and elections.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorate_types::kv::{Expect, LeaseId, Revision};

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KvVerb {
    /// Print what a key holds.
    #[command(after_help = "\
Examples:
  quorate kv get app/config
  quorate kv get app/config -o json")]
    Get {
        /// The key.
        key: String,
        /// Accept what the answering node has applied, without asking the leader.
        #[arg(long)]
        stale: bool,
    },
    /// Give a key a value.
    #[command(after_help = "\
Examples:
  quorate kv put app/config hello
  quorate kv put app/config --file config.toml --if-version 3
  quorate kv put app/once x --if-absent")]
    Put {
        /// The key.
        key: String,
        /// The value, as text.
        #[arg(group = "content", required_unless_present = "file")]
        value: Option<String>,
        /// The value, from a file, `-` for standard input; at most 64 KiB.
        #[arg(short, long, group = "content", value_name = "FILE")]
        file: Option<PathBuf>,
        /// The key goes when this lease ends.
        #[arg(long)]
        lease: Option<LeaseId>,
        #[command(flatten)]
        only_if: OnlyIf,
    },
    /// Take a key away, or every key under a prefix.
    #[command(
        visible_alias = "delete",
        after_help = "\
Examples:
  quorate kv del app/config --if-version 3
  quorate kv del app/ --prefix"
    )]
    Del {
        /// The key, or the prefix.
        key: String,
        /// Every key under it; it names its first segment whole.
        #[arg(long, conflicts_with_all = ["if_absent", "if_version", "if_modified"])]
        prefix: bool,
        #[command(flatten)]
        only_if: OnlyIf,
    },
    /// List keys under a prefix, which names its first segment whole: `app/`.
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  quorate kv ls app/
  quorate kv ls app/con --limit 500 -o jsonl"
    )]
    Ls {
        /// The prefix.
        prefix: String,
        /// At most this many.
        #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Go on after a page; the page before ends with its cursor.
        #[arg(long)]
        cursor: Option<String>,
        /// Accept what the answering node has applied, without asking the leader.
        #[arg(long)]
        stale: bool,
    },
    /// Follow a key, or every key under a prefix, until interrupted.
    #[command(after_help = "\
Examples:
  quorate kv watch app/config
  quorate kv watch app/ --prefix -o jsonl")]
    Watch {
        /// The key, or the prefix.
        key: String,
        /// Every key under it.
        #[arg(long)]
        prefix: bool,
        /// Go on after this revision; from now on by default.
        #[arg(long, value_name = "REVISION")]
        after: Option<Revision>,
    },
    /// Do several things as one, where conditions hold.
    #[command(after_help = "\
Example:
  echo '{\"compare\": [{\"key\": \"app/a\", \"is\": \"absent\"}],
         \"then\": [{\"put\": {\"key\": \"app/a\", \"value\": {\"text\": \"x\"}}}],
         \"else\": [{\"get\": {\"key\": \"app/a\"}}]}' | quorate kv txn -")]
    Txn {
        /// The transaction as JSON, as POST /v1/kv:txn takes it; `-` for standard input.
        file: PathBuf,
    },
}

/// What must be true of the key.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct OnlyIf {
    /// Only if there is no such key.
    #[arg(long)]
    pub(crate) if_absent: bool,
    /// Only if it has this version.
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_version: Option<u64>,
    /// Only if it was changed last at this revision.
    #[arg(long, value_name = "REVISION")]
    pub(crate) if_modified: Option<Revision>,
}

impl OnlyIf {
    /// As a condition.
    pub(crate) fn expect(&self) -> Option<Expect> {
        let absent = self.if_absent.then_some(Expect::Absent);
        let version = self.if_version.map(Expect::Version);
        absent.or(version).or(self.if_modified.map(Expect::Modified))
    }
}

/// A lock and what to do under it.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  quorate lock app/deploy -- ./deploy.sh
  quorate lock app/deploy --ttl 30 -- sh -c 'echo $QUORATE_FENCING_TOKEN'
  quorate lock ls

The command runs while the lock is held and is killed when it is lost; its exit code is this
one's. QUORATE_FENCING_TOKEN grows with every holder: what the command writes to should refuse a
smaller one than it has seen."
)]
pub(crate) struct LockArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<LockVerb>,
    /// The lock, a key such as `app/deploy`.
    #[arg(required = true)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) term: Term,
    /// What to run.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

/// What can be asked of locks.
#[derive(Debug, Subcommand)]
pub(crate) enum LockVerb {
    /// List locks that are held, with who waits.
    #[command(visible_alias = "list", after_help = "Example:\n  quorate lock ls")]
    Ls,
}

/// How long a lease outlives its holder's silence.
#[derive(Debug, Args)]
pub(crate) struct Term {
    /// Seconds that it outlives the silence of its holder's machine. A holder that ends gives it up
    /// at once.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    pub(crate) ttl: u64,
}

/// An election.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  quorate elect app/leader --value host-1
  quorate elect app/leader --value host-1 -- ./serve.sh
  quorate elect observe app/leader -o jsonl

Without a command it leads until it is interrupted."
)]
pub(crate) struct ElectArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<ElectVerb>,
    /// The election, a key such as `app/leader`.
    #[arg(required = true)]
    pub(crate) name: Option<String>,
    /// What observers see while this one leads.
    #[arg(long, default_value = "")]
    pub(crate) value: String,
    #[command(flatten)]
    pub(crate) term: Term,
    /// What to run while it leads.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

/// What can be asked of elections.
#[derive(Debug, Subcommand)]
pub(crate) enum ElectVerb {
    /// Show who leads, and each that follows, until interrupted.
    #[command(after_help = "Example:\n  quorate elect observe app/leader")]
    Observe {
        /// The election.
        name: String,
    },
    /// List elections that somebody leads, with who waits.
    #[command(visible_alias = "list", after_help = "Example:\n  quorate elect ls")]
    Ls,
}
