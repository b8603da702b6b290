//! `/v1/blobs`: contents by their SHA-256.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use quorate_types::http::Stored;
use quorate_types::limits::BLOB_BYTES_MAX;
use quorate_types::problem::{Problem, ProblemKind};
use quorate_types::{Digest, Payload, Refusal};
use std::time::Duration;

use crate::failure::{Answer, Failure};
use crate::input;
use crate::params::Named;
use crate::state::{Api, Asked, Shared, overdue};

/// A blob is fsynced on two nodes; the largest takes seconds.
const DEADLINE_MS_DEFAULT: u64 = 60_000;

/// Stores a body of at most `limit` bytes.
pub(crate) async fn store(
    api: &Api,
    asked: Asked,
    headers: &HeaderMap,
    mut body: Body,
    what: &str,
    limit: u64,
) -> Result<Stored, Failure> {
    let announced = input::announced(headers, &mut body, what, limit).await?;
    let deadline_ms = asked.deadline_or(DEADLINE_MS_DEFAULT);
    let _room = api.blob_permit(announced, deadline_ms).await?;
    let content = input::read(headers, body, what, limit).await?;
    let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
    let sha256 = within(deadline_ms, api.door.put_blob(content)).await?;
    Ok(Stored { sha256, size })
}

/// That content can be had, here or from a peer, before a record names it: what is acknowledged
/// must not wait for a blob that nobody has.
pub(crate) async fn check_there(
    api: &Api,
    what: &str,
    payload: &Payload,
    deadline_ms: u64,
) -> Result<(), Failure> {
    let Payload::Blob { digest, size } = payload else { return Ok(()) };
    let _room = api.blob_permit(*size, deadline_ms).await?;
    let found =
        tokio::time::timeout(Duration::from_millis(deadline_ms), api.door.get_blob(*digest));
    let content = match found.await {
        Ok(Ok(content)) => content,
        Ok(Err(Refusal::NotFound(_))) => {
            return Err(Failure::from(Problem::new(
                ProblemKind::NotFound,
                format!("{what} is the blob {digest}, and no node that can be reached has it"),
                "store it with PUT /v1/blobs, then send this again",
            )));
        }
        Ok(Err(refusal)) => return Err(refusal.into()),
        Err(_elapsed) => return Err(overdue()),
    };
    let got = u64::try_from(content.len()).unwrap_or(u64::MAX);
    if got != *size {
        return Err(Failure::invalid(
            format!("{what} is the blob {digest} of {got} bytes, not of {size}"),
            "give the size that PUT /v1/blobs answered",
        ));
    }
    Ok(())
}

async fn within<T>(
    deadline_ms: u64,
    answer: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Failure> {
    let answer = tokio::time::timeout(Duration::from_millis(deadline_ms), answer).await;
    Ok(answer.map_err(|_elapsed| overdue())??)
}

/// `PUT /v1/blobs`, `POST /v1/blobs`
pub(crate) async fn put(
    State(api): State<Shared>,
    asked: Asked,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let stored = store(&api, asked, &headers, body, "the blob", BLOB_BYTES_MAX).await?;
    let location = [("location", format!("/v1/blobs/{}", stored.sha256))];
    Ok((StatusCode::CREATED, location, Json(stored)).into_response())
}

/// `GET /v1/blobs/{sha256}`, and `HEAD`
pub(crate) async fn get(
    State(api): State<Shared>,
    Named(digest): Named<Digest>,
    asked: Asked,
) -> Answer {
    let deadline_ms = asked.deadline_or(DEADLINE_MS_DEFAULT);
    let content: Bytes = within(deadline_ms, api.door.get_blob(digest)).await?;
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (ETAG, format!("\"{digest}\"")),
        // Its name is its content.
        (CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned()),
    ];
    Ok((headers, content).into_response())
}
