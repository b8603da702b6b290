//! Tasks: submit, read, cancel.

use std::time::Instant;

use quorate_types::door::{Consistency, TaskFilter};
use quorate_types::http::{SubmitMany, SubmitOutcome, SubmittedMany, TaskAnswer, WhyAnswer};
use quorate_types::problem::{Problem, ProblemKind};
use quorate_types::view::{Submitted, TaskPage};
use quorate_types::{TaskId, TaskSpec, TraceId};

use crate::ask::Ask;
use crate::client::Client;
use crate::error::ClientError;

/// The query value of a consistency.
pub(crate) const fn consistency_name(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Linearizable => "linearizable",
        Consistency::Stale => "stale",
    }
}

impl Client {
    /// Submits a task; returns when a quorum has it on disk. Whatever breaks meanwhile, it is
    /// submitted once: a spec without an idempotency key gets one.
    pub async fn submit(&self, spec: TaskSpec) -> Result<Submitted, ClientError> {
        let spec = self.completed(spec);
        self.ask(Ask::post(&["v1", "tasks"]).trace(spec.trace).json(&spec)?).await
    }

    /// Submits several tasks, at most `SUBMIT_BATCH_MAX`, each by itself and each once; answers in
    /// their order. Those that met a full queue or a lost leader are sent again until the deadline.
    pub async fn submit_many(
        &self,
        specs: Vec<TaskSpec>,
    ) -> Result<Vec<Result<Submitted, Box<Problem>>>, ClientError> {
        let started = Instant::now();
        let specs: Vec<TaskSpec> = specs.into_iter().map(|spec| self.completed(spec)).collect();
        let mut outcomes: Vec<Option<Result<Submitted, Box<Problem>>>> = vec![None; specs.len()];
        loop {
            let open: Vec<usize> = (0..specs.len()).filter(|at| is_open(&outcomes[*at])).collect();
            if open.is_empty() {
                break;
            }
            let tasks = open.iter().map(|at| specs[*at].clone()).collect();
            let left = self.0.timeout.saturating_sub(started.elapsed());
            let ask = Ask::post(&["v1", "tasks"]).timeout(left).json(&SubmitMany { tasks })?;
            let answer: SubmittedMany = self.ask(ask).await?;
            let mut pause_ms = 0;
            for (at, outcome) in open.into_iter().zip(answer.tasks) {
                outcomes[at] = Some(match outcome {
                    SubmitOutcome::Submitted(submitted) => Ok(submitted),
                    SubmitOutcome::Problem(problem) => {
                        pause_ms = pause_ms.max(problem.retry_after_ms.unwrap_or(0));
                        Err(Box::new(problem))
                    }
                });
            }
            let pause = std::time::Duration::from_millis(pause_ms);
            if started.elapsed() + pause >= self.0.timeout {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        Ok(outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| Err(unanswered())))
            .collect())
    }

    /// Sent twice, a spec must be the same twice: its key and its trace are fixed here.
    fn completed(&self, mut spec: TaskSpec) -> TaskSpec {
        if spec.idempotency_key.is_none() {
            spec.idempotency_key = Some(self.fresh_key());
        }
        if spec.trace == TraceId::default() {
            spec.trace = self.fresh_trace();
        }
        spec
    }

    /// One task.
    pub async fn task(
        &self,
        id: TaskId,
        consistency: Consistency,
    ) -> Result<TaskAnswer, ClientError> {
        let ask = Ask::get(&["v1", "tasks", &id.to_string()]);
        self.ask(ask.query("consistency", consistency_name(consistency))).await
    }

    /// Some tasks; go on with the page's cursor.
    pub async fn tasks(
        &self,
        filter: &TaskFilter,
        consistency: Consistency,
    ) -> Result<TaskPage, ClientError> {
        let mut ask = Ask::get(&["v1", "tasks"])
            .query("namespace", &filter.namespace)
            .query("limit", filter.limit)
            .query("consistency", consistency_name(consistency));
        if let Some(state) = filter.state {
            ask = ask.query("state", state);
        }
        if let Some(queue) = &filter.queue {
            ask = ask.query("queue", queue);
        }
        if let Some(cursor) = &filter.cursor {
            ask = ask.query("cursor", cursor);
        }
        self.ask(ask).await
    }

    /// A task's routing history.
    pub async fn why(
        &self,
        id: TaskId,
        consistency: Consistency,
    ) -> Result<WhyAnswer, ClientError> {
        let ask = Ask::get(&["v1", "tasks", &id.to_string(), "why"]);
        self.ask(ask.query("consistency", consistency_name(consistency))).await
    }

    /// Cancels a task.
    pub async fn cancel(&self, id: TaskId) -> Result<(), ClientError> {
        self.ask_done(Ask::post(&["v1", "tasks", &id.to_string(), "cancel"])).await
    }
}

/// Whether a task must still be sent: not answered, or refused for a passing reason.
fn is_open(outcome: &Option<Result<Submitted, Box<Problem>>>) -> bool {
    match outcome {
        None => true,
        Some(Ok(_)) => false,
        Some(Err(problem)) => matches!(
            problem.kind,
            ProblemKind::Busy | ProblemKind::Unavailable | ProblemKind::Timeout
        ),
    }
}

fn unanswered() -> Box<Problem> {
    let detail = "the node left this task out of its answer";
    Box::new(Problem::new(ProblemKind::Internal, detail, "report it"))
}
