//! `quorate cluster restore|recover`: another era of a cluster, begun in a data directory
//! whose node is stopped.

use std::path::Path;

use anyhow::Context as _;
use quorate_node::anew::recover::{RecoverError, Survivor, recover as recover_dir, survey};
use quorate_node::anew::restore::{RestoreError, restore as restore_dir};
use quorate_node::anew::{Begun, LayOutError};
use quorate_node::{FileDiskError, NodeConfig};
use tokio::runtime::Runtime;

use super::storage::of_backup;
use crate::cluster_args::{RecoverArgs, RestoreArgs};
use crate::exit::{Exit, ended};
use crate::output::{Output, Table, listed, remark};

fn runtime() -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().context("cannot start a runtime")
}

/// `quorate cluster restore BACKUP -f FILE`
pub(crate) fn restore(args: &RestoreArgs, output: Output) -> anyhow::Result<()> {
    let config = NodeConfig::read(&args.file)?;
    let restored = runtime()?.block_on(restore_dir(&args.backup, &config, args.era));
    let (begun, found) = restored.map_err(|error| unrestored(error, args, &config))?;
    output.one(&begun, |begun| {
        let mut table = shown(begun);
        if !found.missing.is_empty() {
            let missing = found.missing.len();
            table.note(format!("{missing} blobs that records refer to are not in the backup"));
        }
        let others = begun.voters.iter().filter(|voter| **voter != begun.node);
        let others: Vec<String> = others.map(ToString::to_string).collect();
        if !others.is_empty() {
            table.note(format!(
                "on {}: quorate cluster restore {} -f FILE --era {}",
                others.join(", "),
                args.backup.display(),
                begun.era
            ));
        }
        table.note(format!("then: quorate node run -f {}", args.file.display()));
        table
    })
}

/// `quorate cluster recover -f FILE`
pub(crate) fn recover(args: &RecoverArgs, output: Output) -> anyhow::Result<()> {
    let config = NodeConfig::read(&args.file)?;
    let runtime = runtime()?;
    if !args.accept_loss {
        let survivor = runtime.block_on(survey(&config));
        let survivor = survivor.map_err(|error| unrecovered(error, &args.file, &config))?;
        output.one(&survivor, stands)?;
        let what = "nothing was done: to go on from one survivor loses for good what only others \
                    had. Compare LAST of every survivor (first the term, then the index, of each \
                    group) and take the one that is furthest";
        let next = format!("quorate cluster recover -f {} --accept-loss", args.file.display());
        return Err(ended(Exit::Conflict, what, next));
    }
    let begun = runtime.block_on(recover_dir(&config));
    let begun = begun.map_err(|error| unrecovered(error, &args.file, &config))?;
    let Begun { node, era, .. } = &begun;
    remark(&format!(
        "the cluster goes on as era {era} from node {node} alone. Whatever was acknowledged and is \
         not in its log is lost. No other node of the era before may vote again: destroy their \
         data directories, and let new nodes join under new numbers"
    ));
    output.one(&begun, |begun| {
        let mut table = shown(begun);
        table.note(format!("then: quorate node run -f {}", args.file.display()));
        table
            .note("and: quorate cluster member add NEW@ADDRESS --peer PEER, voters set".to_owned());
        table
    })
}

fn shown(begun: &Begun) -> Table {
    let mut table = Table::of_fields();
    table.field("node", begun.node);
    table.field("cluster", &begun.cluster);
    table.field("era", begun.era);
    table.field("voters", listed(&begun.voters));
    for place in &begun.groups {
        let words = format!("from {} of term {}", place.last, place.term);
        table.field(&format!("group {}", place.group), words);
    }
    table.field("data", begun.dir.display());
    if let Some(aside) = &begun.aside {
        table.field("before", aside.display());
    }
    table
}

fn stands(survivor: &Survivor) -> Table {
    let mut table = Table::with_heads(&["GROUP", "LAST", "TERM", "COMMITTED", "VOTERS"]);
    for group in &survivor.groups {
        table.row([
            group.place.group.to_string(),
            group.place.last.to_string(),
            group.place.term.to_string(),
            group.committed.to_string(),
            listed(&group.voters),
        ]);
    }
    let Survivor { node, cluster, era, dir, .. } = survivor;
    table.note(format!("{node} of `{cluster}`, era {era}, in {}", dir.display()));
    table
}

fn of_disk(error: &FileDiskError) -> (Exit, String) {
    match error {
        FileDiskError::InUse { .. } => {
            (Exit::Conflict, "stop the node first: it has the directory open".to_owned())
        }
        FileDiskError::Io { .. } => (
            Exit::NotFound,
            "name the node's own file, and see that its `data_dir` is there".into(),
        ),
    }
}

fn of_lay_out(error: &LayOutError, config: &NodeConfig) -> (Exit, String) {
    match error {
        LayOutError::Key(_) => (Exit::Failed, "quorate node key KEY_FILE makes a key".to_owned()),
        LayOutError::Write { .. } => {
            let dir = config.node.data_dir.display();
            (Exit::Failed, format!("see that {dir} and what is beside it can be written"))
        }
    }
}

fn unrestored(error: RestoreError, args: &RestoreArgs, config: &NodeConfig) -> anyhow::Error {
    let dir = config.node.data_dir.display();
    let (exit, next) = match &error {
        RestoreError::Backup(error) => {
            let (exit, next) = of_backup(error);
            (exit, next.to_owned())
        }
        RestoreError::Unsound { .. } => {
            (Exit::CheckFailed, format!("quorate storage verify {}", args.backup.display()))
        }
        RestoreError::Shards { backup, .. } => {
            (Exit::Conflict, format!("write `shards = {backup}` in {}", args.file.display()))
        }
        RestoreError::Level { .. } => (Exit::Conflict, "quorate --version".to_owned()),
        RestoreError::Joins => {
            (Exit::Conflict, format!("quorate node run -f {}", args.file.display()))
        }
        RestoreError::Era { .. } => (Exit::Usage, "leave --era out on the first node".to_owned()),
        RestoreError::NotEmpty { .. } => {
            (Exit::Conflict, format!("stop the cluster, then: mv {dir} {dir}.before"))
        }
        RestoreError::Disk(error) => of_disk(error),
        RestoreError::LayOut(error) => of_lay_out(error, config),
    };
    told(error.into(), exit, next)
}

fn unrecovered(error: RecoverError, file: &Path, config: &NodeConfig) -> anyhow::Error {
    let (exit, next) = match &error {
        RecoverError::Disk(error) => of_disk(error),
        RecoverError::Foreign { .. } => (Exit::Conflict, "name the file of that node".to_owned()),
        RecoverError::Nothing { .. } => {
            (Exit::NotFound, "recover from another survivor, or from a backup".to_owned())
        }
        RecoverError::Unsound { .. } => (
            Exit::CheckFailed,
            format!("quorate storage verify {}", config.node.data_dir.display()),
        ),
        RecoverError::Alone { .. } => {
            (Exit::Conflict, format!("quorate node run -f {}", file.display()))
        }
        RecoverError::LayOut(error) => of_lay_out(error, config),
    };
    told(error.into(), exit, next)
}

fn told(error: anyhow::Error, exit: Exit, next: String) -> anyhow::Error {
    ended(exit, format!("{error:#}"), next)
}
