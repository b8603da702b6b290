//! `/v1/agents`: outside workers present themselves, live on, and take work.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use quorate_types::door::{AgentFilter, Consistency};
use quorate_types::http::{Agents, Beat, DEADLINE_MS_MAX, Leases, Register, Registered, Take};
use quorate_types::{AgentId, AgentSpec, Incarnation, NodeId, Reply, Request};

use crate::failure::{Answer, Failure};
use crate::params::{Named, Params};
use crate::state::{Asked, DEADLINE_MS_DEFAULT, Shared, answered};
use crate::tasks::{done, json_body};

/// `POST /v1/agents`
pub(crate) async fn register(
    State(api): State<Shared>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let Register { namespace, name, capabilities, slots } = json_body(&api, &headers, body).await?;
    if name.is_empty() || capabilities.is_empty() || slots == 0 {
        return Err(Failure::invalid(
            "an agent needs a name, at least one capability and at least one slot",
            "give `name`, `capabilities` and `slots`",
        ));
    }
    let spec = AgentSpec {
        namespace,
        name,
        capabilities: capabilities.into(),
        slots,
        hosted: false,
        // The node that accepts the registration writes itself here.
        node: NodeId::default(),
        node_incarnation: Incarnation::default(),
    };
    let Reply::Registered(id, incarnation) =
        api.ask(Request::Register(spec), asked.deadline_or(DEADLINE_MS_DEFAULT)).await?
    else {
        return Err(Failure::unexpected("Registered"));
    };
    Ok((StatusCode::CREATED, Json(Registered { id, incarnation })).into_response())
}

/// `GET /v1/agents`
pub(crate) async fn list(State(api): State<Shared>, asked: Asked, params: Params) -> Answer {
    let params = params.only(&["namespace", "capability", "consistency"])?;
    let filter =
        AgentFilter { namespace: params.one("namespace")?, capabilities: params.all("capability") };
    let consistency = params.consistency()?;
    let agents = answered!(Agents, api, asked, Request::Agents(filter, consistency));
    let stale = consistency == Consistency::Stale;
    Ok(Json(Agents { agents, stale }).into_response())
}

/// `DELETE /v1/agents/{id}`
pub(crate) async fn deregister(
    State(api): State<Shared>,
    Named(id): Named<AgentId>,
    asked: Asked,
    params: Params,
) -> Answer {
    let incarnation = params.only(&["incarnation"])?.one("incarnation")?.ok_or_else(|| {
        Failure::invalid(
            "which life of the agent ends is not said",
            "give ?incarnation= as the registration answered it; GET /v1/agents shows it too",
        )
    })?;
    let request = Request::Deregister(id, incarnation);
    done(api.ask(request, asked.deadline_or(DEADLINE_MS_DEFAULT)).await?)
}

/// `POST /v1/agents/{id}/heartbeat`
pub(crate) async fn heartbeat(
    State(api): State<Shared>,
    Named(id): Named<AgentId>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let Beat { incarnation, reading } = json_body(&api, &headers, body).await?;
    let request = Request::Beat(id, incarnation, reading);
    done(api.ask(request, asked.deadline_or(DEADLINE_MS_DEFAULT)).await?)
}

/// `POST /v1/agents/{id}/leases`
pub(crate) async fn take(
    State(api): State<Shared>,
    Named(agent): Named<AgentId>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let Take { incarnation, max, wait_ms, holding } = json_body(&api, &headers, body).await?;
    if max == 0 || wait_ms > DEADLINE_MS_MAX {
        return Err(Failure::invalid(
            format!("cannot take {max} leases within {wait_ms} ms"),
            format!("give max from 1, and wait_ms up to {DEADLINE_MS_MAX}"),
        ));
    }
    let request = Request::Take { agent, incarnation, max, wait_ms, holding };
    // The wait is the caller's wish; what the cluster needs to answer comes on top of it.
    let deadline_ms = wait_ms + asked.deadline_or(DEADLINE_MS_DEFAULT);
    let mut closing = api.closing();
    let reply = tokio::select! {
        reply = api.ask(request, deadline_ms) => reply?,
        // Whoever polls goes to another node; a door that closes does not wait for work to come.
        () = closing.wait() => Reply::Leases(Vec::new()),
    };
    let Reply::Leases(leases) = reply else {
        return Err(Failure::unexpected("Leases"));
    };
    Ok(Json(Leases { leases }).into_response())
}
