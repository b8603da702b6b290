//! One watch of keys or of a seat: it looks at the newest state, and waits for the
//! bell where there is nothing new. A node that is behind the revision it goes on
//! from shows nothing until it is past it, so nothing comes twice.

use std::sync::Arc;

use quorate_ledger::Ledger;
use quorate_types::Refusal;
use quorate_types::door::{Borrowed, Source};
use quorate_types::kv::{Changes, KvWatch, Revision};

use crate::bell::{Bell, Ear};

/// Changes given at once.
const GIVEN_MAX: usize = 256;
/// After so many entries without a change that concerns it a watcher is told how far was looked,
/// so that it can go on from there while that is still kept.
const TELL_EVERY: u64 = 10_000;

/// A watch under way.
pub(crate) struct KvWatching<F> {
    watch: KvWatch,
    view: F,
    ear: Ear,
    /// How far the watcher knows.
    told: Option<Revision>,
    ended: bool,
}

impl<F: Fn() -> Arc<Ledger> + Send> KvWatching<F> {
    pub(crate) fn new(watch: KvWatch, bell: Bell, view: F) -> Self {
        Self { told: watch.after, watch, view, ear: bell.listen(), ended: false }
    }

    async fn changes(&mut self) -> Option<Result<Changes, Refusal>> {
        while !self.ended {
            self.ear.open();
            let found = (self.view)().kv_changes(&self.watch, GIVEN_MAX);
            let changes = match found {
                Ok(changes) => changes,
                Err(refusal) => {
                    self.ended = true;
                    return Some(Err(refusal));
                }
            };
            // Where it begins from now on, it is told what now is.
            let far = self
                .told
                .is_none_or(|told| changes.seen.index.0 > told.index.0.saturating_add(TELL_EVERY));
            self.watch.after = Some(changes.seen);
            if !changes.changes.is_empty() || far {
                self.told = Some(changes.seen);
                return Some(Ok(changes));
            }
            self.ended = !self.ear.hear().await;
        }
        None
    }
}

impl<F: Fn() -> Arc<Ledger> + Send> Source<Result<Changes, Refusal>> for KvWatching<F> {
    fn next(&mut self) -> Borrowed<'_, Option<Result<Changes, Refusal>>> {
        Box::pin(self.changes())
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use quorate_ledger::{Command, ShardCommand};
    use quorate_types::kv::{Act, KvRequest, Op, Subject};
    use quorate_types::{Faults, Index, Time};

    use super::*;

    struct Node {
        ledger: Arc<Mutex<Arc<Ledger>>>,
        bell: Bell,
    }

    impl Node {
        fn new() -> Self {
            let ledger = Arc::new(Ledger::new(&Faults::none()));
            Self { ledger: Arc::new(Mutex::new(ledger)), bell: Bell::default() }
        }

        fn put(&self, index: u64, key: &str) {
            let mut held = self.ledger.lock().expect("no panic under it");
            let mut ledger = Ledger::clone(&held);
            let op = Op::Put { key: key.to_owned(), value: "x".into(), lease: None, expect: None };
            let namespace = "default".to_owned();
            let request = KvRequest { namespace, nonce: None, acts: vec![Act::Op(op)] };
            let entry = Command::from(ShardCommand::Kv(vec![request])).encode(Time(1));
            ledger.apply(Index(index), &entry).expect("an entry of our own");
            *held = Arc::new(ledger);
            self.bell.ring(held.kv_newest());
        }

        fn watch(&self, after: Option<Revision>) -> KvWatching<impl Fn() -> Arc<Ledger> + use<>> {
            let ledger = Arc::clone(&self.ledger);
            let subject = Subject::Prefix("app/".to_owned());
            let watch = KvWatch { namespace: "default".to_owned(), subject, after };
            let view = move || Arc::clone(&ledger.lock().expect("no panic under it"));
            KvWatching::new(watch, self.bell.clone(), view)
        }
    }

    fn poll<F>(watch: &mut KvWatching<F>) -> Poll<Option<Result<Changes, Refusal>>>
    where
        F: Fn() -> Arc<Ledger> + Send,
    {
        let next = std::pin::pin!(watch.changes());
        next.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn count(polled: Poll<Option<Result<Changes, Refusal>>>) -> usize {
        let Poll::Ready(Some(Ok(changes))) = polled else { panic!("{polled:?}") };
        changes.changes.len()
    }

    #[test]
    fn each_change_comes_once_and_a_node_that_is_behind_brings_none() {
        let (ahead, behind) = (Node::new(), Node::new());
        for node in [&ahead, &behind] {
            node.put(1, "app/a");
        }
        ahead.put(2, "app/b");
        let mut watch = ahead.watch(Some(Revision::default()));
        assert_eq!(count(poll(&mut watch)), 2);
        assert!(poll(&mut watch).is_pending());
        ahead.put(3, "other/a");
        assert!(poll(&mut watch).is_pending(), "it does not concern this one");
        let mut elsewhere = behind.watch(watch.watch.after);
        behind.put(2, "app/b");
        assert!(poll(&mut elsewhere).is_pending(), "it was told at the other node");
        behind.put(3, "other/a");
        behind.put(4, "app/c");
        assert_eq!(count(poll(&mut elsewhere)), 1);
    }

    #[test]
    fn a_watch_from_now_on_says_what_now_is_and_ends_with_the_node() {
        let node = Node::new();
        node.put(1, "app/a");
        let mut watch = node.watch(None);
        assert_eq!(count(poll(&mut watch)), 0);
        assert_eq!(watch.told, Some(Revision::end_of(Index(1))));
        node.bell.close();
        assert!(matches!(poll(&mut watch), Poll::Ready(None)));
    }
}
