//! The routes: one table that people read at `GET /v1`, one router that serves them.
//! A test asks every row of the table for an answer.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use quorate_types::Refusal;
use quorate_types::metrics::Page;
use quorate_types::problem::{Problem, ProblemKind};
use serde::Serialize;

use crate::failure::{Answer, Failure};
use crate::guard::{HEALTH_PATH, READY_PATH, guard, is_trusted};
use crate::locks::{Election, Lock};
use crate::state::Shared;
use crate::{
    agents, backup, blobs, calls, cluster, events, kv, leases, locks, membership, stream, tasks,
    watch,
};

/// A row of `GET /v1`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Route {
    method: &'static str,
    path: &'static str,
    what: &'static str,
}

const fn route(method: &'static str, path: &'static str, what: &'static str) -> Route {
    Route { method, path, what }
}

/// What there is. The order is that of a reader who begins.
pub(crate) const ROUTES: &[Route] = &[
    route("GET", "/v1", "this document"),
    route(
        "POST",
        "/v1/tasks",
        "submit a task, or {\"tasks\": […]}; Idempotency-Key as header or field",
    ),
    route(
        "GET",
        "/v1/tasks",
        "list: ?namespace= &state= &queue= &limit= &cursor= &consistency=linearizable|stale",
    ),
    route("GET", "/v1/tasks/{id}", "a task: ?consistency="),
    route("GET", "/v1/tasks/{id}/why", "its routing decisions: ?consistency="),
    route("GET", "/v1/tasks/{id}/watch", "SSE: its state now and after each change, until it ends"),
    route("POST", "/v1/tasks/{id}/cancel", "cancel it"),
    route("POST", "/v1/tasks/{id}/renew", "keep its lease: {token}"),
    route("POST", "/v1/tasks/{id}/complete", "finish it: {token, result}"),
    route("POST", "/v1/tasks/{id}/fail", "report a failed attempt: {token, reason, retry}"),
    route(
        "POST",
        "/v1/agents",
        "register an outside worker: {namespace, name, capabilities, slots}",
    ),
    route("GET", "/v1/agents", "list: ?capability= (several are all needed) &consistency="),
    route("DELETE", "/v1/agents/{id}", "deregister: ?incarnation="),
    route(
        "POST",
        "/v1/agents/{id}/heartbeat",
        "live on, and renew all its leases: {incarnation, reading}",
    ),
    route(
        "POST",
        "/v1/agents/{id}/leases",
        "take work: {incarnation, max, wait_ms, holding}; waits for the first",
    ),
    route(
        "POST",
        "/v1/call/{capability}",
        "call an agent: ?capability= (more) &namespace= &deadline_ms= &idempotent= &stream=",
    ),
    route("PUT", "/v1/blobs", "store the body; answers its sha256 (POST does the same)"),
    route("GET", "/v1/blobs/{sha256}", "a blob (HEAD: whether it is there, and its length)"),
    route("GET", "/v1/members", "nodes, as this one sees them"),
    route(
        "GET",
        "/v1/cluster",
        "groups of every reachable node: leader, applied_index, state_digest",
    ),
    route(
        "GET",
        "/v1/cluster/backup",
        "the whole cluster as one file, for `quorate cluster restore`: ?blobs=false leaves contents out",
    ),
    route(
        "POST",
        "/v1/cluster/members",
        "admit a node, or say that it moved: {id, name, peer, address}",
    ),
    route("DELETE", "/v1/cluster/members/{id}", "remove a node that votes in no group"),
    route("PUT", "/v1/cluster/voters", "a group's voters, in one joint step: {group, voters}"),
    route("POST", "/v1/cluster/leader", "hand a group's leadership over: {group, to}"),
    route(
        "POST",
        "/v1/cluster/feature-level",
        "raise it, to {to} or to the highest that every member knows",
    ),
    route("GET", "/v1/policies", "slots, and what is in them: ?consistency="),
    route(
        "POST",
        "/v1/policies/{slot}",
        "apply {builtin} or {digest, name}, or a component as body: ?name= &force=",
    ),
    route("GET", "/v1/events", "SSE: all that happens; resume by Last-Event-ID or ?after="),
    route("GET", "/v1/kv/{key}", "a key: ?namespace= &consistency="),
    route(
        "PUT",
        "/v1/kv/{key}",
        "put the body: ?namespace= &lease= and ?absent= &present= &version= &modified= as conditions",
    ),
    route("DELETE", "/v1/kv/{key}", "delete it: ?namespace= and conditions as PUT"),
    route(
        "GET",
        "/v1/kv",
        "keys: ?prefix= (its first segment whole, `app/`) &namespace= &limit= &cursor= &consistency=",
    ),
    route("DELETE", "/v1/kv", "delete keys: ?prefix= &namespace="),
    route("POST", "/v1/kv:txn", "{compare, then, else}: one act, within one first segment"),
    route("POST", "/v1/kv:batch", "{ops}: each by itself, with its own outcome"),
    route(
        "GET",
        "/v1/kv:watch",
        "SSE: ?key= or ?prefix= &namespace=; resume by Last-Event-ID or ?after=",
    ),
    route("POST", "/v1/leases", "{segment, ttl_ms}: what hangs on it ends with it: ?namespace="),
    route("GET", "/v1/leases", "list: ?namespace= &limit="),
    route("GET", "/v1/leases/{id}", "a lease"),
    route("POST", "/v1/leases/{id}/keep", "a sign of life; answers the term that begins now"),
    route("DELETE", "/v1/leases/{id}", "end it: ?namespace="),
    route("GET", "/v1/locks", "list: ?namespace= &limit= &cursor="),
    route("POST", "/v1/locks/{name}", "take it: {lease, wait_ms}; answers its fencing token"),
    route("GET", "/v1/locks/{name}", "who holds it and who waits; SSE with ?watch=true"),
    route("DELETE", "/v1/locks/{name}", "give it up, or wait no more: ?lease="),
    route("GET", "/v1/elections", "list: ?namespace= &limit= &cursor="),
    route("POST", "/v1/elections/{name}", "campaign: {lease, wait_ms, value}"),
    route("PUT", "/v1/elections/{name}", "show another value: {lease, value}"),
    route("GET", "/v1/elections/{name}", "who leads and who waits; SSE with ?watch=true"),
    route("DELETE", "/v1/elections/{name}", "resign: ?lease="),
    route(
        "GET",
        "/v1/stream",
        "the native stream: Upgrade: quorate/1, then frames of CBOR; for clients, not for people",
    ),
    route("GET", HEALTH_PATH, "the process lives (needs no token)"),
    route(
        "GET",
        READY_PATH,
        "the node knows a leader and has caught up (needs no token; tells why not to one)",
    ),
    route("GET", "/metrics", "Prometheus text format 0.0.4"),
];

#[derive(Serialize)]
struct Document {
    name: &'static str,
    version: &'static str,
    stability: &'static str,
    errors: &'static str,
    headers: &'static str,
    routes: &'static [Route],
}

async fn document() -> Response {
    axum::Json(Document {
        name: "quorate",
        version: env!("CARGO_PKG_VERSION"),
        stability: "/v1 may still change until the product work closes",
        errors: "application/problem+json with type, title, status, detail, next, trace",
        headers: "Authorization: Bearer TOKEN; quorate-deadline-ms: 1 to 300000; traceparent (W3C)",
        routes: ROUTES,
    })
    .into_response()
}

async fn healthz() -> Response {
    axum::Json(serde_json::json!({ "status": "alive" })).into_response()
}

async fn readyz(State(api): State<Shared>, headers: HeaderMap) -> Answer {
    // A reason may name files and nodes, which is nothing for a stranger.
    api.door.ready().map_err(|why| match is_trusted(&api, &headers) {
        true => Refusal::Unavailable(why),
        false => Refusal::Unavailable("this node is not ready to serve".to_owned()),
    })?;
    Ok(axum::Json(serde_json::json!({ "status": "ready" })).into_response())
}

async fn metrics(State(api): State<Shared>) -> Response {
    let mut page = Page::default();
    let build = [([("version", env!("CARGO_PKG_VERSION"))], 1)];
    page.gauges("quorate_build_info", "The program's version, as a label.", build);
    let text = page.into_text() + &api.door.metrics() + &api.meter.text();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn no_route() -> Failure {
    Failure::from(Problem::new(
        ProblemKind::NotFound,
        "there is no such route",
        "GET /v1 lists the routes",
    ))
}

async fn no_method() -> Failure {
    Failure::from(Problem::new(
        ProblemKind::MethodNotAllowed,
        "this route has no such method",
        "the Allow header names the methods; GET /v1 lists the routes",
    ))
}

/// The router, behind its guard.
pub(crate) fn router(api: Shared) -> Router {
    Router::new()
        .route("/v1", get(document))
        .route("/v1/tasks", post(tasks::submit).get(tasks::list))
        .route("/v1/tasks/{id}", get(tasks::one))
        .route("/v1/tasks/{id}/why", get(tasks::why))
        .route("/v1/tasks/{id}/watch", get(watch::watch))
        .route("/v1/tasks/{id}/cancel", post(tasks::cancel))
        .route("/v1/tasks/{id}/renew", post(tasks::renew))
        .route("/v1/tasks/{id}/complete", post(tasks::complete))
        .route("/v1/tasks/{id}/fail", post(tasks::fail))
        .route("/v1/agents", post(agents::register).get(agents::list))
        .route("/v1/agents/{id}", delete(agents::deregister))
        .route("/v1/agents/{id}/heartbeat", post(agents::heartbeat))
        .route("/v1/agents/{id}/leases", post(agents::take))
        .route("/v1/call/{capability}", post(calls::call))
        .route("/v1/blobs", post(blobs::put).put(blobs::put))
        .route("/v1/blobs/{sha256}", get(blobs::get))
        .route("/v1/members", get(cluster::members))
        .route("/v1/cluster", get(cluster::cluster))
        .route("/v1/cluster/backup", get(backup::backup))
        .route("/v1/cluster/members", post(membership::add))
        .route("/v1/cluster/members/{id}", delete(membership::remove))
        .route("/v1/cluster/voters", put(membership::voters))
        .route("/v1/cluster/leader", post(membership::leader))
        .route("/v1/cluster/feature-level", post(membership::level))
        .route("/v1/policies", get(cluster::policies))
        .route("/v1/policies/{slot}", post(cluster::apply))
        .route("/v1/events", get(events::events))
        .route("/v1/kv", get(kv::range).delete(kv::delete_range))
        .route("/v1/kv/{*key}", get(kv::one).put(kv::put).delete(kv::delete))
        .route("/v1/kv:txn", post(kv::txn))
        .route("/v1/kv:batch", post(kv::batch))
        .route("/v1/kv:watch", get(kv::watch))
        .route("/v1/leases", post(leases::grant).get(leases::list))
        .route("/v1/leases/{id}", get(leases::one).delete(leases::revoke))
        .route("/v1/leases/{id}/keep", post(leases::keep))
        .route("/v1/locks", get(locks::list::<Lock>))
        .route(
            "/v1/locks/{*name}",
            get(locks::show::<Lock>).post(locks::acquire::<Lock>).delete(locks::leave::<Lock>),
        )
        .route("/v1/elections", get(locks::list::<Election>))
        .route(
            "/v1/elections/{*name}",
            get(locks::show::<Election>)
                .post(locks::acquire::<Election>)
                .put(locks::proclaim)
                .delete(locks::leave::<Election>),
        )
        .route("/v1/stream", get(stream::stream))
        .route(HEALTH_PATH, get(healthz))
        .route(READY_PATH, get(readyz))
        .route("/metrics", get(metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(Arc::clone(&api), guard))
        .with_state(api)
}
