//! Numbers for operators, in the text format of Prometheus, version 0.0.4: a family
//! has one help line, one type, and a sample for each set of labels. Names of
//! counters end in `_total`, no other's do.

use std::fmt::{Display, Write as _};

/// A label and its value.
pub type Label<'a> = (&'a str, &'a str);

/// A page that families are written on, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Page(String);

impl Page {
    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, [([], value)]);
    }

    /// A counter with one sample for each set of labels.
    pub fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([Label<'a>; N], u64)>,
    ) {
        assert!(name.ends_with("_total"), "the name of the counter `{name}` says that it is one");
        self.family(name, help, "counter", samples);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauges(name, help, [([], value)]);
    }

    /// A gauge with one sample for each set of labels.
    pub fn gauges<'a, const N: usize, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([Label<'a>; N], V)>,
    ) {
        assert!(!name.ends_with("_total"), "`{name}` is not a counter");
        self.family(name, help, "gauge", samples);
    }

    /// A counter where the name says so, else a gauge.
    pub fn figure(&mut self, name: &str, help: &str, value: u64) {
        if name.ends_with("_total") {
            self.counter(name, help, value);
        } else {
            self.gauge(name, help, value);
        }
    }

    /// What was written.
    pub fn into_text(self) -> String {
        self.0
    }

    fn family<'a, const N: usize, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        samples: impl IntoIterator<Item = ([Label<'a>; N], V)>,
    ) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
        for (labels, value) in samples {
            let labels: Vec<String> = labels
                .iter()
                .map(|(label, text)| format!("{label}=\"{}\"", escaped(text)))
                .collect();
            if labels.is_empty() {
                self.line(format_args!("{name} {value}"));
            } else {
                self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
            }
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let written = writeln!(self.0, "{line}");
        assert!(written.is_ok(), "a string takes every line");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_its_help_and_type_once_and_its_labels_escaped() {
        let mut page = Page::default();
        page.counters(
            "q_frames_total",
            "Frames.",
            [([("lane", "a\"b\\\n")], 1), ([("lane", "c")], 2)],
        );
        page.figure("q_leads", "Whether it leads.", 1);
        assert_eq!(
            page.into_text(),
            "# HELP q_frames_total Frames.\n# TYPE q_frames_total counter\n\
             q_frames_total{lane=\"a\\\"b\\\\\\n\"} 1\nq_frames_total{lane=\"c\"} 2\n\
             # HELP q_leads Whether it leads.\n# TYPE q_leads gauge\nq_leads 1\n"
        );
    }

    #[test]
    #[should_panic(expected = "says that it is one")]
    fn a_counter_is_named_as_one() {
        Page::default().counter("q_frames", "Frames.", 1);
    }
}
