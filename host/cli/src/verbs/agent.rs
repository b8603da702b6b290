//! `quorate agent …`

use quorate_types::AgentId;
use quorate_types::door::Consistency;
use quorate_types::http::Agents;
use quorate_types::view::AgentView;
use serde::Serialize;

use super::{Session, consistency, or_dash};
use crate::args::AgentVerb;
use crate::exit::{Exit, ended};
use crate::output::Table;

#[derive(Serialize)]
struct Retired {
    id: AgentId,
    retired: bool,
}

impl Session<'_> {
    pub(super) async fn agent(&self, verb: &AgentVerb) -> anyhow::Result<()> {
        match verb {
            AgentVerb::Ls { capabilities, stale } => {
                let agents = self.client.agents(capabilities, consistency(*stale)).await?;
                let whole = Agents { agents, stale: *stale };
                self.output.many(&whole, &whole.agents, rows)
            }
            AgentVerb::Rm { id } => self.retire(*id).await,
        }
    }

    async fn retire(&self, id: AgentId) -> anyhow::Result<()> {
        let agents = self.client.agents(&[], Consistency::Linearizable).await?;
        let Some(agent) = agents.into_iter().find(|agent| agent.id == id) else {
            return Err(ended(Exit::NotFound, format!("{id} does not exist"), "quorate agent ls"));
        };
        self.client.deregister(id, agent.incarnation).await?;
        self.output.next(&Retired { id, retired: true }, |_| format!("{id} is retired"))
    }
}

fn rows(agents: &[AgentView]) -> Table {
    let mut table = Table::with_heads(&[
        "ID",
        "NAME",
        "NODE",
        "CAPABILITIES",
        "LEASES",
        "SLOTS",
        "IN FLIGHT",
        "LATENCY US",
    ]);
    for agent in agents {
        table.row([
            agent.id.to_string(),
            agent.spec.name.clone(),
            agent.spec.node.to_string(),
            agent.spec.capabilities.names().join(","),
            agent.leases.to_string(),
            agent.spec.slots.to_string(),
            or_dash(agent.reading.map(|reading| reading.in_flight)),
            or_dash(agent.reading.map(|reading| reading.latency_us)),
        ]);
    }
    table
}
