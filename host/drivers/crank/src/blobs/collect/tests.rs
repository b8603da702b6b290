//! One store, walked by hand under the seeded runtime's clock.

use bytes::Bytes;
use openraft_rt_sim::SimRuntime;
use quorate_storage::{Blobs, MemoryDisk};
use quorate_types::{Lane, NodeId, SendError};

use super::*;

/// A wire that nobody is at the other end of.
#[derive(Clone)]
struct Nobody;

impl Wire for Nobody {
    fn send(&self, _to: NodeId, _lane: Lane, _frame: Bytes) -> Result<(), SendError> {
        Ok(())
    }
}

type Exchange = BlobExchange<SimRuntime, MemoryDisk, Nobody>;

fn alone(scenario: impl AsyncFnOnce(Exchange)) {
    SimRuntime::with_seed(3).block_on(async {
        let store = Blobs::open(MemoryDisk::new()).await.expect("opens");
        scenario(Exchange::new(NodeId(1), 1, store, Nobody)).await;
    });
}

async fn put(exchange: &Exchange, text: &'static str) -> Digest {
    exchange.put(Bytes::from_static(text.as_bytes())).await.expect("stored")
}

/// A look at the blob's folder, when these and no others are referred to.
async fn look(exchange: &Exchange, blob: Digest, referred: &[Digest]) -> Vec<Digest> {
    exchange.ripe(blob.0[0], |one| referred.contains(one)).await
}

#[test]
fn an_unused_blob_goes_after_its_grace_and_not_before() {
    alone(async |exchange| {
        let blob = put(&exchange, "unused").await;
        assert_eq!(look(&exchange, blob, &[]).await, [], "seen so for the first time");
        SimRuntime::sleep(GRACE - Duration::from_secs(1)).await;
        assert_eq!(look(&exchange, blob, &[]).await, []);
        exchange.drop_unused(vec![blob]).await;
        assert!(exchange.has(blob).await, "nobody can hurry it");
        SimRuntime::sleep(Duration::from_secs(1)).await;
        assert_eq!(look(&exchange, blob, &[]).await, [blob]);
        exchange.drop_unused(vec![blob]).await;
        assert!(!exchange.has(blob).await);
    });
}

#[test]
fn a_use_starts_the_grace_anew() {
    alone(async |exchange| {
        let blob = put(&exchange, "used").await;
        look(&exchange, blob, &[]).await;
        SimRuntime::sleep(GRACE).await;
        assert_eq!(look(&exchange, blob, &[blob]).await, [], "a task refers to it");
        exchange.drop_unused(vec![blob]).await;
        assert!(exchange.has(blob).await);
        assert_eq!(look(&exchange, blob, &[]).await, [], "its record was forgotten just now");
        SimRuntime::sleep(GRACE).await;
        assert_eq!(look(&exchange, blob, &[]).await, [blob]);
    });
}

#[test]
fn an_upload_clears_what_was_about_to_go() {
    alone(async |exchange| {
        let blob = put(&exchange, "again").await;
        look(&exchange, blob, &[]).await;
        SimRuntime::sleep(GRACE).await;
        let ripe = look(&exchange, blob, &[]).await;
        assert_eq!(ripe, [blob]);
        put(&exchange, "again").await;
        exchange.drop_unused(ripe).await;
        assert!(exchange.has(blob).await, "its task may follow within another grace");
    });
}

#[test]
fn an_upload_during_the_drop_is_kept() {
    alone(async |exchange| {
        let blob = put(&exchange, "race").await;
        look(&exchange, blob, &[]).await;
        SimRuntime::sleep(GRACE).await;
        look(&exchange, blob, &[]).await;
        // The drop has begun and is at the disk.
        exchange.lock().suspects.dropping.insert(blob);
        let uploader = exchange.clone();
        let upload = SimRuntime::spawn(async move { put(&uploader, "race").await });
        SimRuntime::sleep(DROPPING_POLL * 3).await;
        assert!(exchange.0.store.remove(blob).await.expect("removed"));
        exchange.lock().suspects.dropping.remove(&blob);
        assert_eq!(upload.await.expect("it ran"), blob);
        assert!(exchange.has(blob).await, "what was acknowledged after the drop is there");
    });
}

#[test]
fn one_look_names_a_bounded_number() {
    alone(async |exchange| {
        let many: BTreeSet<Digest> = (0..=u8::MAX)
            .flat_map(|second| [0, 1].map(|third| (second, third)))
            .map(|(second, third)| {
                let mut blob = [7; 32];
                (blob[1], blob[2]) = (second, third);
                Digest(blob)
            })
            .collect();
        assert!(many.len() > RIPE_MAX);
        let before = <SimRuntime as AsyncRuntime>::Instant::now();
        assert_eq!(exchange.lock().suspects.seen(before, 7, &many), []);
        let ripe = exchange.lock().suspects.seen(before + GRACE, 7, &many);
        assert_eq!(ripe.len(), RIPE_MAX);
        let elsewhere = exchange.lock().suspects.seen(before + GRACE, 8, &BTreeSet::new());
        assert_eq!((elsewhere.len(), exchange.lock().suspects.since.len()), (0, many.len()));
    });
}
