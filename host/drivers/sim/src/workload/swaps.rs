//! An operator who gives the balancer's slot another policy every few seconds.

use std::time::Duration;

use crate::runtime::SimRuntime;
use bytes::Bytes;
use openraft_rt::AsyncRuntime as _;
use quorate_types::rng::Rng;
use quorate_types::{Digest, Door as _, Reply, Request};

use super::Front;

const SLOT: &str = "balancer";
const POLICIES: [&str; 4] = ["round-robin", "least-used", "load-aware", "peak-ewma"];
/// A swap prepares every member first.
const WITHIN_MS: u64 = 10_000;

pub(super) async fn operate(front: Front, mut rng: Rng) {
    let mut count = 0_usize;
    loop {
        SimRuntime::sleep(Duration::from_millis(4_000 + rng.below(12_000))).await;
        if front.is_over() {
            return;
        }
        count += 1;
        let name = POLICIES[count % POLICIES.len()];
        let component = Bytes::from(format!("component {name} {count}"));
        if !front.put_blob(&mut rng, &component).await {
            continue;
        }
        let request = Request::ApplyPolicy {
            slot: SLOT.to_owned(),
            name: name.to_owned(),
            digest: Digest::of(&component),
            force: rng.chance(500_000),
        };
        let Some(entrance) = front.any(&mut rng) else { continue };
        let answer = front.ask(&entrance, "apply policy", request, WITHIN_MS).await;
        if let Some(Ok(Reply::Applied(view))) = answer {
            front.world().count(|tally| tally.swaps += 1);
            let layout = entrance.handle.layout();
            front.world().ask(|judges| judges.policies.applied(view.epoch, layout.shards()));
        }
    }
}
