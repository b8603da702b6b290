//! Agents that take their time and now and then fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::runtime::SimRuntime;
use bytes::Bytes;
use openraft_rt::AsyncRuntime as _;
use quorate_crank::{BlobExchange, Guests};
use quorate_kernel::{WorkFault, WorkOrder};
use quorate_types::door::Pending;
use quorate_types::limits::INLINE_BYTES_MAX;
use quorate_types::rng::Rng;
use quorate_types::{Digest, Payload};

use crate::disk::SimDisk;
use crate::wire::SimWire;
use crate::world::{World, locked};

type SimBlobs = BlobExchange<SimRuntime, SimDisk, SimWire>;

/// Content that begins so makes an agent say more than a record holds.
pub(crate) const LARGE: &[u8] = b"large-";

/// What an agent makes of its input.
pub(crate) fn work_of(input: &[u8]) -> Bytes {
    let digest = Digest::of(input).0;
    if input.starts_with(LARGE) {
        Bytes::from(digest.repeat(INLINE_BYTES_MAX / digest.len() + 1))
    } else {
        Bytes::copy_from_slice(&digest)
    }
}

/// The result of a task with this input.
pub(crate) fn result_of(input: &[u8]) -> Payload {
    let output = work_of(input);
    if output.len() <= INLINE_BYTES_MAX {
        return Payload::Inline(output);
    }
    let size = u64::try_from(output.len()).unwrap_or(u64::MAX);
    Payload::Blob { digest: Digest::of(&output), size }
}

/// A node's guests in one of its lives.
pub(crate) struct SimGuests {
    world: World,
    over: Arc<AtomicBool>,
    blobs: SimBlobs,
    rng: Mutex<Rng>,
    fault_ppm: u32,
}

impl SimGuests {
    pub(crate) fn new(
        world: World,
        over: Arc<AtomicBool>,
        blobs: SimBlobs,
        seed: u64,
        fault_ppm: u32,
    ) -> Self {
        Self { world, over, blobs, rng: Mutex::new(Rng::new(seed)), fault_ppm }
    }
}

impl Guests for SimGuests {
    fn run(&self, order: WorkOrder) -> Pending<Result<Payload, WorkFault>> {
        let (span_ms, fails, retry) = {
            let mut rng = locked(&self.rng);
            (5 + rng.below(96), rng.chance(self.fault_ppm), rng.chance(900_000))
        };
        if let (None, Payload::Inline(body), false) =
            (order.task, &order.input, self.over.load(Ordering::Relaxed))
        {
            self.world.ask(|judges| judges.calls.ran(body, order.attempt));
        }
        let blobs = self.blobs.clone();
        Box::pin(async move {
            SimRuntime::sleep(Duration::from_millis(span_ms)).await;
            if fails {
                return Err(WorkFault { message: "drawn to fail".to_owned(), retry });
            }
            let input = match order.input {
                Payload::Inline(input) => input,
                Payload::Blob { digest, .. } => blobs
                    .get(digest)
                    .await
                    .map_err(|why| WorkFault { message: why.to_string(), retry: true })?,
            };
            Ok(Payload::Inline(work_of(&input)))
        })
    }

    fn prepare(&self, _digest: Digest, _component: Bytes) -> Pending<Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}
