//! Blobs, members, groups, policies, and whether a node serves.

use std::time::Duration;

use bytes::Bytes;
use quorate_types::Digest;
use quorate_types::door::Consistency;
use quorate_types::http::{ApplyPolicy, Cluster, Members, Policies, Stored};
use quorate_types::view::{MemberView, NodeView, PolicyView};
use reqwest::Method;

use crate::ask::Ask;
use crate::client::Client;
use crate::error::ClientError;
use crate::tasks::consistency_name;

/// Blobs are fsynced on two nodes and components compiled on every member.
const HEAVY: Duration = Duration::from_secs(60);

const COMPONENT: &str = "application/wasm";

/// A policy to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// One that ships with the node.
    Builtin(String),
    /// A component that the cluster holds as a blob, and what to call it.
    Blob(Digest, String),
    /// A component, and what to call it.
    Component(Bytes, String),
}

impl Client {
    /// Stores a blob durably; its name is its content, so that a repeat does nothing new.
    pub async fn put_blob(&self, content: Bytes) -> Result<Stored, ClientError> {
        let ask = Ask::new(Method::PUT, &["v1", "blobs"]).timeout(self.0.timeout.max(HEAVY));
        self.ask(ask.try_min(HEAVY / 4).body("application/octet-stream", content)).await
    }

    /// A blob, checked against its name.
    pub async fn get_blob(&self, digest: Digest) -> Result<Bytes, ClientError> {
        let ask = Ask::get(&["v1", "blobs", &digest.to_string()]);
        let (content, url) = self.ask_bytes(ask.timeout(self.0.timeout.max(HEAVY))).await?;
        if Digest::of(&content) != digest {
            return Err(ClientError::Garbled {
                url: url.to_string(),
                what: format!("the blob that came is not {digest}"),
            });
        }
        Ok(content)
    }

    /// Members, as the answering node sees them.
    pub async fn members(&self) -> Result<Vec<MemberView>, ClientError> {
        Ok(self.ask::<Members>(Ask::get(&["v1", "members"])).await?.members)
    }

    /// Groups of every reachable node.
    pub async fn cluster(&self) -> Result<Vec<NodeView>, ClientError> {
        Ok(self.ask::<Cluster>(Ask::get(&["v1", "cluster"])).await?.nodes)
    }

    /// Slots and what is in them.
    pub async fn policies(&self, consistency: Consistency) -> Result<Policies, ClientError> {
        let ask = Ask::get(&["v1", "policies"]);
        self.ask(ask.query("consistency", consistency_name(consistency))).await
    }

    /// Applies a policy; returns when it is committed and adopted. Applied again, the same policy
    /// may open another epoch, so this is repeated only if it was surely not taken.
    pub async fn apply_policy(
        &self,
        slot: &str,
        source: PolicySource,
        force: bool,
    ) -> Result<PolicyView, ClientError> {
        let ask = Ask::post(&["v1", "policies", slot])
            .timeout(self.0.timeout.max(HEAVY))
            .repeat(crate::ask::Repeat::IfNotTaken);
        let named = |builtin, digest, name| ApplyPolicy { builtin, digest, name, force };
        let ask = match source {
            PolicySource::Builtin(name) => ask.json(&named(Some(name), None, None))?,
            PolicySource::Blob(digest, name) => ask.json(&named(None, Some(digest), Some(name)))?,
            PolicySource::Component(content, name) => {
                ask.query("name", name).query("force", force).body(COMPONENT, content)
            }
        };
        self.ask(ask).await
    }

    /// Whether some node is ready; the problem says why not.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.ask_done(Ask::get(&["readyz"])).await
    }

    /// Metrics of the answering node, Prometheus text format.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let (bytes, url) = self.ask_bytes(Ask::get(&["metrics"])).await?;
        String::from_utf8(bytes.into())
            .map_err(|error| ClientError::Garbled { url: url.to_string(), what: error.to_string() })
    }
}
