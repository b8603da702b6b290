//! The command line of members, voters and leaders.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use quorate_types::{Era, GroupId, NodeId};

/// What can be done with the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterVerb {
    /// Show each node's groups; exits 7 if two nodes differ at one index, 6 if no group has a leader.
    #[command(after_help = "Example:\n  quorate cluster status -o json")]
    Status,
    /// Write the whole cluster to a file: every group's state at one moment, and the blobs that
    /// records refer to. Exits 7 if a blob could not be had.
    #[command(after_help = "\
Examples:
  quorate cluster backup tuesday.backup
  quorate cluster backup tuesday.backup --without-blobs
  quorate storage verify tuesday.backup")]
    Backup(BackupArgs),
    /// Lay out the data directory of a node of a new cluster from a backup. Asks no cluster.
    #[command(after_help = "\
Examples, on each voter of the new cluster:
  quorate cluster restore tuesday.backup -f node-1.toml
  quorate cluster restore tuesday.backup -f node-2.toml --era 1:5f…")]
    Restore(RestoreArgs),
    /// Go on from one survivor, alone, after a quorum is lost for good. What the others had and it
    /// has not is lost. Without --accept-loss it only says how the survivor stands. Asks no cluster.
    #[command(after_help = "\
Examples, on the stopped survivors:
  quorate cluster recover -f node-1.toml
  quorate cluster recover -f node-1.toml --accept-loss")]
    Recover(RecoverArgs),
    /// List, add, remove and replace members.
    #[command(subcommand)]
    Member(MemberVerb),
    /// Change who votes.
    #[command(subcommand)]
    Voters(VotersVerb),
    /// Change who leads.
    #[command(subcommand)]
    Leader(LeaderVerb),
}

/// What can be done with voters.
#[derive(Debug, Subcommand)]
pub(crate) enum VotersVerb {
    /// Make exactly these members the voters, in one joint step; an odd number, up to 7.
    #[command(after_help = "\
Examples:
  quorate cluster voters set 1,2,3,4,5
  quorate cluster voters set 1,2,3 --group 0")]
    Set {
        /// Node ids.
        #[arg(value_delimiter = ',', required = true)]
        voters: Vec<NodeId>,
        /// Of this group only; of every group by default.
        #[arg(long)]
        group: Option<GroupId>,
    },
}

/// What can be done with leaders.
#[derive(Debug, Subcommand)]
pub(crate) enum LeaderVerb {
    /// Hand leadership over without losing a beat.
    #[command(after_help = "\
Examples:
  quorate cluster leader transfer
  quorate cluster leader transfer --to 2 --group 0")]
    Transfer {
        /// To this voter; to the one that has most of the log by default.
        #[arg(long)]
        to: Option<NodeId>,
        /// Of this group.
        #[arg(long, default_value = "0")]
        group: GroupId,
    },
}

/// What to back up, and where to.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file; it is there when it is whole, checked and on disk, and not before.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Leave contents out: tasks and policies that refer to a blob keep its name only.
    #[arg(long)]
    pub(crate) without_blobs: bool,
}

/// What to restore, and where to.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// What `quorate cluster backup` wrote.
    #[arg(value_name = "BACKUP")]
    pub(crate) backup: PathBuf,
    /// The node file; its members are the voters, its data directory is empty.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The era that the first node's `restore` printed; drawn by default.
    #[arg(long)]
    pub(crate) era: Option<Era>,
}

/// From whom to go on.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The survivor's node file.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// What the lost nodes had and this one has not is lost, and they may never come back.
    #[arg(long)]
    pub(crate) accept_loss: bool,
}

/// A node that shall be a member.
#[derive(Debug, Args)]
pub(crate) struct NewMemberArgs {
    /// Its id, above every one that was given before, and where it listens.
    #[arg(value_name = "ID@IP:PORT")]
    pub(crate) place: Place,
    /// Its peer id; `quorate node key FILE` on the new node prints it.
    #[arg(long, value_name = "PEER_ID")]
    pub(crate) peer: String,
    /// For people; `node-ID` by default.
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// `ID@IP:PORT`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, address) = text.split_once('@').ok_or("write it as ID@IP:PORT")?;
        let id = id.parse().map_err(|error| format!("`{id}` is no node id: {error}"))?;
        let address = address
            .parse()
            .map_err(|_error| format!("`{address}` is no address; write it as IP:PORT"))?;
        Ok(Self { id, address })
    }
}

/// What can be done with members.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberVerb {
    /// List members and whether they live.
    #[command(visible_alias = "list", after_help = "Example:\n  quorate member ls")]
    Ls,
    /// Admit a node: it may connect from then on, and follows without a vote.
    #[command(after_help = "\
Example:
  quorate cluster member add 4@10.0.0.4:7000 --peer 12D3KooW…
Then start the node with `joins = true` under [node] and a [[member]] or two of the
cluster in its file, and let it vote: quorate cluster voters set …")]
    Add(NewMemberArgs),
    /// Remove a node that votes in no group; its id is never given again.
    #[command(after_help = "Example:\n  quorate cluster member remove 4")]
    Remove {
        /// The node.
        node: NodeId,
    },
    /// Put a new node in the place of another, dead or alive, and let it vote there.
    #[command(after_help = "\
Example:
  quorate cluster member replace 2 4@10.0.0.4:7000 --peer 12D3KooW…")]
    Replace {
        /// Who goes.
        old: NodeId,
        /// Who comes.
        #[command(flatten)]
        new: NewMemberArgs,
    },
}
