//! How this process was started, so that a node which it starts is the same program.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use quorate_types::Faults;

/// The flag that `quorate-faulty` takes before all others.
const FAULT_FLAG: &str = "--fault";

/// The program that runs, with the faults it was given.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// This very program where none is named.
    program: Option<PathBuf>,
    faults: Faults,
    flags: Vec<OsString>,
}

/// What `--fault` does not understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quorate-faulty begins with `--fault drop-completion=N`, `--fault double-completion=N` or `--fault feature-level=N`, N from 1; got `{0}`"
)]
pub struct BadFault(String);

impl Launch {
    /// As `quorate`.
    pub fn plain() -> Self {
        Self::default()
    }

    /// As another program: a test starts nodes that are not itself.
    pub fn of(program: impl Into<PathBuf>) -> Self {
        Self { program: Some(program.into()), ..Self::default() }
    }

    /// As `quorate-faulty`, by its first two arguments.
    pub fn faulty(flag: Option<OsString>, fault: Option<OsString>) -> Result<Self, BadFault> {
        let (flag, fault) = (flag.unwrap_or_default(), fault.unwrap_or_default());
        let text = fault.to_string_lossy();
        let bad = || BadFault(format!("{} {text}", flag.to_string_lossy()));
        let (name, count) = text.split_once('=').filter(|_| flag == FAULT_FLAG).ok_or_else(bad)?;
        let count = count.parse::<u64>().ok().filter(|count| *count > 0).ok_or_else(bad)?;
        let faults = match name {
            "drop-completion" => Faults { completion_dropped: Some(count), ..Faults::none() },
            "double-completion" => Faults { completion_doubled: Some(count), ..Faults::none() },
            "feature-level" => {
                let level = u32::try_from(count).map_err(|_source| bad())?;
                Faults { feature_level_known: Some(level), ..Faults::none() }
            }
            _unknown => return Err(bad()),
        };
        Ok(Self { program: None, faults, flags: vec![flag, fault] })
    }

    /// The faults that a node of this process has.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// This very program again, with the same faults; the caller adds a verb.
    pub fn again(&self) -> io::Result<Command> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()?,
        };
        let mut command = Command::new(program);
        command.args(&self.flags);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_passed_on_to_the_processes_it_starts() {
        let launch = Launch::faulty(Some("--fault".into()), Some("drop-completion=40".into()))
            .expect("a known fault");
        assert_eq!(launch.faults().completion_dropped, Some(40));
        let again = launch.again().expect("this test has a path");
        assert_eq!(again.get_args().collect::<Vec<_>>(), ["--fault", "drop-completion=40"]);
        assert_eq!(Launch::plain().again().expect("a path").get_args().count(), 0);
    }

    #[test]
    fn other_faults_are_refused_by_name() {
        for (flag, fault) in [
            ("--fault", "lose-all=1"),
            ("--fault", "drop-completion=0"),
            ("dev", "drop-completion=1"),
        ] {
            let refused = Launch::faulty(Some(flag.into()), Some(fault.into()));
            assert_eq!(refused.err(), Some(BadFault(format!("{flag} {fault}"))));
        }
    }
}
