//! How a guest's run ended badly, in words.

use quorate_types::text::clipped;
use wasmtime::{Trap, WasmBacktrace};

/// Longest reason that is kept, bytes; a guest chooses part of the text.
const REASON_BYTES_MAX: usize = 512;

/// What cut a guest off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Fuel or wall time ran out.
    OverBudget,
    /// Anything else.
    Trap(String),
}

impl Cut {
    pub(crate) fn of(error: &wasmtime::Error) -> Self {
        match error.downcast_ref::<Trap>() {
            Some(&(Trap::OutOfFuel | Trap::Interrupt)) => Self::OverBudget,
            Some(trap) => Self::Trap(trap.to_string()),
            // The error came out of a host function: the guest's frames are context, not cause.
            None if error.downcast_ref::<WasmBacktrace>().is_some() => {
                Self::Trap(clipped(error.root_cause().to_string(), REASON_BYTES_MAX))
            }
            None => Self::Trap(reason(error)),
        }
    }
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OverBudget => f.write_str("it ran over its budget of fuel or time"),
            Self::Trap(reason) => f.write_str(reason),
        }
    }
}

/// The whole chain of causes on one line, cut to a bound.
pub(crate) fn reason(error: &wasmtime::Error) -> String {
    clipped(format!("{error:#}").replace('\n', " "), REASON_BYTES_MAX)
}
