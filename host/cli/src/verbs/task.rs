//! `quorate task …`

use anyhow::Context as _;
use bytes::Bytes;
use quorate_types::door::TaskFilter;
use quorate_types::limits::INLINE_BYTES_MAX;
use quorate_types::task::Payload;
use quorate_types::view::{Decision, Submitted, TaskView, Why};
use quorate_types::{TaskId, TaskSpec, TaskState};
use serde::Serialize;

use super::{Session, consistency, content, or_dash, read};
use crate::args::{SubmitArgs, TaskLsArgs, TaskVerb};
use crate::exit::{Exit, ended};
use crate::output::{Table, remark};

#[derive(Serialize)]
struct Cancelled {
    id: TaskId,
    cancelled: bool,
}

impl Session<'_> {
    pub(super) async fn task(&self, verb: &TaskVerb) -> anyhow::Result<()> {
        match verb {
            TaskVerb::Submit(args) => self.submit(args).await,
            TaskVerb::Ls(args) => self.list(args).await,
            TaskVerb::Get { id, stale } => {
                let answer = self.client.task(*id, consistency(*stale)).await?;
                if answer.stale {
                    remark("note: a stale read; what the leader knows may be newer");
                }
                self.output.one(&answer, |answer| fields(&answer.task))
            }
            TaskVerb::Why { id, stale } => {
                let answer = self.client.why(*id, consistency(*stale)).await?;
                self.output.one(&answer, |answer| decisions(&answer.why))
            }
            TaskVerb::Watch { id } => self.watch(*id).await,
            TaskVerb::Cancel { id } => {
                self.client.cancel(*id).await?;
                let cancelled = Cancelled { id: *id, cancelled: true };
                self.output.next(&cancelled, |_| format!("{id} is cancelled"))
            }
        }
    }

    async fn submit(&self, args: &SubmitArgs) -> anyhow::Result<()> {
        let spec = match &args.spec {
            Some(path) => serde_json::from_slice(&read(path)?).map_err(|error| {
                let what = format!("{} is not a task: {error}", path.display());
                ended(Exit::Usage, what, "quorate task submit --help")
            })?,
            None => self.described(args).await?,
        };
        let submitted: Submitted = self.client.submit(spec).await?;
        if !args.wait {
            return self.output.next(&submitted, |submitted| submitted.id.to_string());
        }
        remark(&format!("{} is submitted", submitted.id));
        self.watch(submitted.id).await
    }

    async fn described(&self, args: &SubmitArgs) -> anyhow::Result<TaskSpec> {
        let input = content(args.input.as_deref(), args.file.as_deref())?;
        Ok(TaskSpec {
            namespace: self.global.namespace.clone(),
            queue: args.queue.clone(),
            capabilities: args.capabilities.clone(),
            content_type: args.content_type.clone(),
            input: self.payload(input).await?,
            priority: args.priority,
            idempotency_key: args.key.clone(),
            labels: args.labels.iter().cloned().collect(),
            ..TaskSpec::default()
        })
    }

    /// Small content as it is, larger content as a blob, stored before the task refers to it.
    async fn payload(&self, content: Bytes) -> anyhow::Result<Payload> {
        if content.len() <= INLINE_BYTES_MAX {
            return Ok(Payload::Inline(content));
        }
        let stored = self.client.put_blob(content).await.context("cannot store the input")?;
        Ok(Payload::Blob { digest: stored.sha256, size: stored.size })
    }

    async fn list(&self, args: &TaskLsArgs) -> anyhow::Result<()> {
        let filter = TaskFilter {
            namespace: self.global.namespace.clone(),
            state: args.state.map(TaskState::from),
            queue: args.queue.clone(),
            cursor: args.cursor.clone(),
            limit: args.limit,
        };
        let page = self.client.tasks(&filter, consistency(args.stale)).await?;
        self.output.many(&page, &page.tasks, rows)?;
        if !self.output.is_json() {
            let counts = page.counts.iter().map(|(state, count)| format!("{count} {state}"));
            remark(&format!("in this namespace: {}", counts.collect::<Vec<_>>().join(", ")));
        }
        if let Some(cursor) = page.cursor.filter(|_| !self.output.is_json()) {
            remark(&format!("there are more: --cursor {cursor}"));
        }
        Ok(())
    }

    /// Each state as it comes; an error unless the last one is `completed`.
    async fn watch(&self, id: TaskId) -> anyhow::Result<()> {
        let mut states = self.client.watch(id).await?;
        let mut last = None;
        while let Some(task) = states.next().await {
            let task = task?;
            self.output.next(&task, line)?;
            last = Some(task);
        }
        let Some(task) = last else { anyhow::bail!("the watch of {id} showed nothing") };
        if task.state == TaskState::Completed {
            return Ok(());
        }
        let reason = task.error.map_or(String::new(), |error| format!(": {error}"));
        let what = format!("{id} ended as {}{reason}", task.state);
        Err(ended(Exit::Failed, what, format!("quorate task why {id}")))
    }
}

fn line(task: &TaskView) -> String {
    let mut words = vec![task.id.to_string(), task.state.to_string()];
    if let Some(lease) = &task.lease {
        words.push(format!("by {} in attempt {}", lease.agent, lease.attempt));
    }
    if let Some(error) = &task.error {
        words.push(format!("({error})"));
    }
    if let Some(result) = &task.result {
        words.push(shown(result));
    }
    words.join(" ")
}

fn rows(tasks: &[TaskView]) -> Table {
    let mut table =
        Table::with_heads(&["ID", "STATE", "QUEUE", "CAPABILITIES", "ATTEMPTS", "AGENT"]);
    for task in tasks {
        table.row([
            task.id.to_string(),
            task.state.to_string(),
            task.spec.queue.clone(),
            task.spec.capabilities.join(","),
            task.attempts.to_string(),
            or_dash(task.lease.as_ref().map(|lease| lease.agent)),
        ]);
    }
    table
}

fn fields(task: &TaskView) -> Table {
    let mut table = Table::of_fields();
    table.field("id", task.id);
    table.field("state", task.state);
    table.field("namespace", &task.spec.namespace);
    table.field("queue", &task.spec.queue);
    table.field("capabilities", task.spec.capabilities.join(", "));
    table.field("input", shown(&task.spec.input));
    table.field("priority", task.spec.priority);
    table.field("attempts", task.attempts);
    table.field("failures", task.failures);
    if let Some(lease) = &task.lease {
        table.field("leased to", format!("{} ({})", lease.agent, lease.incarnation));
        table.field("policy epoch", lease.policy_epoch);
    }
    for (name, value) in &task.spec.labels {
        table.field(&format!("label {name}"), value);
    }
    if let Some(result) = &task.result {
        table.field("result", shown(result));
    }
    if let Some(error) = &task.error {
        table.field("error", error);
    }
    table.field("trace", task.spec.trace);
    table
}

/// Content as fits in a line.
fn shown(payload: &Payload) -> String {
    const LINE_MAX: usize = 120;
    match payload {
        Payload::Blob { digest, size } => format!("blob {digest} of {size} B"),
        Payload::Inline(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if text.len() <= LINE_MAX && !text.contains(char::is_control) => {
                text.to_owned()
            }
            Ok(_) | Err(_) => format!("{} B, see them with -o json", bytes.len()),
        },
    }
}

fn decisions(why: &Why) -> Table {
    let mut table = Table::with_heads(&[
        "ATTEMPT",
        "AGENT",
        "POLICY",
        "EPOCH",
        "CANDIDATES",
        "IN FLIGHT",
        "LATENCY US",
        "SUCCESS",
        "ENDED",
    ]);
    for (attempt, decision) in (1_u32..).zip(&why.decisions) {
        table.row(cells(attempt, decision));
    }
    if let Some(waits) = &why.waits {
        table.note(format!("it waits: {waits}"));
    }
    table
}

fn cells(attempt: u32, decision: &Decision) -> [String; 9] {
    let by = if decision.fallback { " (fallback)" } else { "" };
    let reading = &decision.reading;
    [
        attempt.to_string(),
        decision.agent.to_string(),
        format!("{}{by}", decision.policy),
        decision.policy_epoch.to_string(),
        decision.candidates.to_string(),
        reading.in_flight.to_string(),
        reading.latency_us.to_string(),
        format!("{} %", reading.success_ppm / 10_000),
        or_dash(decision.ended.as_ref()),
    ]
}
