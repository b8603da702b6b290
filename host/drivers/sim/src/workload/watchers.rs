//! Watchers of what a seat guards, and of the seat: each goes on at another node when
//! its own is lost, and now and then for no reason, after what it was shown last.

use std::time::Duration;

use openraft_rt::AsyncRuntime as _;
use quorate_types::kv::{KvWatch, Revision, Subject};
use quorate_types::rng::Rng;
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::{Door as _, Refusal};

use super::Front;
use super::locks::PLACES;
use crate::law::Law;
use crate::runtime::SimRuntime;

/// Between two watches: a node that stops ends one at once, and is there to ask for a while yet.
const AGAIN: Duration = Duration::from_millis(10);
/// Whether its node is still there is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(700);
/// And every watcher has caught up so long after the last change.
pub(crate) const CAUGHT_UP: Duration = Duration::from_secs(3);

/// One watch, until the run ends.
pub(super) async fn watch(front: Front, mut rng: Rng, number: u64) {
    let place = PLACES[usize::try_from(number % 2).unwrap_or(0)];
    let (subject, name) = if number < 2 {
        (Subject::Prefix(format!("{}/", place.segment)), place.segment)
    } else {
        (Subject::Seat(place.kind, place.name.to_owned()), place.name)
    };
    // Some watch from the beginning, some from when they came.
    let mut after = rng.chance(500_000).then(Revision::default);
    if let Some(after) = after {
        begin(&front, number, name, after);
    } else {
        SimRuntime::sleep(Duration::from_millis(rng.below(20_000))).await;
    }
    loop {
        let Some(entrance) = front.any(&mut rng) else {
            SimRuntime::sleep(LOOK_EVERY).await;
            continue;
        };
        let namespace = NAMESPACE_DEFAULT.to_owned();
        let mut source =
            entrance.handle.kv_watch(KvWatch { namespace, subject: subject.clone(), after });
        loop {
            match SimRuntime::timeout(LOOK_EVERY, source.next()).await {
                Ok(Some(Ok(changes))) if front.is_open(&entrance) => {
                    if after.is_none() {
                        begin(&front, number, name, changes.seen);
                    }
                    after = Some(changes.seen);
                    let count = u64::try_from(changes.changes.len()).unwrap_or(0);
                    front.world().count(|tally| tally.changes += count);
                    front.world().ask(|judges| judges.watches.shown(number, &changes));
                }
                Ok(Some(Err(refusal))) => {
                    expect_passing(&front, &refusal);
                    break;
                }
                Ok(Some(Ok(_)) | None) => break,
                Err(_nothing_new) => {
                    if !front.is_open(&entrance) || rng.chance(100_000) {
                        break;
                    }
                }
            }
        }
        SimRuntime::sleep(AGAIN).await;
    }
}

fn begin(front: &Front, number: u64, name: &str, after: Revision) {
    front.world().ask(|judges| {
        judges.watches.begins(number, name, after);
        Ok(())
    });
}

/// No run has so many changes that any is forgotten.
fn expect_passing(front: &Front, refusal: &Refusal) {
    if !matches!(refusal, Refusal::Unavailable(_)) {
        front.world().complain(Law::Watch, format!("a watch is refused: {refusal}"));
    }
}
