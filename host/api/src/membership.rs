//! `/v1/cluster/members`, `/v1/cluster/voters`, `/v1/cluster/leader`: who belongs to
//! the cluster, who votes, who leads; `/v1/cluster/feature-level`: what they agree on.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use quorate_types::member::{MemberRequest, NewMember, check_peer_id};
use quorate_types::{NodeId, Request};

use crate::failure::{Answer, Failure};
use crate::params::{Named, Params};
use crate::state::{Api, Asked, Shared};
use crate::tasks::{done, json_body};

/// New voters catch up first, which may take ten seconds, and as long may a quorum.
const CHANGE_MS_DEFAULT: u64 = 30_000;

async fn ask(api: &Api, asked: Asked, request: MemberRequest) -> Answer {
    done(api.ask(Request::Membership(request), asked.deadline_or(CHANGE_MS_DEFAULT)).await?)
}

/// `POST /v1/cluster/members`
pub(crate) async fn add(
    State(api): State<Shared>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let member: NewMember = json_body(&api, &headers, body).await?;
    check_peer_id(&member.peer).map_err(|reason| {
        Failure::invalid(
            format!("`{}` is no peer id: {reason}", member.peer),
            "`quorate node key FILE` on the new node prints it",
        )
    })?;
    ask(&api, asked, MemberRequest::Add(member)).await
}

/// `DELETE /v1/cluster/members/{id}`
pub(crate) async fn remove(
    State(api): State<Shared>,
    Named(id): Named<NodeId>,
    asked: Asked,
    params: Params,
) -> Answer {
    params.only(&[])?;
    ask(&api, asked, MemberRequest::Remove(id)).await
}

/// `PUT /v1/cluster/voters`
pub(crate) async fn voters(
    State(api): State<Shared>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let voters = json_body(&api, &headers, body).await?;
    ask(&api, asked, MemberRequest::Voters(voters)).await
}

/// `POST /v1/cluster/feature-level`
pub(crate) async fn level(
    State(api): State<Shared>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let level = json_body(&api, &headers, body).await?;
    ask(&api, asked, MemberRequest::Level(level)).await
}

/// `POST /v1/cluster/leader`
pub(crate) async fn leader(
    State(api): State<Shared>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let leader = json_body(&api, &headers, body).await?;
    ask(&api, asked, MemberRequest::Lead(leader)).await
}
