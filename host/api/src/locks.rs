//! `/v1/locks` and `/v1/elections`: seats that one lease holds while others wait in
//! order. Whoever waits here watches from before it asks, so that no hand-over is
//! missed; whoever waited long enough gives its place up.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use quorate_types::Refusal;
use quorate_types::door::Consistency;
use quorate_types::http::{Acquire, DEADLINE_MS_MAX, Proclaim, SeatGot};
use quorate_types::kv::{
    Act, Done, KvFound, KvRead, KvWatch, LeaseId, Revision, SeatAct, SeatInfo, SeatKind, SeatStand,
    Subject, What,
};

use crate::changes;
use crate::failure::{Answer, Failure};
use crate::kv::{act, key_of, limit, namespace, read};
use crate::params::{Named, Params};
use crate::state::{Api, Asked, Shared};
use crate::tasks::json_body;

/// Which seats a route is about: a route names it as a type.
pub(crate) trait Kind {
    /// The kind.
    const KIND: SeatKind;
}

/// `/v1/locks`
pub(crate) enum Lock {}

impl Kind for Lock {
    const KIND: SeatKind = SeatKind::Lock;
}

/// `/v1/elections`
pub(crate) enum Election {}

impl Kind for Election {
    const KIND: SeatKind = SeatKind::Election;
}

/// `GET` of all of a namespace.
pub(crate) async fn list<K: Kind>(
    State(api): State<Shared>,
    asked: Asked,
    params: Params,
) -> Answer {
    let params = params.only(&["namespace", "limit", "cursor"])?;
    let question = KvRead::Seats {
        namespace: namespace(&params)?,
        kind: K::KIND,
        cursor: params.one("cursor")?,
        limit: limit(&params)?,
    };
    let (found, _stale) = read(&api, asked, question, Consistency::Linearizable).await?;
    let KvFound::Seats(page) = found else { return Err(Failure::unexpected("Seats")) };
    Ok(Json(page).into_response())
}

async fn look(
    api: &Api,
    asked: Asked,
    namespace: String,
    kind: SeatKind,
    name: String,
) -> Result<(SeatInfo, Revision), Failure> {
    let question = KvRead::Seat { namespace, kind, name };
    let (found, _stale) = read(api, asked, question, Consistency::Linearizable).await?;
    let KvFound::Seat(seat, as_of) = found else { return Err(Failure::unexpected("Seat")) };
    Ok((seat, as_of))
}

/// `GET` of one.
pub(crate) async fn show<K: Kind>(
    State(api): State<Shared>,
    Named(name): Named<String>,
    asked: Asked,
    params: Params,
    headers: HeaderMap,
) -> Answer {
    let params = params.only(&["namespace", "watch", "after"])?;
    let namespace = namespace(&params)?;
    if params.one::<bool>("watch")?.unwrap_or(false) {
        let after = changes::after(&headers, &params)?;
        let subject = Subject::Seat(K::KIND, name);
        return changes::stream(&api, KvWatch { namespace, subject, after }).await;
    }
    let (seat, as_of) = look(&api, asked, namespace, K::KIND, name).await?;
    Ok(Json(SeatGot { seat, as_of }).into_response())
}

/// Which seat of which namespace, by which lease.
struct Claim {
    namespace: String,
    kind: SeatKind,
    name: String,
    lease: LeaseId,
}

impl Claim {
    async fn act(
        &self,
        api: &Api,
        asked: Asked,
        key: Option<&str>,
        act_on: SeatAct,
    ) -> Result<SeatStand, Failure> {
        let (kind, name, lease) = (self.kind, self.name.clone(), self.lease);
        let seat = Act::Seat { kind, name, lease, act: act_on };
        let Done::Seat(stand) = act(api, asked, self.namespace.clone(), key, seat).await? else {
            return Err(Failure::unexpected("Seat"));
        };
        Ok(stand)
    }

    /// Waits until the lease holds the seat; none where it does not in time.
    async fn wait(
        &self,
        api: &Api,
        after: Revision,
        wait: Duration,
    ) -> Result<Option<SeatStand>, Failure> {
        let subject = Subject::Seat(self.kind, self.name.clone());
        let (namespace, after) = (self.namespace.clone(), Some(after));
        let mut source = api.door.kv_watch(KvWatch { namespace, subject, after });
        let mut closing = api.closing();
        let until = tokio::time::Instant::now() + wait;
        loop {
            let changes = tokio::select! {
                changes = tokio::time::timeout_at(until, source.next()) => changes,
                () = closing.wait() => return Ok(None),
            };
            let Ok(Some(changes)) = changes else { return Ok(None) };
            for change in changes?.changes {
                if let What::Seat { holder: Some(holder), .. } = change.what
                    && holder.lease == self.lease
                {
                    let (token, revision) = (holder.token, holder.revision);
                    return Ok(Some(SeatStand::Holds { token, revision }));
                }
            }
        }
    }
}

/// `POST`: takes the seat, or campaigns for it.
pub(crate) async fn acquire<K: Kind>(
    State(api): State<Shared>,
    Named(name): Named<String>,
    asked: Asked,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let params = params.only(&["namespace"])?;
    let Acquire { lease, wait_ms, value } = json_body(&api, &headers, body).await?;
    let kind = K::KIND;
    let claim = Claim { namespace: namespace(&params)?, kind, name, lease };
    let (namespace, name) = (claim.namespace.clone(), claim.name.clone());
    let (_seat, as_of) = look(&api, asked, namespace, kind, name).await?;
    let key = key_of(&headers)?;
    let stand = claim.act(&api, asked, key, SeatAct::Acquire { value }).await?;
    let before = match stand {
        SeatStand::Holds { .. } | SeatStand::Gone => return Ok(Json(stand).into_response()),
        SeatStand::Waits { before } => before,
    };
    let wait = Duration::from_millis(wait_ms.min(DEADLINE_MS_MAX));
    if let Some(stand) = claim.wait(&api, as_of, wait).await? {
        return Ok(Json(stand).into_response());
    }
    claim.act(&api, asked, None, SeatAct::Release).await?;
    let what =
        format!("{kind} `{}` is held; {before} were before when it was asked for", claim.name);
    Err(Refusal::Timeout(what).into())
}

/// `DELETE`: gives the seat up, or waits for it no more.
pub(crate) async fn leave<K: Kind>(
    State(api): State<Shared>,
    Named(name): Named<String>,
    asked: Asked,
    params: Params,
) -> Answer {
    let params = params.only(&["namespace", "lease"])?;
    let lease = params.one("lease")?.ok_or_else(|| {
        Failure::invalid("whose hold is to end?", "give ?lease=, as POST /v1/leases answered it")
    })?;
    let claim = Claim { namespace: namespace(&params)?, kind: K::KIND, name, lease };
    claim.act(&api, asked, None, SeatAct::Release).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `PUT /v1/elections/{name}`
pub(crate) async fn proclaim(
    State(api): State<Shared>,
    Named(name): Named<String>,
    asked: Asked,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let params = params.only(&["namespace"])?;
    let Proclaim { lease, value } = json_body(&api, &headers, body).await?;
    let claim = Claim { namespace: namespace(&params)?, kind: SeatKind::Election, name, lease };
    let key = key_of(&headers)?;
    let stand = claim.act(&api, asked, key, SeatAct::Proclaim { value }).await?;
    Ok(Json(stand).into_response())
}
