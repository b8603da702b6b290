//! Connections: accepted within a bound, timed out, and closed in order.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use quorate_types::Door;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::fresh::Fresh;
use crate::options::ApiOptions;
use crate::routes::router;
use crate::state::{Api, Closing};

/// A head must be complete within this, counted from when the connection is idle: it ends both a
/// head sent byte by byte and a connection that nobody uses. Clients should idle for less.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// A head, bytes. Ours have a token, a key and a trace.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Requests under way when the door closes get this long to finish.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// After an accept that failed for want of descriptors or memory, which only others can free.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why a door could not open.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The system gave no random bytes.
    #[error("no random bytes for traces and nonces: {0}")]
    Entropy(getrandom::Error),
}

/// Serves `/v1` on `listener` until `shutdown` resolves; then refuses new connections, ends
/// streams, lets requests under way finish for up to 5 s, and returns.
pub async fn serve(
    listener: TcpListener,
    door: Arc<dyn Door>,
    options: ApiOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let fresh = Fresh::new().map_err(ServeError::Entropy)?;
    let (close, closing) = watch::channel(false);
    let room = Arc::new(Semaphore::new(options.connections_max));
    let router = router(Arc::new(Api::new(door, options, fresh, closing.clone())));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &room) => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, permit)) => {
                let (router, closing) = (router.clone(), Closing::new(closing.clone()));
                connections.spawn(async move {
                    converse(stream, router, closing).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    close.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(CLOSE_WITHIN, finished).await.is_err() {
        tracing::warn!("requests were cut off at shutdown");
        connections.shutdown().await;
    }
    Ok(())
}

type Accepted = io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)>;

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> Accepted {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

async fn converse(stream: TcpStream, router: Router, mut closing: Closing) {
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
