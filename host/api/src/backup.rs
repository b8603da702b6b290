//! `/v1/cluster/backup`: the whole cluster as one file.

use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use quorate_types::Refusal;

use crate::failure::{Answer, Failure};
use crate::params::Params;
use crate::state::{Closing, Shared};

/// `GET /v1/cluster/backup`
pub(crate) async fn backup(State(api): State<Shared>, params: Params) -> Answer {
    let params = params.only(&["blobs"])?;
    let blobs = params.one::<bool>("blobs")?.unwrap_or(true);
    let permit = api.backup_permit()?;
    let mut source = api.door.backup(blobs);
    // Not before its first piece is there is a head sent, so that a refusal keeps its status.
    let first = match source.next().await {
        Some(first) => first?,
        None => return Err(Failure::from(Refusal::Unavailable("the node stops".to_owned()))),
    };
    let begun = Some((source, Some(first), api.closing(), permit));
    let frames = stream::unfold(begun, |step| async move {
        let (mut source, peeked, mut closing, permit) = step?;
        let next = match peeked {
            Some(piece) => Some(Ok(piece)),
            None => tokio::select! {
                next = source.next() => next,
                () = Closing::wait(&mut closing) => {
                    Some(Err(Refusal::Unavailable("this node is stopping".to_owned())))
                }
            },
        };
        match next? {
            Ok(piece) => Some((Ok(Frame::data(piece)), Some((source, None, closing, permit)))),
            // Whoever reads sees it break off: a backup without its end is none.
            Err(refusal) => {
                tracing::warn!(%refusal, "a backup broke off");
                // The connection closes at once; what is written by then must not be lost with it.
                tokio::task::yield_now().await;
                Some((Err::<Frame<Bytes>, _>(io::Error::other(refusal.to_string())), None))
            }
        }
    });
    let headers = [
        (CONTENT_TYPE, "application/octet-stream"),
        (CONTENT_DISPOSITION, "attachment; filename=\"quorate.backup\""),
    ];
    Ok((headers, Body::new(StreamBody::new(frames))).into_response())
}
