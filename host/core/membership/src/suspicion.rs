//! How long a suspect has to answer (Lifeguard's dynamic suspicion timeout).
//!
//! Alone in its suspicion a node may be the one that is cut off, so it waits long;
//! each other node that accuses the same member independently shortens that:
//! `max - (max - min) * log(confirmed + 1) / log(wanted + 1)`.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::NodeId;

use crate::record::Version;

/// Confirmations beyond which one more says nothing new (K of the paper).
const WANTED_MAX: usize = 3;

/// The quotient of logarithms in thousandths, by wanted and confirmed: integers, so that every
/// platform waits alike.
const SHORTENED: [&[u32]; WANTED_MAX + 1] =
    [&[1000], &[0, 1000], &[0, 631, 1000], &[0, 500, 792, 1000]];

/// The span between suspicion and death in a cluster of `members`.
pub(crate) fn timeout(members: usize, confirmed: usize, min: Duration, max: Duration) -> Duration {
    // Of the members neither the suspect nor this node can confirm.
    let wanted = members.saturating_sub(2).min(WANTED_MAX);
    let shortened = SHORTENED[wanted][confirmed.min(wanted)];
    max - (max - min) * shortened / 1000
}

/// Who accuses whom, at which version of the accused.
#[derive(Debug, Default)]
pub(crate) struct Accusations(BTreeMap<NodeId, BTreeMap<NodeId, Version>>);

impl Accusations {
    /// Keeps what these nodes say of each other.
    pub(crate) fn retain(&mut self, mut keeps: impl FnMut(NodeId) -> bool) {
        self.0.retain(|accused, accusers| {
            accusers.retain(|accuser, _at| keeps(*accuser));
            keeps(*accused)
        });
    }

    /// What `accuser` says of `accused` now; none takes it back.
    pub(crate) fn set(&mut self, accuser: NodeId, accused: NodeId, at: Option<Version>) {
        match at {
            Some(at) => {
                self.0.entry(accused).or_default().insert(accuser, at);
            }
            None => {
                if let Some(accusers) = self.0.get_mut(&accused) {
                    accusers.remove(&accuser);
                }
            }
        }
    }

    /// Those who accuse `accused` of silence since it stood at `version` or later.
    pub(crate) fn since(
        &self,
        accused: NodeId,
        version: Version,
    ) -> impl Iterator<Item = NodeId> + '_ {
        let accusers = self.0.get(&accused).into_iter().flatten();
        accusers.filter(move |(_, at)| **at >= version).map(|(accuser, _)| *accuser)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::Incarnation;

    #[test]
    fn confirmations_shorten_the_wait_from_max_to_min() {
        let (min, max) = (Duration::from_secs(2), Duration::from_secs(10));
        let waits = |members: usize| (0..5).map(move |c| timeout(members, c, min, max).as_millis());
        assert_eq!(waits(2).collect::<Vec<_>>(), [2000; 5], "nobody else can confirm");
        assert_eq!(waits(3).collect::<Vec<_>>(), [10_000, 2000, 2000, 2000, 2000]);
        assert_eq!(waits(60).collect::<Vec<_>>(), [10_000, 6000, 3664, 2000, 2000]);
    }

    #[test]
    fn the_table_is_the_quotient_of_logarithms() {
        for (wanted, row) in SHORTENED.iter().enumerate().skip(1) {
            for (confirmed, shortened) in row.iter().enumerate() {
                let ln = |n: usize| f64::ln(u32::try_from(n + 1).map(f64::from).unwrap());
                let exact = 1000.0 * ln(confirmed) / ln(wanted);
                assert!((exact - f64::from(*shortened)).abs() < 1.0, "{wanted} {confirmed}");
            }
        }
    }

    #[test]
    fn an_accusation_that_was_answered_does_not_count() {
        let at = |counter| Version { incarnation: Incarnation(1), counter };
        let mut accusations = Accusations::default();
        accusations.set(NodeId(1), NodeId(9), Some(at(5)));
        accusations.set(NodeId(2), NodeId(9), Some(at(7)));
        assert_eq!(accusations.since(NodeId(9), at(5)).count(), 2);
        assert_eq!(accusations.since(NodeId(9), at(6)).collect::<Vec<_>>(), [NodeId(2)]);
        accusations.set(NodeId(2), NodeId(9), None);
        assert_eq!(accusations.since(NodeId(9), at(6)).count(), 0);
    }
}
