//! Errors as the HTTP door tells them: `application/problem+json` (RFC 9457). A
//! [`Refusal`] becomes one, and a client branches on its kind, never on its words.

use serde::{Deserialize, Serialize};

use crate::door::Refusal;
use crate::id::TraceId;

/// What went wrong, in one word that programs branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProblemKind {
    /// The request itself is wrong.
    #[serde(rename = "urn:quorate:problem:invalid")]
    Invalid,
    /// No token, or one that is not known.
    #[serde(rename = "urn:quorate:problem:unauthorized")]
    Unauthorized,
    /// The request came by a host name that is not served here.
    #[serde(rename = "urn:quorate:problem:forbidden")]
    Forbidden,
    /// There is no such thing.
    #[serde(rename = "urn:quorate:problem:not-found")]
    NotFound,
    /// The route exists, for other methods.
    #[serde(rename = "urn:quorate:problem:method-not-allowed")]
    MethodNotAllowed,
    /// The state of things forbids it.
    #[serde(rename = "urn:quorate:problem:conflict")]
    Conflict,
    /// Older than what is still kept.
    #[serde(rename = "urn:quorate:problem:compacted")]
    Compacted,
    /// One act on keys of several first segments.
    #[serde(rename = "urn:quorate:problem:across-segments")]
    Across,
    /// Larger than a limit.
    #[serde(rename = "urn:quorate:problem:too-large")]
    TooLarge,
    /// A queue is full; nothing was taken.
    #[serde(rename = "urn:quorate:problem:busy")]
    Busy,
    /// A node broke its own rules; a bug to report.
    #[serde(rename = "urn:quorate:problem:internal")]
    Internal,
    /// An agent could not do its work.
    #[serde(rename = "urn:quorate:problem:agent")]
    Agent,
    /// No quorum answers.
    #[serde(rename = "urn:quorate:problem:unavailable")]
    Unavailable,
    /// The deadline passed.
    #[serde(rename = "urn:quorate:problem:timeout")]
    Timeout,
}

impl ProblemKind {
    /// The HTTP status and a title, the same for every problem of the kind.
    pub const fn status_and_title(self) -> (u16, &'static str) {
        match self {
            Self::Invalid => (400, "The request is wrong"),
            Self::Unauthorized => (401, "A token is needed"),
            Self::Forbidden => (403, "Not served under this name"),
            Self::NotFound => (404, "Not found"),
            Self::MethodNotAllowed => (405, "Not with this method"),
            Self::Conflict => (409, "In conflict with what is there"),
            Self::Across => (400, "Not within one first segment"),
            Self::Compacted => (410, "No longer kept"),
            Self::TooLarge => (413, "Too large"),
            Self::Busy => (429, "A queue is full"),
            Self::Internal => (500, "A fault of the node"),
            Self::Agent => (502, "The agent failed"),
            Self::Unavailable => (503, "No quorum"),
            Self::Timeout => (504, "Not in time"),
        }
    }
}

/// An error as `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The kind, as a URN.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened here, and why.
    pub detail: String,
    /// What to try.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub next: String,
    /// The trace of the request that met it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace: Option<TraceId>,
    /// When to try again, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
    /// The limit that was passed, bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit_bytes: Option<u64>,
}

impl Problem {
    /// A problem of this kind; `detail` says what and why, `next` what to try.
    pub fn new(kind: ProblemKind, detail: impl Into<String>, next: impl Into<String>) -> Self {
        let (status, title) = kind.status_and_title();
        Self {
            kind,
            title: title.to_owned(),
            status,
            detail: detail.into(),
            next: next.into(),
            trace: None,
            retry_after_ms: None,
            limit_bytes: None,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Invalid(_) => Self::new(
                ProblemKind::Invalid,
                detail,
                "correct the request; GET /v1 lists the routes",
            ),
            Refusal::NotFound(_) => {
                Self::new(ProblemKind::NotFound, detail, "list what there is, or check the id")
            }
            Refusal::Conflict(_) => {
                Self::new(ProblemKind::Conflict, detail, "read the present state before you decide")
            }
            Refusal::Busy { retry_after_ms, .. } => Self {
                retry_after_ms: Some(retry_after_ms),
                ..Self::new(ProblemKind::Busy, detail, "nothing was taken; wait and send it again")
            },
            Refusal::Unavailable(_) => Self {
                // Longer than an election (150-300 ms) takes in the default profile.
                retry_after_ms: Some(500),
                ..Self::new(
                    ProblemKind::Unavailable,
                    detail,
                    "send it again, to another node if there is one; GET /v1/cluster shows who leads",
                )
            },
            Refusal::Timeout(_) => Self::new(
                ProblemKind::Timeout,
                detail,
                "send it again, with a longer quorate-deadline-ms if it was short",
            ),
            Refusal::Agent(_) => Self::new(
                ProblemKind::Agent,
                detail,
                "check the input; GET /v1/agents shows who can do it",
            ),
            Refusal::TooLarge { limit, .. } => Self {
                limit_bytes: Some(limit),
                ..Self::new(
                    ProblemKind::TooLarge,
                    detail,
                    "store it with PUT /v1/blobs and refer to it by its sha256, or send less",
                )
            },
            Refusal::Across(_) => Self::new(
                ProblemKind::Across,
                detail,
                "split it by the first segment of its keys, or put them under one",
            ),
            Refusal::Compacted(_) => {
                Self::new(ProblemKind::Compacted, detail, "list again, then watch from now on")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_numbers_as_a_problem() {
        let busy = Refusal::Busy { what: "queue `a`".to_owned(), retry_after_ms: 70 };
        let problem = Problem::from(busy);
        assert_eq!((problem.status, problem.retry_after_ms), (429, Some(70)));
        let away = Problem::from(Refusal::Unavailable("no leader".to_owned()));
        assert_eq!((away.status, away.retry_after_ms), (503, Some(500)), "after an election");
        let large = Refusal::TooLarge { what: "input".to_owned(), got: 9, limit: 8 };
        let problem = Problem::from(large);
        assert_eq!((problem.status, problem.limit_bytes), (413, Some(8)));
        assert!(problem.detail.contains("the limit is 8"), "{}", problem.detail);
    }
}
