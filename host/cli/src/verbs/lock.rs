//! `quorate lock …`: a lock while a command runs. The lock ends with the stream that
//! it is bound to, so with this process, however that ends.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use quorate_client::LinkLease;
use quorate_types::Token;
use quorate_types::kv::{SeatInfo, SeatKind};

use super::Session;
use super::kv::shown;
use crate::exit::{Exit, ended};
use crate::key_args::{LockArgs, LockVerb};
use crate::output::{Table, remark};

/// Seats on a page.
const PAGE: u32 = 1000;
/// Greater with every holder.
const TOKEN_VARIABLE: &str = "QUORATE_FENCING_TOKEN";

impl Session<'_> {
    pub(super) async fn lock(&self, args: &LockArgs) -> anyhow::Result<()> {
        let name = match (&args.verb, &args.name) {
            (Some(LockVerb::Ls), _) => return self.list_seats(SeatKind::Lock).await,
            (None, Some(name)) => name,
            (None, None) => unreachable!("a name or a verb is asked for"),
        };
        let link = self.client.connect_stream().await?;
        let ttl = Duration::from_secs(args.term.ttl);
        let held = link.lock(&self.global.namespace, name, ttl).await?;
        let status = run_while(&args.command, held.token(), held.lease()).await?;
        held.release().await?;
        pass_on(status)
    }

    pub(super) async fn list_seats(&self, kind: SeatKind) -> anyhow::Result<()> {
        let link = self.client.connect_stream().await?;
        let mut seats: Vec<SeatInfo> = Vec::new();
        let mut cursor = None;
        loop {
            let page = link.seats(&self.global.namespace, kind, cursor, PAGE).await?;
            seats.extend(page.seats);
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        self.output.many(&seats, &seats, |seats| {
            let mut table = Table::with_heads(&["NAME", "HOLDER", "TOKEN", "WAITING", "VALUE"]);
            for seat in seats {
                let Some(holder) = &seat.holder else { continue };
                table.row([
                    seat.name.to_string(),
                    holder.lease.to_string(),
                    holder.token.to_string(),
                    seat.waiting.len().to_string(),
                    shown(&holder.value),
                ]);
            }
            table
        })
    }
}

/// Runs a command under a fencing token until it ends. When the lease is lost first, the command
/// is killed: somebody else may hold what it relies on.
pub(super) async fn run_while(
    command: &[String],
    token: Token,
    lease: &LinkLease,
) -> anyhow::Result<ExitStatus> {
    let (program, arguments) = command.split_first().context("no command is given")?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env(TOKEN_VARIABLE, token.to_string())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run `{program}`"))?;
    let mut signals = crate::signals::Signals::listen()?;
    loop {
        tokio::select! {
            status = child.wait() => return status.context("the command is lost"),
            () = lease.lost() => {
                child.kill().await.context("the command cannot be killed")?;
                let what = "the lock was lost, and the command was killed";
                return Err(ended(Exit::Conflict, what, "see who holds it: `quorate lock ls`"));
            }
            // The command got the word too, where it came from the terminal; it decides.
            word = signals.next() => remark(&format!("{word}: waiting for the command to end")),
        }
    }
}

/// Ends as the command did.
pub(super) fn pass_on(status: ExitStatus) -> anyhow::Result<()> {
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => std::process::exit(code),
        None => Err(ended(Exit::Failed, "the command was killed", "")),
    }
}
