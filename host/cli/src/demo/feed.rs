//! Uploads the files and submits a task for each.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use code_index_format::{Input, encode_task};
use quorate_types::{Digest, Payload, Retry, TaskSpec};
use tokio::task::JoinSet;

use super::stage::Stage;
use super::stages::Submission;

/// Files in one submission.
const BATCH: usize = 16;
/// Batches under way at once.
const BATCHES: usize = 4;

/// Acknowledged tasks that are not yet completed: enough that every slot is busy, and so small a
/// part of all that submissions go on through the kill and the swap.
fn ahead(total: usize) -> usize {
    (total / 8).clamp(96, 512)
}

/// Submits these files, ids from 0, as far as the gate is open; returns when all are acknowledged.
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
    let mut begun = 0;
    for batch in batches {
        begun += batch.len();
        stage.pass_gate(begun).await?;
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
    let mut tasks = Vec::new();
    let mut uploads = JoinSet::new();
    for (id, content) in batch {
        let stage = Arc::clone(&stage);
        uploads.spawn(async move { upload(&stage, id, content).await });
    }
    while let Some(upload) = uploads.join_next().await {
        tasks.push(upload??);
    }
    submit_stored(&stage, &tasks).await
}

/// A file in the cluster, whose task is not yet submitted.
pub(crate) struct Stored {
    id: u32,
    digest: Digest,
    begun: Instant,
    stored: Instant,
}

/// Stores a file.
pub(crate) async fn upload(stage: &Stage, id: u32, content: Bytes) -> anyhow::Result<Stored> {
    let begun = Instant::now();
    let put = stage.client.put_blob(content).await;
    let digest = put.with_context(|| format!("file {id} cannot be uploaded"))?.sha256;
    Ok(Stored { id, digest, begun, stored: Instant::now() })
}

/// Submits a task for each of these and writes down that the cluster has it.
pub(crate) async fn submit_stored(stage: &Stage, files: &[Stored]) -> anyhow::Result<()> {
    let sent = Instant::now();
    let specs = files.iter().map(spec).collect();
    let answers = stage.client.submit_many(specs).await.context("tasks cannot be submitted")?;
    let acked = Instant::now();
    let mut record = stage.record();
    for (file, answer) in files.iter().zip(answers) {
        let Stored { id, begun, stored, .. } = *file;
        let submitted = answer.map_err(|problem| {
            anyhow::anyhow!("the task of file {id} was refused: {}", problem.detail)
        })?;
        record.ack(submitted.id, id, Submission { begun, stored, sent, acked });
    }
    Ok(())
}

fn spec(file: &Stored) -> TaskSpec {
    let input = Input { id: file.id, digest: file.digest.0 };
    TaskSpec {
        capabilities: vec!["code-index".to_owned()],
        input: Payload::Inline(encode_task(&[input]).into()),
        idempotency_key: Some(format!("file-{}", file.id)),
        retry: Retry { attempts_max: 5, ..Retry::default() },
        ..TaskSpec::default()
    }
}
