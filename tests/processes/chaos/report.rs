//! Which faults counted, and the table that says so. A fault counts if the cluster was
//! loaded when it came and an operation was under way at that moment; it is worth
//! nothing where nobody could have noticed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorate_types::Time;
use quorate_types::history::History;

use crate::history::meter::Meter;
use crate::plan::Kind;

/// Before a fault so much must have been served in each second of this window.
pub(crate) const WINDOW: Duration = Duration::from_secs(5);
pub(crate) const RATE_MIN: f64 = 1_000.0;
/// No operation is under way for longer.
const OPERATION_MAX: Duration = Duration::from_secs(15);

/// What was done, and when it began; or why not.
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) at: Result<Instant, String>,
}

/// A kind's line.
#[derive(Default)]
struct Line {
    counted: usize,
    slow: usize,
    alone: usize,
    undone: Vec<String>,
}

/// How many counted, and of how many kinds.
pub(crate) struct Tally {
    pub(crate) counted: usize,
    pub(crate) kinds: BTreeMap<Kind, usize>,
    pub(crate) table: String,
}

impl Tally {
    /// What is missing where so many faults of so many kinds must count, a tenth of them of each.
    pub(crate) fn misses(&self, (faults, kinds): (usize, usize)) -> Option<String> {
        let of_each = faults / 10;
        let enough = self.kinds.values().filter(|counted| **counted >= of_each).count();
        (self.counted < faults || enough < kinds).then(|| {
            format!(
                "the run is void: {} faults counted of {faults}, and {enough} kinds of {kinds} \
                 had {of_each}",
                self.counted
            )
        })
    }
}

/// Judges each fault by what was served before it and asked meanwhile.
pub(crate) fn tally(faults: &[Fault], meter: &Meter, history: &History, begun: Instant) -> Tally {
    let mut lines = BTreeMap::<Kind, Line>::new();
    for fault in faults {
        let line = lines.entry(fault.kind).or_default();
        match &fault.at {
            Err(why) => line.undone.push(why.clone()),
            Ok(at) if meter.rate(*at, WINDOW) < RATE_MIN => line.slow += 1,
            Ok(at) if !under_way(history, Time::ZERO + (*at - begun)) => line.alone += 1,
            Ok(_at) => line.counted += 1,
        }
    }
    let mut table = format!(
        "{:<26} {:>7} {:>11} {:>13} {:>8}\n",
        "fault", "counted", "< 1000 op/s", "none under way", "not done"
    );
    for (kind, line) in &lines {
        let Line { counted, slow, alone, undone } = line;
        let name = kind.name();
        table += &format!("{name:<26} {counted:>7} {slow:>11} {alone:>13} {:>8}\n", undone.len());
        for why in undone {
            table += &format!("    not done: {}\n", why.trim());
        }
    }
    let kinds: BTreeMap<Kind, usize> =
        lines.iter().map(|(kind, line)| (*kind, line.counted)).collect();
    Tally { counted: kinds.values().sum(), kinds, table }
}

/// Whether an operation had been asked and not answered. They lie in the order of their calls.
fn under_way(history: &History, at: Time) -> bool {
    let operations = &history.operations;
    let end = operations.partition_point(|one| one.called < at);
    let recent = |called: Time| at.0.saturating_sub(called.0) < nanos(OPERATION_MAX);
    operations[..end]
        .iter()
        .rev()
        .take_while(|one| recent(one.called))
        .any(|one| one.returned.is_none_or(|returned| returned > at))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
