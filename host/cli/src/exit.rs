//! The eight exit codes, and how an error finds its own.

use std::process::ExitCode;

use quorate_client::ClientError;
use quorate_types::problem::ProblemKind;

/// What a shell learns of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It did not work.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The state of things forbids it.
    Conflict = 4,
    /// No token, or the wrong one.
    Denied = 5,
    /// No quorum, or no answer in time.
    NoQuorum = 6,
    /// It worked, and what it checked is wrong.
    CheckFailed = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An end that a verb decides itself: the code, what happened, and what to type next.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Ended {
    /// The code.
    pub(crate) exit: Exit,
    /// What happened, and why.
    pub(crate) what: String,
    /// The next command to try; may be empty.
    pub(crate) next: String,
}

/// An error that ends in this code.
pub(crate) fn ended(exit: Exit, what: impl Into<String>, next: impl Into<String>) -> anyhow::Error {
    Ended { exit, what: what.into(), next: next.into() }.into()
}

/// The code of an error, and what to try: the outermost link that knows.
pub(crate) fn verdict(error: &anyhow::Error) -> (Exit, String) {
    for link in error.chain() {
        if let Some(ended) = link.downcast_ref::<Ended>() {
            return (ended.exit, ended.next.clone());
        }
        if let Some(error) = link.downcast_ref::<ClientError>() {
            return of_client(error);
        }
        if link.is::<crate::launch::BadFault>() {
            return (Exit::Usage, String::new());
        }
    }
    (Exit::Failed, String::new())
}

fn of_client(error: &ClientError) -> (Exit, String) {
    const START: &str = "start a cluster with `quorate dev`, or name one with --url or QUORATE_URL";
    match error {
        ClientError::Refused(problem) => (of_kind(problem.kind), hint(problem.kind, &problem.next)),
        ClientError::Unreachable { .. }
        | ClientError::Broken { .. }
        | ClientError::Timeout { .. } => (Exit::NoQuorum, START.to_owned()),
        ClientError::Address(_) => (Exit::Usage, START.to_owned()),
        ClientError::Gap { .. } => {
            (Exit::NoQuorum, "read what you missed with --after REVISION".to_owned())
        }
        ClientError::Garbled { .. } | ClientError::Setup(_) => {
            (Exit::Failed, "check that the URL is that of a quorate node".to_owned())
        }
    }
}

const fn of_kind(kind: ProblemKind) -> Exit {
    match kind {
        ProblemKind::Invalid
        | ProblemKind::Across
        | ProblemKind::TooLarge
        | ProblemKind::MethodNotAllowed => Exit::Usage,
        ProblemKind::Unauthorized | ProblemKind::Forbidden => Exit::Denied,
        ProblemKind::NotFound | ProblemKind::Compacted => Exit::NotFound,
        ProblemKind::Conflict => Exit::Conflict,
        ProblemKind::Agent | ProblemKind::Internal => Exit::Failed,
        ProblemKind::Busy | ProblemKind::Unavailable | ProblemKind::Timeout => Exit::NoQuorum,
    }
}

/// The node speaks of routes; at a shell a command is worth more, where there is one.
fn hint(kind: ProblemKind, next: &str) -> String {
    // The node knows the names it would have taken.
    if next.contains("known are: ") {
        return next.to_owned();
    }
    match kind {
        ProblemKind::Unauthorized => {
            "pass the token that `quorate dev` printed with --token or QUORATE_TOKEN"
        }
        ProblemKind::NotFound => "see what there is: `quorate task ls`, `quorate agent ls`",
        ProblemKind::Unavailable => "see who leads: `quorate cluster status`; then send it again",
        ProblemKind::Timeout => {
            "see who leads and who works: `quorate cluster status`, `quorate agent ls`; send it again"
        }
        ProblemKind::Agent => "see who can do it: `quorate agent ls`",
        ProblemKind::TooLarge => "give it with --file: larger inputs become blobs",
        ProblemKind::Invalid
        | ProblemKind::Forbidden
        | ProblemKind::MethodNotAllowed
        | ProblemKind::Conflict
        | ProblemKind::Internal
        | ProblemKind::Across
        | ProblemKind::Compacted
        | ProblemKind::Busy => next,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use quorate_types::problem::Problem;

    use super::*;

    #[test]
    fn an_error_keeps_its_code_under_more_context() {
        let gone = Problem::new(ProblemKind::NotFound, "t1 does not exist", "");
        let error = Err::<(), _>(ClientError::Refused(Box::new(gone)))
            .context("cannot read the task")
            .expect_err("refused");
        assert_eq!(verdict(&error).0, Exit::NotFound);
        let checked = ended(Exit::CheckFailed, "2 lost", "quorate events");
        assert_eq!(verdict(&checked), (Exit::CheckFailed, "quorate events".to_owned()));
        assert_eq!(verdict(&anyhow::anyhow!("disk")).0, Exit::Failed);
    }
}
