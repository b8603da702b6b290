//! `/v1/tasks/{id}/watch`: the task as it stands now, then after each change, until
//! it ends.
//!
//! No change falls between the first state and the events, since the events are
//! subscribed before the task is read. An event only says that there is something to
//! read; each frame is a fresh linearizable read, so that a node which lags behind
//! the leader cannot show an older state after a newer one. For the same reason
//! losing the events is no loss: subscribe and read again.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::Event as Sent;
use quorate_types::door::{Consistency, Source};
use quorate_types::http::TaskAnswer;
use quorate_types::problem::ProblemKind;
use quorate_types::{Event, EventKind, Refusal, TaskId, TaskState};
use tokio::sync::OwnedSemaphorePermit;

use crate::events::{problem_event, sse};
use crate::failure::{Answer, Failure};
use crate::params::Named;
use crate::state::{Asked, Closing, DEADLINE_MS_DEFAULT, Shared};
use crate::tasks::read;

/// Before reading again when the cluster has no leader, or events again when they broke off.
const PAUSE: Duration = Duration::from_millis(250);

/// How far a task has come: its attempts, then its way through the present one. States that a
/// task passes in order have ascending values, also when an attempt is lost and it waits anew.
type Progress = (u32, u8);

const fn progress(attempts: u32, state: TaskState) -> Progress {
    let way = match state {
        TaskState::Leased => 0,
        TaskState::Retrying => 1,
        TaskState::Queued => 2,
        TaskState::Completed | TaskState::DeadLetter | TaskState::Cancelled => 3,
    };
    (attempts, way)
}

struct Watching {
    api: Shared,
    id: TaskId,
    deadline_ms: u64,
    source: Option<Box<dyn Source<Result<Event, Refusal>>>>,
    shown: Option<Progress>,
    closing: Closing,
    _permit: OwnedSemaphorePermit,
}

/// `GET /v1/tasks/{id}/watch`
pub(crate) async fn watch(
    State(api): State<Shared>,
    Named(id): Named<TaskId>,
    asked: Asked,
) -> Answer {
    let mut watching = Watching {
        id,
        deadline_ms: asked.deadline_or(DEADLINE_MS_DEFAULT),
        source: None,
        shown: None,
        closing: api.closing(),
        _permit: api.stream_permit()?,
        api: Arc::clone(&api),
    };
    // The first read decides the status, so it is made before the head is sent.
    watching.source = Some(api.door.events(None));
    let first = read(&api, id, Consistency::Linearizable, watching.deadline_ms).await?;
    Ok(sse(futures::stream::unfold((Some(watching), Some(first)), step)))
}

type Step = (Option<Watching>, Option<TaskAnswer>);

async fn step((watching, first): Step) -> Option<(Result<Sent, axum::Error>, Step)> {
    let mut watching = watching?;
    let answer = match first {
        Some(first) => Ok(first),
        None => watching.change().await?,
    };
    match answer {
        Ok(answer) => {
            let task = &answer.task;
            watching.shown = Some(progress(task.attempts, task.state));
            let go_on = (!task.state.is_final()).then_some(watching);
            Some((Sent::default().event("task").json_data(&answer), (go_on, None)))
        }
        Err(failure) => Some((problem_event(failure.problem()), (None, None))),
    }
}

impl Watching {
    /// The next state that was not shown yet; none when the door closes.
    async fn change(&mut self) -> Option<Result<TaskAnswer, Failure>> {
        loop {
            let resubscribed = self.source.is_none();
            let mut source = self.source.take().unwrap_or_else(|| self.api.door.events(None));
            if !resubscribed {
                let event = tokio::select! {
                    event = source.next() => event,
                    () = self.closing.wait() => return None,
                };
                match event {
                    Some(Ok(event)) if !self.concerns(&event) => {
                        self.source = Some(source);
                        continue;
                    }
                    Some(Ok(_news)) => {}
                    Some(Err(_)) | None => {
                        // Too slow, or the node lost them: begin anew, a little later.
                        self.pause().await?;
                        continue;
                    }
                }
            }
            self.source = Some(source);
            match read(&self.api, self.id, Consistency::Linearizable, self.deadline_ms).await {
                Ok(answer) if self.is_news(answer.task.attempts, answer.task.state) => {
                    return Some(Ok(answer));
                }
                Ok(_known) => {}
                Err(failure) if passes(failure.problem().kind) => {
                    self.source = None;
                    self.pause().await?;
                }
                Err(failure) => return Some(Err(failure)),
            }
        }
    }

    fn concerns(&self, event: &Event) -> bool {
        match &event.kind {
            EventKind::Task { task, attempt, state, .. } => {
                *task == self.id && self.is_news(*attempt, *state)
            }
            EventKind::AgentUp { .. } | EventKind::AgentDown { .. } | EventKind::Policy { .. } => {
                false
            }
        }
    }

    fn is_news(&self, attempts: u32, state: TaskState) -> bool {
        self.shown.is_none_or(|shown| progress(attempts, state) > shown)
    }

    async fn pause(&mut self) -> Option<()> {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => Some(()),
            () = self.closing.wait() => None,
        }
    }
}

/// Whether a later read may succeed where this one did not.
const fn passes(kind: ProblemKind) -> bool {
    match kind {
        ProblemKind::Busy | ProblemKind::Unavailable | ProblemKind::Timeout => true,
        ProblemKind::Invalid
        | ProblemKind::Unauthorized
        | ProblemKind::Forbidden
        | ProblemKind::NotFound
        | ProblemKind::MethodNotAllowed
        | ProblemKind::Conflict
        | ProblemKind::Compacted
        | ProblemKind::TooLarge
        | ProblemKind::Internal
        | ProblemKind::Across
        | ProblemKind::Agent => false,
    }
}
