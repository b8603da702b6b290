//! All that a command prints. Answers go to standard output, as a table for people
//! or as JSON for programs; remarks and errors go to standard error.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::Serialize;

/// How answers are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns, for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON document a line, one line an item.
    Jsonl,
}

/// Where answers go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Output {
    format: Format,
}

/// Rows under a heading, or fields of one thing; nothing but text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    /// With these column heads.
    pub(crate) fn with_heads(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(ToString::to_string).collect()], notes: Vec::new() }
    }

    /// Without heads: the first column names, the second tells.
    pub(crate) fn of_fields() -> Self {
        Self::default()
    }

    /// One more row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// One more field.
    pub(crate) fn field(&mut self, name: &str, value: impl ToString) {
        self.row([name.to_owned(), value.to_string()]);
    }

    /// A line beneath the rows.
    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// The columns, aligned; the last one is not padded; then the notes.
    fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).chain(self.notes.iter().cloned()).collect()
    }
}

impl Output {
    /// In this format.
    pub(crate) const fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether a program reads, so that remarks meant for people are left out.
    pub(crate) fn is_json(self) -> bool {
        self.format != Format::Table
    }

    /// One thing.
    pub(crate) fn one<T: Serialize>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.table(&table(value)),
            Format::Json => line(&serde_json::to_string_pretty(value)?),
            Format::Jsonl => line(&serde_json::to_string(value)?),
        }
    }

    /// Several things, of which `whole` is the document: in JSON lines, each is one.
    pub(crate) fn many<W: Serialize, T: Serialize>(
        self,
        whole: &W,
        items: &[T],
        table: impl FnOnce(&[T]) -> Table,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.table(&table(items)),
            Format::Json => line(&serde_json::to_string_pretty(whole)?),
            Format::Jsonl => items.iter().try_for_each(|item| line(&serde_json::to_string(item)?)),
        }
    }

    /// The next of a stream: in both JSON formats one document a line.
    pub(crate) fn next<T: Serialize>(
        self,
        item: &T,
        words: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => line(&words(item)),
            Format::Json | Format::Jsonl => line(&serde_json::to_string(item)?),
        }
    }

    /// A line for people: on standard error where a program reads standard output.
    pub(crate) fn line(self, text: &str) -> anyhow::Result<()> {
        if self.is_json() {
            remark(text);
            return Ok(());
        }
        line(text)
    }

    fn table(self, table: &Table) -> anyhow::Result<()> {
        table.lines().iter().try_for_each(|text| line(text))
    }
}

/// A line of text on standard output. A reader that has gone ends the program without noise.
fn line(text: &str) -> anyhow::Result<()> {
    raw(format!("{text}\n").as_bytes())
}

/// Bytes as they are, e.g. the reply to a call.
pub(crate) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            // What `head` and `grep -q` do; the shell reports their end, not ours.
            std::process::exit(0)
        }
        done => Ok(done?),
    }
}

/// Several in one cell: `1,3,5`.
pub(crate) fn listed(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// A remark for people, on standard error.
#[expect(clippy::print_stderr, reason = "the one place where remarks are printed")]
pub(crate) fn remark(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::with_heads(&["ID", "STATE", "QUEUE"]);
        table.row(["t1".to_owned(), "completed".to_owned(), "default".to_owned()]);
        table.row(["größer".to_owned(), "queued".to_owned(), String::new()]);
        assert_eq!(
            table.lines(),
            ["ID      STATE      QUEUE", "t1      completed  default", "größer  queued"]
        );
    }
}
