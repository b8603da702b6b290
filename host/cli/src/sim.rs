//! `quorate sim`: not built yet.

use crate::args::SimVerb;
use crate::exit::{Exit, ended};
use crate::launch::Launch;
use crate::output::Output;

/// Runs it to its end, with a runtime of its own.
pub(crate) fn run(_args: &SimVerb, _launch: &Launch, _output: Output) -> anyhow::Result<()> {
    Err(ended(Exit::Failed, "this command is not built yet", ""))
}
