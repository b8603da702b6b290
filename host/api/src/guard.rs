//! What every request passes before its route: trace, host name, token; and what
//! every response passes after it: the problem's body, the trace, a measurement.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, ORIGIN};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::Response;
use quorate_types::TraceId;
use quorate_types::http::{HEADER_TRACE, trace_of, traceparent};
use quorate_types::problem::{Problem, ProblemKind};
use tracing::Instrument as _;

use crate::failure::{Failure, render};
use crate::state::{Api, Shared};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACE: HeaderName = HeaderName::from_static(HEADER_TRACE);

/// The paths that need no token, since those who check health have none: whether the process
/// lives, and whether it can serve.
pub(crate) const HEALTH_PATH: &str = "/healthz";
pub(crate) const READY_PATH: &str = "/readyz";

/// The middleware.
pub(crate) async fn guard(State(api): State<Shared>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let given = request.headers().get(TRACEPARENT).and_then(|header| header.to_str().ok());
    let trace = given.and_then(trace_of).unwrap_or_else(|| api.fresh.trace());
    request.extensions_mut().insert(trace);
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", method = %request.method(), route, %trace);
    async move {
        let method = request.method().clone();
        let response = match admit(&api, &request) {
            Ok(()) => next.run(request).await,
            Err(failure) => render(failure, trace),
        };
        let response = dressed(response, trace);
        let (status, took) = (response.status().as_u16(), started.elapsed());
        api.meter.record(method.as_str(), &route, status, took);
        tracing::debug!(status, took_us = took.as_micros(), "answered");
        response
    }
    .instrument(span)
    .await
}

fn admit(api: &Api, request: &Request) -> Result<(), Failure> {
    let headers = request.headers();
    check_host(api, headers, request.uri())?;
    if [HEALTH_PATH, READY_PATH].contains(&request.uri().path()) {
        return Ok(());
    }
    let detail = match bearer(headers) {
        Some(token) if api.options.token.is(token) => return Ok(()),
        Some(_wrong) => "the bearer token is not the one of this cluster",
        None => "the request carries no bearer token",
    };
    Err(Failure::from(Problem::new(
        ProblemKind::Unauthorized,
        detail,
        "send `Authorization: Bearer TOKEN` with the token that the cluster was started with",
    )))
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) =
        headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Whether whoever asks on an open path shows the token all the same.
pub(crate) fn is_trusted(api: &Api, headers: &HeaderMap) -> bool {
    bearer(headers).is_some_and(|token| api.options.token.is(token))
}

/// A page on another site can make a browser send requests here, by a name that it points at this
/// address; such a request names that site as its host or its origin.
fn check_host(api: &Api, headers: &HeaderMap, uri: &Uri) -> Result<(), Failure> {
    let allowed =
        |host: &str| api.options.allowed_hosts.iter().any(|a| a.eq_ignore_ascii_case(host));
    let text = |header: &HeaderValue| header.to_str().unwrap_or("?").to_owned();
    let named = uri.authority().map(ToString::to_string);
    let host = named.or_else(|| headers.get(HOST).map(text)).unwrap_or_default();
    let origin = headers.get(ORIGIN).map(text);
    let stranger = if !allowed(without_port(&host)) {
        format!("the host `{host}`")
    } else if let Some(origin) = origin.filter(|origin| !allowed(of_origin(origin))) {
        format!("the origin `{origin}`")
    } else {
        return Ok(());
    };
    Err(Failure::from(Problem::new(
        ProblemKind::Forbidden,
        format!("{stranger} is not served here"),
        format!("use one of: {}", api.options.allowed_hosts.join(", ")),
    )))
}

fn of_origin(origin: &str) -> &str {
    without_port(origin.split_once("://").map_or(origin, |(_scheme, host)| host))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

fn dressed(mut response: Response, trace: TraceId) -> Response {
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        let allow = response.headers_mut().remove(axum::http::header::ALLOW);
        response = render(failure, trace);
        if let Some(allow) = allow {
            response.headers_mut().insert(axum::http::header::ALLOW, allow);
        }
    }
    // The span is the low half of the trace: this door is the only span it reports.
    let span = u64::try_from(trace.0 & u128::from(u64::MAX)).unwrap_or(1).max(1);
    for (name, value) in [(TRACEPARENT, traceparent(trace, span)), (TRACE, trace.to_string())] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::{of_origin, without_port};

    #[test]
    fn a_host_is_compared_without_its_port() {
        assert_eq!(without_port("localhost:7400"), "localhost");
        assert_eq!(without_port("[::1]:7400"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
        assert_eq!(of_origin("http://evil.example:80"), "evil.example");
        assert_eq!(of_origin("null"), "null");
    }
}
