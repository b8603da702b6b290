//! Why a client has no answer.

use std::time::Duration;

use quorate_types::problem::{Problem, ProblemKind};

/// Why a request has no answer. Branch on the variant and on the kind of a problem.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A node refused, and said why.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// No node could be reached, or the connection broke where a repeat could do harm.
    #[error("cannot reach {url}")]
    Unreachable {
        /// The node asked last.
        url: String,
        /// What became of the connection.
        #[source]
        source: reqwest::Error,
    },
    /// A native stream could not be connected.
    #[error("cannot connect to {url}")]
    Broken {
        /// The node.
        url: String,
        /// What became of the connection.
        #[source]
        source: std::io::Error,
    },
    /// Nodes were reached, and none answered in time.
    #[error("{url} did not answer within {after:?}")]
    Timeout {
        /// The node asked last.
        url: String,
        /// The whole time given.
        after: Duration,
    },
    /// Not the address of a node.
    #[error("`{0}` is not the http URL of a node")]
    Address(String),
    /// Something answered, but not as a quorate node does.
    #[error("{url} does not answer as a quorate node: {what}")]
    Garbled {
        /// Who answered.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// The client could not be made.
    #[error("cannot make an HTTP client")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke before the first event: what happened meanwhile cannot be asked for.
    #[error("the event stream of {url} broke before its first event; events may have been missed")]
    Gap {
        /// The node that was read.
        url: String,
    },
}

impl ClientError {
    /// The kind of problem, where a node refused.
    pub fn kind(&self) -> Option<ProblemKind> {
        match self {
            Self::Refused(problem) => Some(problem.kind),
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::Address(_)
            | Self::Garbled { .. }
            | Self::Setup(_)
            | Self::Gap { .. } => None,
        }
    }
}

impl From<Problem> for ClientError {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}
