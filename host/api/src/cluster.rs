//! `/v1/members`, `/v1/cluster`, `/v1/policies`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use quorate_types::door::Consistency;
use quorate_types::http::{ApplyPolicy, Cluster, Members, Policies};
use quorate_types::problem::{Problem, ProblemKind};
use quorate_types::{Digest, Reply, Request};

use crate::blobs;
use crate::failure::{Answer, Failure};
use crate::params::{Named, Params, unknown};
use crate::state::{Api, Asked, Shared, answered};
use crate::tasks::json_body;

/// Every member compiles the component before it is applied.
const APPLY_MS_DEFAULT: u64 = 60_000;

/// `GET /v1/members`
pub(crate) async fn members(State(api): State<Shared>, asked: Asked) -> Answer {
    let members = answered!(Members, api, asked, Request::Members);
    Ok(Json(Members { members }).into_response())
}

/// `GET /v1/cluster`
pub(crate) async fn cluster(State(api): State<Shared>, asked: Asked) -> Answer {
    let nodes = answered!(Cluster, api, asked, Request::Cluster);
    Ok(Json(Cluster { nodes }).into_response())
}

/// `GET /v1/policies`
pub(crate) async fn policies(State(api): State<Shared>, asked: Asked, params: Params) -> Answer {
    let consistency = params.only(&["consistency"])?.consistency()?;
    let policies = answered!(Policies, api, asked, Request::Policies(consistency));
    let stale = consistency == Consistency::Stale;
    Ok(Json(Policies { policies, stale }).into_response())
}

/// `POST /v1/policies/{slot}`
pub(crate) async fn apply(
    State(api): State<Shared>,
    Named(slot): Named<String>,
    asked: Asked,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("application/json"));
    let (name, digest, force) = if json {
        params.only(&[])?;
        chosen(&api, asked, json_body(&api, &headers, body).await?).await?
    } else {
        sent(&api, asked, &params.only(&["name", "force"])?, &headers, body).await?
    };
    let request = Request::ApplyPolicy { slot, name, digest, force };
    let Reply::Applied(policy) = api.ask(request, asked.deadline_or(APPLY_MS_DEFAULT)).await?
    else {
        return Err(Failure::unexpected("Applied"));
    };
    Ok(Json(policy).into_response())
}

type Chosen = (String, Digest, bool);

/// A component that is named: it is a blob already, or ships with the node.
async fn chosen(api: &Api, asked: Asked, body: ApplyPolicy) -> Result<Chosen, Failure> {
    let ApplyPolicy { builtin, digest, name, force } = body;
    match (builtin, digest, name) {
        (Some(builtin), None, name) => {
            let Some(component) = api.options.builtins.get(&builtin) else {
                let known: Vec<&str> = api.options.builtins.keys().map(String::as_str).collect();
                return Err(Failure::from(Problem::new(
                    ProblemKind::NotFound,
                    format!("no policy `{builtin}` ships with this node"),
                    unknown(&builtin, &known),
                )));
            };
            let body = Body::from(component.clone());
            let limit = api.options.component_bytes_max;
            let headers = HeaderMap::new();
            let stored = blobs::store(api, asked, &headers, body, "the component", limit).await?;
            Ok((name.unwrap_or(builtin), stored.sha256, force))
        }
        (None, Some(digest), Some(name)) => Ok((name, digest, force)),
        (Some(_), Some(_), _) | (None, Some(_), None) | (None, None, _) => Err(Failure::invalid(
            "which policy is meant is not said, or said twice",
            "give {\"builtin\": NAME}, or {\"digest\": SHA256, \"name\": NAME}, \
             or the component itself as body (not as application/json) with ?name=",
        )),
    }
}

/// A component that is sent along.
async fn sent(
    api: &Api,
    asked: Asked,
    params: &Params,
    headers: &HeaderMap,
    body: Body,
) -> Result<Chosen, Failure> {
    let name = params.one("name")?.ok_or_else(|| {
        Failure::invalid("the component has no name", "give ?name=, or JSON as application/json")
    })?;
    let force = params.one("force")?.unwrap_or(false);
    let limit = api.options.component_bytes_max;
    let stored = blobs::store(api, asked, headers, body, "the component", limit).await?;
    Ok((name, stored.sha256, force))
}
