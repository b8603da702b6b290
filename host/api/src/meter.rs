//! `quorate_api_request_seconds`: how long answers took, by route and status.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets, microseconds, with their labels in seconds. From a local read to a
/// long poll.
const BUCKETS: [(u64, &str); 8] = [
    (1_000, "0.001"),
    (5_000, "0.005"),
    (20_000, "0.02"),
    (100_000, "0.1"),
    (500_000, "0.5"),
    (2_000_000, "2"),
    (10_000_000, "10"),
    (60_000_000, "60"),
];

/// Counts of every (method, route, status) seen. Routes are the router's patterns, so their number
/// is fixed by the code and not by callers.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<BTreeMap<Key, Row>>);

type Key = (&'static str, String, u16);

#[derive(Debug, Default)]
struct Row {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum_us: u128,
}

impl Meter {
    /// One more answer.
    pub(crate) fn record(&self, method: &str, route: &str, status: u16, took: Duration) {
        let us = took.as_micros();
        // A method is text from outside; all that no route has count as one.
        let method = ["GET", "HEAD", "POST", "PUT", "DELETE"]
            .into_iter()
            .find(|known| *known == method)
            .unwrap_or("OTHER");
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = rows.entry((method, route.to_owned(), status)).or_default();
        row.count += 1;
        row.sum_us += us;
        for (count, (bound, _label)) in row.buckets.iter_mut().zip(BUCKETS) {
            *count += u64::from(us <= u128::from(bound));
        }
    }

    /// The text format of Prometheus, version 0.0.4.
    pub(crate) fn text(&self) -> String {
        let mut text = "# HELP quorate_api_request_seconds Time to the head of an answer.\n\
                        # TYPE quorate_api_request_seconds histogram\n"
            .to_owned();
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((method, route, status), row) in rows.iter() {
            let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
            // Writing to a string does not fail.
            let _written = row.write(&mut text, &labels);
        }
        text
    }
}

impl Row {
    fn write(&self, text: &mut String, labels: &str) -> std::fmt::Result {
        const NAME: &str = "quorate_api_request_seconds";
        for (count, (_bound, le)) in self.buckets.iter().zip(BUCKETS) {
            writeln!(text, "{NAME}_bucket{{{labels},le=\"{le}\"}} {count}")?;
        }
        writeln!(text, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {}", self.count)?;
        let (whole, part) = (self.sum_us / 1_000_000, self.sum_us % 1_000_000);
        writeln!(text, "{NAME}_sum{{{labels}}} {whole}.{part:06}")?;
        writeln!(text, "{NAME}_count{{{labels}}} {}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let meter = Meter::default();
        meter.record("GET", "/v1", 200, Duration::from_micros(900));
        meter.record("GET", "/v1", 200, Duration::from_millis(15));
        let text = meter.text();
        let labels = "{method=\"GET\",route=\"/v1\",status=\"200\"";
        for line in [
            format!("quorate_api_request_seconds_bucket{labels},le=\"0.005\"}} 1"),
            format!("quorate_api_request_seconds_bucket{labels},le=\"0.02\"}} 2"),
            format!("quorate_api_request_seconds_sum{labels}}} 0.015900"),
            format!("quorate_api_request_seconds_count{labels}}} 2"),
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line} in\n{text}");
        }
    }
}
