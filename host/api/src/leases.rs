//! `/v1/leases`: what hangs on a lease ends with it.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use quorate_types::Request;
use quorate_types::door::Consistency;
use quorate_types::http::{Grant, KvLeases, Renewed};
use quorate_types::kv::{Act, Done, KvFound, KvRead, LeaseId};

use crate::failure::{Answer, Failure};
use crate::kv::{act, key_of, limit, namespace, read};
use crate::params::{Named, Params};
use crate::state::{Asked, Shared, answered};
use crate::tasks::json_body;

/// `POST /v1/leases`
pub(crate) async fn grant(
    State(api): State<Shared>,
    asked: Asked,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let params = params.only(&["namespace"])?;
    let Grant { segment, ttl_ms } = json_body(&api, &headers, body).await?;
    let grant = Act::Grant { segment, ttl_ms };
    let done = act(&api, asked, namespace(&params)?, key_of(&headers)?, grant).await?;
    let Done::Granted(info) = done else { return Err(Failure::unexpected("Granted")) };
    let location = [("location", format!("/v1/leases/{}", info.lease))];
    Ok((StatusCode::CREATED, location, Json(info)).into_response())
}

/// `GET /v1/leases`
pub(crate) async fn list(State(api): State<Shared>, asked: Asked, params: Params) -> Answer {
    let params = params.only(&["namespace", "limit"])?;
    let question = KvRead::Leases { namespace: namespace(&params)?, limit: limit(&params)? };
    let (found, _stale) = read(&api, asked, question, Consistency::Linearizable).await?;
    let KvFound::Leases(leases) = found else { return Err(Failure::unexpected("Leases")) };
    Ok(Json(KvLeases { leases }).into_response())
}

/// `GET /v1/leases/{id}`
pub(crate) async fn one(
    State(api): State<Shared>,
    Named(id): Named<LeaseId>,
    asked: Asked,
) -> Answer {
    let question = KvRead::Lease(id);
    let (found, _stale) = read(&api, asked, question, Consistency::Linearizable).await?;
    let KvFound::Lease(info) = found else { return Err(Failure::unexpected("Lease")) };
    Ok(Json(info).into_response())
}

/// `POST /v1/leases/{id}/keep`
pub(crate) async fn keep(
    State(api): State<Shared>,
    Named(id): Named<LeaseId>,
    asked: Asked,
) -> Answer {
    let term_ms = answered!(Renewed, api, asked, Request::KvKeep(id));
    Ok(Json(Renewed { term_ms }).into_response())
}

/// `DELETE /v1/leases/{id}`
pub(crate) async fn revoke(
    State(api): State<Shared>,
    Named(id): Named<LeaseId>,
    asked: Asked,
    params: Params,
) -> Answer {
    let params = params.only(&["namespace"])?;
    let done = act(&api, asked, namespace(&params)?, None, Act::Revoke(id)).await?;
    let Done::Revoked = done else { return Err(Failure::unexpected("Revoked")) };
    Ok(StatusCode::NO_CONTENT.into_response())
}
