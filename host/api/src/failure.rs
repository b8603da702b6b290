//! How a route ends without success. The problem travels in the response's
//! extensions; the guard, which knows the trace, writes the body.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use quorate_types::problem::{Problem, ProblemKind};
use quorate_types::{Refusal, TraceId};

/// A problem on its way to the guard.
#[derive(Clone, Debug)]
pub(crate) struct Failure(Box<Problem>);

/// What a route returns.
pub(crate) type Answer = Result<Response, Failure>;

impl Failure {
    /// The request is wrong: what, and what to do instead.
    pub(crate) fn invalid(detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self::from(Problem::new(ProblemKind::Invalid, detail, next))
    }

    /// A bound of the door itself is reached: 503, since it says nothing about the caller's rate.
    pub(crate) fn crowded(what: &str) -> Self {
        let refusal = Refusal::Busy { what: what.to_owned(), retry_after_ms: 1000 };
        Self::from(Problem { status: 503, ..Problem::from(refusal) })
    }

    /// The door answered a question that was not asked; this reply was due.
    pub(crate) fn unexpected(due: &'static str) -> Self {
        tracing::error!(due, "a door answered another question");
        Self::from(Problem::new(
            ProblemKind::Internal,
            "the node answered a question that was not asked",
            "this is a bug: please report it with the trace",
        ))
    }

    pub(crate) fn problem(&self) -> &Problem {
        &self.0
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::from(Problem::from(refusal))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The problem as it is sent.
pub(crate) fn render(failure: Failure, trace: TraceId) -> Response {
    let problem = Problem { trace: Some(trace), ..*failure.0 };
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, axum::Json(&problem)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(after_ms) = problem.retry_after_ms {
        // Whole seconds are all that the header knows; the body has milliseconds.
        headers.insert(RETRY_AFTER, HeaderValue::from(after_ms.div_ceil(1000)));
    }
    if problem.kind == ProblemKind::Unauthorized {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"quorate\""));
    }
    response
}
