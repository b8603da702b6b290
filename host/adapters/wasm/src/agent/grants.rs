//! What an agent may import: each interface by itself.

use wasmtime::component::{HasSelf, Linker};

use super::host::AgentState;
use crate::admit::AdmitError;
use crate::bindings::agent::quorate::host;

pub(crate) const WORLD: &str = "quorate:agent/agent@0.1.0-dev";
const TYPES: &str = "quorate:common/types@0.1.0-dev";
const LOG: &str = "quorate:host/log@0.1.0-dev";
const CLOCK: &str = "quorate:host/clock@0.1.0-dev";
const RANDOM: &str = "quorate:host/random@0.1.0-dev";
const BLOBS: &str = "quorate:host/blobs@0.1.0-dev";

/// Which interfaces of `quorate:host` an agent may import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each grant is given or not, by itself")]
pub struct Grants {
    /// `quorate:host/log`.
    pub log: bool,
    /// `quorate:host/clock`.
    pub clock: bool,
    /// `quorate:host/random`.
    pub random: bool,
    /// `quorate:host/blobs`.
    pub blobs: bool,
}

impl Grants {
    /// Nothing: pure computation.
    pub const NONE: Self = Self { log: false, clock: false, random: false, blobs: false };

    /// Everything that there is now.
    pub const ALL: Self = Self { log: true, clock: true, random: true, blobs: true };

    /// (import, name of its grant, whether it is given)
    const fn table(self) -> [(&'static str, &'static str, bool); 4] {
        [
            (LOG, "log", self.log),
            (CLOCK, "clock", self.clock),
            (RANDOM, "random", self.random),
            (BLOBS, "blobs", self.blobs),
        ]
    }

    /// Refuses an import that is unknown or not granted.
    pub(crate) fn check(self, import: &str) -> Result<(), AdmitError> {
        if import == TYPES {
            return Ok(());
        }
        let import = import.to_owned();
        match self.table().into_iter().find(|(name, _grant, _given)| *name == import) {
            Some((_name, _grant, true)) => Ok(()),
            Some((_name, grant, false)) => Err(AdmitError::NotGranted { import, grant }),
            None => {
                let names = self.table().map(|(name, _grant, _given)| name);
                let allowed = format!("`{TYPES}` and, where granted, `{}`", names.join("`, `"));
                Err(AdmitError::UnknownImport { import, world: WORLD, allowed })
            }
        }
    }

    /// Puts into the linker what is granted and nothing else.
    pub(crate) fn link(self, linker: &mut Linker<AgentState>) -> wasmtime::Result<()> {
        type Own = HasSelf<AgentState>;
        if self.log {
            host::log::add_to_linker::<_, Own>(linker, |state| state)?;
        }
        if self.clock {
            host::clock::add_to_linker::<_, Own>(linker, |state| state)?;
        }
        if self.random {
            host::random::add_to_linker::<_, Own>(linker, |state| state)?;
        }
        if self.blobs {
            host::blobs::add_to_linker::<_, Own>(linker, |state| state)?;
        }
        Ok(())
    }
}
