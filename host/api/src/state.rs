//! What every route shares.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use quorate_types::http::{DEADLINE_MS_MAX, HEADER_DEADLINE_MS};
use quorate_types::{Door, Refusal, Reply, Request, TraceId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::failure::Failure;
use crate::fresh::Fresh;
use crate::meter::Meter;
use crate::numbers::Numbers;
use crate::options::ApiOptions;

/// Where the caller names no deadline. Longer than a lost leader takes to be replaced.
pub(crate) const DEADLINE_MS_DEFAULT: u64 = 10_000;

/// How much longer than its deadline a door may take before it is taken for stuck.
const GRACE: Duration = Duration::from_millis(500);

/// Blob bytes are counted in these, since a semaphore counts to 2^32 at most here.
const BLOB_UNIT_BYTES: u64 = 1 << 10;

/// The door and its bounds.
pub(crate) struct Api {
    pub(crate) door: Arc<dyn Door>,
    pub(crate) options: ApiOptions,
    pub(crate) meter: Meter,
    pub(crate) fresh: Fresh,
    pub(crate) numbers: Numbers,
    streams: Arc<Semaphore>,
    links: Arc<Semaphore>,
    blob_units: Arc<Semaphore>,
    backups: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

/// Shared by all connections.
pub(crate) type Shared = Arc<Api>;

/// What the guard found out about a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Its trace.
    pub(crate) trace: TraceId,
    /// The deadline it names, milliseconds.
    pub(crate) deadline_ms: Option<u64>,
}

impl Asked {
    /// The deadline, or this one where none is named; milliseconds.
    pub(crate) fn deadline_or(self, default_ms: u64) -> u64 {
        self.deadline_ms.unwrap_or(default_ms)
    }
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let trace = parts.extensions.get::<TraceId>().copied().unwrap_or_default();
        let Some(header) = parts.headers.get(HEADER_DEADLINE_MS) else {
            return Ok(Self { trace, deadline_ms: None });
        };
        let deadline = header.to_str().ok().and_then(|text| text.parse().ok());
        checked_deadline(deadline).map(|ms| Self { trace, deadline_ms: Some(ms) })
    }
}

/// A deadline within its bounds, milliseconds.
pub(crate) fn checked_deadline(deadline_ms: Option<u64>) -> Result<u64, Failure> {
    deadline_ms.filter(|ms| (1..=DEADLINE_MS_MAX).contains(ms)).ok_or_else(|| {
        Failure::invalid(
            "the deadline is no number of milliseconds that can be waited for",
            format!("give {HEADER_DEADLINE_MS} (or deadline_ms) as 1 to {DEADLINE_MS_MAX}"),
        )
    })
}

impl Api {
    pub(crate) fn new(
        door: Arc<dyn Door>,
        options: ApiOptions,
        fresh: Fresh,
        closing: watch::Receiver<bool>,
    ) -> Self {
        let units = usize::try_from(options.blob_bytes_in_hand_max.div_ceil(BLOB_UNIT_BYTES))
            .unwrap_or(Semaphore::MAX_PERMITS)
            .min(Semaphore::MAX_PERMITS);
        Self {
            door,
            meter: Meter::default(),
            fresh,
            numbers: Numbers::default(),
            streams: Arc::new(Semaphore::new(options.streams_max)),
            links: Arc::new(Semaphore::new(options.links_max)),
            blob_units: Arc::new(Semaphore::new(units)),
            // Each holds a group's whole snapshot.
            backups: Arc::new(Semaphore::new(1)),
            options,
            closing,
        }
    }

    /// Asks the door. It keeps deadlines itself; one that does not is stuck, and the caller still
    /// gets its typed error.
    pub(crate) async fn ask(&self, request: Request, deadline_ms: u64) -> Result<Reply, Failure> {
        Ok(self.ask_door(request, deadline_ms).await?)
    }

    /// The same, for whoever tells refusals as they are.
    pub(crate) async fn ask_door(
        &self,
        request: Request,
        deadline_ms: u64,
    ) -> Result<Reply, Refusal> {
        let patience = Duration::from_millis(deadline_ms) + GRACE;
        let reply = tokio::time::timeout(patience, self.door.ask(request, deadline_ms)).await;
        reply.map_err(|_elapsed| late())?
    }

    /// The right to one more native stream.
    pub(crate) fn link_permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.links)
            .try_acquire_owned()
            .map_err(|_full| Failure::crowded("the number of native streams"))
    }

    /// The right to take a backup.
    pub(crate) fn backup_permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.backups)
            .try_acquire_owned()
            .map_err(|_full| Failure::crowded("the number of backups at once (1)"))
    }

    /// The right to one more stream.
    pub(crate) fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_full| Failure::crowded("the number of event streams"))
    }

    /// The right to hold this many bytes of blobs; waits for its turn, within a deadline.
    pub(crate) async fn blob_permit(
        &self,
        bytes: u64,
        deadline_ms: u64,
    ) -> Result<OwnedSemaphorePermit, Failure> {
        // A single blob never asks for more than all there is, or it would wait for ever.
        let most = self.options.blob_bytes_in_hand_max;
        let units = u32::try_from(bytes.min(most).div_ceil(BLOB_UNIT_BYTES)).unwrap_or(u32::MAX);
        let turn = Arc::clone(&self.blob_units).acquire_many_owned(units);
        match tokio::time::timeout(Duration::from_millis(deadline_ms), turn).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Failure::crowded("the room for blobs in transit")),
        }
    }

    /// Resolves when the door closes; streams end then.
    pub(crate) fn closing(&self) -> Closing {
        Closing::new(self.closing.clone())
    }
}

/// What a door answered to a request of like name, within the asked time.
macro_rules! answered {
    ($kind:ident, $api:expr, $asked:expr, $request:expr) => {{
        let deadline_ms = $asked.deadline_or($crate::state::DEADLINE_MS_DEFAULT);
        let quorate_types::Reply::$kind(answer) = $api.ask($request, deadline_ms).await? else {
            return Err($crate::failure::Failure::unexpected(stringify!($kind)));
        };
        answer
    }};
}
pub(crate) use answered;

/// That the door has had no answer in time.
pub(crate) fn overdue() -> Failure {
    Failure::from(late())
}

fn late() -> Refusal {
    Refusal::Timeout("the node did not keep the deadline".to_owned())
}

/// The end of the door, to be awaited.
pub(crate) struct Closing(watch::Receiver<bool>);

impl Closing {
    /// Awaits the `true` of this channel.
    pub(crate) const fn new(closing: watch::Receiver<bool>) -> Self {
        Self(closing)
    }

    /// Returns when the door closes.
    pub(crate) async fn wait(&mut self) {
        // An error means that whoever could close it is gone, which is the same to a stream.
        let _closed_or_gone = self.0.wait_for(|closing| *closing).await;
    }
}
