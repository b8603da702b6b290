//! A task until its end.

use quorate_types::TaskId;
use quorate_types::http::TaskAnswer;
use quorate_types::problem::Problem;
use quorate_types::view::TaskView;

use crate::ask::Ask;
use crate::client::Client;
use crate::error::ClientError;
use crate::events::json;
use crate::sse::{Broken, Frames};

/// The states of a task: as it stands, then after each change, until it ends. A lost connection is
/// made again, and costs nothing: the first frame is again the state as it stands.
#[derive(Debug)]
pub struct TaskStream {
    client: Client,
    id: TaskId,
    reading: Option<(Frames, String)>,
    last: Option<TaskView>,
    ended: bool,
}

impl Client {
    /// Watches a task.
    pub async fn watch(&self, id: TaskId) -> Result<TaskStream, ClientError> {
        let mut stream =
            TaskStream { client: self.clone(), id, reading: None, last: None, ended: false };
        stream.reading = Some(stream.connect().await?);
        Ok(stream)
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
    async fn connect(&self) -> Result<(Frames, String), ClientError> {
        let ask = Ask::get(&["v1", "tasks", &self.id.to_string(), "watch"]);
        let answer = self.client.ask_head(ask).await?;
        Ok((Frames::of(answer.response), answer.url.to_string()))
    }

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
        loop {
            let (frames, url) = match &mut self.reading {
                Some(reading) => reading,
                None => {
                    let connected = self.connect().await?;
                    self.reading.insert(connected)
                }
            };
            let frame = match frames.next().await {
                Ok(frame) => frame,
                Err(Broken::Lost) => {
                    self.reading = None;
                    self.client.move_on().await;
                    continue;
                }
                Err(Broken::Garbled(what)) => {
                    return Err(ClientError::Garbled { url: url.clone(), what: what.to_owned() });
                }
            };
            if frame.event == "problem" {
                return Err(json::<Problem>(url, &frame.data)?.into());
            }
            let task = json::<TaskAnswer>(url, &frame.data)?.task;
            if self.last.as_ref() != Some(&task) {
                self.last = Some(task.clone());
                return Ok(task);
            }
        }
    }
}
