//! Numbers for requests about keys, so that the log knows a repeat. The door is one
//! client of the log, and says with each request below which number it waits for
//! nothing. Whoever sends an `Idempotency-Key` is a client of its own, with one
//! request.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_types::Digest;
use quorate_types::kv::{ClientId, Nonce};

use crate::fresh::Fresh;

/// Requests of this door that wait for an answer.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Mutex<BTreeSet<u64>>);

/// A number in use; it is free for the log to forget when this is dropped.
pub(crate) struct Numbered<'a> {
    numbers: &'a Numbers,
    nonce: Nonce,
}

impl Numbers {
    /// A number for one more request.
    pub(crate) fn next(&self, fresh: &Fresh) -> Numbered<'_> {
        let mut open = self.open();
        let (client, seq) = fresh.numbered();
        open.insert(seq);
        let below = open.first().copied().unwrap_or(seq);
        let nonce = Nonce { client: ClientId(client), seq, below };
        drop(open);
        Numbered { numbers: self, nonce }
    }

    fn open(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Numbered<'_> {
    /// To be sent with the request.
    pub(crate) const fn nonce(&self) -> Nonce {
        self.nonce
    }
}

impl Drop for Numbered<'_> {
    fn drop(&mut self) {
        self.numbers.open().remove(&self.nonce.seq);
    }
}

/// The nonce of whoever brings a key of its own.
pub(crate) fn of_key(namespace: &str, key: &str) -> Nonce {
    let Digest(bytes) = Digest::of(format!("{}:{namespace}{key}", namespace.len()).as_bytes());
    let (half, _rest) = bytes.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    Nonce { client: ClientId(u128::from_be_bytes(*half)), seq: 1, below: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_is_waited_for_no_more() {
        let (numbers, fresh) = (Numbers::default(), Fresh::new().expect("entropy"));
        let (first, second) = (numbers.next(&fresh), numbers.next(&fresh));
        assert_eq!(second.nonce().below, first.nonce().seq);
        drop(first);
        let third = numbers.next(&fresh);
        assert_eq!(third.nonce().below, second.nonce().seq);
        assert_eq!(third.nonce().client, second.nonce().client);
    }

    #[test]
    fn a_key_is_the_same_client_again_and_another_in_another_namespace() {
        assert_eq!(of_key("a", "b"), of_key("a", "b"));
        assert_ne!(of_key("a", "bc"), of_key("ab", "c"));
    }
}
