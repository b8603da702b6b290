//! The live index: which agents can be given work now, by namespace and
//! capability. The ledger says who exists, membership who is reachable, gossip
//! how they fare; the kernel joins the three and puts the outcome here.

use std::collections::BTreeMap;

use quorate_types::{AgentId, CapabilitySet, LoadReading, Wanted};

use crate::endpoints::Candidate;

/// An agent that can be given work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub namespace: String,
    /// What it can do.
    pub capabilities: CapabilitySet,
    /// What a policy sees of it.
    pub candidate: Candidate,
}

/// The index.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    entries: BTreeMap<AgentId, Entry>,
    revision: u64,
    makeup: u64,
}

impl Registry {
    /// Grows whenever the content changes.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Grows whenever agents come, go or change, but not with their readings.
    pub fn makeup(&self) -> u64 {
        self.makeup
    }

    /// The whole content from now on.
    pub fn set(&mut self, entries: BTreeMap<AgentId, Entry>) {
        if self.entries != entries {
            self.entries = entries;
            self.revision += 1;
            self.makeup += 1;
        }
    }

    /// Newer readings of some agents; of those that are not in the index nothing is kept.
    pub fn set_readings(&mut self, readings: impl IntoIterator<Item = (AgentId, LoadReading)>) {
        let mut changed = false;
        for (agent, reading) in readings {
            if let Some(entry) = self.entries.get_mut(&agent) {
                changed |= entry.candidate.reading != reading;
                entry.candidate.reading = reading;
            }
        }
        self.revision += u64::from(changed);
    }

    /// Whether the agent is in the index.
    pub fn contains(&self, agent: AgentId) -> bool {
        self.entries.contains_key(&agent)
    }

    /// An agent's entry.
    pub fn get(&self, agent: AgentId) -> Option<&Entry> {
        self.entries.get(&agent)
    }

    /// Those that may be given such work, in order of their ids.
    pub fn able<'a>(&'a self, wanted: &'a Wanted) -> impl Iterator<Item = &'a Candidate> + 'a {
        let Wanted { namespace, capabilities } = wanted;
        self.entries
            .values()
            .filter(move |entry| {
                entry.namespace == *namespace && entry.capabilities.covers(capabilities)
            })
            .map(|entry| &entry.candidate)
    }
}
