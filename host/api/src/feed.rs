//! What the door gives one after the other, to be sent as it comes: events, changes of
//! keys. Where the reader asks for what is no longer kept it learns so at once, and by
//! the stream's last event otherwise. A server that closes ends it.

use std::time::Duration;

use axum::http::HeaderMap;
use quorate_types::door::Source;
use quorate_types::{Door, Refusal};
use tokio::sync::OwnedSemaphorePermit;

use crate::failure::Failure;
use crate::state::{Api, Closing};

/// How long a stream waits for word that it cannot begin, before it answers 200 and leaves that to
/// an event.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);

/// Where a reader that reconnects was. A browser repeats its query, but this header is newer.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id").and_then(|value| value.to_str().ok())
}

type Item<T> = Result<T, Refusal>;

/// A source with its place among the streams.
pub(crate) struct Feed<T> {
    source: Box<dyn Source<Item<T>>>,
    /// What was read while waiting for a refusal; `Some(None)` is the end.
    first: Option<Option<Item<T>>>,
    closing: Closing,
    _permit: OwnedSemaphorePermit,
}

impl<T> Feed<T> {
    /// Takes a place and opens the source. One that may be refused is given a moment for that.
    ///
    /// # Errors
    /// When there are too many streams, and what the source refuses in that moment.
    pub(crate) async fn open(
        api: &Api,
        may_be_refused: bool,
        open: impl FnOnce(&dyn Door) -> Box<dyn Source<Item<T>>>,
    ) -> Result<Self, Failure> {
        let permit = api.stream_permit()?;
        let mut source = open(api.door.as_ref());
        let mut first = None;
        if may_be_refused {
            first = tokio::time::timeout(REFUSED_WITHIN, source.next()).await.ok();
            if let Some(Some(Err(refusal))) = first {
                return Err(refusal.into());
            }
        }
        Ok(Self { source, first, closing: api.closing(), _permit: permit })
    }

    /// The next item; none at its end, or when the server closes.
    pub(crate) async fn next(&mut self) -> Option<Item<T>> {
        match self.first.take() {
            Some(item) => item,
            None => tokio::select! {
                item = self.source.next() => item,
                () = self.closing.wait() => None,
            },
        }
    }
}
