//! Pings on behalf of others (ping-req of SWIM, with the nack of Lifeguard).

use std::collections::BTreeMap;

use quorate_types::{NodeId, Time};

/// Under way at once. Two for each of 64 members that all ask at once; beyond that the asker
/// is told that the target was not reached.
const ERRANDS_MAX: usize = 128;

/// A ping on behalf of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errand {
    pub(crate) asker: NodeId,
    /// By which the asker knows it; our own ping has another.
    pub(crate) nonce: u64,
    pub(crate) target: NodeId,
    pub(crate) until: Time,
}

/// Those under way, by the nonce of our own ping.
#[derive(Debug, Default)]
pub(crate) struct Errands(BTreeMap<u64, Errand>);

impl Errands {
    /// False where there is no room.
    pub(crate) fn begin(&mut self, ping: u64, errand: Errand) -> bool {
        let room = self.0.len() < ERRANDS_MAX;
        if room {
            self.0.insert(ping, errand);
        }
        room
    }

    /// The errand that an answer from `target` ends.
    pub(crate) fn end(&mut self, ping: u64, target: NodeId) -> Option<Errand> {
        self.0.get(&ping).filter(|errand| errand.target == target)?;
        self.0.remove(&ping)
    }

    /// Those whose time is over.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<Errand> {
        self.0
            .extract_if(.., |_ping, errand| errand.until <= now)
            .map(|(_, errand)| errand)
            .collect()
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.0.values().map(|errand| errand.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errand(target: u64, until: u64) -> Errand {
        Errand { asker: NodeId(1), nonce: 9, target: NodeId(target), until: Time(until) }
    }

    #[test]
    fn only_the_target_ends_an_errand_and_only_once() {
        let mut errands = Errands::default();
        assert!(errands.begin(5, errand(2, 10)));
        assert_eq!(errands.end(5, NodeId(3)), None);
        assert_eq!(errands.end(5, NodeId(2)), Some(errand(2, 10)));
        assert_eq!(errands.end(5, NodeId(2)), None);
    }

    #[test]
    fn errands_are_bounded_and_end_in_time() {
        let mut errands = Errands::default();
        let begun = (0..200).filter(|ping| errands.begin(*ping, errand(2, 10 + ping % 2))).count();
        assert_eq!(begun, ERRANDS_MAX);
        assert_eq!(errands.deadline(), Some(Time(10)));
        assert_eq!(errands.expire(Time(10)).len(), ERRANDS_MAX / 2);
        assert_eq!(errands.deadline(), Some(Time(11)));
    }
}
