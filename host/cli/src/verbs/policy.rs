//! `quorate policy …`

use std::path::Path;

use quorate_client::PolicySource;
use quorate_types::view::PolicyView;

use super::{Session, consistency, read};
use crate::args::{ApplyArgs, PolicyVerb};
use crate::exit::{Exit, ended};
use crate::output::{Table, remark};

impl Session<'_> {
    pub(super) async fn policy(&self, verb: &PolicyVerb) -> anyhow::Result<()> {
        match verb {
            PolicyVerb::Ls { stale } => {
                let whole = self.client.policies(consistency(*stale)).await?;
                self.output.many(&whole, &whole.policies, rows)
            }
            PolicyVerb::Apply(args) => self.apply(args).await,
        }
    }

    async fn apply(&self, args: &ApplyArgs) -> anyhow::Result<()> {
        let source = source(args)?;
        let policy = self.client.apply_policy(&args.slot, source, args.force).await?;
        self.output.one(&policy, |policy| rows(std::slice::from_ref(policy)))?;
        for (node, state) in policy.nodes.iter().filter(|(_, state)| *state != "ready") {
            remark(&format!("note: {node} runs the native fallback: {state}"));
        }
        Ok(())
    }
}

/// A file if it looks like one or is one, else the name of a policy that ships with the node.
fn source(args: &ApplyArgs) -> anyhow::Result<PolicySource> {
    if let (Some(digest), Some(name)) = (args.digest, &args.name) {
        return Ok(PolicySource::Blob(digest, name.clone()));
    }
    let policy = args.policy.as_deref().unwrap_or_default();
    let path = Path::new(policy);
    let looks = policy.contains(std::path::MAIN_SEPARATOR) || policy.ends_with(".wasm");
    if !looks && !path.is_file() {
        if args.name.is_some() {
            let what = format!("`{policy}` is no file, and a shipped policy has its own name");
            return Err(ended(Exit::Usage, what, "leave --name out, or name a component file"));
        }
        return Ok(PolicySource::Builtin(policy.to_owned()));
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = args.name.clone().or(stem).unwrap_or_else(|| policy.to_owned());
    Ok(PolicySource::Component(read(path)?, name))
}

fn rows(policies: &[PolicyView]) -> Table {
    let mut table = Table::with_heads(&[
        "SLOT",
        "POLICY",
        "EPOCH",
        "INDEX",
        "DIGEST",
        "DECISIONS",
        "ADOPTED",
        "NODES READY",
    ]);
    for policy in policies {
        let adopted = policy.adopted.iter().map(|(group, index)| format!("{group}@{index}"));
        let ready = policy.nodes.values().filter(|state| *state == "ready").count();
        table.row([
            policy.slot.clone(),
            policy.name.clone(),
            policy.epoch.to_string(),
            policy.index.to_string(),
            policy.digest.short(),
            policy.decisions.get(&policy.epoch).copied().unwrap_or(0).to_string(),
            adopted.collect::<Vec<_>>().join(","),
            format!("{ready}/{}", policy.nodes.len()),
        ]);
    }
    table
}
