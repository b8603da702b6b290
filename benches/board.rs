//! Criterion's samples, kept by case and told as ratios.
//!
//! Criterion compares with an earlier run; we want the component beside the native
//! answer in this one. So each case is timed in a closure that criterion drives, and
//! the board keeps what it timed. Groups must sample flat ([`Board::group`] sees to it):
//! then every sample has equally many iterations, which tells samples from the warm-up,
//! whose rounds double.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};

use crate::{line, percentile};

/// One thing that is measured.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name within the group.
    pub name: String,
    /// Operations in one iteration: picks in a batch, bytes in a corpus.
    pub ops: u64,
    /// What an operation should take at most, nanoseconds, where that was promised.
    pub target_ns: Option<f64>,
}

impl Case {
    /// One operation an iteration, nothing promised.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ops: 1, target_ns: None }
    }

    /// With so many operations in one iteration.
    #[must_use]
    pub fn of(self, ops: u64) -> Self {
        Self { ops, ..self }
    }

    /// With this promise, nanoseconds an operation.
    #[must_use]
    pub fn within(self, target_ns: Option<f64>) -> Self {
        Self { target_ns, ..self }
    }
}

/// What one case came to; samples in nanoseconds an operation.
struct Row {
    group: String,
    case: Case,
    samples: Vec<f64>,
}

/// The samples of a run.
#[derive(Default)]
pub struct Board {
    rows: Vec<Row>,
}

impl Board {
    /// An empty board.
    pub fn new() -> Self {
        Self::default()
    }

    /// A group of criterion's that samples flat.
    pub fn group<'c>(
        &self,
        criterion: &'c mut Criterion,
        name: &str,
    ) -> BenchmarkGroup<'c, WallTime> {
        let mut group = criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat);
        group
    }

    /// Measures one case: `work` does as many iterations as it is told. The first case of a
    /// group is what the others are measured against.
    pub fn run(
        &mut self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        case: Case,
        mut work: impl FnMut(u64),
    ) {
        let mut timed: Vec<(u64, Duration)> = Vec::new();
        group.throughput(Throughput::Elements(case.ops));
        group.bench_function(case.name.as_str(), |bencher| {
            bencher.iter_custom(|iterations| {
                let begun = Instant::now();
                work(iterations);
                let took = begun.elapsed();
                if timed.last().is_some_and(|(before, _)| *before != iterations) {
                    timed.clear();
                }
                timed.push((iterations, took));
                took
            });
        });
        let ops = |iterations: u64| (iterations * case.ops).max(1) as f64;
        let mut samples: Vec<f64> = timed
            .iter()
            .map(|(iterations, took)| took.as_secs_f64() * 1e9 / ops(*iterations))
            .collect();
        samples.sort_unstable_by(f64::total_cmp);
        self.rows.push(Row { group: name.to_owned(), case, samples });
    }

    /// Prints the table. Cases that a filter left out are not in it.
    pub fn print(&self) {
        line(
            "\np50 and p99 of samples, each a mean over its iterations; × is p50 against the first of the group",
        );
        line(&format!(
            "{:<28} {:<16} {:>12} {:>12} {:>10} {:>8} {:>10}",
            "group", "case", "p50 ns", "p99 ns", "M ops/s", "×", "of target"
        ));
        for row in &self.rows {
            if let Some(text) = self.told(row) {
                line(&text);
            }
        }
    }

    fn told(&self, row: &Row) -> Option<String> {
        let p50 = percentile(&row.samples, 50)?;
        let p99 = percentile(&row.samples, 99)?;
        let first = self.rows.iter().find(|other| other.group == row.group);
        let base = first.and_then(|first| percentile(&first.samples, 50));
        let ratio = |of: Option<f64>| of.map_or("-".to_owned(), |of| format!("{:.2}", p50 / of));
        let mut text = String::new();
        let written = write!(
            text,
            "{:<28} {:<16} {p50:>12.2} {p99:>12.2} {:>10.3} {:>8} {:>10}",
            row.group,
            row.case.name,
            1e3 / p50,
            ratio(base),
            ratio(row.case.target_ns),
        );
        written.is_ok().then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, target_ns: Option<f64>, samples: &[f64]) -> Row {
        let case = Case::new(name).within(target_ns);
        Row { group: "pick".to_owned(), case, samples: samples.to_vec() }
    }

    #[test]
    fn a_row_tells_its_ratio_to_the_first_and_to_its_target() {
        let rows = vec![
            row("native", None, &[10.0, 20.0, 30.0]),
            row("component", Some(400.0), &[100.0]),
            row("left-out", None, &[]),
        ];
        let board = Board { rows };
        let cells = |at: usize| -> Option<Vec<String>> {
            let text = board.told(&board.rows[at])?;
            Some(text.split_whitespace().map(str::to_owned).collect())
        };
        let native = cells(0).unwrap();
        assert_eq!(native, ["pick", "native", "20.00", "30.00", "50.000", "1.00", "-"]);
        let component = cells(1).unwrap();
        assert_eq!(component, ["pick", "component", "100.00", "100.00", "10.000", "5.00", "0.25"]);
        assert_eq!(cells(2), None);
    }
}
