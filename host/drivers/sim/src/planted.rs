//! Planted bugs: by name as a command line takes and shows them, and as a table of
//! what each must break and in which seed it was found.

use quorate_types::Faults;

use crate::knobs::Plan;
use crate::law::Law;
use crate::many::{Budget, Failure, run_many};
use crate::run::run_seed;

/// A name that no fault has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no fault `{name}`; there are {}", names().join(", "))]
pub struct UnknownFault {
    name: String,
}

type Flag = fn(&mut Faults) -> &mut bool;

/// Bugs that are there or not.
const FLAGS: [(&str, Flag); 22] = [
    ("early-vote", |faults| &mut faults.vote_acked_early),
    ("early-append", |faults| &mut faults.append_acked_early),
    ("lossy-recovery", |faults| &mut faults.recovery_drops_last),
    ("leader-restore", |faults| &mut faults.leader_restore),
    ("dropped-vote", |faults| &mut faults.vote_dropped),
    ("vote-not-carried", |faults| &mut faults.vote_not_carried),
    ("mixed-groups", |faults| &mut faults.groups_mixed),
    ("wiped-node-votes", |faults| &mut faults.wiped_returns),
    ("unsynced-log", |faults| &mut faults.log_unsynced),
    ("unsynced-snapshot", |faults| &mut faults.snapshot_unsynced),
    ("unsynced-blob", |faults| &mut faults.blob_unsynced),
    ("unsynced-names", |faults| &mut faults.names_unsynced),
    ("snapshot-without-members", |faults| &mut faults.snapshot_forgets_members),
    ("unconfirmed-read", |faults| &mut faults.read_unconfirmed),
    ("swapped-apply", |faults| &mut faults.apply_swapped),
    ("clock-in-apply", |faults| &mut faults.clock_in_apply),
    ("lost-requeue", |faults| &mut faults.requeue_lost),
    ("ignored-fence", |faults| &mut faults.fence_ignored),
    ("reused-token", |faults| &mut faults.token_reused),
    ("forgotten-cancel", |faults| &mut faults.cancel_forgotten),
    ("stale-digest", |faults| &mut faults.digest_stale),
    ("keys-not-restored", |faults| &mut faults.keys_not_restored),
];

type Count = fn(&mut Faults) -> &mut Option<u64>;

/// Bugs that strike the n-th time.
const COUNTED: [(&str, Count); 2] = [
    ("drop-completion", |faults| &mut faults.completion_dropped),
    ("double-completion", |faults| &mut faults.completion_doubled),
];

fn names() -> Vec<String> {
    let flags = FLAGS.iter().map(|(name, _)| (*name).to_owned());
    flags.chain(COUNTED.iter().map(|(name, _)| format!("{name}=N"))).collect()
}

/// Plants one more fault, by its name.
pub fn plant(faults: &mut Faults, name: &str) -> Result<(), UnknownFault> {
    if let Some((_, flag)) = FLAGS.iter().find(|(known, _)| *known == name) {
        *flag(faults) = true;
        return Ok(());
    }
    let counted = name.split_once('=').and_then(|(name, count)| {
        let (_, field) = COUNTED.iter().find(|(known, _)| *known == name)?;
        Some((field, count.parse::<u64>().ok().filter(|count| *count > 0)?))
    });
    let (field, count) = counted.ok_or_else(|| UnknownFault { name: name.to_owned() })?;
    *field(faults) = Some(count);
    Ok(())
}

/// The names of all that is planted.
pub fn planted(faults: &Faults) -> Vec<String> {
    let mut faults = faults.clone();
    let flags = FLAGS.iter().filter(|(_, flag)| *flag(&mut faults));
    let mut names: Vec<String> = flags.map(|(name, _)| (*name).to_owned()).collect();
    for (name, field) in COUNTED {
        names.extend(field(&mut faults).map(|nth| format!("{name}={nth}")));
    }
    names
}

/// One bug a line and the seed that shows it: what `quorate sim planted --record` writes. A change
/// of anything that ships moves what a seed does, and the seeds are recorded anew.
const RECORDED: &str = include_str!("planted.seeds");
/// Where it lies in the repository.
pub const RECORD: &str = "host/drivers/sim/src/planted.seeds";

/// A bug, and how it is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// Its name, as `plant` takes it.
    pub name: &'static str,
    /// What it must break; any other breach is not its.
    pub laws: &'static [Law],
    /// Requests a second, where the seed's own do not show it.
    pub rate: Option<u64>,
    /// Simulated seconds of faults.
    pub seconds: u64,
}

impl Bug {
    /// The first seed from 1 on that shows it, as it was recorded last.
    pub fn seed(&self) -> Option<u64> {
        let mut rows = RECORDED.lines().filter_map(|row| row.split_once(' '));
        let (_, seed) = rows.find(|(name, _)| *name == self.name)?;
        seed.trim().parse().ok()
    }

    /// How its seeds are run.
    pub fn plan(&self) -> Plan {
        let mut faults = Faults::none();
        // Every name in the table is known: a test says so.
        let known = plant(&mut faults, self.name);
        debug_assert!(known.is_ok(), "{known:?}");
        Plan { faults, rate: self.rate, seconds: self.seconds, ..Plan::default() }
    }
}

/// Where a bug was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The law of its that was broken first.
    pub law: Law,
    /// The seed: the lowest of those that were run.
    pub seed: u64,
    /// What to type to see it.
    pub command: String,
}

impl Bug {
    /// Runs seeds from 1 up to `seeds_max` until one shows this bug, and is clean without it; none
    /// where none does.
    pub fn hunt(&self, seeds_max: u64, threads: usize) -> Option<Found> {
        let mut first = 1;
        while first <= seeds_max {
            let found = self.hunt_from(first, seeds_max, threads)?;
            if run_seed(found.seed, &self.control()).complaints.is_empty() {
                return Some(found);
            }
            first = found.seed + 1;
        }
        None
    }

    fn hunt_from(&self, first: u64, seeds_max: u64, threads: usize) -> Option<Found> {
        let budget = Budget { wall: None, threads };
        let is_it = |failure: &&Failure| failure.breaks(self.laws);
        let summary = run_many(first..seeds_max + 1, &self.plan(), budget, |summary| {
            summary.failed.iter().any(|failure| is_it(&failure))
        });
        let failure = summary.failed.into_iter().find(|failure| is_it(&failure))?;
        let is_its = |law: &Law| self.laws.contains(law);
        let law = failure.complaints.iter().map(|complaint| complaint.law).find(is_its)?;
        Some(Found { law, seed: failure.seed, command: failure.command })
    }

    /// The same seed without the bug.
    pub fn control(&self) -> Plan {
        Plan { faults: Faults::none(), ..self.plan() }
    }
}

const fn bug(name: &'static str, laws: &'static [Law]) -> Bug {
    Bug { name, laws, rate: None, seconds: 72 }
}

const fn busy(name: &'static str, laws: &'static [Law]) -> Bug {
    Bug { name, laws, rate: Some(100), seconds: 30 }
}

/// All bugs. Tests see each again at its recorded seed.
pub const BUGS: [Bug; 24] = [
    bug("early-vote", &[Law::DurableVote, Law::ElectionSafety]),
    bug("early-append", &[Law::Durability, Law::LeaderCompleteness]),
    bug("lossy-recovery", &[Law::Durability, Law::LeaderCompleteness]),
    busy("leader-restore", &[Law::LogMatching]),
    bug("dropped-vote", &[Law::DurableVote, Law::ElectionSafety]),
    busy("vote-not-carried", &[Law::DurableVote, Law::Recovery]),
    bug("mixed-groups", &[Law::DurableVote, Law::ElectionSafety]),
    bug(
        "wiped-node-votes",
        &[Law::DurableVote, Law::Durability, Law::LeaderCompleteness, Law::ElectionSafety],
    ),
    bug("unsynced-log", &[Law::Durability, Law::DurableVote, Law::Recovery]),
    bug("unsynced-snapshot", &[Law::Recovery, Law::Durability]),
    bug("unsynced-blob", &[Law::Blob]),
    bug("unsynced-names", &[Law::Recovery, Law::Durability, Law::Blob]),
    bug("snapshot-without-members", &[Law::Liveness, Law::Panic, Law::Stopped]),
    bug("unconfirmed-read", &[Law::ReadYourWrites, Law::Linearizable]),
    bug("swapped-apply", &[Law::StateDigest, Law::Conservation]),
    bug("clock-in-apply", &[Law::StateDigest]),
    bug("lost-requeue", &[Law::Liveness, Law::Adoption]),
    bug("ignored-fence", &[Law::Fencing]),
    bug("reused-token", &[Law::Fencing]),
    bug("forgotten-cancel", &[Law::ReadYourWrites]),
    bug("stale-digest", &[Law::StateDigest, Law::Recovery, Law::Stopped]),
    Bug { rate: Some(40), ..bug("keys-not-restored", &[Law::StateDigest, Law::Idempotency]) },
    bug("drop-completion=20", &[Law::Conservation, Law::Fencing]),
    bug("double-completion=20", &[Law::Conservation]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planted_by_name_is_told_by_name() {
        let counted = ["drop-completion=3", "double-completion=40"];
        let names: Vec<&str> = FLAGS.iter().map(|(name, _)| *name).chain(counted).collect();
        let mut faults = Faults::none();
        for name in &names {
            plant(&mut faults, name).unwrap();
        }
        assert_eq!(planted(&faults), names);
        assert_eq!(planted(&Faults::none()), [""; 0]);
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["", "late-vote", "drop-completion", "drop-completion=0", "early-vote=1x"] {
            let mut faults = Faults::none();
            let refused = UnknownFault { name: name.to_owned() };
            assert_eq!(plant(&mut faults, name), Err(refused));
            assert_eq!(faults, Faults::none());
        }
    }

    #[test]
    fn every_bug_is_in_the_table_once() {
        let mut named: Vec<&str> =
            BUGS.iter().map(|bug| bug.name.split('=').next().unwrap_or_default()).collect();
        let flags = FLAGS.iter().map(|(name, _)| *name);
        let mut known: Vec<&str> = flags.chain(COUNTED.iter().map(|(name, _)| *name)).collect();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
        assert!(BUGS.iter().all(|bug| planted(&bug.plan().faults) == [bug.name]));
        assert!(BUGS.iter().all(|bug| bug.seed().is_some()), "record them");
    }
}
