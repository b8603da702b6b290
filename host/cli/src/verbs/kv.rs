//! `quorate kv …`

use std::path::Path;

use anyhow::Context as _;
use quorate_types::Refusal;
use quorate_types::http::TxnDone;
use quorate_types::kv::{
    Act, Change, Done, KvRecord, KvWatch, Op, OpDone, Subject, Txn, Value, What,
};
use quorate_types::limits::KV_VALUE_BYTES_MAX;
use quorate_types::problem::Problem;

use super::{Session, consistency, content, or_dash, read};
use crate::key_args::KvVerb;
use crate::output::{Table, raw, remark};

impl Session<'_> {
    pub(super) async fn kv(&self, verb: &KvVerb) -> anyhow::Result<()> {
        match verb {
            KvVerb::Get { key, stale } => self.kv_get(key, *stale).await,
            KvVerb::Put { key, value, file, lease, only_if } => {
                let value = content(value.as_deref(), file.as_deref())?;
                check_value(value.len())?;
                let (key, value, lease) = (key.clone(), Value(value), *lease);
                self.kv_op(Op::Put { key, value, lease, expect: only_if.expect() }).await
            }
            KvVerb::Del { key, prefix: true, .. } => {
                self.kv_op(Op::DeleteRange { prefix: key.clone() }).await
            }
            KvVerb::Del { key, prefix: false, only_if } => {
                self.kv_op(Op::Delete { key: key.clone(), expect: only_if.expect() }).await
            }
            KvVerb::Ls { prefix, limit, cursor, stale } => {
                self.kv_ls(prefix, *limit, cursor.clone(), *stale).await
            }
            KvVerb::Watch { key, prefix, after } => {
                let subject =
                    if *prefix { Subject::Prefix(key.clone()) } else { Subject::Key(key.clone()) };
                let namespace = self.global.namespace.clone();
                self.kv_watch(KvWatch { namespace, subject, after: *after }).await
            }
            KvVerb::Txn { file } => self.kv_txn(file).await,
        }
    }

    async fn kv_get(&self, key: &str, stale: bool) -> anyhow::Result<()> {
        let link = self.client.connect_stream().await?;
        let namespace = &self.global.namespace;
        let (found, _as_of) = link.get(namespace, key, consistency(stale)).await?;
        let missing = || Problem::from(Refusal::NotFound(format!("key `{key}`")));
        let record = found.ok_or_else(|| quorate_client::ClientError::from(missing()))?;
        if self.output.is_json() {
            return self.output.one(&record, |_| Table::of_fields());
        }
        raw(&record.value.0)?;
        remark(&format!("\nversion {} of revision {}", record.version, record.modified));
        Ok(())
    }

    async fn kv_op(&self, op: Op) -> anyhow::Result<()> {
        let link = self.client.connect_stream().await?;
        let done = link.op(&self.global.namespace, op).await?;
        self.output.one(&done, |done| {
            let mut table = Table::of_fields();
            op_fields(&mut table, done);
            table
        })
    }

    async fn kv_ls(
        &self,
        prefix: &str,
        limit: u32,
        cursor: Option<String>,
        stale: bool,
    ) -> anyhow::Result<()> {
        let link = self.client.connect_stream().await?;
        let namespace = &self.global.namespace;
        let page = link.range(namespace, prefix, cursor, limit, consistency(stale)).await?;
        self.output.many(&page, &page.keys, |keys| {
            let mut table = Table::with_heads(&["KEY", "VERSION", "MODIFIED", "LEASE", "VALUE"]);
            keys.iter().for_each(|record| table.row(cells(record)));
            if let Some(cursor) = &page.cursor {
                table.note(format!("more: --cursor {cursor}"));
            }
            table
        })
    }

    async fn kv_watch(&self, watch: KvWatch) -> anyhow::Result<()> {
        let link = self.client.connect_stream().await?;
        let mut changes = link.watch(watch).await;
        while let Some(change) = changes.next().await {
            self.output.next(&change?, line)?;
        }
        Ok(())
    }

    async fn kv_txn(&self, file: &Path) -> anyhow::Result<()> {
        let bytes = read(file)?;
        let txn: Txn = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no transaction", file.display()))?;
        let link = self.client.connect_stream().await?;
        let Done::Txn { held, results } = link.act(&self.global.namespace, Act::Txn(txn)).await?
        else {
            anyhow::bail!("the node answered a question that was not asked");
        };
        self.output.one(&TxnDone { held, results }, |done| {
            let mut table = Table::of_fields();
            table.field("held", done.held);
            done.results.iter().for_each(|one| op_fields(&mut table, one));
            table
        })
    }
}

fn check_value(bytes: usize) -> anyhow::Result<()> {
    if bytes <= KV_VALUE_BYTES_MAX {
        return Ok(());
    }
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let (got, limit) = (wide(bytes), wide(KV_VALUE_BYTES_MAX));
    let refusal = Refusal::TooLarge { what: "the value".to_owned(), got, limit };
    Err(quorate_client::ClientError::from(Problem::from(refusal)).into())
}

fn op_fields(table: &mut Table, done: &OpDone) {
    match done {
        OpDone::Got(None) => table.field("found", "nothing"),
        OpDone::Got(Some(record)) => table.field(&record.key, shown(&record.value)),
        OpDone::Put { revision, version } => {
            table.field("revision", revision);
            table.field("version", version);
        }
        OpDone::Deleted { count, .. } => table.field("deleted", count),
    }
}

fn cells(record: &KvRecord) -> [String; 5] {
    [
        record.key.to_string(),
        record.version.to_string(),
        record.modified.to_string(),
        or_dash(record.lease.as_ref()),
        shown(&record.value),
    ]
}

/// A value on one line.
pub(super) fn shown(value: &Value) -> String {
    /// Longer text is told by its length.
    const LINE_MAX: usize = 120;
    match std::str::from_utf8(&value.0) {
        Ok(text) if text.len() <= LINE_MAX && !text.contains(char::is_control) => text.to_owned(),
        Ok(_) | Err(_) => format!("{} B", value.0.len()),
    }
}

fn line(change: &Change) -> String {
    let words = match &change.what {
        What::Put(record) => {
            format!("put {} (version {}) {}", record.key, record.version, shown(&record.value))
        }
        What::Deleted { key, expired: true } => format!("expired {key}"),
        What::Deleted { key, expired: false } => format!("deleted {key}"),
        What::Seat { kind, name, .. } => format!("{kind} {name}"),
    };
    format!("{} {words}", change.revision)
}
