//! The event stream: in the order of the log, without a gap, over whatever node answers.

use quorate_types::EventKind;
use quorate_types::problem::Problem;
use serde::de::DeserializeOwned;

use crate::ask::Ask;
use crate::client::Client;
use crate::error::ClientError;
use crate::sse::{Broken, Frames};

/// An event with its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Opaque; ask for what comes after it.
    pub revision: String,
    /// What happened.
    pub kind: EventKind,
}

/// Events, in order. It reconnects by itself after the last event it gave out; what it cannot ask
/// for again it reports: [`ClientError::Gap`], or a problem of kind `Compacted`.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    after: Option<String>,
    reading: Option<(Frames, String)>,
    ended: bool,
}

impl Client {
    /// Events after this revision, or from now on. It is connected when this returns, so that
    /// what is done afterwards is seen.
    pub async fn events(&self, after: Option<String>) -> Result<EventStream, ClientError> {
        let mut stream = EventStream { client: self.clone(), after, reading: None, ended: false };
        stream.reading = Some(stream.connect().await?);
        Ok(stream)
    }
}

impl EventStream {
    async fn connect(&self) -> Result<(Frames, String), ClientError> {
        let ask = Ask::get(&["v1", "events"]).endless();
        let ask = match &self.after {
            Some(after) => ask.header("last-event-id", after),
            None => ask,
        };
        let answer = self.client.ask_head(ask).await?;
        Ok((Frames::of(answer.response), answer.url.to_string()))
    }

    /// The revision of the last event, to go on from later.
    pub fn revision(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The next event; none after an error, which is always the last item.
    pub async fn next(&mut self) -> Option<Result<Seen, ClientError>> {
        if self.ended {
            return None;
        }
        let next = self.advance().await;
        self.ended = next.is_err();
        Some(next)
    }

    async fn advance(&mut self) -> Result<Seen, ClientError> {
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
                Err(Broken::Lost) if self.after.is_some() => {
                    self.reading = None;
                    self.client.move_on().await;
                    continue;
                }
                Err(Broken::Lost) => return Err(ClientError::Gap { url: url.clone() }),
                Err(Broken::Garbled(what)) => return Err(garbled(url, what)),
            };
            if frame.event == "problem" {
                return Err(json::<Problem>(url, &frame.data)?.into());
            }
            let kind = json(url, &frame.data)?;
            self.after = Some(frame.id.clone());
            return Ok(Seen { revision: frame.id, kind });
        }
    }
}

fn garbled(url: &str, what: &str) -> ClientError {
    ClientError::Garbled { url: url.to_owned(), what: what.to_owned() }
}

/// What a frame carries.
pub(crate) fn json<T: DeserializeOwned>(url: &str, data: &str) -> Result<T, ClientError> {
    serde_json::from_str(data).map_err(|error| garbled(url, &error.to_string()))
}
