//! A stream that outlives its connection: where one breaks, the next is made, at
//! another node first.

use quorate_types::problem::Problem;
use serde::de::DeserializeOwned;

use crate::ask::Ask;
use crate::client::Client;
use crate::error::ClientError;
use crate::sse::{Broken, Frame, Frames};

/// Frames over whatever node answers.
#[derive(Debug)]
pub(crate) struct Reader {
    client: Client,
    reading: Option<Frames>,
    /// Who answered last.
    url: String,
}

impl Reader {
    /// Connected when this returns, so that what is done afterwards is seen.
    pub(crate) async fn open(client: &Client, ask: Ask) -> Result<Self, ClientError> {
        let mut reader = Self { client: client.clone(), reading: None, url: String::new() };
        reader.connect(ask).await?;
        Ok(reader)
    }

    async fn connect(&mut self, ask: Ask) -> Result<&mut Frames, ClientError> {
        let answer = self.client.ask_head(ask).await?;
        self.url = answer.url.to_string();
        Ok(self.reading.insert(Frames::of(answer.response)))
    }

    /// The next frame. After a lost connection `again` says what to ask for; none where what was
    /// missed cannot be asked for.
    pub(crate) async fn next(
        &mut self,
        again: impl Fn() -> Option<Ask>,
    ) -> Result<Frame, ClientError> {
        loop {
            let frames = match &mut self.reading {
                Some(frames) => frames,
                None => match again() {
                    Some(ask) => self.connect(ask).await?,
                    None => return Err(ClientError::Gap { url: self.url.clone() }),
                },
            };
            match frames.next().await {
                Ok(frame) if frame.event == "problem" => {
                    return Err(self.json::<Problem>(&frame)?.into());
                }
                Ok(frame) => return Ok(frame),
                Err(Broken::Garbled(what)) => return Err(self.garbled(what)),
                Err(Broken::Lost) => {
                    self.reading = None;
                    if again().is_some() {
                        self.client.move_on().await;
                    }
                }
            }
        }
    }

    /// What a frame carries.
    pub(crate) fn json<T: DeserializeOwned>(&self, frame: &Frame) -> Result<T, ClientError> {
        serde_json::from_str(&frame.data).map_err(|error| self.garbled(&error.to_string()))
    }

    fn garbled(&self, what: &str) -> ClientError {
        ClientError::Garbled { url: self.url.clone(), what: what.to_owned() }
    }
}
