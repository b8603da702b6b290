//! Agents: the logical workers that tasks are leased to and calls are routed to.

use serde::{Deserialize, Serialize};

use crate::id::{Incarnation, NodeId};

/// Capabilities, sorted and without repeats, so that equal sets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct CapabilitySet(Vec<String>);

impl CapabilitySet {
    /// Whether every capability of `wanted` is in this set.
    pub fn covers(&self, wanted: &Self) -> bool {
        wanted.0.iter().all(|name| self.0.binary_search(name).is_ok())
    }

    /// The names, sorted.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl From<Vec<String>> for CapabilitySet {
    fn from(mut names: Vec<String>) -> Self {
        names.sort_unstable();
        names.dedup();
        Self(names)
    }
}

impl From<CapabilitySet> for Vec<String> {
    fn from(set: CapabilitySet) -> Self {
        set.0
    }
}

impl FromIterator<String> for CapabilitySet {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self::from(names.into_iter().collect::<Vec<_>>())
    }
}

/// What a piece of work asks of whoever does it. Work and agents of different namespaces never meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Wanted {
    /// The namespace that its agent must be of.
    pub namespace: String,
    /// All of these its agent must have.
    pub capabilities: CapabilitySet,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { namespace, capabilities } = self;
        write!(f, "[{}] in namespace `{namespace}`", capabilities.names().join(", "))
    }
}

/// An agent as it registers. The same (namespace, name) registered again is the
/// same agent in a new incarnation, which fences the old one's leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSpec {
    /// Whose it is.
    pub namespace: String,
    /// Its name, unique in its namespace.
    pub name: String,
    /// The node that hosts it, or through which it speaks.
    pub node: NodeId,
    /// That node's life; an agent does not outlive it.
    pub node_incarnation: Incarnation,
    /// What it can do.
    pub capabilities: CapabilitySet,
    /// How many leases it can hold at once. A hosted agent offers them all the time, an outside
    /// worker offers slots only while it asks.
    pub slots: u32,
    /// Whether it lives in the node's own process.
    pub hosted: bool,
}

impl AgentSpec {
    /// Whether the agent may be given such work.
    pub fn serves(&self, wanted: &Wanted) -> bool {
        self.namespace == wanted.namespace && self.capabilities.covers(&wanted.capabilities)
    }
}

/// What an agent's node says of it now; carried by gossip, may be late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReading {
    /// Work in hand: leases and calls.
    pub in_flight: u32,
    /// Requirement's load, 0–10 at full slots, may exceed it.
    pub load: u32,
    /// Exponentially weighted latency of finished work, microseconds.
    pub latency_us: u64,
    /// Exponentially weighted share of work that succeeded, parts in a million.
    pub success_ppm: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> CapabilitySet {
        names.iter().copied().map(str::to_owned).collect()
    }

    #[test]
    fn work_goes_to_whoever_can_do_all_of_it_in_its_own_namespace() {
        let agent = AgentSpec {
            namespace: "a".to_owned(),
            name: "worker".to_owned(),
            node: NodeId(1),
            node_incarnation: Incarnation(1),
            capabilities: names(&["read", "write"]),
            slots: 1,
            hosted: false,
        };
        let wanted = |namespace: &str, capabilities: &[&str]| Wanted {
            namespace: namespace.to_owned(),
            capabilities: names(capabilities),
        };
        for capabilities in [&[][..], &["write"], &["write", "read"]] {
            assert!(agent.serves(&wanted("a", capabilities)), "{capabilities:?}");
            assert!(!agent.serves(&wanted("b", capabilities)), "another's: {capabilities:?}");
        }
        for capabilities in [&["erase"][..], &["read", "erase"]] {
            assert!(!agent.serves(&wanted("a", capabilities)), "{capabilities:?}");
        }
        let told = wanted("a", &["write", "read"]).to_string();
        assert_eq!(told, "[read, write] in namespace `a`");
    }

    #[test]
    fn equal_sets_are_equal_values_however_they_were_told() {
        let set = names(&["b", "a", "b"]);
        assert_eq!(set.names(), ["a", "b"]);
        assert_eq!(set, names(&["a", "b"]));
        assert_eq!(Vec::from(set.clone()), ["a", "b"]);
        let sent = crate::cbor::encode(&["b", "b", "a"]);
        assert_eq!(crate::cbor::decode::<CapabilitySet>(&sent, 64).ok(), Some(set));
    }
}
