//! The newest readings, by agent.

use std::collections::BTreeMap;

use quorate_types::{AgentId, LoadReading, NodeId, Time};

/// A reading with its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadingView {
    /// Of this agent.
    pub agent: AgentId,
    /// As this node says.
    pub node: NodeId,
    /// What it says.
    pub reading: LoadReading,
    /// When it came here.
    pub received: Time,
}

/// Readings by (agent, node): an agent that moved may have one of each for a moment.
#[derive(Debug, Default)]
pub(crate) struct Readings(BTreeMap<(AgentId, NodeId), (LoadReading, Time)>);

impl Readings {
    /// Whether this is another reading than before; none removes it.
    pub(crate) fn set(
        &mut self,
        now: Time,
        agent: AgentId,
        node: NodeId,
        reading: Option<LoadReading>,
    ) -> bool {
        let old = match reading {
            Some(reading) => self.0.insert((agent, node), (reading, now)),
            None => self.0.remove(&(agent, node)),
        };
        old.map(|(reading, _received)| reading) != reading
    }

    /// Keeps readings of these nodes only.
    pub(crate) fn retain(&mut self, mut keeps: impl FnMut(NodeId) -> bool) {
        self.0.retain(|(_agent, node), _reading| keeps(*node));
    }

    pub(crate) fn of(&self, agent: AgentId) -> impl Iterator<Item = ReadingView> + '_ {
        let nodes = (agent, NodeId(0))..=(agent, NodeId(u64::MAX));
        self.0.range(nodes).map(view)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = ReadingView> + '_ {
        self.0.iter().map(view)
    }
}

fn view(
    ((agent, node), (reading, received)): (&(AgentId, NodeId), &(LoadReading, Time)),
) -> ReadingView {
    ReadingView { agent: *agent, node: *node, reading: *reading, received: *received }
}
