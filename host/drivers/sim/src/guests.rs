//! Agents that take their time and now and then fail.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::AsyncRuntime as _;
use openraft_rt_sim::SimRuntime;
use quorate_crank::Guests;
use quorate_kernel::{WorkFault, WorkOrder};
use quorate_types::door::Pending;
use quorate_types::rng::Rng;
use quorate_types::{Digest, Payload};

use crate::world::locked;

/// What an agent makes of its input.
pub(crate) fn work_of(input: &Bytes) -> Bytes {
    Bytes::copy_from_slice(&Digest::of(input).0)
}

/// A node's guests.
pub(crate) struct SimGuests {
    rng: Mutex<Rng>,
    fault_ppm: u32,
}

impl SimGuests {
    pub(crate) fn new(seed: u64, fault_ppm: u32) -> Self {
        Self { rng: Mutex::new(Rng::new(seed)), fault_ppm }
    }
}

impl Guests for SimGuests {
    fn run(&self, order: WorkOrder) -> Pending<Result<Payload, WorkFault>> {
        let (span_ms, fails) = {
            let mut rng = locked(&self.rng);
            (5 + rng.below(96), rng.chance(self.fault_ppm))
        };
        Box::pin(async move {
            SimRuntime::sleep(Duration::from_millis(span_ms)).await;
            match order.input {
                _ if fails => Err(WorkFault { message: "drawn to fail".to_owned(), retry: true }),
                Payload::Inline(input) => Ok(Payload::Inline(work_of(&input))),
                Payload::Blob { .. } => {
                    Err(WorkFault { message: "no client sends blobs".to_owned(), retry: false })
                }
            }
        })
    }

    fn prepare(&self, _digest: Digest, _component: Bytes) -> Pending<Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}
