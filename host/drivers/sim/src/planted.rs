//! Planted faults by their names, as a command line takes and shows them.

use quorate_types::Faults;

/// A name that no fault has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no fault `{0}`; there are early-vote, early-append, lossy-recovery, leader-restore, \
     drop-completion=N and double-completion=N, N from 1"
)]
pub struct UnknownFault(String);

/// Plants one more fault, by its name.
pub fn plant(faults: &mut Faults, name: &str) -> Result<(), UnknownFault> {
    let unknown = || UnknownFault(name.to_owned());
    let counted = |count: &str| count.parse().ok().filter(|count| *count > 0).ok_or_else(unknown);
    match (name, name.split_once('=')) {
        ("early-vote", _) => faults.vote_acked_early = true,
        ("early-append", _) => faults.append_acked_early = true,
        ("lossy-recovery", _) => faults.recovery_drops_last = true,
        ("leader-restore", _) => faults.leader_restore = true,
        (_, Some(("drop-completion", count))) => faults.completion_dropped = Some(counted(count)?),
        (_, Some(("double-completion", count))) => {
            faults.completion_doubled = Some(counted(count)?);
        }
        _unknown => return Err(unknown()),
    }
    Ok(())
}

/// The names of all that is planted.
pub fn planted(faults: &Faults) -> Vec<String> {
    let Faults {
        vote_acked_early,
        append_acked_early,
        recovery_drops_last,
        leader_restore,
        completion_dropped,
        completion_doubled,
    } = faults;
    let flags = [
        ("early-vote", *vote_acked_early),
        ("early-append", *append_acked_early),
        ("lossy-recovery", *recovery_drops_last),
        ("leader-restore", *leader_restore),
    ];
    let flags = flags.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name.to_owned());
    let dropped = completion_dropped.map(|nth| format!("drop-completion={nth}"));
    let doubled = completion_doubled.map(|nth| format!("double-completion={nth}"));
    flags.chain(dropped).chain(doubled).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planted_by_name_is_told_by_name() {
        let names = ["early-vote", "early-append", "lossy-recovery", "leader-restore"];
        let counted = ["drop-completion=3", "double-completion=40"];
        let names: Vec<&str> = names.into_iter().chain(counted).collect();
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
            assert_eq!(plant(&mut faults, name), Err(UnknownFault(name.to_owned())));
            assert_eq!(faults, Faults::none());
        }
    }
}
