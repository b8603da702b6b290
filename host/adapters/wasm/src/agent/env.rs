//! What an agent's node does for it. Drivers implement it: a real node with files and a
//! clock, a simulated one without.

use bytes::Bytes;
use quorate_types::Digest;
use quorate_types::door::Pending;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For whoever debugs the agent.
    Debug,
    /// Of note.
    Info,
    /// Something went not as it should.
    Warn,
    /// Something failed.
    Error,
}

/// The node, as an agent needs it.
pub trait AgentEnv: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01 UTC; virtual in simulation.
    fn now_ms(&self) -> u64;

    /// Waits. Deadlines of work wait on this too, so that in simulation they are virtual.
    fn sleep(&self, ms: u64) -> Pending<()> {
        Box::pin(tokio::time::sleep(std::time::Duration::from_millis(ms)))
    }

    /// A line of the agent's, already cut and counted. Called inside the work's tracing span.
    fn log(&self, level: Level, text: &str) {
        match level {
            Level::Debug => tracing::debug!(target: "quorate::agent", "{text}"),
            Level::Info => tracing::info!(target: "quorate::agent", "{text}"),
            Level::Warn => tracing::warn!(target: "quorate::agent", "{text}"),
            Level::Error => tracing::error!(target: "quorate::agent", "{text}"),
        }
    }

    /// A blob, whole and verified, fetched from a peer where it is not here.
    fn read_blob(&self, digest: Digest) -> Pending<Result<Bytes, String>>;

    /// Stores a blob durably and gives its digest.
    fn write_blob(&self, content: Bytes) -> Pending<Result<Digest, String>>;
}

/// The environment of an agent's first life: it has only to say who it is.
pub(crate) struct NoEnv;

impl AgentEnv for NoEnv {
    fn now_ms(&self) -> u64 {
        0
    }

    fn sleep(&self, _ms: u64) -> Pending<()> {
        Box::pin(std::future::ready(()))
    }

    fn log(&self, _level: Level, _text: &str) {}

    fn read_blob(&self, _digest: Digest) -> Pending<Result<Bytes, String>> {
        Box::pin(std::future::ready(Err("there are no blobs before the first work".to_owned())))
    }

    fn write_blob(&self, _content: Bytes) -> Pending<Result<Digest, String>> {
        Box::pin(std::future::ready(Err("there are no blobs before the first work".to_owned())))
    }
}
