//! A task until its end.

use quorate_types::TaskId;
use quorate_types::http::TaskAnswer;
use quorate_types::view::TaskView;

use crate::ask::Ask;
use crate::client::Client;
use crate::error::ClientError;
use crate::reader::Reader;

/// The states of a task: as it stands, then after each change, until it ends. A lost connection is
/// made again, and costs nothing: the first frame is again the state as it stands.
#[derive(Debug)]
pub struct TaskStream {
    reader: Reader,
    id: TaskId,
    last: Option<TaskView>,
    ended: bool,
}

impl Client {
    /// Watches a task.
    pub async fn watch(&self, id: TaskId) -> Result<TaskStream, ClientError> {
        let reader = Reader::open(self, states(id)).await?;
        Ok(TaskStream { reader, id, last: None, ended: false })
    }

    /// Waits until a task ends.
    pub async fn wait(&self, id: TaskId) -> Result<TaskView, ClientError> {
        let mut stream = self.watch(id).await?;
        loop {
            match stream.next().await {
                Some(Ok(task)) if task.state.is_final() => return Ok(task),
                Some(Ok(_on_its_way)) => {}
                Some(Err(error)) => return Err(error),
                None => stream = self.watch(id).await?,
            }
        }
    }
}

impl TaskStream {
    /// The next state; none after the last one or after an error.
    pub async fn next(&mut self) -> Option<Result<TaskView, ClientError>> {
        if self.ended {
            return None;
        }
        let next = self.advance().await;
        self.ended = next.as_ref().map_or(true, |task| task.state.is_final());
        Some(next)
    }

    async fn advance(&mut self) -> Result<TaskView, ClientError> {
        let id = self.id;
        loop {
            let frame = self.reader.next(|| Some(states(id))).await?;
            let task = self.reader.json::<TaskAnswer>(&frame)?.task;
            // The first state after a lost connection may be the one that was seen last.
            if self.last.as_ref() != Some(&task) {
                self.last = Some(task.clone());
                return Ok(task);
            }
        }
    }
}

fn states(id: TaskId) -> Ask {
    Ask::get(&["v1", "tasks", &id.to_string(), "watch"])
}
