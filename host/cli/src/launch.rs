//! How this process was started, so that a node which it starts is the same program.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use quorate_sim::{UnknownFault, plant};
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
pub enum BadFault {
    /// It is not there, and goes before all else.
    #[error(
        "quorate-faulty begins with `--fault NAME`, for instance `--fault drop-completion=N`, N \
         from 1; got `{0}`"
    )]
    Missing(String),
    /// There is no such fault.
    #[error("quorate-faulty cannot be `{0}`; besides, it takes `--fault feature-level=N`")]
    Unknown(String, #[source] UnknownFault),
}

impl Launch {
    /// As `quorate`.
    pub fn plain() -> Self {
        Self::default()
    }

    /// As another program: a test starts nodes that are not itself.
    pub fn of(program: impl Into<PathBuf>) -> Self {
        Self { program: Some(program.into()), ..Self::default() }
    }

    /// As `quorate-faulty`, by its first two arguments: the faults that the simulator plants.
    pub fn faulty(flag: Option<OsString>, fault: Option<OsString>) -> Result<Self, BadFault> {
        let (flag, fault) = (flag.unwrap_or_default(), fault.unwrap_or_default());
        let text = fault.to_string_lossy().into_owned();
        if flag != FAULT_FLAG || text.is_empty() {
            return Err(BadFault::Missing(format!("{} {text}", flag.to_string_lossy())));
        }
        let mut faults = Faults::none();
        let level = text.strip_prefix("feature-level=").and_then(|level| level.parse().ok());
        if level.is_some_and(|level: u32| level > 0) {
            faults.feature_level_known = level;
        } else {
            plant(&mut faults, &text).map_err(|unknown| BadFault::Unknown(text, unknown))?;
        }
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
        let refused = |flag: &str, fault: &str| {
            Launch::faulty(Some(flag.into()), Some(fault.into())).err().map(|bad| bad.to_string())
        };
        for fault in ["lose-all=1", "drop-completion=0", "feature-level=0", "unsynced"] {
            let said = refused("--fault", fault).expect("refused");
            assert!(said.contains(fault), "{said}");
        }
        let said = refused("dev", "drop-completion=1").expect("refused");
        assert!(said.ends_with("got `dev drop-completion=1`"), "{said}");
        assert_eq!(refused("--fault", "unconfirmed-read"), None);
    }
}
