//! The node file (TOML): who this node is, who the members are, what it hosts.
//! An unknown key is an error that names the nearest known one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use quorate_raft::Profile;
use quorate_types::layout::SHARDS_MAX;
use quorate_types::nearest::nearest;
use quorate_types::{CapabilitySet, Layout, NodeId};
use serde::Deserialize;

/// Why a node file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the node file `{}`", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, or a value has the wrong type.
    #[error("the node file `{}` is wrong: {reason}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// It has a key that nothing reads.
    #[error("the node file `{}` has an unknown key `{key}`; {hint}", file.display())]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The nearest one that exists, or all of them.
        hint: String,
    },
    /// Its parts contradict each other.
    #[error("the node file `{}` contradicts itself: {reason}", file.display())]
    Contradiction {
        /// The file.
        file: PathBuf,
        /// How.
        reason: String,
    },
}

/// A node file.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeConfig {
    /// The cluster.
    pub cluster: ClusterSection,
    /// This node.
    pub node: NodeSection,
    /// Every member, this node included.
    #[serde(rename = "member")]
    pub members: Vec<MemberSection>,
    /// The HTTP door.
    pub api: ApiSection,
    /// The log.
    #[serde(default)]
    pub raft: RaftSection,
    /// Agents hosted here.
    #[serde(default, rename = "agent")]
    pub agents: Vec<AgentSection>,
}

/// `[cluster]`
#[derive(Clone, Debug, Deserialize)]
pub struct ClusterSection {
    /// The cluster's id; a data directory of another one is refused.
    pub id: String,
    /// How many shards share its tasks and keys, 1 to 64: the same on every node, and fixed when the
    /// cluster is made. One group carries all where there is one.
    #[serde(default = "one_shard")]
    pub shards: u16,
}

/// `[node]`
#[derive(Clone, Debug, Deserialize)]
pub struct NodeSection {
    /// The node's number; never given to another.
    pub id: u64,
    /// Where everything durable lies.
    pub data_dir: PathBuf,
    /// The node's ed25519 seed: 64 hexadecimal digits in a file of mode 0600.
    pub key_file: PathBuf,
    /// Where peers connect.
    pub listen: SocketAddr,
    /// Whether it joins a running cluster, which admitted it before or does so later: the members
    /// in the file are then whom it asks, and not the voters of a new cluster.
    #[serde(default)]
    pub joins: bool,
}

/// `[[member]]`
#[derive(Clone, Debug, Deserialize)]
pub struct MemberSection {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its libp2p peer id.
    pub peer: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// `[api]`
#[derive(Clone, Debug, Deserialize)]
pub struct ApiSection {
    /// Where the HTTP door listens; loopback only.
    pub listen: SocketAddr,
    /// The bearer token, in a file of mode 0600.
    pub token_file: PathBuf,
}

/// `[raft]`
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RaftSection {
    /// `default`, `lan` or `wan`.
    #[serde(default)]
    pub profile: ProfileName,
}

/// Timing of elections.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileName {
    /// Heartbeat 50 ms, election 150–300 ms.
    #[default]
    Default,
    /// Heartbeat 20 ms, election 60–120 ms.
    Lan,
    /// Heartbeat 100 ms, election 500–1,000 ms.
    Wan,
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Default => Self::Default,
            ProfileName::Lan => Self::Lan,
            ProfileName::Wan => Self::Wan,
        }
    }
}

/// `[[agent]]`
#[derive(Clone, Debug, Deserialize)]
pub struct AgentSection {
    /// Its name, unique in the cluster.
    pub name: String,
    /// A built-in agent's name, or the path of a component.
    pub plugin: String,
    /// How many pieces of work it takes at once.
    #[serde(default = "one")]
    pub slots: u32,
    /// Whose it is.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Instead of what the component says of itself.
    #[serde(default)]
    pub capabilities: Option<CapabilitySet>,
}

fn one_shard() -> u16 {
    1
}

fn one() -> u32 {
    1
}

fn default_namespace() -> String {
    quorate_types::task::NAMESPACE_DEFAULT.to_owned()
}

/// Every key that something reads, by section.
const KEYS: [(&str, &[&str]); 7] = [
    ("", &["cluster", "node", "member", "api", "raft", "agent"]),
    ("cluster", &["id", "shards"]),
    ("node", &["id", "data_dir", "key_file", "listen", "joins"]),
    ("member", &["id", "name", "peer", "address"]),
    ("api", &["listen", "token_file"]),
    ("raft", &["profile"]),
    ("agent", &["name", "plugin", "slots", "namespace", "capabilities"]),
];

impl NodeConfig {
    /// Reads and checks a node file. Paths in it are relative to its folder.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        let mut config = Self::parse(file, &text)?;
        let folder = file.parent().unwrap_or(Path::new("."));
        for path in
            [&mut config.node.data_dir, &mut config.node.key_file, &mut config.api.token_file]
        {
            *path = folder.join(&*path);
        }
        Ok(config)
    }

    fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let syntax = |reason: String| ConfigError::Syntax { file: file.to_owned(), reason };
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| syntax(error.to_string()))?;
        check_keys(file, &table)?;
        let config: Self = toml::from_str(text).map_err(|error| syntax(error.to_string()))?;
        config.check(file)?;
        Ok(config)
    }

    fn check(&self, file: &Path) -> Result<(), ConfigError> {
        let contradiction =
            |reason: String| Err(ConfigError::Contradiction { file: file.to_owned(), reason });
        let ids: BTreeMap<u64, &str> =
            self.members.iter().map(|member| (member.id, member.name.as_str())).collect();
        if ids.len() != self.members.len() {
            return contradiction("two members have one id".to_owned());
        }
        if Layout::new(self.cluster.shards).is_none() {
            let got = self.cluster.shards;
            return contradiction(format!(
                "cluster.shards is {got}; it goes from 1 to {SHARDS_MAX}"
            ));
        }
        if !ids.contains_key(&self.node.id) {
            return contradiction(format!("node {} is not among the members", self.node.id));
        }
        if self.node.joins && self.members.len() < 2 {
            return contradiction(
                "a node that joins needs a [[member]] besides itself to ask".to_owned(),
            );
        }
        if !self.api.listen.ip().is_loopback() {
            return contradiction(format!(
                "api.listen is {}, which is not loopback; the door has no TLS yet",
                self.api.listen
            ));
        }
        if let Some(agent) = self.agents.iter().find(|agent| agent.slots == 0) {
            return contradiction(format!("agent `{}` has no slots", agent.name));
        }
        Ok(())
    }

    /// How the cluster's groups share its work.
    pub fn layout(&self) -> Layout {
        Layout::new(self.cluster.shards).unwrap_or_default()
    }

    /// This node's number.
    pub fn id(&self) -> NodeId {
        NodeId(self.node.id)
    }
}

fn check_keys(file: &Path, table: &toml::Table) -> Result<(), ConfigError> {
    check_section(file, "", table)?;
    for (section, value) in table {
        match value {
            toml::Value::Table(table) => check_section(file, section, table)?,
            toml::Value::Array(tables) => {
                for table in tables.iter().filter_map(toml::Value::as_table) {
                    check_section(file, section, table)?;
                }
            }
            // Of a wrong type: the typed reading says so.
            toml::Value::String(_)
            | toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_) => {}
        }
    }
    Ok(())
}

fn check_section(file: &Path, section: &str, table: &toml::Table) -> Result<(), ConfigError> {
    let Some((_name, known)) = KEYS.iter().find(|(name, _)| *name == section) else {
        return Ok(());
    };
    let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) else {
        return Ok(());
    };
    let at =
        |name: &str| if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    let hint = match nearest(key, known.iter().copied()) {
        Some(name) => format!("did you mean `{}`?", at(name)),
        None => format!("the keys here are: {}", known.join(", ")),
    };
    Err(ConfigError::UnknownKey { file: file.to_owned(), key: at(key), hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [cluster]
        id = "c"
        [node]
        id = 1
        data_dir = "data"
        key_file = "key"
        listen = "127.0.0.1:1"
        [[member]]
        id = 1
        name = "one"
        peer = "p"
        address = "127.0.0.1:1"
        [api]
        listen = "127.0.0.1:2"
        token_file = "token"
    "#;

    fn refused(text: &str) -> String {
        NodeConfig::parse(Path::new("node.toml"), text).expect_err("must be refused").to_string()
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest() {
        let text = GOOD.replace("data_dir", "data_dri");
        let said = refused(&text);
        assert!(said.contains("`node.data_dri`; did you mean `node.data_dir`?"), "{said}");
        let said = refused(&GOOD.replace("[api]", "[apis]"));
        assert!(said.contains("`apis`; did you mean `api`?"), "{said}");
    }

    #[test]
    fn contradictions_are_named() {
        let said = refused(&GOOD.replace("id = 1\n        data_dir", "id = 7\n        data_dir"));
        assert!(said.contains("node 7 is not among the members"), "{said}");
        let said = refused(&GOOD.replace("id = \"c\"", "id = \"c\"\nshards = 65"));
        assert!(said.contains("cluster.shards is 65; it goes from 1 to 64"), "{said}");
        let said = refused(&GOOD.replace("127.0.0.1:2", "0.0.0.0:2"));
        assert!(said.contains("not loopback"), "{said}");
    }

    #[test]
    fn a_good_file_is_taken() {
        let config = NodeConfig::parse(Path::new("node.toml"), GOOD).expect("good");
        assert_eq!((config.id(), config.members.len()), (NodeId(1), 1));
    }
}
