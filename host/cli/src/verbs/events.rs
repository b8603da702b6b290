//! `quorate events`

use quorate_client::Seen;
use quorate_types::EventKind;
use serde::Serialize;

use super::Session;
use crate::args::EventsArgs;

#[derive(Serialize)]
struct Shown {
    revision: String,
    #[serde(flatten)]
    kind: EventKind,
}

impl Session<'_> {
    pub(super) async fn events(&self, args: &EventsArgs) -> anyhow::Result<()> {
        let mut events = self.client.events(args.after.clone()).await?;
        while let Some(seen) = events.next().await {
            let Seen { revision, kind } = seen?;
            self.output.next(&Shown { revision, kind }, line)?;
        }
        Ok(())
    }
}

fn line(shown: &Shown) -> String {
    let words = match &shown.kind {
        EventKind::Task { task, state, agent, reason, .. } => {
            let by = agent.map_or(String::new(), |agent| format!(" by {agent}"));
            let why = reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
            format!("task {task} {state}{by}{why}")
        }
        EventKind::AgentUp { agent, incarnation, node, name } => {
            format!("agent {agent} `{name}` up on {node} as {incarnation}")
        }
        EventKind::AgentDown { agent, incarnation, reason } => {
            format!("agent {agent} down as {incarnation} ({reason})")
        }
        EventKind::Policy { slot, name, epoch, step, group } => {
            format!("policy `{name}` {step} in {slot} as {epoch} by {group}")
        }
    };
    format!("{} {words}", shown.revision)
}
