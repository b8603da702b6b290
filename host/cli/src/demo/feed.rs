//! Uploads the files and submits a task for each.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use code_index_format::{Input, encode_task};
use quorate_types::{Payload, Retry, TaskSpec};
use tokio::task::JoinSet;

use super::stage::Stage;

/// Files in one submission.
const BATCH: usize = 16;
/// Batches under way at once.
const BATCHES: usize = 4;
/// Acknowledged tasks that are not yet completed: enough that every slot is busy, and so small a
/// part of all that submissions go on through the kill and the swap.
fn ahead(total: usize) -> usize {
    (total / 8).clamp(96, 512)
}

/// Submits every file; returns when all are acknowledged.
pub(crate) async fn feed(stage: Arc<Stage>, files: Vec<Bytes>) -> anyhow::Result<()> {
    let ahead = ahead(files.len());
    let mut under_way = JoinSet::new();
    let mut batches = Vec::new();
    for (id, content) in (0_u32..).zip(files) {
        if id % u32::try_from(BATCH).unwrap_or(1) == 0 {
            batches.push(Vec::with_capacity(BATCH));
        }
        if let Some(batch) = batches.last_mut() {
            batch.push((id, content));
        }
    }
    for batch in batches {
        while under_way.len() >= BATCHES {
            joined(under_way.join_next().await)?;
        }
        let submitted = stage.record().submitted();
        stage.wait_heard(submitted.saturating_sub(ahead)).await?;
        under_way.spawn(submit(Arc::clone(&stage), batch));
    }
    while !under_way.is_empty() {
        joined(under_way.join_next().await)?;
    }
    Ok(())
}

fn joined(ended: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>) -> anyhow::Result<()> {
    ended.unwrap_or(Ok(Ok(())))?
}

async fn submit(stage: Arc<Stage>, batch: Vec<(u32, Bytes)>) -> anyhow::Result<()> {
    let mut specs = Vec::new();
    let mut ids = Vec::new();
    let mut uploads = JoinSet::new();
    for (id, content) in batch {
        let client = stage.client.clone();
        uploads.spawn(async move { (id, client.put_blob(content).await) });
    }
    while let Some(upload) = uploads.join_next().await {
        let (id, stored) = upload?;
        let digest = stored.with_context(|| format!("file {id} cannot be uploaded"))?.sha256;
        specs.push(spec(id, digest.0));
        ids.push(id);
    }
    let begun = Instant::now();
    let answers = stage.client.submit_many(specs).await.context("tasks cannot be submitted")?;
    let mut record = stage.record();
    for (id, answer) in ids.into_iter().zip(answers) {
        let submitted = answer.map_err(|problem| {
            anyhow::anyhow!("the task of file {id} was refused: {}", problem.detail)
        })?;
        record.ack(submitted.id, id, begun);
    }
    Ok(())
}

fn spec(id: u32, digest: [u8; 32]) -> TaskSpec {
    TaskSpec {
        capabilities: vec!["code-index".to_owned()],
        input: Payload::Inline(encode_task(&[Input { id, digest }]).into()),
        idempotency_key: Some(format!("file-{id}")),
        retry: Retry { attempts_max: 5, ..Retry::default() },
        ..TaskSpec::default()
    }
}
